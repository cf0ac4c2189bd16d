"""What `localize` prints, read again by other tools' readers; axes and order checked with SciPy."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

import relocal
from relocal.camera import Camera
from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.datasets.tum import read_tum
from relocal.errors import InputError
from relocal.images import upright_size
from relocal.pose import Pose
from relocal.report import Answer, Format, answer_texts
from relocal.scene.colmap_text import text_images
from relocal.session import read_poses
from relocal.types import Estimate

CAMERA = Camera.pinhole(64, 48, 50.0, 51.0, 31.0, 25.0)
COUNT = 4
FLIP = np.diag([1.0, -1.0, -1.0])  # OpenCV's camera axes in OpenGL's


@pytest.fixture
def truth() -> np.ndarray:
    """4 x 4 matrices world_from_cam, made by SciPy."""
    draw = np.random.default_rng(0)
    matrices = np.tile(np.eye(4), (COUNT, 1, 1))
    matrices[:, :3, :3] = Rotation.random(COUNT, rng=draw).as_matrix()
    matrices[:, :3, 3] = draw.normal(size=(COUNT, 3))
    return matrices


@pytest.fixture
def answers(truth: np.ndarray) -> list[Answer]:
    poses = Pose.from_matrix(torch.from_numpy(truth))
    names = [f"photos/a-{i}.png" for i in range(COUNT)]
    return [
        Answer(Estimate(poses[i], "m", "posenet", 1.0), name, i, CAMERA)
        for i, name in enumerate(names)
    ]


def printed(answers: list[Answer], form: Any) -> str:
    return "".join(f"{text}\n" for text in answer_texts(answers, form))


def matrix_of(position: Any, quaternion_xyzw: Any) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(np.array(quaternion_xyzw, dtype=float)).as_matrix()
    matrix[:3, 3] = np.array(position, dtype=float)
    return matrix


def alike(found: list[np.ndarray] | np.ndarray, truth: np.ndarray) -> None:
    np.testing.assert_allclose(found, truth, atol=1e-7)


def put_photos(folder: Path, answers: list[Answer]) -> None:
    for one in answers:
        file = folder / one.photo
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (CAMERA.width, CAMERA.height)).save(file)


# --- read again ------------------------------------------------------------------------------


def test_euroc_is_read_as_its_ground_truth_is(answers: list[Answer], truth: np.ndarray) -> None:
    rows = list(csv.DictReader(printed(answers, "euroc").splitlines()))
    found = [
        matrix_of(
            [row[f"p_RS_R_{axis} [m]"] for axis in "xyz"],
            [row[f"q_RS_{axis} []"] for axis in "xyzw"],
        )
        for row in rows
    ]
    alike(found, truth)
    assert [int(row["#timestamp [ns]"]) for row in rows] == [i * 10**9 for i in range(COUNT)]


def test_euroc_and_ros_take_the_time_from_names_that_are_one(answers: list[Answer]) -> None:
    stamped = replace(answers[3], photo="cam0/data/1403636579763555584.png")
    assert printed([stamped], "euroc").splitlines()[1].startswith("1403636579763555584,")
    stamp = json.loads(printed([stamped], "ros"))["header"]["stamp"]
    assert stamp == {"sec": 1403636579, "nanosec": 763555584}
    names = ("9999999999999999999.png", "14036365797635555840.png", "1403636579.png")
    for name in (*names, "1403636579763555584.mp4:000003"):
        other = replace(answers[3], photo=name)
        assert json.loads(printed([other], "ros"))["header"]["stamp"] == {"sec": 3, "nanosec": 0}


def test_tum_is_read_by_its_reader_and_for_alignment(
    answers: list[Answer], truth: np.ndarray, tmp_path: Path
) -> None:
    put_photos(tmp_path, answers)
    (tmp_path / "groundtruth.txt").write_text(printed(answers, "tum"))
    listing = "".join(f"{one.index} {one.photo}\n" for one in answers)
    (tmp_path / "rgb.txt").write_text(listing)
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 64 48 50 51 31 25\n")
    alike(read_tum(tmp_path).poses.matrix().numpy(), truth)
    for form, names in (("tum", ["0.0", "1.0"]), ("json", ["a-0", "a-1"])):
        (tmp_path / form).write_text(printed(answers, form))
        poses, unit = read_poses(tmp_path / form)
        alike([pose.matrix().numpy() for pose in poses.values()], truth)
        assert (list(poses)[:2], unit) == (names, "m" if form == "json" else None)


def test_images_txt_is_read_by_colmap_and_by_us(
    answers: list[Answer], truth: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "images.txt").write_text(printed(answers, "images.txt"))
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 64 48 50 51 31 25\n")
    (tmp_path / "points3D.txt").write_text("")
    model = pycolmap.Reconstruction(str(tmp_path))
    found = {image.name: np.eye(4) for image in model.images.values()}
    for image in model.images.values():
        found[image.name][:3] = image.cam_from_world().inverse().matrix()
    alike([found[one.photo] for one in answers], truth)
    records = list(text_images(tmp_path / "images.txt"))
    assert [record.name for record in records] == [one.photo for one in answers]
    assert [model.images[i + 1].name for i in range(COUNT)] == [one.photo for one in answers]


def test_images_txt_cannot_hold_a_name_with_a_space(answers: list[Answer]) -> None:
    with pytest.raises(InputError, match=r"^a b\.png: COLMAP ends a name .* at its first space"):
        printed([replace(answers[0], photo="a b.png")], "images.txt")


@pytest.mark.parametrize("cameras", ["one", "two"])
def test_nerfstudio_is_read_by_its_reader(
    answers: list[Answer], truth: np.ndarray, tmp_path: Path, cameras: str
) -> None:
    if cameras == "two":
        other = Camera.pinhole(64, 48, 70.0, 70.0, 32.0, 24.0)
        answers[1] = replace(answers[1], camera=other)
    put_photos(tmp_path, answers)
    text = printed(answers, "nerfstudio")
    (tmp_path / "transforms.json").write_text(text)
    scene = read_nerfstudio(tmp_path)
    alike(scene.poses.matrix().numpy(), truth)
    assert scene.images == tuple(one.photo for one in answers)
    assert scene.camera(0).opencv_params()[:4].tolist() == [50, 51, 31, 25]
    assert scene.camera(1).focal.tolist() == ([70, 70] if cameras == "two" else [50, 51])
    for frame, matrix in zip(json.loads(text)["frames"], truth, strict=True):
        opengl = np.array(frame["transform_matrix"])
        np.testing.assert_allclose(opengl[:3, :3], matrix[:3, :3] @ FLIP, atol=1e-12)
        np.testing.assert_allclose(opengl[:, 3], matrix[:, 3], atol=1e-12)


def test_a_camera_that_is_not_known_is_left_out(answers: list[Answer]) -> None:
    bare = [replace(one, camera=None) for one in answers]
    content = json.loads(printed(bare, "nerfstudio"))
    assert set(content) == {"camera_model", "frames"}
    mixed = json.loads(printed([answers[0], bare[1]], "nerfstudio"))["frames"]
    assert ["fl_x" in frame for frame in mixed] == [True, False]


def test_no_answers_print_nothing_and_a_head_comes_once(answers: list[Answer]) -> None:
    for form in get_args(Format):
        assert list(answer_texts([], form)) == []
    for form, lines in (("euroc", 1 + COUNT), ("images.txt", 2 + 2 * COUNT), ("tum", COUNT)):
        assert len(printed(answers, form).splitlines()) == lines


# --- ROS -------------------------------------------------------------------------------------


def test_ros_fields_are_those_of_the_message(answers: list[Answer], truth: np.ndarray) -> None:
    for one, matrix in zip(answers, truth, strict=True):
        fields = json.loads(printed([one], "ros"))
        assert fields.keys() == {"header", "pose"}
        assert fields["header"]["frame_id"] == "map"
        assert fields["pose"].keys() == {"pose", "covariance"}
        pose = fields["pose"]["pose"]
        assert pose.keys() == {"position", "orientation"}
        orientation = [pose["orientation"][axis] for axis in "xyzw"]
        alike(matrix_of([pose["position"][axis] for axis in "xyz"], orientation), matrix)
        assert fields["pose"]["covariance"] == [0] * 36  # unknown


@given(seed=st.integers(0, 1000), sigma_m=st.floats(0.001, 10), sigma_deg=st.floats(0.01, 60))
def test_ros_covariance_is_that_of_drawn_errors(
    seed: int, sigma_m: float, sigma_deg: float
) -> None:
    """Errors as an estimate states them, drawn in the camera's frame, seen along the map's axes."""
    draw = np.random.default_rng(seed)
    turn = Rotation.random(rng=draw)
    pose = Pose(
        torch.randn(3).double(), torch.from_numpy(turn.as_quat(canonical=True, scalar_first=True))
    )
    estimate = Estimate(pose, "m", "posenet", 1.0, sigma_m=sigma_m, sigma_deg=sigma_deg)
    stated = np.array(relocal.estimate_to_ros(estimate)["pose"]["covariance"]).reshape(6, 6)
    in_camera = draw.normal(size=(4000, 2, 3)) * [[sigma_m], [math.radians(sigma_deg)]]
    drawn = np.c_[turn.apply(in_camera[:, 0]), turn.apply(in_camera[:, 1])]
    scale = np.sqrt(np.outer(stated.diagonal(), stated.diagonal()))
    assert np.abs((np.cov(drawn.T) - stated) / scale).max() < 0.15


def test_ros_takes_stamp_and_frame_and_refuses_what_it_cannot_hold(answers: list[Answer]) -> None:
    estimate = answers[0].estimate
    header = relocal.estimate_to_ros(estimate, (5, 7), "office")["header"]
    assert header == {"stamp": {"sec": 5, "nanosec": 7}, "frame_id": "office"}
    for stamp in ((2**31, 0), (0, 10**9), (0, -1)):
        with pytest.raises(InputError, match="stamp"):
            relocal.estimate_to_ros(estimate, stamp)
    half = relocal.estimate_to_ros(replace(estimate, sigma_m=0.1))["pose"]["covariance"]
    assert half == [0] * 36  # no rotation is certain because its spread is not known


def test_formats_in_metres_refuse_a_scene_without_a_scale(answers: list[Answer]) -> None:
    one = replace(answers[0], estimate=replace(answers[0].estimate, unit="unit"))
    for form, name in (("ros", "ROS"), ("euroc", "EuRoC")):
        with pytest.raises(InputError, match=rf"^{name} is in metres, .*no known scale.*tum"):
            printed([one], form)
    for form in ("tum", "images.txt", "nerfstudio", "json"):
        assert printed([one], form)


# --- the command line ------------------------------------------------------------------------


def test_localize_prints_one_transforms_json(
    call: Callable[..., tuple[int, str, str]],
    tiny_run: Path,
    tiny_scene: Any,
    tmp_path: Path,
) -> None:
    photos = [tiny_scene.path(i) for i in tiny_scene.indices("test").tolist()[:3]]
    (tmp_path / "text.jpg").write_text("no photo")
    asked = (photos[0], tmp_path / "text.jpg", *photos[1:])
    width, height = upright_size(photos[0])
    camera = f"SIMPLE_PINHOLE,{2 * width},{2 * height},{4 * width},{width},{height}"
    code, out, error = call(
        "localize", tiny_run, *asked, "--format", "nerfstudio", "--camera", camera
    )
    assert (code, "text.jpg" in error) == (3, True)
    content = json.loads(out)
    assert [frame["file_path"] for frame in content["frames"]] == [str(photo) for photo in photos]
    assert (content["w"], content["fl_x"], content["cy"]) == (width, 2 * width, height / 2)
    code, out, _ = call("localize", tiny_run, *photos, "--format", "json", "--camera", camera)
    for line, frame in zip(out.splitlines(), content["frames"], strict=True):
        opengl = np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])
        np.testing.assert_allclose(opengl, json.loads(line)["world_from_cam"], atol=1e-12)
    code, out, error = call("localize", tiny_run, *photos, "--format", "nerfstudio")
    assert code == 0
    missing = "no EXIF says its focal length, and nerfstudio needs it; give --camera."
    assert [
        line for line in error.splitlines() if "focal-not-written" in line or missing in line
    ] == [
        f"relocal: {photos[0]}: {missing}",
        "relocal: 2 more photos have the same warning (focal-not-written).",
    ]
    assert "fl_x" not in json.loads(out)


def test_localize_prints_heads_and_nothing_for_no_photo(
    call: Callable[..., tuple[int, str, str]], tiny_run: Path, tiny_scene: Any, tmp_path: Path
) -> None:
    photo = tiny_scene.path(0)
    code, out, _ = call("localize", tiny_run, photo, photo, "--format", "euroc")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()] == [
        "#timestamp [ns]",
        "0",
        "1000000000",
    ]
    code, out, _ = call("localize", tiny_run, photo, "--format", "images.txt")
    assert (code, out.splitlines()[2][:2], out[-2:]) == (0, "1 ", "\n\n")
    for form in ("euroc", "nerfstudio"):
        code, out, _ = call("localize", tiny_run, tmp_path / "gone.jpg", "--format", form)
        assert (code, out) == (2, "")
