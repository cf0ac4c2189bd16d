"""Cameras of OpenCV's numbers, and of whatever holds numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from relocal.camera import Camera
from relocal.errors import InputError

K = [[500.0, 0.0, 310.0], [0.0, 510.0, 230.0], [0.0, 0.0, 1.0]]
POINTS = np.random.default_rng(0).uniform([-1, -0.7, 2], [1, 0.7, 4], size=(50, 3))


@pytest.mark.parametrize(
    ("dist", "model"),
    [
        ([], "PINHOLE"),
        ([0, 0, 0, 0, 0], "PINHOLE"),
        ([-0.2, 0.05, 1e-3, 2e-3], "OPENCV"),
        ([-0.2, 0.05, 1e-3, 2e-3, 0.0], "OPENCV"),
        ([-0.2, 0.05, 1e-3, 2e-3, 0.03], "FULL_OPENCV"),
        ([-0.2, 0.05, 1e-3, 2e-3, 0.03, 0.1, 0.02, 0.01], "FULL_OPENCV"),
        ([-0.2, 0.05, 1e-3, 2e-3, 0.03, 0.1, 0.02, 0.01, 0, 0, 0, 0, 0, 0], "FULL_OPENCV"),
    ],
)
def test_opencvs_pixels_are_half_a_pixel_less(dist: list[float], model: str) -> None:
    camera = Camera.from_matrix(K, dist, width=640, height=480)
    assert camera.model == model
    theirs, _ = cv2.projectPoints(
        POINTS, np.zeros(3), np.zeros(3), np.array(K), np.array(dist, dtype=float)
    )
    found = camera.project(torch.from_numpy(POINTS))[0]
    np.testing.assert_allclose(found - 0.5, theirs[:, 0], atol=1e-9)


def test_opencvs_fisheye() -> None:
    dist = [0.1, -0.02, 0.01, -0.003]
    camera = Camera.from_matrix(K, dist, width=640, height=480, fisheye=True)
    theirs, _ = cv2.fisheye.projectPoints(
        POINTS[:, None], np.zeros(3), np.zeros(3), np.array(K), np.array(dist)
    )
    found = camera.project(torch.from_numpy(POINTS))[0]
    np.testing.assert_allclose(found - 0.5, theirs[:, 0], atol=1e-9)


KINDS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "float32": partial(np.array, dtype=np.float32),
    "tensor": torch.tensor,
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_come_as_they_like(kind: str) -> None:
    of, rows = KINDS[kind], [500.0, 510.0, 310.0, 230.0, -0.25, 0.5, 0.0, 0.0]
    camera = Camera("opencv", np.int64(640), 480.0, of(rows))
    assert (camera.model, camera.width, camera.height) == ("OPENCV", 640, 480)
    assert camera.params.tolist() == rows
    assert camera.params.dtype == (torch.float32 if kind == "tensor" else torch.float64)
    other = Camera.from_matrix(of(K), of([0.1, 0.0, 0.0, 0.0]), width=640, height=480)
    assert other.focal.tolist() == [500, 510]
    assert other.principal_point.tolist() == [310.5, 230.5]


def test_the_matrix_may_count_pixels_as_colmap() -> None:
    camera = Camera.from_matrix(K, width=640, height=480, pixels="colmap")
    np.testing.assert_array_equal(camera.matrix(), K)


@pytest.mark.parametrize(
    ("matrix", "dist", "fisheye", "message"),
    [
        (K, [0.1] * 3, False, "not 3"),
        (K, [0.1] * 5, True, "not 5"),
        (K, [0] * 8 + [0.1] + [0] * 3, False, "thin prism"),
        (K, [float("nan")] * 4, False, "finite"),
        (K[:2], [], False, "nine numbers"),
        ([[500, 1.0, 310], *K[1:]], [], False, "skew"),
        (np.diag([-500.0, 510, 1]).tolist(), [], False, "positive"),
        ([["a", 0, 0], *K[1:]], [], False, "no numbers"),
        ([1.0, 2.0], [], False, "nine numbers"),
    ],
)
def test_what_is_no_such_camera_is_refused(
    matrix: list[Any], dist: list[float], fisheye: bool, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Camera.from_matrix(matrix, dist, width=640, height=480, fisheye=fisheye)


@pytest.mark.parametrize("width", [640.5, float("nan"), 0, -3])
def test_sizes_are_whole(width: float) -> None:
    with pytest.raises(InputError, match="pixels"):
        Camera("SIMPLE_PINHOLE", width, 480, (500, 320, 240))


def test_params_that_are_no_numbers_are_refused() -> None:
    for params in (["a", 1, 2], [[1, 2], [3]]):
        with pytest.raises(InputError, match="no numbers"):
            Camera("SIMPLE_PINHOLE", 640, 480, params)


def test_nine_numbers_are_a_matrix_row_by_row() -> None:
    rows = [[500.0, 0.0, 320.0], [0.0, 510.0, 240.0], [0.0, 0.0, 1.0]]
    flat = [value for row in rows for value in row]
    one, other = (Camera.from_matrix(k, width=640, height=480) for k in (rows, flat))
    assert one.params.tolist() == other.params.tolist() == [500.0, 510.0, 320.5, 240.5]
