"""A Scene on disk: ``images/``, ``sparse/0`` (a COLMAP model), ``scene.json``.

The COLMAP model holds cameras, poses and map points, so that COLMAP and every tool that reads its
files opens a scene as it is. ``scene.json`` holds what COLMAP has no place for.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from PIL import ImageOps

from relocal.errors import InputError, unknown
from relocal.images import decode, exif_orientation, open_photo
from relocal.scene.account import read_account
from relocal.scene.colmap import keep_poses, read_colmap, write_colmap
from relocal.scene.scene import UNITS, Points, Scene, some
from relocal.scene.upright import QUARTER_TURNS, Exif, exif_reading, turned

_JSON, _MODEL, _IMAGES = "scene.json", Path("sparse/0"), "images"
_ADDING = "adding.json"
_LOCK = ".lock"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

Progress = Callable[[int, int], None]


@contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """A folder that appears under its name only when it is whole.

    Raises:
        InputError: If ``out`` exists already or cannot be made, or the disk is full.
    """
    check_new(out)
    _sweep(out.resolve())
    partial = _beside(out)
    try:
        # The lock tells a folder that is being made from one that a killed process left.
        with FileLock(partial / _LOCK, timeout=0):
            partial.chmod(0o755)  # mkdtemp makes a private folder
            yield partial
        (partial / _LOCK).unlink(missing_ok=True)
        partial.replace(out.resolve())
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise InputError(f"--out {out}: cannot be written ({error.strerror}).") from error
        raise


def _sweep(out: Path) -> None:
    """Removes what killed processes left of a folder; what is locked is still being made."""
    left = re.compile(re.escape(f".{out.name}-") + r"\w{8}\.partial")
    for partial in out.parent.iterdir():
        if left.fullmatch(partial.name) and (partial / _LOCK).is_file():
            with suppress(OSError), FileLock(partial / _LOCK, timeout=0):
                shutil.rmtree(partial)


def check_new(out: Path) -> None:
    """Refuses a folder that exists or cannot be made, before any work is done for it.

    Raises:
        InputError: If ``out`` is not new, or cannot be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists already; give another or remove it first.")
    if out.resolve() == Path.cwd() or out.is_mount():
        raise InputError(f"--out {out}: cannot be replaced; name a new folder inside it.")
    _beside(out).rmdir()


def _beside(out: Path) -> Path:
    """An empty hidden folder on the same disk, to be renamed to ``out``."""
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}).") from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON aside and renames it, so that a reader sees the old file or the new one."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text aside and renames it, its newlines as they are."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it.

    Raises:
        OSError: If it cannot be written, with the file's name; what was there stays.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: If it does not exist or is cut short.
    """
    try:
        return json.loads(path.read_text("utf-8-sig"))  # some editors mark it at its beginning
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is not whole JSON ({error}).") from error


def save_scene(
    scene: Scene,
    out: Path,
    progress: Progress = lambda done, total: None,
    exif: Exif | None = None,
    *,
    link: bool = True,
) -> Scene:
    """Saves a scene; every image is decoded once, so that a damaged one is found now.

    Args:
        scene: The scene, with its images anywhere.
        out: The folder to make.
        progress: Called with the number of images done and of all.
        exif: Which pixels the labels of images that EXIF turns are of; needed where the size of
            their camera does not tell. Labels of stored pixels are turned with the image.
        link: Whether images become hard links (copies on another disk), which cost nothing, and
            change when somebody writes into the file that they came from. False copies them.

    Returns:
        The scene as it stands on disk.

    Raises:
        InputError: If ``out`` exists, or an image is missing, damaged or of another size than
            its camera says. Nothing is left behind then.
    """
    with new_folder(out) as folder:
        readings, turns = _place_images(scene, folder / _IMAGES, exif, progress, link)
        scene = turned(scene, turns)
        if counts := dict(Counter(reading for reading in readings if reading)):
            # How many images EXIF turned, by the pixels that their labels were of.
            scene = replace(scene, provenance={**scene.provenance, "exif": counts})
        (folder / _MODEL).mkdir(parents=True)
        write_colmap(scene, folder / _MODEL)
        if (model := _model_of_same_poses(scene)) is not None:
            _keep_model_poses(model, folder / _MODEL)
        write_json(folder / _JSON, _about(scene))
    return replace(scene, image_root=out / _IMAGES, folder=out)


def _model_of_same_poses(scene: Scene) -> Path | None:
    """The model that a scene was loaded from, if its poses are those of there to the last bit."""
    if scene.folder is None or not (scene.folder / _MODEL).is_dir():
        return None
    names, _, _, poses, _ = read_colmap(scene.folder / _MODEL)
    same = names == scene.images and torch.equal(poses.position, scene.poses.position)
    same = same and torch.equal(poses.quaternion, scene.poses.quaternion)
    return scene.folder / _MODEL if same else None


def _keep_model_poses(old: Path, new: Path) -> None:
    """Puts the poses of one model into another of the same images, bit for bit."""
    keep_poses(old / "images.bin", new / "images.bin")
    # COLMAP 4 has the poses a second time, by the rigs' frames.
    rigs = [model / "rigs.bin" for model in (old, new)]
    if all(file.is_file() for file in rigs) and rigs[0].read_bytes() == rigs[1].read_bytes():
        shutil.copyfile(old / "frames.bin", new / "frames.bin")


def _about(scene: Scene) -> dict[str, Any]:
    """What ``scene.json`` holds."""
    return {
        "format": 1,
        "name": scene.name,
        "unit": scene.unit,
        "splits": {split: list(names) for split, names in scene.splits.items()},
        "provenance": dict(scene.provenance),
        **({} if scene.account is None else {"account": scene.account.to_json()}),
    }


def save_points(scene: Scene, points: Points, provenance: Mapping[str, Any]) -> Scene:
    """Gives a saved scene other map points; its poses on disk stay as they are, to the last bit.

    A kill leaves a scene that ``load_scene`` opens: with its old points, with points that nothing
    sees, or with the new ones.

    Args:
        scene: The scene, saved.
        points: Its map points from now on.
        provenance: Its provenance from now on.

    Returns:
        The scene as it stands on disk.
    """
    account = scene.account and replace(scene.account, points=None)  # the source has not these
    return _replace_model(replace(scene, points=points, provenance=provenance, account=account))


def extend_scene(scene: Scene, files: Mapping[str, Path]) -> Scene:
    """Gives a saved scene more images; the poses that it had stay as they are, to the last bit.

    A kill leaves a scene that ``load_scene`` opens: as it was, or with more images, which are in no
    split until the last file is written; ``unfinished`` names them.

    Args:
        scene: What the saved scene in ``scene.folder`` shall be. The images and cameras that it had
            come first, and are the same.
        files: Where the upright photos of the new images are, by name.

    Returns:
        The scene as it stands on disk.
    """
    folder = scene.folder
    assert folder is not None  # a saved scene has one
    for partial in folder.glob("tmp*.partial"):  # of a call that was killed
        shutil.rmtree(partial)
    write_json(folder / _ADDING, list(files))
    for name, file in files.items():
        target = folder / _IMAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # of a call that was killed
        shutil.copy2(file.resolve(), target)
    scene = _replace_model(replace(scene, image_root=folder / _IMAGES), new=files)
    (folder / _ADDING).unlink()
    return scene


def unfinished(folder: Path) -> list[str]:
    """Images that a killed ``extend_scene`` was giving to a scene; what it wrote may be there."""
    return list(read_json(folder / _ADDING)) if (folder / _ADDING).is_file() else []


def _replace_model(scene: Scene, new: Collection[str] = ()) -> Scene:
    """Writes another model and ``scene.json``, in an order in which each step leaves a scene."""
    folder = scene.folder
    assert folder is not None
    bare = replace(scene, points=None)
    model = folder / _MODEL
    with tempfile.TemporaryDirectory(dir=folder, suffix=".partial") as temporary:
        for name, version in (("bare", bare), ("full", scene)):
            (Path(temporary) / name).mkdir()
            write_colmap(version, Path(temporary) / name)
            keep_poses(model / "images.bin", Path(temporary) / name / "images.bin", but=new)
        # More cameras are right beside fewer images, and images that see no points beside any
        # points, so these go first. COLMAP alone reads rigs and frames.
        parts = ["bare/images.bin", "full/points3D.bin", "full/images.bin"]
        if new:
            parts = ["full/cameras.bin", *parts, "full/rigs.bin", "full/frames.bin"]
        for part in parts:
            (Path(temporary) / part).replace(model / Path(part).name)
    write_json(folder / _JSON, _about(scene))
    return scene


def is_scene(folder: Path) -> bool:
    """Whether a folder is a scene, whole or not."""
    return (folder / _JSON).is_file()


def load_scene(folder: Path | str) -> Scene:
    """Loads what ``save_scene`` wrote.

    Raises:
        InputError: If the folder is no scene or a part of it is missing or damaged.
    """
    folder = Path(folder)
    if not is_scene(folder):
        missing = "there is no such folder" if not folder.exists() else f"it has no {_JSON}"
        raise InputError(f"{folder}: this is no scene ({missing}); make one with import or label.")
    about = _read_about(folder / _JSON)
    images, cameras, camera_index, poses, points = read_colmap(folder / _MODEL)
    missing = [name for name in images if not (folder / _IMAGES / name).is_file()]
    if missing:
        raise InputError(f"{folder}: {len(missing)} images are missing: {some(missing)}.")
    return Scene(
        name=about["name"],
        unit=about["unit"],
        image_root=folder / _IMAGES,
        images=images,
        cameras=cameras,
        camera_index=camera_index,
        poses=poses,
        splits={split: tuple(names) for split, names in about["splits"].items()},
        points=points,
        provenance=about["provenance"],
        folder=folder,
        account=read_account(str(folder / _JSON), about.get("account")),
    )


def _read_about(file: Path) -> dict[str, Any]:
    """What ``scene.json`` holds, once it is known to be that."""
    match read_json(file):
        case {
            "format": 1,
            "name": str(),
            "unit": str(unit),
            "splits": dict(splits),
            "provenance": dict(),
            **_rest,
        } as about if all(map(_is_names, splits.values())):
            if unit not in UNITS:
                raise unknown(f"{file}: unit", unit, UNITS)
            return about
        case {"format": int(number)} if number != 1:
            raise InputError(f"{file}: is of format {number}; this relocal reads format 1.")
        case _:
            raise InputError(
                f"{file}: is not what a scene has: format 1, name, unit, splits (lists of image "
                "names) and provenance. Import or label it again."
            )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _place_images(
    scene: Scene, folder: Path, exif: Exif | None, progress: Progress, link: bool
) -> tuple[list[Exif | None], list[int]]:
    """Puts every image, upright, into a folder.

    Returns:
        For each image, which pixels its label is of if EXIF turns it, and by how many quarter turns
        clockwise the label has to follow.
    """
    readings: list[Exif | None] = []
    turns: list[int] = []

    def place(index: int) -> tuple[Exif | None, int]:
        source, target = scene.path(index), folder / scene.images[index]
        with open_photo(source) as image:
            reading = exif_reading(image, str(source), scene.camera(index), exif)
            orientation = exif_orientation(image, str(source))
        decode(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if reading is not None:
            _write_upright(source, target)
        elif link:
            link_file(source, target)
        else:
            shutil.copy2(source.resolve(), target)  # with its time, by which features are kept
        return reading, QUARTER_TURNS[orientation] if reading == "stored" else 0

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            placed = pool.map(place, range(len(scene)))
            for done, (reading, turn) in enumerate(placed, start=1):
                readings.append(reading)
                turns.append(turn)
                progress(done, len(scene))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return readings, turns


def _write_upright(source: Path, target: Path) -> None:
    with open_photo(source) as image:
        # Quality 95 so that turning costs no more than a second JPEG pass must.
        ImageOps.exif_transpose(image).save(target, format=image.format, quality=95)


def link_file(source: Path, target: Path) -> None:
    """Hard-links an image; copies it across disks."""
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
