"""nerfstudio's files against OpenGL's arithmetic and OpenCV's lens."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.errors import InputError
from relocal.scene import Scene

SHARED = {"fl_x": 70.0, "fl_y": 72.0, "cx": 31.0, "cy": 25.0, "w": 64, "h": 48}
LENS = {"k1": 0.08, "k2": -0.06, "p1": 2e-3, "p2": -1e-3}
Frame = dict[str, Any]


def frames(*names: str) -> list[Frame]:
    """Frames with OpenGL camera-to-world matrices."""
    draw = np.random.default_rng(0)
    matrices = np.tile(np.eye(4), (len(names), 1, 1))
    matrices[:, :3, :3] = Rotation.random(len(names), rng=draw).as_matrix()
    matrices[:, :3, 3] = draw.normal(size=(len(names), 3))
    return [
        {"file_path": name, "transform_matrix": matrix.tolist()}
        for name, matrix in zip(names, matrices, strict=True)
    ]


def write(
    root: Path, frames: list[Frame], shared: Frame = SHARED, pictures: list[str] | None = None
) -> Path:
    listed = [frame["file_path"] for frame in frames] if pictures is None else pictures
    for name in listed:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(root / name)
    (root / "transforms.json").write_text(json.dumps({**shared, "frames": frames}))
    return root


def opengl_pixels(frame: Frame, points: np.ndarray, camera: Frame) -> np.ndarray:
    """Where an OpenGL camera (x right, y up, looking along -z) sees points of the world."""
    camera_to_world = np.array(frame["transform_matrix"])
    x, y, z = ((points - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]).T
    right, down = x / -z, -y / -z
    matrix = np.array(
        [[camera["fl_x"], 0, camera["cx"]], [0, camera["fl_y"], camera["cy"]], [0, 0, 1]]
    )
    lens = np.array([camera.get(key, 0.0) for key in ("k1", "k2", "p1", "p2")])
    rays = np.column_stack([right, down, np.ones_like(right)])
    return cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, lens)[0][:, 0]


def points_before(frame: Frame) -> np.ndarray:
    draw = np.random.default_rng(1)
    in_camera = np.column_stack([draw.uniform(-1, 1, (20, 2)), draw.uniform(-4, -3, 20)])
    camera_to_world = np.array(frame["transform_matrix"])
    return in_camera @ camera_to_world[:3, :3].T + camera_to_world[:3, 3]


def assert_sees_as_opengl(scene: Scene, frames: list[Frame], cameras: list[Frame]) -> None:
    assert len(scene) == len(frames) == len(cameras)
    for i, (frame, camera) in enumerate(zip(frames, cameras, strict=True)):
        world = points_before(frame)
        seen = scene.poses[i].inverse().apply(torch.from_numpy(world))
        assert bool((seen[:, 2] > 0).all())
        pixels, _ = scene.camera(i).project(seen)
        np.testing.assert_allclose(pixels, opengl_pixels(frame, world, camera), atol=1e-8)


@pytest.mark.parametrize("lens", [{}, LENS], ids=["pinhole", "distorted"])
def test_points_are_seen_where_opengl_sees_them(lens: Frame, tmp_path: Path) -> None:
    listed = frames("images/1.png", "images/2.png", "images/3.png")
    scene = read_nerfstudio(write(tmp_path, listed, SHARED | lens))
    assert_sees_as_opengl(scene, listed, [SHARED | lens] * 3)
    assert len(scene.cameras) == 1


def test_frames_may_have_their_own_intrinsics(tmp_path: Path) -> None:
    listed = frames("1.png", "2.png", "3.png")
    listed[1] |= {"fl_x": 50.0, "cx": 33.0, "k1": 0.02}
    scene = read_nerfstudio(write(tmp_path, listed, SHARED | LENS))
    own = SHARED | LENS | {"fl_x": 50.0, "cx": 33.0, "k1": 0.02}
    assert_sees_as_opengl(scene, listed, [SHARED | LENS, own, SHARED | LENS])
    assert scene.camera_index.tolist() == [0, 1, 0]


def test_angle_of_view_gives_the_focal_length(tmp_path: Path) -> None:
    angle = 2 * math.atan(32 / 70)
    listed = frames("1.png", "2.png")
    scene = read_nerfstudio(write(tmp_path, listed, {"camera_angle_x": angle}))
    camera = {"fl_x": 70.0, "fl_y": 70.0, "cx": 32.0, "cy": 24.0}  # square pixels, centred
    assert_sees_as_opengl(scene, listed, [camera] * 2)
    both = {"camera_angle_x": angle, "camera_angle_y": 2 * math.atan(24 / 72)}
    scene = read_nerfstudio(write(tmp_path, listed, both))
    assert_sees_as_opengl(scene, listed, [camera | {"fl_y": 72.0}] * 2)


def test_three_rows_are_enough_for_a_pose(tmp_path: Path) -> None:
    listed = frames("1.png", "2.png")
    short = [f | {"transform_matrix": f["transform_matrix"][:3]} for f in listed]
    assert_sees_as_opengl(read_nerfstudio(write(tmp_path, short)), listed, [SHARED] * 2)


def test_frames_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    listed = frames("r_10.png", "r_9.png", "a/r_11.png", "r_1.png")
    scene = read_nerfstudio(write(tmp_path, listed))
    assert scene.images == ("a/r_11.png", "r_1.png", "r_9.png", "r_10.png")
    assert_sees_as_opengl(scene, [listed[i] for i in (2, 3, 1, 0)], [SHARED] * 4)


def test_path_may_lack_its_suffix_or_be_absolute(tmp_path: Path) -> None:
    root = tmp_path / "place"
    listed = frames("./images/r_1", "images/x/../r_2.png", str(root / "images/r_3.png"))
    write(root, listed, pictures=[f"images/r_{i}.png" for i in (1, 2, 3)])
    (root / "images/x").mkdir()
    scene = read_nerfstudio(root / "transforms.json")
    assert sorted(scene.images) == [f"images/r_{i}.png" for i in (1, 2, 3)]
    assert scene.image_root == root


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    listed = frames(*(f"{i}.png" for i in range(5)))
    scene = read_nerfstudio(write(tmp_path, listed, pictures=["0.png", "3.png"]))
    assert scene.provenance["listed_images"] == 5
    assert scene.provenance["missing_images"] == ["1.png", "2.png", "4.png"]
    assert_sees_as_opengl(scene, [listed[0], listed[3]], [SHARED] * 2)


def test_lists_of_training_and_test_images_are_the_official_split(tmp_path: Path) -> None:
    lists = {"train_filenames": ["1.png", "3.png"], "test_filenames": ["2.png", "gone.png"]}
    listed = frames("1.png", "2.png", "3.png", "gone.png")
    pictures = ["1.png", "2.png", "3.png"]
    scene = read_nerfstudio(write(tmp_path, listed, SHARED | lists, pictures=pictures))
    assert dict(scene.splits) == {"train": ("1.png", "3.png"), "test": ("2.png",)}


def test_unit_is_metres_only_when_told(tmp_path: Path) -> None:
    write(tmp_path, frames("1.png"))
    assert read_nerfstudio(tmp_path).unit == "unit"
    assert read_nerfstudio(tmp_path, unit="m").unit == "m"
    with pytest.raises(InputError, match=r"--unit.*'cm'"):
        read_nerfstudio(tmp_path, unit="cm")


def without_pictures(root: Path) -> None:
    for picture in root.glob("*.png"):
        picture.unlink()


def cut(root: Path) -> None:
    file = root / "transforms.json"
    file.write_text(file.read_text()[:-40])


def shared_fields(**changes: Any) -> Callable[[Path], object]:
    return lambda root: write(root, frames("1.png", "2.png"), SHARED | changes)


def last_frame(**changes: Any) -> Callable[[Path], object]:
    def harm(root: Path) -> None:
        listed = frames("1.png", "2.png")
        listed[1] |= changes
        write(root, listed, pictures=["1.png", "2.png"])

    return harm


def without_focal(root: Path) -> None:
    write(root, frames("1.png", "2.png"), {"w": 64, "h": 48})


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (without_pictures, r"none of its 2 images exists: 1\.png, 2\.png"),
        (cut, "not whole JSON"),
        (lambda r: write(r, []), "no list of frames"),
        (lambda r: (r / "transforms.json").write_text("[]"), "no list of frames"),
        (lambda r: write(r, [{"file_path": "1.png"}]), "frame 0 has no"),
        (last_frame(transform_matrix=[[1, 0], [0, 1]]), r"2\.png: a pose is a 4 x 4 matrix"),
        (last_frame(transform_matrix=[[1, 0], [0]]), r"2\.png: transform_matrix"),
        (last_frame(transform_matrix=(2 * np.eye(4)).tolist()), r"2\.png"),
        (last_frame(transform_matrix=np.diag([2.0, 2, 2, 1]).tolist()), r"2\.png.*no rotation"),
        (last_frame(transform_matrix=np.diag([1.0, 1, -1, 1]).tolist()), r"2\.png.*no rotation"),
        (last_frame(file_path="1.png"), "1 names twice: 1.png"),
        (last_frame(file_path="../2.png"), r"\.\./2\.png lies outside"),
        (last_frame(file_path="images/../../2.png"), "lies outside"),
        (last_frame(file_path="/etc/hostname"), "/etc/hostname lies outside"),
        (shared_fields(camera_model="EQUIRECTANGULAR"), "EQUIRECTANGULAR, which is not supported"),
        (shared_fields(k4=0.1), "OPENCV with k4, which is not supported"),
        (shared_fields(fl_x=math.nan), "fl_x = nan"),
        (shared_fields(k1=None), "k1 = None"),
        (shared_fields(w="64"), "w = '64'"),
        (shared_fields(fl_y=-70.0), "focal lengths positive"),
        (shared_fields(is_fisheye=True, p1=0.1), "FISHEYE with p1, which is not"),
        (shared_fields(train_filenames="1.png", test_filenames=["2.png"]), "must be lists"),
        (shared_fields(w=-3), "transforms.json: 1.png has -3 x 48"),
        (shared_fields(fl_x=10**400), "fl_x = 1000.*finite"),
        (last_frame(transform_matrix=[[10**400] * 4] * 4), "2.png: transform_matrix"),
        (lambda root: (root / "transforms.json").write_text("[" * 10**5), "not whole JSON"),
        (without_focal, "neither fl_x nor camera_angle_x"),
    ],
)
def test_bad_file_is_refused(harm: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    root = write(tmp_path / "place", frames("1.png", "2.png"))
    harm(root)
    with pytest.raises(InputError, match=reason) as error:
        read_nerfstudio(root)
    assert re.search(r"transforms\.json|scene place", str(error.value))
