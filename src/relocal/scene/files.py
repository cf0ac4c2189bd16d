"""A Scene on disk: ``images/``, ``sparse/0`` (a COLMAP model), ``scene.json``.

The COLMAP model holds cameras, poses and map points, so that COLMAP and every tool that reads its
files opens a scene as it is. ``scene.json`` holds what COLMAP has no place for.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import decode, open_photo, upright_size
from relocal.pose import Pose
from relocal.scene.scene import Points, Scene, some

_JSON, _MODEL, _IMAGES = "scene.json", Path("sparse/0"), "images"
_EXIF_ORIENTATION = 0x0112

Progress = Callable[[int, int], None]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is whole.

    Raises:
        InputError: If ``out`` exists already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; give another --out or remove it first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes a private folder
        yield partial
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes JSON aside and renames it, so that a reader sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: If it does not exist or is cut short.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: this is not whole JSON ({error}).") from error


def save_scene(
    scene: Scene, out: Path, progress: Progress = lambda done, total: None
) -> Scene:
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
        _write_colmap(scene, folder / _MODEL)
        about = {
            "format": 1,
            "name": scene.name,
            "unit": scene.unit,
            "splits": {split: list(names) for split, names in scene.splits.items()},
            "provenance": dict(scene.provenance),
        }
        write_json(folder / _JSON, about)
    return replace(scene, image_root=out / _IMAGES, folder=out)


def load_scene(folder: Path) -> Scene:
    """Loads what ``save_scene`` wrote.

    Raises:
        InputError: If the folder is no scene or a part of it is missing or damaged.
    """
    if not (folder / _JSON).is_file():
        raise InputError(f"{folder}: this is no scene (it has no {_JSON}); make one with import.")
    about = read_json(folder / _JSON)
    images, cameras, camera_index, poses, points = read_colmap(folder / _MODEL)
    missing = [name for name in images if not (folder / _IMAGES / name).is_file()]
    if missing:
        raise InputError(f"{folder}: {len(missing)} images are missing: {some(missing)}.")
    try:
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
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / _JSON}: is not what a scene has ({error!r}).") from error


def _place_images(scene: Scene, folder: Path, progress: Progress) -> None:
    def place(index: int) -> None:
        source, target = scene.path(index), folder / scene.images[index]
        camera = scene.camera(index)
        width, height = upright_size(source)
        if (width, height) != (camera.width, camera.height):
            raise InputError(
                f"{source}: has {width} x {height} pixels, its camera "
                f"{camera.width} x {camera.height}."
            )
        decode(source)
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
    image = open_photo(source)
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        # Quality 95 so that turning costs no more than a second JPEG pass must.
        ImageOps.exif_transpose(image).save(target, format=image.format, quality=95)
        return
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)


def _write_colmap(scene: Scene, folder: Path) -> None:
    import pycolmap

    model = pycolmap.Reconstruction()
    for i, camera in enumerate(scene.cameras):
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(
                camera_id=i + 1,
                model=camera.model,
                width=camera.width,
                height=camera.height,
                params=camera.params.double().numpy(),
            )
        )
    cam_from_world = scene.poses.inverse()
    observations = _observations_by_image(scene)
    for i, name in enumerate(scene.images):
        quaternion = cam_from_world.quaternion[i].double().numpy()[[1, 2, 3, 0]]  # COLMAP: xyzw
        pose = pycolmap.Rigid3d(
            pycolmap.Rotation3d(quaternion), cam_from_world.position[i].double().numpy()
        )
        image = pycolmap.Image(
            name=name,
            keypoints=observations[i][1],
            camera_id=int(scene.camera_index[i]) + 1,
            image_id=i + 1,
        )
        model.add_image_with_trivial_frame(image, pose)
    _write_points(scene, model, observations)
    model.write(str(folder))


def _observations_by_image(scene: Scene) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each image, the indices of the points it sees and their pixels."""
    if scene.points is None:
        return [(np.zeros(0, np.int64), np.zeros((0, 2)))] * len(scene)
    order = np.argsort(scene.points.image_index, kind="stable")
    cuts = np.searchsorted(scene.points.image_index[order], np.arange(1, len(scene)))
    rows = np.split(order, cuts)
    return [(scene.points.point_index[r], scene.points.xy[r].astype(np.float64)) for r in rows]


def _write_points(
    scene: Scene, model: Any, observations: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    import pycolmap

    if scene.points is None:
        return
    tracks: list[list[Any]] = [[] for _ in scene.points.xyz]
    for i, (point_index, _) in enumerate(observations):
        for k, point in enumerate(point_index.tolist()):
            tracks[point].append(pycolmap.TrackElement(i + 1, k))
    for xyz, rgb, track in zip(scene.points.xyz, scene.points.rgb, tracks, strict=True):
        model.add_point3D(xyz, pycolmap.Track(track), rgb)


def read_colmap(
    folder: Path,
) -> tuple[tuple[str, ...], tuple[Camera, ...], torch.Tensor, Pose, Points | None]:
    """Reads a COLMAP model, images in the order of their ids.

    Returns:
        Image names, cameras, the camera's index of each image, poses, and map points or None.

    Raises:
        InputError: If the folder holds no model that can be read.
    """
    import pycolmap

    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder, so no COLMAP model.")
    try:
        model = pycolmap.Reconstruction(str(folder))
    except (ValueError, RuntimeError, OSError, IndexError) as error:
        raise InputError(f"{folder}: this COLMAP model cannot be read ({error}).") from error
    camera_ids = sorted(model.cameras)
    cameras = tuple(_camera(model.cameras[i], folder) for i in camera_ids)
    images = [model.images[i] for i in sorted(model.images) if model.images[i].has_pose]
    if not images:
        raise InputError(f"{folder}: this COLMAP model has no image with a pose.")
    rotations = np.stack([image.cam_from_world().rotation.quat for image in images])
    translations = np.stack([image.cam_from_world().translation for image in images])
    poses = Pose.from_colmap(
        torch.from_numpy(rotations[:, [3, 0, 1, 2]].copy()), torch.from_numpy(translations)
    )
    camera_index = torch.tensor([camera_ids.index(image.camera_id) for image in images])
    names = tuple(image.name for image in images)
    return names, cameras, camera_index, poses, _points(model, images)


def _camera(camera: Any, folder: Path) -> Camera:
    params = torch.from_numpy(np.array(camera.params, dtype=np.float64))
    where = str(folder / "cameras.bin")
    return Camera(camera.model.name, camera.width, camera.height, params).checked(where)


def _points(model: Any, images: list[Any]) -> Points | None:
    if not len(model.points3D):
        return None
    index = {point_id: i for i, point_id in enumerate(sorted(model.points3D))}
    points = [model.points3D[point_id] for point_id in index]
    rows = [
        (i, index[p.point3D_id], *p.xy)
        for i, image in enumerate(images)
        for p in image.points2D
        if p.has_point3D()
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Points(
        xyz=np.stack([p.xyz for p in points]),
        rgb=np.stack([p.color for p in points]).astype(np.uint8),
        image_index=table[:, 0].astype(np.int64),
        point_index=table[:, 1].astype(np.int64),
        xy=table[:, 2:],
    )
