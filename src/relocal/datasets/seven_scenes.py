"""7-Scenes (Shotton et al. 2013): small rooms recorded with a Kinect.

Official layout: ``TrainSplit.txt`` and ``TestSplit.txt`` list sequences, and each ``seq-XX`` holds
``frame-XXXXXX.color.png`` with ``frame-XXXXXX.pose.txt``, a 4x4 ``world_from_cam`` in metres.

Those poses are of the **depth** camera, made by depth SLAM. Pseudo ground truth made by SfM
(Brachmann et al. 2021) is of the colour camera. The two differ by centimetres and degrees, so a
scene holds one of them and its provenance says which.
"""

import re
from pathlib import Path

import numpy as np
import torch

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import upright_size
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.scene import some

DEPTH_FOCAL_PX = 585.0
SIZE_PX = (640, 480)
_COLOUR = re.compile(r"frame-\d{6}\.color\.(png|jpg)")
_MAX_ORTHONORMALITY_ERROR = 1e-3


def read_seven_scenes(path: Path, labels: Path | None = None) -> Scene:
    """Reads a folder in the official layout.

    Args:
        path: The scene's folder, with ``seq-XX`` folders inside.
        labels: A pseudo ground truth, one image a line: ``name qw qx qy qz tx ty tz f``,
            ``cam_from_world``, focal length in pixels. Without it the scene's own depth-SLAM
            poses are taken, which are of the depth camera (f = 585), not of the colour camera.

    Returns:
        A metric scene, split as the official files say where they exist.

    Raises:
        InputError: If files are missing or are not what they should be.
    """
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    images = sorted(
        str(file.relative_to(path))
        for file in path.glob("seq-*/frame-*.color.*")
        if _COLOUR.fullmatch(file.name)
    )
    if not images:
        raise InputError(
            f"{path}: no images like seq-01/frame-000000.color.png; is this a 7-Scenes folder?"
        )
    if labels is None:
        provenance = {"labels": "7-Scenes depth SLAM, pose of the depth camera"}
        poses, focal = _depth_slam_poses(path, images), [DEPTH_FOCAL_PX] * len(images)
    else:
        provenance = {"labels": labels.name}
        images, poses, focal = _label_file(labels, images)
    width, height = upright_size(path / images[0])
    # The focal length holds for the official size; other sizes are the same view resampled.
    focals = sorted(set(focal))
    cameras = tuple(_camera(f).resized(width, height) for f in focals)
    return Scene(
        name=path.resolve().name,
        unit="m",
        image_root=path,
        images=tuple(images),
        cameras=cameras,
        camera_index=torch.tensor([focals.index(f) for f in focal]),
        poses=poses,
        splits=_official_splits(path, images),
        provenance={"reader": "7scenes", **provenance},
    )


def _camera(focal_px: float) -> Camera:
    params = torch.tensor([focal_px, SIZE_PX[0] / 2, SIZE_PX[1] / 2], dtype=torch.float64)
    return Camera("SIMPLE_PINHOLE", *SIZE_PX, params)


def _depth_slam_poses(path: Path, images: list[str]) -> Pose:
    matrices = [_pose_file(path / re.sub(r"\.color\.\w+$", ".pose.txt", name)) for name in images]
    return Pose.from_matrix(torch.from_numpy(np.stack(matrices)))


def _pose_file(file: Path) -> np.ndarray:
    if not file.is_file():
        raise InputError(f"{file}: the pose of an image is missing.")
    try:
        matrix = np.array([[float(v) for v in row.split()] for row in file.read_text().splitlines()])
    except ValueError as error:
        raise InputError(f"{file}: a pose is 4 rows of 4 numbers ({error}).") from error
    return checked_pose_matrix(matrix, str(file))


def checked_pose_matrix(matrix: np.ndarray, where: str) -> np.ndarray:
    """Refuses a 4x4 matrix that is no rigid motion.

    Args:
        matrix: What a file says.
        where: The file, and the image if the file has several.

    Returns:
        The same matrix with its rotation made exactly orthonormal (files round their digits).

    Raises:
        InputError: If the shape is wrong, a number is not finite, or the 3x3 block is no rotation.
    """
    if matrix.shape != (4, 4):
        raise InputError(f"{where}: a pose is a 4 x 4 matrix, this is {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{where}: the pose has numbers that are not finite.")
    rotation = matrix[:3, :3]
    off = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if off > _MAX_ORTHONORMALITY_ERROR or np.linalg.det(rotation) < 0:
        raise InputError(
            f"{where}: the 3 x 3 block is no rotation (RᵀR differs from 1 by {off:.2g}, "
            f"determinant {np.linalg.det(rotation):.3f})."
        )
    u, _, vt = np.linalg.svd(rotation)
    exact = matrix.copy()
    exact[:3, :3] = u @ vt
    return exact


def _label_file(labels: Path, images: list[str]) -> tuple[list[str], Pose, list[float]]:
    """Poses and focal lengths from a pseudo ground truth, for the images that are there."""
    rows = read_label_file(labels)
    # Label files say .png even where the images were stored as .jpg: the frame is the same.
    by_stem = {str(Path(name).with_suffix("")): name for name in images}
    found = sorted(
        (by_stem[stem], row) for stem, row in rows.items() if stem in by_stem
    )
    if not found:
        raise InputError(
            f"--labels {labels}: none of its {len(rows)} images is in the folder "
            f"(labels {some(list(rows), 2)}; images {some(images, 2)})."
        )
    values = torch.tensor([row for _, row in found], dtype=torch.float64)
    poses = Pose.from_colmap(values[:, :4], values[:, 4:7])
    return [name for name, _ in found], poses, values[:, 7].tolist()


def read_label_file(file: Path) -> dict[str, list[float]]:
    """Reads ``name qw qx qy qz tx ty tz f`` lines, by image name without its suffix.

    Raises:
        InputError: If the file is missing or a line is not of that form.
    """
    if not file.is_file():
        raise InputError(f"--labels {file}: there is no such file.")
    rows: dict[str, list[float]] = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *texts = line.split()
        where = f"--labels {file}, line {number}"
        try:
            values = [float(text) for text in texts]
        except ValueError as error:
            raise InputError(f"{where}: {error}.") from error
        if len(values) != 8 or not np.isfinite(values).all():
            raise InputError(f"{where}: needs a name and 8 finite numbers, qw qx qy qz tx ty tz f.")
        if abs(np.linalg.norm(values[:4]) - 1) > _MAX_ORTHONORMALITY_ERROR or values[7] <= 0:
            raise InputError(f"{where}: the quaternion is not unit or the focal not positive.")
        rows[str(Path(name).with_suffix(""))] = values
    return rows


def _official_splits(path: Path, images: list[str]) -> dict[str, tuple[str, ...]]:
    """``TrainSplit.txt`` and ``TestSplit.txt``, where both exist and name what is there."""
    files = {"train": path / "TrainSplit.txt", "test": path / "TestSplit.txt"}
    if not all(file.is_file() for file in files.values()):
        return {}
    return {split: _sequences(file, images) for split, file in files.items()}


def _sequences(file: Path, images: list[str]) -> tuple[str, ...]:
    numbers = [int(n) for n in re.findall(r"sequence(\d+)", file.read_text())]
    if not numbers:
        raise InputError(f"{file}: no lines like sequence1.")
    folders = {f"seq-{n:02d}" for n in numbers}
    names = tuple(name for name in images if Path(name).parts[0] in folders)
    missing = folders - {Path(name).parts[0] for name in names}
    if missing:
        raise InputError(f"{file}: sequences without images: {some(sorted(missing))}.")
    return names


