"""Readers against sets written here, OpenCV's and OpenGL's own arithmetic, and real captures."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from relocal.datasets import DATASETS
from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.datasets.seven_scenes import read_seven_scenes
from relocal.errors import InputError
from relocal.pose import position_error, rotation_error_deg
from relocal.scene import Scene, save_scene

RENDERS = {"synthetic"}  # makes its scene where there is none


def some_poses(count: int) -> np.ndarray:
    """4x4 matrices world_from_cam."""
    draw = np.random.default_rng(0)
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = Rotation.random(count, rng=draw).as_matrix()
    matrices[:, :3, 3] = draw.normal(size=(count, 3))
    return matrices


def picture(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


@pytest.mark.parametrize("content", ["empty", "other"])
@pytest.mark.parametrize("name", sorted(DATASETS))
def test_folder_without_a_dataset_is_refused_by_name(
    name: str, content: str, tmp_path: Path
) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    if content == "other":
        (folder / "notes.txt").write_text("nothing here")
    elif name in RENDERS:
        pytest.skip("renders into an empty folder")
    with pytest.raises(InputError, match=re.escape(str(folder))):
        DATASETS[name](folder)


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - RENDERS))
def test_missing_folder_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "nowhere"))):
        DATASETS[name](tmp_path / "nowhere")


# 7-Scenes

LABELS = Path("labels.txt")


def frame(sequence: int, number: int, suffix: str = "png") -> str:
    return f"seq-{sequence:02d}/frame-{number:06d}.color.{suffix}"


def write_seven_scenes(
    root: Path, counts: dict[int, int], suffix: str = "png", size: tuple[int, int] = (64, 48)
) -> np.ndarray:
    """A folder in the official layout; returns its poses in the order of recording."""
    poses = some_poses(sum(counts.values()))
    names = [frame(s, i, suffix) for s in sorted(counts) for i in range(counts[s])]
    for name, pose in zip(names, poses, strict=True):
        picture(root / name, *size)
        np.savetxt((root / name).with_name(Path(name).name[:12] + ".pose.txt"), pose)
    return poses


def label_line(name: str, world_from_cam: np.ndarray, focal: float = 525.0) -> str:
    cam_from_world = np.linalg.inv(world_from_cam)
    x, y, z, w = Rotation.from_matrix(cam_from_world[:3, :3]).as_quat()
    numbers = [w, x, y, z, *cam_from_world[:3, 3], focal]
    return f"{name} {' '.join(repr(float(v)) for v in numbers)}\n"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_depth_slam_poses_are_read_as_camera_to_world(suffix: str, tmp_path: Path) -> None:
    poses = write_seven_scenes(tmp_path, {1: 3, 2: 2}, suffix)
    scene = read_seven_scenes(tmp_path)
    assert scene.images == tuple(
        frame(s, i, suffix) for s, i in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    )
    assert_close(scene.poses.matrix(), torch.from_numpy(poses), atol=1e-12, rtol=0)
    assert (scene.unit, scene.splits, scene.name) == ("m", {}, tmp_path.name)


def test_depth_slam_poses_come_with_the_depth_camera_and_say_so(tmp_path: Path) -> None:
    write_seven_scenes(tmp_path, {1: 2})
    scene = read_seven_scenes(tmp_path)
    assert_close(scene.camera(0).focal, torch.tensor([58.5, 58.5]).double())  # at a tenth
    assert_close(scene.camera(0).principal_point, torch.tensor([32.0, 24.0]).double())
    assert "depth camera" in scene.provenance["labels"]
    assert "585" in scene.provenance["intrinsics"]


def test_heads_train_and_test_sequences_are_not_swapped(tmp_path: Path) -> None:
    write_seven_scenes(tmp_path, {1: 2, 2: 3})
    (tmp_path / "TrainSplit.txt").write_text("sequence2\n")  # as the official Heads
    (tmp_path / "TestSplit.txt").write_text("sequence1\n")
    splits = read_seven_scenes(tmp_path).splits
    assert splits["train"] == tuple(frame(2, i) for i in range(3))
    assert splits["test"] == tuple(frame(1, i) for i in range(2))


def test_official_split_of_many_sequences(tmp_path: Path) -> None:
    write_seven_scenes(tmp_path, {1: 1, 3: 2, 10: 1})
    (tmp_path / "TrainSplit.txt").write_text("sequence1 \r\nsequence10\r\n")
    (tmp_path / "TestSplit.txt").write_text("sequence3\r\n")
    splits = read_seven_scenes(tmp_path).splits
    assert splits == {"train": (frame(1, 0), frame(10, 0)), "test": (frame(3, 0), frame(3, 1))}


def test_labels_are_world_to_camera_and_replace_the_depth_slam_poses(tmp_path: Path) -> None:
    write_seven_scenes(tmp_path, {1: 3}, "jpg")
    poses = some_poses(9)[5:8]
    lines = [label_line(frame(1, i, "png"), poses[i]) for i in (2, 0, 1)]  # named .png, unsorted
    (tmp_path / LABELS).write_text("# a comment\n\n" + "".join(lines))
    scene = read_seven_scenes(tmp_path, tmp_path / LABELS)
    assert scene.images == tuple(frame(1, i, "jpg") for i in range(3))
    assert_close(scene.poses.matrix(), torch.from_numpy(poses), atol=1e-12, rtol=0)
    assert scene.provenance["labels"] == "labels.txt"
    assert "525" in scene.provenance["intrinsics"]


def test_labels_give_each_image_its_focal_length(tmp_path: Path) -> None:
    poses = write_seven_scenes(tmp_path, {1: 3}, size=(640, 480))
    lines = [label_line(frame(1, i), poses[i], f) for i, f in enumerate((530.0, 520.0, 530.0))]
    (tmp_path / LABELS).write_text("".join(lines))
    scene = read_seven_scenes(tmp_path, tmp_path / LABELS)
    assert [float(scene.camera(i).focal[0]) for i in range(3)] == [530, 520, 530]
    assert len(scene.cameras) == 2
    assert "520 to 530" in scene.provenance["intrinsics"]


def test_images_without_label_are_left_out_and_counted(tmp_path: Path) -> None:
    poses = write_seven_scenes(tmp_path, {1: 3})
    (tmp_path / LABELS).write_text(label_line(frame(1, 1), poses[1]))
    scene = read_seven_scenes(tmp_path, tmp_path / LABELS)
    assert scene.images == (frame(1, 1),)
    assert scene.provenance["images_without_label"] == 2


def test_poses_without_a_photo_are_counted(tmp_path: Path) -> None:
    write_seven_scenes(tmp_path, {1: 6})
    for number in (2, 3):
        (tmp_path / frame(1, number)).unlink()
    account = read_seven_scenes(tmp_path).account
    assert account is not None
    assert (account.images.listed, account.images.read) == (6, 4)
    names = tuple(f"seq-01/frame-{number:06d}.color" for number in (2, 3))
    assert account.images.examples == {"no file": names}


@pytest.mark.parametrize("prefix", ["seq-01\\", "C:\\data\\seq-01\\", "/data/kitchen/seq-01/"])
def test_labels_may_be_of_another_computer(prefix: str, tmp_path: Path) -> None:
    write_seven_scenes(tmp_path, {1: 4})
    pose = some_poses(1)[0]
    names = [frame(1, number) for number in range(3)]
    labels = tmp_path / "labels.txt"
    moved = [prefix + Path(name).name for name in names]
    labels.write_text("".join(label_line(name, pose) for name in moved))
    scene = read_seven_scenes(tmp_path, labels)
    assert scene.images == tuple(names)
    assert scene.account is not None
    assert [notice.code for notice in scene.account.notices] == ["paths-elsewhere"]
    assert scene.account.images.left == {"no pose": 1}
    labels.write_text("".join(label_line(name, pose) for name in [names[0], *moved]))
    with pytest.raises(InputError, match="is listed again as"):
        read_seven_scenes(tmp_path, labels)


def test_frame_stored_twice_counts_once(tmp_path: Path) -> None:
    write_seven_scenes(tmp_path, {1: 2})
    picture(tmp_path / frame(1, 0, "jpg"), 64, 48)
    assert read_seven_scenes(tmp_path).images == (frame(1, 0), frame(1, 1))


def write_pose(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "seq-01/frame-000001.pose.txt").write_text(text)


def write_matrix(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    return lambda root: np.savetxt(root / "seq-01/frame-000001.pose.txt", change(some_poses(1)[0]))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (write_pose("1 0 0\n0 1 0\n0 0 1\n"), "4 x 4"),
        (write_pose("1 0 0 0\n0 1 0\n"), "4 rows of 4 numbers"),
        (write_pose("one 0 0 0\n"), "4 rows of 4 numbers"),
        (write_matrix(lambda m: m @ np.diag([1.01, 1.01, 1.01, 1])), "no rotation"),
        (write_matrix(lambda m: m @ np.diag([1.0, 1, -1, 1])), "no rotation"),
        (write_matrix(lambda m: m.T), "transposed"),
    ],
)
def test_bad_pose_file_is_named(
    harm: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    write_seven_scenes(tmp_path, {1: 3})
    harm(tmp_path)
    with pytest.raises(InputError, match=rf"frame-000001\.pose\.txt.*{reason}"):
        read_seven_scenes(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("seq-01/frame-000001.color.png 1 0 0 0 0 0 0", "8 finite numbers"),
        ("seq-01/frame-000001.color.png 1 0 0 0 0 0 0 525 1", "8 finite numbers"),
        ("seq-01/frame-000001.color.png 1 0 0 0 0 0 0 nan", "8 finite numbers"),
        ("seq-01/frame-000001.color.png 1 0 0 0 0 0 x 525", "needs a name and 8 finite numbers"),
        ("seq-01/frame-000001.color.png 2 0 0 0 0 0 0 525", "not unit"),
        ("seq-01/frame-000001.color.png 1 0 0 0 0 0 0 -525", "focal"),
        ("seq-01/frame-000000.color.jpg 1 0 0 0 0 0 0 525", "is listed already"),
        ("\xff\xfe", "8 finite numbers"),
    ],
)
def test_bad_label_line_is_named_by_its_number(line: str, reason: str, tmp_path: Path) -> None:
    poses = write_seven_scenes(tmp_path, {1: 2})
    text = "# comment\n" + label_line(frame(1, 0), poses[0]) + line + "\n"
    (tmp_path / LABELS).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=rf"--labels .*labels\.txt, line 3: .*{reason}"):
        read_seven_scenes(tmp_path, tmp_path / LABELS)


def test_labels_of_other_images_or_none_are_refused(tmp_path: Path) -> None:
    poses = write_seven_scenes(tmp_path, {1: 2})
    with pytest.raises(InputError, match=r"--labels .*labels\.txt: there is no such file"):
        read_seven_scenes(tmp_path, tmp_path / LABELS)
    (tmp_path / LABELS).write_text(label_line("db/1.jpg", poses[0]))
    with pytest.raises(InputError, match=r"none of its 1 images is in the folder.*db/1"):
        read_seven_scenes(tmp_path, tmp_path / LABELS)


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        ("sequence1", None, r"TestSplit\.txt: is missing"),
        ("sequence1", "sequence7", r"TestSplit\.txt: sequences without images: seq-07"),
        ("sequence1", "", r"TestSplit\.txt: no lines like sequence1"),
        ("sequence1", "sequence1", "in train and in test"),
    ],
)
def test_bad_official_split_is_refused(
    train: str, test: str | None, reason: str, tmp_path: Path
) -> None:
    write_seven_scenes(tmp_path, {1: 2})
    (tmp_path / "TrainSplit.txt").write_text(train)
    if test is not None:
        (tmp_path / "TestSplit.txt").write_text(test)
    with pytest.raises(InputError, match=reason):
        read_seven_scenes(tmp_path)


def test_cropped_frames_are_refused(tmp_path: Path) -> None:
    write_seven_scenes(tmp_path, {1: 2}, size=(64, 64))
    with pytest.raises(InputError, match="64 x 64"):
        read_seven_scenes(tmp_path)


# Real captures


def opened_by_pycolmap(scene: Scene, out: Path) -> pycolmap.Reconstruction:
    """Saves a scene and opens its model; its images are links to the files that were read."""
    saved = save_scene(scene, out)
    for i in (0, len(scene) - 1):
        same_disk = scene.path(i).stat().st_dev == saved.path(i).stat().st_dev
        assert saved.path(i).samefile(scene.path(i)) or not same_disk
    return pycolmap.Reconstruction(str(out / "sparse/0"))


@pytest.mark.parametrize(
    ("name", "count", "missing"),
    [("fox", 50, 17), ("cube_diorama_room", 100, 0), ("egypt_480", 302, 0)],
)
def test_real_capture_is_read_and_opened_by_pycolmap(
    name: str, count: int, missing: int, shared: Path, tmp_path: Path
) -> None:
    scene = read_nerfstudio(shared / "data" / name)
    assert (len(scene), scene.name, scene.unit) == (count, name, "unit")
    assert len(scene.provenance["missing_images"]) == missing
    assert list(scene.images) == sorted(scene.images)
    model = opened_by_pycolmap(scene, tmp_path / "out")
    assert model.num_reg_images() == count


def test_redkitchen_labels_are_read_and_opened_by_pycolmap(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/7scenes/redkitchen"
    scene = read_seven_scenes(folder, folder / "sfm_pgt_seq-01.txt")
    assert (len(scene), len(scene.cameras), scene.unit) == (1000, 1, "m")
    assert float(scene.cameras[0].focal[0]) == pytest.approx(525.505)
    model = opened_by_pycolmap(scene, tmp_path / "out")
    assert model.num_reg_images() == 1000
    centres = [model.images[i + 1].projection_center() for i in range(1000)]
    np.testing.assert_allclose(np.stack(centres), scene.poses.position, atol=1e-12)


def test_two_ground_truths_of_redkitchen_differ_and_are_never_mixed(shared: Path) -> None:
    folder = shared / "data/7scenes/redkitchen"
    slam, sfm = read_seven_scenes(folder), read_seven_scenes(folder, folder / "sfm_pgt_seq-01.txt")
    assert slam.images == sfm.images
    assert float(position_error(slam.poses, sfm.poses).median()) == pytest.approx(0.074, abs=0.001)
    # SciPy says 3.83 as well. The arccosine of a trace says 3.97, because the rotations in the
    # pose files are orthonormal to 4e-4 only.
    assert float(rotation_error_deg(slam.poses, sfm.poses).median()) == pytest.approx(
        3.83, abs=0.01
    )
    assert slam.provenance["labels"] != sfm.provenance["labels"]
    assert float(slam.cameras[0].focal[0]) == 585
