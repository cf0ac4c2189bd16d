"""Laws of wide lenses: against OpenCV and COLMAP, up to the side and the fold, and their slopes."""

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from relocal.camera import CAMERA_MODELS, Camera

# Calibrations of the kind that these lenses have: an action camera, a depth camera's rational lens,
# a photogrammetry program's k3, and COLMAP's other wide models.
WIDE = {
    "gopro": Camera("OPENCV_FISHEYE", 1000, 750, (430, 432, 503, 371, 0.04, 0.006, -0.01, 0.002)),
    "fisheye": Camera("FISHEYE", 1000, 750, (420, 420, 500, 375)),
    "radial": Camera("RADIAL_FISHEYE", 1000, 750, (400, 500, 375, 0.05, -0.01)),
    "prism": Camera(
        "THIN_PRISM_FISHEYE",
        *(1000, 750),
        (450, 455, 497, 372, -0.02, 0.01, 3e-4, -4e-4, -0.004, 0.0009, 5e-4, -3e-4),
    ),
    "rational": Camera(
        "FULL_OPENCV",
        *(1000, 750),
        (790, 790, 507, 380, 0.52, -0.14, 2e-4, -3e-4, -0.005, 0.86, 0.03, -0.02),
    ),
    "k3": Camera(
        "FULL_OPENCV",
        *(1000, 750),
        (650, 650, 490, 385, -0.28, 0.1, 1e-3, -5e-4, -0.012, 0, 0, 0),
    ),
    "fov": Camera("FOV", 1000, 750, (400, 402, 500, 375, 0.93)),
    "division": Camera("DIVISION", 1000, 750, (500, 505, 500, 375, -0.3)),
    "eucm": Camera("EUCM", 1000, 750, (380, 380, 500, 375, 0.62, 1.1)),
}
every_lens = pytest.mark.parametrize("camera", WIDE.values(), ids=WIDE)


def pixel_grid(camera: Camera, n: int = 21) -> Tensor:
    """Pixels all over an image, its corners included."""
    x, y = (torch.linspace(0, size, n).double() for size in (camera.width, camera.height))
    return torch.cartesian_prod(x, y)


def theirs(camera: Camera) -> pycolmap.Camera:
    return pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=camera.params.numpy()
    )


@every_lens
def test_pixels_come_back_up_to_the_side(camera: Camera) -> None:
    pixels = pixel_grid(camera)
    rays = camera.unproject(pixels)
    found = rays.isfinite().all(-1)
    again, visible = camera.project(rays[found])
    assert_close(again, pixels[found], rtol=0, atol=1e-8)
    assert visible[((again > 0) & (again < torch.tensor([1000, 750]))).all(-1)].all()
    assert found.float().mean() > 0.9
    assert rays[found].norm(dim=-1).max() > 1.5  # this is wide: more than 48° from the axis


@every_lens
@settings(max_examples=50)
@given(angle=st.floats(0, 1.5), turn=st.floats(0, 6.3), depth=st.floats(0.01, 100))
def test_rays_come_back_up_to_the_fold(
    camera: Camera, angle: float, turn: float, depth: float
) -> None:
    # The fold is that of the radial part; tangential terms move it by a few hundredths.
    aside = min(np.tan(angle), 0.95 * float(camera.fold_radius()))
    ray = torch.tensor([aside * np.cos(turn), aside * np.sin(turn), 1.0], dtype=torch.float64)
    pixel, _ = camera.project(depth * ray)
    assert_close(camera.unproject(pixel), ray, rtol=1e-7, atol=1e-9)


@every_lens
def test_colmap_sees_the_same(camera: Camera) -> None:
    aside = torch.linspace(-1.1, 1.1, 15).double()
    points = torch.cartesian_prod(aside, aside, torch.ones(1).double()) * 2.5
    inside = points[:, :2].norm(dim=1) < 2.4 * camera.fold_radius()
    points = points[inside]
    expected = theirs(camera).img_from_cam(points.numpy())
    assert expected is not None
    np.testing.assert_allclose(camera.project(points)[0], expected, atol=1e-8)


@pytest.mark.parametrize("name", ["rational", "k3"])
def test_opencv_projects_the_same(name: str) -> None:
    camera = WIDE[name]
    points = camera.unproject(pixel_grid(camera)) * 3
    points = points[points.isfinite().all(-1)]
    values = camera.named_params()
    dist = [values[k] for k in ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")]
    matrix = camera.matrix().numpy()
    expected, _ = cv2.projectPoints(
        points.numpy(), np.zeros(3), np.zeros(3), matrix, np.array(dist)
    )
    np.testing.assert_allclose(camera.project(points)[0], expected[:, 0], atol=1e-9)


def test_opencvs_fisheye_sees_the_same_both_ways() -> None:
    camera = WIDE["gopro"]
    matrix, dist = camera.matrix().numpy(), camera.params[4:].numpy()
    pixels = pixel_grid(camera)
    rays = camera.unproject(pixels)
    again, _ = cv2.fisheye.projectPoints(
        rays.numpy()[:, None], np.zeros(3), np.zeros(3), matrix, dist
    )
    np.testing.assert_allclose(again[:, 0], pixels, atol=1e-8)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-14)
    undone = cv2.fisheye.undistortPoints(pixels.numpy()[:, None], matrix, dist, criteria=criteria)
    inner = rays[:, :2].norm(dim=1) < 2
    np.testing.assert_allclose(undone[inner.numpy(), 0], rays[inner, :2], atol=1e-6)


def test_a_fisheye_sees_beyond_its_side_but_has_no_ray_there() -> None:
    camera = Camera("FISHEYE", 800, 800, (200, 200, 400, 400))
    angles = torch.tensor([0.0, 1.0, 1.5, 1.57, 1.58, 1.8, 2.0]).double()
    pixels = torch.stack([400 + 200 * angles, torch.full_like(angles, 400)], dim=-1)
    rays = camera.unproject(pixels)
    assert rays.isfinite().all(-1).tolist() == [True] * 4 + [False] * 3
    assert_close(rays[:4, 0], angles[:4].tan(), rtol=1e-9, atol=1e-12)
    behind = torch.stack([angles.sin(), torch.zeros_like(angles), angles.cos()], dim=-1)
    _, visible = camera.project(behind)
    assert visible.tolist() == [True] * 4 + [False] * 3


FOLDS = {
    "k3": (Camera("FULL_OPENCV", 10, 10, (1, 1, 5, 5, 0, 0, 0, 0, -0.1, 0, 0, 0)), "perspective"),
    "pole": (
        Camera("FULL_OPENCV", 10, 10, (1, 1, 5, 5, 0.3, 0, 0, 0, 0, -0.2, 0, 0)),
        "perspective",
    ),
    "rational": (
        Camera("FULL_OPENCV", 10, 10, (1, 1, 5, 5, 0.1, 0, 0, 0, 0, 0.2, 0.3, 0)),
        "perspective",
    ),
    "theta": (Camera("OPENCV_FISHEYE", 10, 10, (1, 1, 5, 5, 0.1, 0.1, -0.2, 0.01)), "angle"),
    "fisheye": (Camera("SIMPLE_RADIAL_FISHEYE", 10, 10, (1, 5, 5, -0.3)), "angle"),
}


@pytest.mark.parametrize("name", FOLDS)
def test_lenses_fold_where_a_fine_walk_outwards_turns_back(name: str) -> None:
    camera, _ = FOLDS[name]
    angles = torch.linspace(0, 1.55, 200_001, dtype=torch.float64)
    rays = torch.stack([angles.tan(), torch.zeros_like(angles), torch.ones_like(angles)], dim=-1)
    out = camera.project(rays)[0][:, 0].diff()
    turned = int((~(out > 0)).nonzero()[0])
    assert float(camera.fold_radius()) == pytest.approx(float(angles[turned].tan()), rel=1e-3)
    wide = Camera(
        camera.model, 10**6, 10**6, camera.params * torch.tensor([1.0] * len(camera.params))
    )
    _, visible = wide.cropped(-500_000, -500_000, 10**6, 10**6).project(rays)
    assert visible[: turned - 100].all()
    assert not visible[turned + 100 :].any()


def test_a_quintic_that_never_folds_is_told_from_one_that_does() -> None:
    rises = Camera("OPENCV_FISHEYE", 10, 10, (1, 1, 5, 5, 0.1, 0.1, 0.1, 0.1))
    assert float(rises.fold_radius()) == float("inf")
    batch = Camera("OPENCV_FISHEYE", 10, 10, torch.stack([rises.params, FOLDS["theta"][0].params]))
    assert batch.fold_radius().isfinite().tolist() == [False, True]


@pytest.mark.parametrize("pixel", [[503.0, 371.0], [503.1, 371.0], [30.0, 700.0], [700.0, 200.0]])
@pytest.mark.parametrize("name", WIDE)
def test_slopes_are_those_of_small_steps(name: str, pixel: list[float]) -> None:
    camera = WIDE[name]

    def rays_of(params: Tensor, at: Tensor) -> Tensor:
        return Camera(camera.model, 1000, 750, params).unproject(at)[:2]

    def pixels_of(params: Tensor, ray: Tensor) -> Tensor:
        return Camera(camera.model, 1000, 750, params).project(ray)[0]

    at = torch.tensor(pixel, dtype=torch.float64)
    ray = camera.unproject(at)
    assert ray.isfinite().all()
    for function, value in ((rays_of, at), (pixels_of, ray)):
        inputs = [camera.params.clone().requires_grad_(), value.clone().requires_grad_()]
        assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-4, rtol=1e-4)


@every_lens
def test_single_precision_is_near(camera: Camera) -> None:
    pixels = pixel_grid(camera)
    rays = camera.unproject(pixels)
    near = rays[:, :2].norm(dim=1) < 4
    single = camera.to(torch.float32).unproject(pixels.float())
    assert single.dtype == torch.float32
    assert_close(single[near], rays[near].float(), rtol=1e-4, atol=1e-5)
    again = camera.to(torch.float32).project(rays[near].float())[0]
    assert_close(again, pixels[near].float(), rtol=0, atol=2e-2)


@every_lens
def test_batches_are_rows(camera: Camera) -> None:
    params = torch.stack([camera.params, camera.params * 1.01])
    both = Camera(camera.model, 1000, 750, params)
    pixels = pixel_grid(camera, 5)
    rays = both[:, None].unproject(pixels)
    seen, _ = both[:, None].project(rays)
    for i in range(2):
        assert_close(both[i].unproject(pixels), rays[i], equal_nan=True)
        assert_close(both[i].project(rays[i])[0], seen[i], equal_nan=True)


@every_lens
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_lens_sees_the_turned_picture(camera: Camera, turns: int) -> None:
    pixels = pixel_grid(camera)
    rays = camera.unproject(pixels)
    rays, pixels = rays[rays.isfinite().all(-1)], pixels[rays.isfinite().all(-1)]
    x, y = rays[:, :2].unbind(1)
    u, v = pixels.unbind(1)
    width, height = camera.width, camera.height
    for _ in range(turns):
        x, y, u, v, width, height = -y, x, height - v, u, height, width
    turned = camera.turned(turns)
    assert (turned.width, turned.height) == (width, height)
    found = turned.project(torch.stack([x, y, torch.ones_like(x)], dim=-1))[0]
    assert_close(found, torch.stack([u, v], dim=-1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("model", CAMERA_MODELS)
def test_uneven_resize_has_two_focal_lengths(model: str) -> None:
    values = {"omega": 0.8, "alpha": 0.5, "beta": 1.0, "k": -0.1, "cx": 320.0, "cy": 240.0}
    params = [values.get(n, 400.0 if n[0] == "f" else 0.01) for n in CAMERA_MODELS[model]]
    camera = Camera(model, 640, 480, params)
    wide = camera.resized(1280, 480)
    rays = camera.unproject(pixel_grid(camera, 5))
    assert_close(wide.project(rays)[0], camera.project(rays)[0] * torch.tensor([2.0, 1.0]))
