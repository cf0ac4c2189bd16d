"""A Scene on disk: ``images/``, ``sparse/0`` (a COLMAP model), ``scene.json``.

The COLMAP model holds cameras, poses and map points, so that COLMAP and every tool that reads its
files opens a scene as it is. ``scene.json`` holds what COLMAP has no place for.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import ImageOps

from relocal.errors import InputError, unknown
from relocal.images import decode, open_photo
from relocal.scene.colmap import read_colmap, write_colmap
from relocal.scene.scene import UNITS, Points, Scene, some

_JSON, _MODEL, _IMAGES = "scene.json", Path("sparse/0"), "images"
_EXIF_ORIENTATION, _TURNED, _SAME_SIZE = 0x0112, range(2, 9), range(2, 5)

Progress = Callable[[int, int], None]


@contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """A folder that appears under its name only when it is whole.

    Raises:
        InputError: If ``out`` exists already or cannot be made.
    """
    check_new(out)
    partial = _beside(out)
    try:
        partial.chmod(0o755)  # mkdtemp makes a private folder
        yield partial
        partial.replace(out.resolve())
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


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
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: If it does not exist or is cut short.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is not whole JSON ({error}).") from error


def save_scene(scene: Scene, out: Path, progress: Progress = lambda done, total: None) -> Scene:
    """Saves a scene; every image is decoded once, so that a damaged one is found now.

    Args:
        scene: The scene, with its images anywhere.
        out: The folder to make. Images become hard links, or copies on another disk.
        progress: Called with the number of images done and of all.

    Returns:
        The scene as it stands on disk.

    Raises:
        InputError: If ``out`` exists, or an image is missing, damaged or of another size than
            its camera says. Nothing is left behind then.
    """
    with new_folder(out) as folder:
        _place_images(scene, folder / _IMAGES, progress)
        (folder / _MODEL).mkdir(parents=True)
        write_colmap(scene, folder / _MODEL)
        write_json(folder / _JSON, _about(scene))
    return replace(scene, image_root=out / _IMAGES, folder=out)


def _about(scene: Scene) -> dict[str, Any]:
    """What ``scene.json`` holds."""
    return {
        "format": 1,
        "name": scene.name,
        "unit": scene.unit,
        "splits": {split: list(names) for split, names in scene.splits.items()},
        "provenance": dict(scene.provenance),
    }


def save_points(scene: Scene, points: Points, provenance: Mapping[str, Any]) -> Scene:
    """Gives a saved scene other map points.

    A kill leaves a scene that ``load_scene`` opens: with its old points, with points that nothing
    sees, or with the new ones.

    Args:
        scene: The scene, saved.
        points: Its map points from now on.
        provenance: Its provenance from now on.

    Returns:
        The scene as it stands on disk.
    """
    folder = scene.folder
    assert folder is not None  # a saved scene has one
    bare = replace(scene, points=None)
    scene = replace(scene, points=points, provenance=provenance)
    model = folder / _MODEL
    with tempfile.TemporaryDirectory(dir=folder, suffix=".partial") as temporary:
        for name, version in (("bare", bare), ("full", scene)):
            (Path(temporary) / name).mkdir()
            write_colmap(version, Path(temporary) / name)
        # Images that see no points are right beside any points, so they go first.
        for part in ("bare/images.bin", "full/points3D.bin", "full/images.bin"):
            (Path(temporary) / part).replace(model / Path(part).name)
    write_json(folder / _JSON, _about(scene))
    return scene


def load_scene(folder: Path | str) -> Scene:
    """Loads what ``save_scene`` wrote.

    Raises:
        InputError: If the folder is no scene or a part of it is missing or damaged.
    """
    folder = Path(folder)
    if not (folder / _JSON).is_file():
        raise InputError(f"{folder}: this is no scene (it has no {_JSON}); make one with import.")
    about = read_json(folder / _JSON)
    images, cameras, camera_index, poses, points = read_colmap(folder / _MODEL)
    missing = [name for name in images if not (folder / _IMAGES / name).is_file()]
    if missing:
        raise InputError(f"{folder}: {len(missing)} images are missing: {some(missing)}.")
    try:
        if about["unit"] not in UNITS:
            raise unknown(f"{folder / _JSON}: unit", str(about["unit"]), UNITS)
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
            provenance=dict(about["provenance"]),
            folder=folder,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / _JSON}: is not what a scene has ({error!r}).") from error


def _place_images(scene: Scene, folder: Path, progress: Progress) -> None:
    def place(index: int) -> None:
        source, target = scene.path(index), folder / scene.images[index]
        camera = scene.camera(index)
        height, width = decode(source).shape[1:]
        if (width, height) != (camera.width, camera.height):
            raise InputError(
                f"{source}: has {width} x {height} pixels, its camera "
                f"{camera.width} x {camera.height}."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_upright(source, target)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for done, _ in enumerate(pool.map(place, range(len(scene))), start=1):
                progress(done, len(scene))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _link_upright(source: Path, target: Path) -> None:
    """Hard-links an image; copies it across disks, or turned upright when EXIF says so."""
    with open_photo(source) as image:
        turn = image.getexif().get(_EXIF_ORIENTATION)
        if turn in _TURNED and (turn in _SAME_SIZE or image.width == image.height):
            raise InputError(
                f"{source}: by its EXIF it must be turned, and nothing tells whether its pose is "
                "that of the turned photo; turn its pixels or remove the tag."
            )
        if turn in _TURNED:
            # Quality 95 so that turning costs no more than a second JPEG pass must.
            ImageOps.exif_transpose(image).save(target, format=image.format, quality=95)
            return
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
