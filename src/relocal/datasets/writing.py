"""Scenes in the layouts of other tools: what the readers read, written.

nerfstudio and TUM say all of a camera. 7-Scenes and Cambridge know a focal length and nothing else:
for them photos are resampled to a pinhole camera whose axis meets the centre, where theirs is not.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from relocal.camera import Camera, nerfstudio_intrinsics
from relocal.datasets.seven_scenes import SIZE_PX
from relocal.datasets.tum import NO_SCALE
from relocal.errors import InputError, unknown
from relocal.images import decode, resample, same_view
from relocal.pose import Pose
from relocal.scene import Scene, load_scene
from relocal.scene.files import link_file, new_folder, write_json, write_text
from relocal.scene.scene import some

Progress = Callable[[int, int, str], None]
_QUALITY = 95
_WRITING = "writing images"
_SUFFIXES = {".jpg": ".jpg", ".jpeg": ".jpg"}  # what 7-Scenes has no name for becomes a PNG


def export_scene(
    scene: Scene | Path | str,
    out: Path | str,
    layout: str,
    progress: Progress = lambda done, total, text: None,
) -> Path:
    """Writes a scene in the layout of another tool; ``import_scene`` reads each of them.

    ======================  =======================================================================
    ``7scenes``             sequences with a pose file beside each image, ``labels.txt`` with the
                            focal lengths (read with ``labels=``); consecutive images of one split
                            are a sequence, and images in no split are left out
    ``cambridge``           lists of training and test images, and focal lengths; images in no split
                            are left out
    ``nerfstudio``          ``transforms.json``; nothing is lost but map points and the unit
    ``tum``                 ``rgb.txt``, ``groundtruth.txt`` (an image a second), ``cameras.txt``,
                            and ``split.json`` where not all images train
    ======================  =======================================================================

    Args:
        scene: A scene, or its folder.
        out: The folder to make; images become hard links where they stay as they are.
        layout: A key of ``WRITERS``.
        progress: Called with images done, images in all, and what is being done.

    Returns:
        The folder.

    Raises:
        InputError: If ``out`` exists or the layout has no place for what the scene holds.
    """
    if layout not in WRITERS:
        raise unknown("--format", layout, WRITERS)
    scene = scene if isinstance(scene, Scene) else load_scene(scene)
    with new_folder(Path(out)) as folder:
        WRITERS[layout](scene, folder, progress)
    return Path(out)


def write_nerfstudio(scene: Scene, folder: Path, progress: Progress) -> None:
    """``transforms.json`` with OpenGL poses, and ``images/``."""
    paths = [f"images/{name}" for name in scene.images]
    content = nerfstudio_transforms(
        paths, scene.poses, [scene.camera(i) for i in range(len(paths))]
    )
    for i, name in enumerate(scene.images):
        _link(scene.path(i), folder / "images" / name)
        progress(i + 1, len(scene), _WRITING)
    parts = _parts(scene, "images")
    lists = {f"{part}_filenames": names for part, names in parts.items()}
    write_json(folder / "transforms.json", {**lists, **content})


def nerfstudio_transforms(
    paths: Sequence[str], poses: Pose, cameras: Sequence[Camera | None]
) -> dict[str, Any]:
    """What a ``transforms.json`` holds.

    Args:
        paths: Where the images are, seen from the file.
        poses: ``world_from_cam``, (n,); written with OpenGL's axes.
        cameras: An image's camera, or None where it is not known, which leaves its intrinsics out.
            They stand at the top where all images have the same.

    Raises:
        InputError: If a camera has no place in such a file, or fisheye cameras stand beside others.
    """
    matrices = poses.matrix()
    matrices[..., 1:3] *= -1  # x right, y up, looking along -z
    intrinsics = [{} if camera is None else nerfstudio_intrinsics(camera) for camera in cameras]
    models = {str(one.pop("camera_model")) for one in intrinsics if one} or {"OPENCV"}
    if len(models) > 1:
        raise InputError(
            "--format nerfstudio: a file has one camera model, not fisheye and others."
        )
    shared = intrinsics[0] if all(one == intrinsics[0] for one in intrinsics) else {}
    frames = [
        {"file_path": path, "transform_matrix": matrix, **({} if shared else own)}
        for path, matrix, own in zip(paths, matrices.tolist(), intrinsics, strict=True)
    ]
    return {"camera_model": models.pop(), **shared, "frames": frames}


def write_tum(scene: Scene, folder: Path, progress: Progress) -> None:
    """Images and poses with the image's number as the time in seconds, and the camera."""
    if len(set(scene.camera_index.tolist())) > 1:
        raise InputError(
            f"{_place(scene)}: its photos have {len(scene.cameras)} cameras, and a TUM recording "
            "has one; take --format nerfstudio."
        )
    if spaced := [name for name in scene.images if name != name.strip() or "\n" in name]:
        raise InputError(f"{_place(scene)}: rgb.txt cannot hold the names {some(spaced)}.")
    camera = scene.camera(0)
    trajectory = ["# timestamp tx ty tz qx qy qz qw", *([] if scene.unit == "m" else [NO_SCALE])]
    listing = ["# timestamp file"]
    for i, name in enumerate(scene.images):
        _link(scene.path(i), folder / "rgb" / name)
        progress(i + 1, len(scene), _WRITING)
        w, x, y, z = scene.poses.quaternion[i].tolist()
        centre = scene.poses.position[i].tolist()
        trajectory.append(_joined(f"{i:.6f}", *centre, x, y, z, w))
        listing.append(f"{i:.6f} rgb/{name}")
    write_text(folder / "groundtruth.txt", _text(*trajectory))
    write_text(folder / "rgb.txt", _text(*listing))
    row = _joined(1, camera.model, camera.width, camera.height, *camera.params.tolist())
    write_text(folder / "cameras.txt", _text("# CAMERA_ID MODEL WIDTH HEIGHT PARAMS", row))
    if parts := _parts(scene, "rgb"):
        write_json(folder / "split.json", parts)


def write_seven_scenes(scene: Scene, folder: Path, progress: Progress) -> None:
    """``seq-XX/frame-XXXXXX.color.*`` with poses, the split files, and ``labels.txt``."""
    _check_metric(scene, "7scenes")
    parts = {name: part for part in ("train", "test") for name in scene.splits.get(part, ())}
    tests = "test" in parts.values()
    kept = [i for i, name in enumerate(scene.images) if name in parts or not parts]
    # A sequence belongs to one split there, so a new one begins where the split changes.
    runs = [
        (part, list(run))
        for (_, part), run in groupby(
            kept, lambda i: (scene.sequence(i), parts.get(scene.images[i], "train"))
        )
    ]
    labels, lists = ["# name qw qx qy qz tx ty tz f"], {"train": "", "test": ""}
    for number, (part, run) in enumerate(runs, start=1):
        lists[part] += f"sequence{number}\n"
        for frame, i in enumerate(run):
            camera = scene.camera(i).centred()
            if camera.width * SIZE_PX[1] != camera.height * SIZE_PX[0]:
                raise InputError(
                    f"{scene.images[i]}: has {camera.width} x {camera.height} pixels; 7-Scenes "
                    "knows photos of 4 : 3 only; take --format nerfstudio."
                )
            suffix = _SUFFIXES.get(Path(scene.images[i]).suffix.lower(), ".png")
            stem = f"seq-{number:02d}/frame-{frame:06d}"
            _place_photo(scene, i, camera, folder / f"{stem}.color{suffix}")
            progress(i + 1, len(scene), _WRITING)
            matrix = scene.poses[i].matrix().tolist()
            write_text(folder / f"{stem}.pose.txt", _text(*(_joined(*row) for row in matrix)))
            focal = float(camera.focal[0]) * SIZE_PX[0] / camera.width
            pose = _cam_from_world(scene.poses[i])
            labels.append(_joined(f"{stem}.color{suffix}", *pose, focal))
    write_text(folder / "labels.txt", _text(*labels))
    for part, text in lists.items() if tests else ():
        write_text(folder / f"{part.title()}Split.txt", text)


def write_cambridge(scene: Scene, folder: Path, progress: Progress) -> None:
    """``dataset_train.txt``, ``dataset_test.txt``, ``reconstruction.nvm`` and the images."""
    _check_metric(scene, "cambridge")
    if not all(scene.splits.get(part) for part in ("train", "test")):
        raise InputError(
            f"{_place(scene)}: Cambridge Landmarks list training and test images, and this scene "
            "has no test images; import it again with --split."
        )
    index = {name: i for i, name in enumerate(scene.images)}
    rows: list[str] = []
    total = len(scene.splits["train"]) + len(scene.splits["test"])
    for part in ("train", "test"):
        lines = [scene.name, "ImageFile, Camera Position [X Y Z W P Q R]", ""]
        for name in scene.splits[part]:
            i = index[name]
            camera = scene.camera(i).centred()
            _place_photo(scene, i, camera, folder / name)
            centre, pose = scene.poses.position[i].tolist(), _cam_from_world(scene.poses[i])
            lines.append(_joined(name, *centre, *pose[:4]))
            focal = float(camera.focal[0])
            rows.append(_joined(name, focal, *pose[:4], *centre, 0, 0))
            progress(len(rows), total, _WRITING)
        write_text(folder / f"dataset_{part}.txt", _text(*lines))
    write_text(folder / "reconstruction.nvm", _text("NVM_V3", "", str(len(rows)), *rows, "", "0"))


def _check_metric(scene: Scene, layout: str) -> None:
    if scene.unit != "m":
        raise InputError(
            f"{_place(scene)}: has no known scale, and {layout} is in metres; take --format "
            "nerfstudio or tum, or give the scene a scale."
        )


def _parts(scene: Scene, folder: str) -> dict[str, list[str]]:
    """Lists of training and test images; none where all images train, as readers take it."""
    parts = {part: list(scene.splits.get(part, ())) for part in ("train", "test")}
    if not any(parts.values()) or len(parts["train"]) == len(scene):
        return {}
    if not parts["train"] and len(parts["test"]) < len(scene):
        raise InputError(
            f"{_place(scene)}: has no training images, and images that are in neither split, which "
            "this format cannot say; import the scene again with --split."
        )
    return {part: [f"{folder}/{name}" for name in names] for part, names in parts.items()}


def _place(scene: Scene) -> str:
    return str(scene.folder or scene.name)


def _cam_from_world(pose: Pose) -> list[float]:
    inverse = pose.inverse()
    return [*inverse.quaternion.tolist(), *inverse.position.tolist()]


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    link_file(source, target)


def _place_photo(scene: Scene, index: int, target: Camera, file: Path) -> None:
    """Links a photo that ``target`` could have taken; else writes what it would see."""
    source, camera = scene.path(index), scene.camera(index)
    kinds = [_SUFFIXES.get(suffix, suffix) for suffix in (source.suffix.lower(), file.suffix)]
    if same_view(camera, target) and (kinds[0] == kinds[1] or file.name == source.name):
        _link(source, file)
        return
    pixels = resample(decode(source), camera, target)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, quality=_QUALITY)


def _joined(*words: object) -> str:
    """Words of a line; numbers with all their digits."""
    return " ".join(map(str, words))


def _text(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


WRITERS: dict[str, Callable[[Scene, Path, Progress], None]] = {
    "7scenes": write_seven_scenes,
    "cambridge": write_cambridge,
    "nerfstudio": write_nerfstudio,
    "tum": write_tum,
}
