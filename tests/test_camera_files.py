"""Cameras as files: what ROS, OpenCV, Kalibr and nerfstudio write, and what is no camera."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torch.testing import assert_close

from relocal.camera import Camera, parse_camera, read_camera
from relocal.errors import InputError

CALIBRATOR = """image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [438.78, 0., 305.59, 0., 437.35, 243.74, 0., 0., 1.]
distortion_model: {model}
distortion_coefficients:
  rows: 1
  cols: {count}
  data: {data}
rectification_matrix:
  rows: 3
  cols: 3
  data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.65, 0., 322.8, 0., 0., 393.65, 241.1, 0., 0., 0., 1., 0.]
"""
MESSAGE = """header:
  stamp: {sec: 0, nanosec: 0}
  frame_id: camera
height: 480
width: 640
distortion_model: plumb_bob
d:
- -0.36
- 0.12
- 0.001
- 0.002
- 0.03
k: [438.78, 0.0, 305.59, 0.0, 437.35, 243.74, 0.0, 0.0, 1.0]
binning_x: 0
binning_y: 0
roi: {x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: false}
---
"""
PINHOLE = [438.78, 437.35, 306.09, 244.24]
KALIBR = """cam0:
  camera_model: pinhole
  intrinsics: [461.6, 460.3, 362.7, 248.1]
  distortion_model: {lens}
  distortion_coeffs: {d}
  resolution: [752, 480]
  rostopic: /cam0/image_raw
"""


def written(tmp_path: Path, text: str, name: str = "camera.yaml") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def ros(model: str, data: list[float]) -> str:
    return CALIBRATOR.format(model=model, count=len(data), data=data)


@pytest.mark.parametrize(
    ("lens", "d", "model", "params"),
    [
        ("plumb_bob", [-0.36, 0.12, 1e-3, 2e-3, 0.0], "OPENCV", [-0.36, 0.12, 1e-3, 2e-3]),
        (
            "plumb_bob",
            [-0.36, 0.12, 1e-3, 2e-3, 0.03],
            "FULL_OPENCV",
            [-0.36, 0.12, 1e-3, 2e-3, 0.03, 0, 0, 0],
        ),
        (
            "rational_polynomial",
            [-0.3, 0.1, 1e-3, 2e-3, 0.03, 0.1, 0.2, 0.3],
            "FULL_OPENCV",
            [-0.3, 0.1, 1e-3, 2e-3, 0.03, 0.1, 0.2, 0.3],
        ),
        ("equidistant", [0.1, 0.2, 0.3, 0.4], "OPENCV_FISHEYE", [0.1, 0.2, 0.3, 0.4]),
        ("fisheye", [0.1, 0.2, 0.3, 0.4], "OPENCV_FISHEYE", [0.1, 0.2, 0.3, 0.4]),
        ("plumb_bob", [0.0] * 5, "PINHOLE", []),
    ],
)
def test_ros_calibrations(
    tmp_path: Path, lens: str, d: list[float], model: str, params: list[float]
) -> None:
    camera = read_camera(written(tmp_path, ros(lens, d)))
    assert (camera.model, camera.width, camera.height) == (model, 640, 480)
    assert camera.params.tolist() == pytest.approx([*PINHOLE, *params])


def test_powers_of_ten_are_numbers(tmp_path: Path) -> None:
    text = MESSAGE.replace("- 0.001", "- 1e-03").replace("- 0.002", "- 2.0e-3")
    assert read_camera(written(tmp_path, text)).params.tolist()[6:8] == [0.001, 0.002]


def test_a_ros_message_as_it_is_printed(tmp_path: Path) -> None:
    camera = read_camera(written(tmp_path, MESSAGE, "info.yml"))
    assert camera.model == "FULL_OPENCV"
    assert camera.params.tolist() == pytest.approx(
        [*PINHOLE, -0.36, 0.12, 0.001, 0.002, 0.03, 0, 0, 0]
    )


def test_binning_and_region_of_interest_are_followed(tmp_path: Path) -> None:
    whole = read_camera(written(tmp_path, MESSAGE))
    text = MESSAGE.replace("binning_x: 0", "binning_x: 2").replace("binning_y: 0", "binning_y: 2")
    halved = read_camera(written(tmp_path, text))
    assert_close(halved.params, whole.resized(320, 240).params)
    text = text.replace(
        "x_offset: 0, y_offset: 0, height: 0, width: 0",
        "x_offset: 40, y_offset: 20, height: 400, width: 500",
    )
    part = read_camera(written(tmp_path, text))
    assert_close(part.params, whole.cropped(40, 20, 500, 400).resized(250, 200).params)


def test_opencvs_own_file(tmp_path: Path) -> None:
    file = tmp_path / "opencv.yml"
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", np.array([[438.78, 0, 305.59], [0, 437.35, 243.74], [0, 0, 1]]))
    storage.write("distortion_coefficients", np.array([[-0.36, 0.12, 1e-3, 2e-3, 0.03]]).T)
    storage.release()
    older = re.sub(r"\A%YAML.*", "%YAML:1.0", file.read_text())  # as OpenCV 4 begins its files
    for name in (str(file), written(tmp_path, older)):
        camera = read_camera(name)
        assert camera.model == "FULL_OPENCV"
        assert camera.params.tolist() == pytest.approx(
            [*PINHOLE, -0.36, 0.12, 0.001, 0.002, 0.03, 0, 0, 0]
        )


@pytest.mark.parametrize(
    ("lens", "d", "model"),
    [
        ("radtan", [-0.28, 0.07, 1e-4, 2e-4], "OPENCV"),
        ("equidistant", [-0.01, 0.02, -0.003, 0.001], "OPENCV_FISHEYE"),
        ("none", [], "PINHOLE"),
        ("fov", [0.9], "FOV"),
    ],
)
def test_kalibr(tmp_path: Path, lens: str, d: list[float], model: str) -> None:
    camera = read_camera(written(tmp_path, KALIBR.format(lens=lens, d=d)))
    assert (camera.model, camera.width, camera.height) == (model, 752, 480)
    assert camera.params.tolist() == [461.6, 460.3, 363.2, 248.6, *d]


def test_a_chain_asks_which_camera(tmp_path: Path) -> None:
    two = KALIBR + KALIBR.replace("cam0", "cam1").replace("461.6", "500.0")
    file = written(tmp_path, two.format(lens="radtan", d=[0.1, 0, 0, 0]))
    with pytest.raises(InputError, match=r"2 cameras; say which .*cam0, cam1"):
        read_camera(file)
    assert float(read_camera(f"{file}:cam1").focal[0]) == 500
    with pytest.raises(InputError, match=r"no camera 'cam7'; it has cam0, cam1"):
        read_camera(f"{file}:cam7")
    with pytest.raises(InputError, match="one camera, unnamed"):
        read_camera(written(tmp_path, MESSAGE, "other.yaml") + ":cam0")


def test_euroc(tmp_path: Path) -> None:
    text = (
        "sensor_type: camera\nresolution: [752, 480]\ncamera_model: pinhole\n"
        "intrinsics: [458.654, 457.296, 367.215, 248.375] #fu, fv, cu, cv\n"
        "distortion_model: radial-tangential\n"
        "distortion_coefficients: [-0.283, 0.0739, 0.000193, 1.76e-05]\n"
    )
    camera = read_camera(written(tmp_path, text, "sensor.yaml"))
    assert camera.model == "OPENCV"
    assert camera.params.tolist()[:4] == [458.654, 457.296, 367.715, 248.875]


@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV_FISHEYE"])
def test_json_is_read_as_it_is_written(tmp_path: Path, model: str) -> None:
    camera = Camera(
        model, 640, 480, [500.0, 501.0, 320.0, 240.0, *[0.1] * 4][: 4 if model == "PINHOLE" else 8]
    )
    text = json.dumps(camera.to_json())
    for again in (read_camera(written(tmp_path, text, "c.json")), parse_camera(text, "camera")):
        assert (again.model, again.width, again.height) == (model, 640, 480)
        assert_close(again.params, camera.params)


def test_json_in_nerfstudios_words_counts_pixels_as_nerfstudio(tmp_path: Path) -> None:
    content = {"w": 640, "h": 480, "fl_x": 500.0, "cx": 320.0, "cy": 240.0, "k1": 0.1, "k3": 0.2}
    camera = read_camera(written(tmp_path, json.dumps(content), "t.json"))
    assert camera.model == "FULL_OPENCV"
    assert camera.params.tolist() == [500, 500, 320, 240, 0.1, 0, 0, 0, 0.2, 0, 0, 0]


MATRIX = {"camera_matrix": [[500, 0, 320], [0, 501, 240], [0, 0, 1]]}
SIZED = {"image_width": 640, "image_height": 480, **MATRIX}
DISTORTION_NAMES = (
    *("dist_coeff", "distCoeffs", "distortion", "dist_coefs", "distortion_vector", "DIST", "D"),
    *("Distortion_Coefficients", "distortionCoefficients", "dist_coeffs", "d"),
)


@pytest.mark.parametrize("key", DISTORTION_NAMES)
def test_distortion_is_read_by_whatever_tools_call_it(tmp_path: Path, key: str) -> None:
    content = {**SIZED, key: [[0.26, -0.95, 0, 0, 1.1]]}
    camera = read_camera(written(tmp_path, json.dumps(content), "c.json"))
    assert camera.model == "FULL_OPENCV"
    assert camera.params.tolist()[4:9] == [0.26, -0.95, 0, 0, 1.1]
    chain = KALIBR.format(lens="radtan", d=[0.1, 0.2, 0, 0]).replace("distortion_coeffs", key)
    assert read_camera(written(tmp_path, chain)).params.tolist()[4:6] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "zeros"),
        ({"bend": [0.1] * 5}, "not read: bend.*zeros"),
        ({"k1": 0.1, "k2": 0.2}, "not read: k1, k2"),
        ({"distortion_model": "plumb_bob"}, "zeros"),
        ({"distortion": {"k1": 0.1}}, "list of numbers"),
        ({"D": None}, "list of numbers"),
        ({"D": [0.1] * 5, "dist": [0.2] * 5}, "D and dist differ"),
        ({"K": [1] * 9}, "camera_matrix and K differ"),
        ({"D": [0.0] * 5, "camera_matrix": [0] * 9}, "is not calibrated"),
    ],
)
def test_no_distortion_is_left_out_without_a_word(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    file = written(tmp_path, json.dumps({**SIZED, **more}), "c.json")
    with pytest.raises(InputError, match=message) as refusal:
        read_camera(file)
    assert str(refusal.value).startswith(file)


def test_a_file_can_say_that_there_is_no_distortion(tmp_path: Path) -> None:
    for said in ({"distortion_model": "none"}, {"dist": [0, 0, 0, 0]}):
        file = written(tmp_path, json.dumps({**SIZED, **said}), "c.json")
        assert read_camera(file).model == "PINHOLE"


def test_distortion_beside_other_formats_is_refused(tmp_path: Path) -> None:
    own = {"model": "PINHOLE", "width": 640, "height": 480, "params": [500, 500, 320, 240]}
    for content in (own, {"w": 640, "h": 480, "fl_x": 500}):
        file = written(tmp_path, json.dumps({**content, "dist": [0.1] * 4}), "c.json")
        with pytest.raises(InputError, match="dist is not read here"):
            read_camera(file)


BAD: list[tuple[str, Any, str]] = [
    ("c.yaml", ros("plumb_bob", [0.1] * 4).replace("438.78, 0.", "438.78"), "8 numbers, not 9"),
    ("c.yaml", ros("plumb_bob", [0.1] * 8), "plumb_bob has 5"),
    ("c.yaml", ros("scaramuzza", [0.1] * 4), "'scaramuzza' is not supported"),
    ("c.yaml", ros("equidistant", [0.1] * 5), "not 5"),
    ("c.yaml", ros("plumb_bob", [0.1] * 5).replace("640", "-640"), "pixels"),
    ("c.yaml", ros("plumb_bob", [0.1] * 5).replace("438.78", "-438.78"), "positive"),
    ("c.yaml", ros("plumb_bob", [0.1] * 5).replace("438.78", ".nan"), "finite"),
    ("c.yaml", ros("plumb_bob", [0.1] * 5).replace("438.78", "much"), "finite"),
    ("c.yaml", KALIBR.format(lens="radtan", d=[0.1] * 4).replace("pinhole", "omni"), "omni"),
    ("c.yaml", KALIBR.format(lens="fov", d=[]), "fov"),
    ("c.yaml", "a: &a [1, 2]\nb: *a\n", "aliases"),
    ("c.yaml", "!!python/object/apply:os.getcwd []\n", "YAML that can be read"),
    ("c.yaml", "[" * 50_000, "YAML that can be read"),
    ("c.yaml", "image_width: [1, 2\n", "YAML that can be read"),
    ("c.yaml", "image_width: 640\x00\n", "YAML that can be read"),
    ("c.yaml", "a\x07: [1]\n", "YAML that can be read"),
    ("c.yaml", "", "no named values"),
    ("c.yaml", "name: value\n", "no camera that is known"),
    ("c.yaml", "a: 2001-99-99\n", "YAML that can be read"),
    ("c.yaml", "? [1, 2]\n: 3\n", "YAML that can be read|no camera"),
    ("c.yaml", "x" * 5_000_000, "larger"),
    ("c.json", "{", "JSON that can be read"),
    ("c.json", "[" * 100_000, "JSON that can be read"),
    ("c.json", '{"model": "PINHOLE", "width": 4, "height": 3, "params": [1, 2]}', "4 parameters"),
    (
        "c.json",
        '{"model": "EQUIRECTANGULAR", "width": 4, "height": 3, "params": [4, 3]}',
        "360|all dir",
    ),
    ("c.json", '{"model": "PINHOLE", "width": 4, "height": 3, "params": 5}', "list"),
    ("c.json", '{"model": "PINHOLE", "width": true, "height": 3, "params": [1, 1, 1, 1]}', "width"),
    ("c.json", '{"w": 640, "h": 480, "fl_x": 500, "camera_model": "OPENCV", "k4": 0.1}', "k4"),
    ("c.json", '{"w": 640, "h": 480, "fl_x": 1' + "0" * 400 + "}", "finite"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_what_is_no_camera_is_refused_with_its_file(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = written(tmp_path, text, name)
    with pytest.raises(InputError, match=message) as refusal:
        read_camera(file)
    assert str(refusal.value).startswith(file)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml: there is no such file"):
        read_camera(str(tmp_path / "gone.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match=r"folder\.yaml: cannot be read"):
        read_camera(str(tmp_path / "folder.yaml"))


def test_what_is_sent_over_a_network_names_no_file(tmp_path: Path) -> None:
    file = written(tmp_path, MESSAGE)
    with pytest.raises(InputError, match="camera: there is no"):
        parse_camera(file, "camera")
    with pytest.raises(InputError, match="are no camera"):
        parse_camera("{" * 20_000, "camera")


def test_a_hint_on_the_command_line_fits_the_numbers() -> None:
    with pytest.raises(InputError, match=r"Did you mean OPENCV_FISHEYE\?"):
        read_camera("OPENCV_FISH,640,480,500,500,320,240,0,0,0,0")
    with pytest.raises(InputError) as refusal:
        read_camera("OPENCV_FISHY,640,480,500,320,240")
    assert "mean OPENCV" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EUCM,640,480,500,500,320,240,1.5,1", "alpha must be from 0 to 1"),
        ("EUCM,640,480,500,500,320,240,-0.1,1", "alpha must be"),
        ("EUCM,640,480,500,500,320,240,0.5,0", "beta must be positive"),
        ("FOV,640,480,500,500,320,240,0", "omega must be between"),
        ("FOV,640,480,500,500,320,240,3.2", "omega must be between"),
        ("PINHOLE 640 480 500 500 320 240", "commas are missing; write PINHOLE,640,480,500,"),
    ],
)
def test_numbers_that_are_no_lens_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_camera(text)


def test_pixels_and_keys_are_asked_for() -> None:
    matrix = [[500, 0, 320], [0, 500, 240], [0, 0, 1]]
    with pytest.raises(InputError, match="pixels: must be"):
        # Without the types that only tests check.
        inspect.unwrap(Camera.from_matrix)(matrix, width=640, height=480, pixels="x")
    with pytest.raises(InputError, match="it has no height"):
        Camera.from_json({"model": "PINHOLE", "width": 640, "params": [1, 1, 1, 1]})
