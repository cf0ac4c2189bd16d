"""7-Scenes (Shotton et al. 2013): small rooms recorded with a Kinect.

Official layout: ``TrainSplit.txt`` and ``TestSplit.txt`` list sequences, and each ``seq-XX`` holds
``frame-XXXXXX.color.png`` with ``frame-XXXXXX.pose.txt``, a 4x4 ``world_from_cam`` in metres.

Those poses are of the **depth** camera, made by depth SLAM. Pseudo ground truth made by SfM
(Brachmann et al. 2021) is of the colour camera. The two differ by centimetres and degrees, so a
scene holds one of them and its provenance says which.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from relocal.camera import Camera
from relocal.datasets.photos import find_photos, none_left
from relocal.datasets.pose_lines import read_label_file, stem_of
from relocal.errors import InputError
from relocal.images import fit_camera, upright_size
from relocal.notices import Notice
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.account import LOST, NO_FILE, NO_POSE, Account, Tally
from relocal.scene.lost import is_lost, number
from relocal.scene.order import natural_key
from relocal.scene.scene import some

DEPTH_FOCAL_PX = 585.0
SIZE_PX = (640, 480)
_COLOUR = re.compile(r"frame-\d+\.color\.(png|jpe?g)", re.IGNORECASE)
_POSE = re.compile(r"/frame-\d+\.pose\.txt$")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")
_SEQUENCE = re.compile(r"seq-(\d{1,9})")
_MAX_ORTHONORMALITY_ERROR = 1e-3
_NO_DEPTH_MM = 65535


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
    images = _images(path)
    notices: tuple[Notice, ...] = ()
    if labels is None:
        provenance = {
            "labels": "7-Scenes depth SLAM, poses of the depth camera",
            "intrinsics": f"f = {DEPTH_FOCAL_PX:g} px at 640 x 480, the depth camera's default",
        }
        known, left = _depth_slam_poses(path, images)
        left[NO_FILE] = bare = _poses_alone(path, images)
        listed, focal = len(images) + len(bare), [DEPTH_FOCAL_PX] * len(known)
        poses = Pose.from_matrix(torch.from_numpy(np.stack(list(known.values()))))
    else:
        every, (listed, known, left, notices) = len(images), _label_file(path, labels, images)
        values = torch.tensor(list(known.values()), dtype=torch.float64)
        poses, focal = Pose.from_colmap(values[:, :4], values[:, 4:7]), values[:, 7].tolist()
        provenance = {
            "labels": labels.name,
            "intrinsics": f"f = {_span(focal)} px at 640 x 480, from the labels",
            "images_without_label": every - len(known),
        }
    splits = _official_splits(path, images)
    images = list(known)
    first = path / images[0]
    # The focal length holds for the official size; other sizes are the same view resampled.
    index = {f: i for i, f in enumerate(sorted(set(focal)))}
    cameras = tuple(fit_camera(_camera(f), *upright_size(first), str(first)) for f in index)
    return Scene(
        name=path.resolve().name,
        unit="m",
        image_root=path,
        images=tuple(images),
        cameras=cameras,
        camera_index=torch.tensor([index[f] for f in focal]),
        poses=poses,
        splits={split: tuple(n for n in names if n in known) for split, names in splits.items()},
        provenance={"reader": "7scenes", **provenance},
        account=Account(images=Tally.of(listed, len(images), left), notices=notices),
    )


def _images(path: Path) -> list[str]:
    """The colour images, in the order of recording; of a frame stored twice, the PNG."""
    files = path.glob("seq-*/frame-*.color.*")
    names = (file.relative_to(path).as_posix() for file in files if _COLOUR.fullmatch(file.name))
    found = sorted(names, key=natural_key)
    if not found:
        raise InputError(
            f"{path}: no images like seq-01/frame-000000.color.png; is this a 7-Scenes folder?"
        )
    return list({stem_of(name): name for name in found}.values())


def _span(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _camera(focal_px: float) -> Camera:
    params = torch.tensor([focal_px, SIZE_PX[0] / 2, SIZE_PX[1] / 2], dtype=torch.float64)
    return Camera("SIMPLE_PINHOLE", *SIZE_PX, params)


def _depth_slam_poses(
    path: Path, images: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Poses by image, and the images that have none, by reason."""
    known: dict[str, np.ndarray] = {}
    left: dict[str, list[str]] = {NO_POSE: [], LOST: []}
    for name in images:
        file = path / re.sub(r"\.color\.\w+$", ".pose.txt", name)
        if not file.is_file():
            left[NO_POSE].append(name)
        elif (matrix := _pose_file(file)) is None:
            left[LOST].append(name)
        else:
            known[name] = matrix
    if not known:
        raise none_left(path, len(images), left)
    return known, left


def _poses_alone(path: Path, images: list[str]) -> list[str]:
    """Names, without suffix, of frames that have a pose and no photo."""
    with_photo = set(map(stem_of, images))
    poses = (file.relative_to(path).as_posix() for file in path.glob("seq-*/frame-*.pose.txt"))
    frames = {f"{name.removesuffix('.pose.txt')}.color" for name in poses if _POSE.search(name)}
    return sorted(frames - with_photo, key=natural_key)


def _pose_file(file: Path) -> np.ndarray | None:
    """The pose in a file; None where it says that there is none."""
    try:
        rows = [row.split() for row in file.read_text("utf-8-sig").splitlines()]
        matrix = np.array([[number(v) for v in row] for row in rows if row])
    except ValueError as error:
        raise InputError(f"{file}: a pose is 4 rows of 4 numbers ({error}).") from error
    return pose_matrix(matrix, str(file))


def pose_matrix(matrix: np.ndarray, where: str) -> np.ndarray | None:
    """A 4x4 matrix of a file as ``checked_pose_matrix`` returns it; None if it says "no pose".

    Args:
        matrix: What the file says.
        where: The file, and the image if the file has several.

    Raises:
        InputError: If it is neither.
    """
    if not np.isfinite(matrix).any():  # nothing at all, too
        return None
    if matrix.shape == (4, 4) and is_lost(matrix, matrix[:3, :3]):
        return None
    return checked_pose_matrix(matrix, where)


def checked_pose_matrix(matrix: np.ndarray, where: str) -> np.ndarray:
    """Refuses a 4x4 matrix that is no rigid motion.

    Args:
        matrix: What a file says.
        where: The file, and the image if the file has several.

    Returns:
        The same matrix with its rotation made exactly orthonormal (files round their digits).

    Raises:
        InputError: If the shape is wrong, a number is not finite, the 3x3 block is no rotation or
            the last row is not 0 0 0 1.
    """
    if matrix.shape != (4, 4):
        raise InputError(f"{where}: a pose is a 4 x 4 matrix, this is {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{where}: the pose has numbers that are not finite.")
    rotation = matrix[:3, :3]
    off = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if np.abs(matrix[3] - [0, 0, 0, 1]).max() > _MAX_ORTHONORMALITY_ERROR:
        raise InputError(f"{where}: the last row of a pose is 0 0 0 1; is this one transposed?")
    if off > _MAX_ORTHONORMALITY_ERROR or np.linalg.det(rotation) < 0:
        raise InputError(
            f"{where}: the 3 x 3 block is no rotation (RᵀR differs from 1 by {off:.2g}, "
            f"determinant {np.linalg.det(rotation):.3f})."
        )
    u, _, vt = np.linalg.svd(rotation)
    exact = matrix.copy()
    exact[:3, :3] = u @ vt
    return exact


def images_without_label(path: Path, labels: Path) -> dict[str, tuple[int, int]]:
    """How many images of each official split a pseudo ground truth leaves out, and of how many.

    Raises:
        InputError: If a file is missing or not what it should be.
    """
    rows = read_label_file(labels)
    return {
        split: (sum(stem_of(name) not in rows for name in names), len(names))
        for split, names in _official_splits(path, _images(path)).items()
    }


def _label_file(
    path: Path, labels: Path, images: list[str]
) -> tuple[int, dict[str, list[float]], dict[str, list[str]], tuple[Notice, ...]]:
    """How many images folder and labels list, the rows of those with both, and the others."""
    lost: set[str] = set()
    rows = read_label_file(labels, lost=lost)
    stems = {name: stem_of(name) for name in images}
    # Names that are not those of photos here may be the paths of another computer.
    strange = sorted((rows.keys() | lost) - set(stems.values()))
    found = find_photos(path, strange, str(labels), _SUFFIXES)
    own = {
        name: stem_of(there)
        for name, there in zip(strange, found.names, strict=True)
        if there is not None
    }
    if twice := [name for name, stem in own.items() if stem in rows.keys() | lost]:
        raise InputError(f"--labels {labels}: {own[twice[0]]} is listed again as {twice[0]}.")
    rows = {own.get(name, name): row for name, row in rows.items()}
    lost = {own.get(name, name) for name in lost}
    known = {name: rows[stem] for name, stem in stems.items() if stem in rows}
    if not known:
        raise InputError(
            f"--labels {labels}: none of its {len(rows)} images is in the folder "
            f"(labels {some([*rows, *sorted(lost)], 2)}; images {some(images, 2)})."
        )
    mine = set(stems.values())
    left = {
        NO_POSE: [name for name, stem in stems.items() if stem not in rows.keys() | lost],
        LOST: [name for name, stem in stems.items() if stem in lost],
        NO_FILE: sorted((rows.keys() | lost) - mine, key=natural_key),
    }
    return len(mine | rows.keys() | lost), known, left, found.notices


def _official_splits(path: Path, images: list[str]) -> dict[str, tuple[str, ...]]:
    """What ``TrainSplit.txt`` and ``TestSplit.txt`` say, nothing when neither exists."""
    files = {"train": path / "TrainSplit.txt", "test": path / "TestSplit.txt"}
    missing = [file for file in files.values() if not file.is_file()]
    if len(missing) == len(files):
        return {}
    if missing:
        raise InputError(f"{missing[0]}: is missing beside the other split file.")
    return {split: _sequences(file, images) for split, file in files.items()}


def _sequences(file: Path, images: list[str]) -> tuple[str, ...]:
    text = file.read_text("utf-8", errors="replace")
    numbers = [int(n) for n in re.findall(r"sequence(\d{1,9})", text)]
    if not numbers:
        raise InputError(f"{file}: no lines like sequence1.")
    folders = {name: _SEQUENCE.fullmatch(Path(name).parts[0]) for name in images}
    number_of = {name: int(match[1]) for name, match in folders.items() if match}
    names = tuple(name for name in images if number_of.get(name) in set(numbers))
    missing = sorted(set(numbers) - set(number_of.values()))
    if missing:
        raise InputError(
            f"{file}: sequences without images: {some([f'seq-{n:02d}' for n in missing])}."
        )
    return names


def median_depth(path: Path, images: Sequence[str], every: int = 20) -> float:
    """The median depth that the depth camera measured, in metres.

    Args:
        path: The scene's folder in the official layout.
        images: Names of colour images, whose depth images are looked at.
        every: Of how many of them one is looked at: a video shows the same for a second.

    Raises:
        InputError: If a depth image is missing or is none, or nothing was measured.
    """
    values: list[np.ndarray] = []
    for name in images[::every]:
        file = path / re.sub(r"\.color\.\w+$", ".depth.png", name)
        try:
            with Image.open(file, formats=["PNG"]) as image:
                depth_mm = np.asarray(image, dtype=np.int64)[::8, ::8]
        except OSError as error:
            raise InputError(f"{file}: this depth image cannot be read ({error}).") from error
        values.append(depth_mm[(depth_mm > 0) & (depth_mm < _NO_DEPTH_MM)])
    measured = np.concatenate(values) if values else np.empty(0)
    if not measured.size:
        raise InputError(f"{path}: its depth images hold no depth.")
    return float(np.median(measured)) / 1000
