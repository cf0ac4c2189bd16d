"""Laws of cameras; pycolmap gives the second opinion."""

import json

import hypothesis
import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from relocal.camera import CAMERA_MODELS, COLMAP_NUMBERS, Camera
from relocal.errors import InputError
from relocal.images import resample, sampling_grid

# Intrinsics that COLMAP found for two public captures: a phone's video and a drone's.
FOX = [1375.52, 1374.49, 554.558, 965.268, 0.0578421, -0.0805099, -0.000980296, 0.00015575]
EGYPT = [419.02, 419.05, 240.356, 132.711, 0.08796, -0.18122, 0.000887, -0.000179]


def given(**strategies):
    """Hypothesis's ``given`` with few examples, because each of them tries a grid of pixels."""
    few = hypothesis.settings(max_examples=25)
    return lambda test: few(hypothesis.given(**strategies)(test))


def camera_of(model: str, width: int, height: int, params: list[float]) -> Camera:
    return Camera(model, width, height, torch.tensor(params, dtype=torch.float64))


FOX_CAMERA = camera_of("OPENCV", 1080, 1920, FOX)
EGYPT_CAMERA = camera_of("OPENCV", 480, 270, EGYPT)
real_cameras = pytest.mark.parametrize("camera", [FOX_CAMERA, EGYPT_CAMERA], ids=["fox", "egypt"])


@st.composite
def cameras(draw: st.DrawFn, model: str | None = None) -> Camera:
    """Cameras of photos, up to 80° from corner to corner, with the distortion of phones."""
    model = model or draw(st.sampled_from(sorted(CAMERA_MODELS)))
    width, height = draw(st.integers(64, 4000)), draw(st.integers(64, 4000))
    longest = max(width, height)
    focal, bend = (0.9 * longest, 1.5 * longest), (-0.002, 0.002)
    ranges = {
        **dict.fromkeys(("f", "fx", "fy"), focal),
        **dict.fromkeys(("p1", "p2"), bend),
        "k1": (-0.12, 0.12),
        **dict.fromkeys(("k2", "k3", "k4", "k5", "k6"), (-0.02, 0.02)),
        **dict.fromkeys(("sx1", "sy1"), bend),
        "omega": (0.1, 1.2),
        "k": (-0.2, 0.1),
        "alpha": (0.0, 0.8),
        "beta": (0.5, 1.5),
        "cx": (0.45 * width, 0.55 * width),
        "cy": (0.45 * height, 0.55 * height),
    }
    params = [draw(st.floats(*ranges[name])) for name in CAMERA_MODELS[model]]
    return camera_of(model, width, height, params)


def pixel_grid(camera: Camera, n: int = 9) -> Tensor:
    """Pixels all over an image, its corners included."""
    x, y = (torch.linspace(0, size, n).double() for size in (camera.width, camera.height))
    return torch.cartesian_prod(x, y)


def colmap_of(camera: Camera) -> pycolmap.Camera:
    return pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=camera.params.numpy()
    )


def colmap_rays(camera: Camera, pixels: Tensor) -> np.ndarray:
    rays = colmap_of(camera).cam_from_img(pixels.numpy())
    assert rays is not None
    return rays


every_model = pytest.mark.parametrize("model", CAMERA_MODELS)


# Projection.


@every_model
@given(data=st.data(), depth=st.floats(0.01, 1e4))
def test_unproject_then_project_is_the_same_pixel(
    model: str, data: st.DataObject, depth: float
) -> None:
    camera = data.draw(cameras(model))
    pixels = pixel_grid(camera)
    rays = camera.unproject(pixels)
    assert (rays[..., 2] == 1).all()
    again, _ = camera.project(depth * rays)
    assert_close(again, pixels, rtol=0, atol=1e-8)


@every_model
@given(data=st.data(), depth=st.floats(0.01, 1e4))
def test_project_then_unproject_is_the_same_ray(
    model: str, data: st.DataObject, depth: float
) -> None:
    camera = data.draw(cameras(model))
    aside = torch.linspace(-0.5, 0.5, 7, dtype=torch.float64)
    rays = torch.cartesian_prod(aside, aside, torch.ones(1, dtype=torch.float64))
    pixels, _ = camera.project(depth * rays)
    assert_close(camera.unproject(pixels), rays, rtol=0, atol=1e-10)


@every_model
@given(data=st.data())
def test_colmap_agrees_both_ways(model: str, data: st.DataObject) -> None:
    camera = data.draw(cameras(model))
    pixels = pixel_grid(camera)
    rays = camera.unproject(pixels).numpy()
    np.testing.assert_allclose(rays[:, :2], colmap_rays(camera, pixels), rtol=0, atol=1e-9)
    points = 3 * rays + [[0.1, -0.1, 0.2]]
    theirs = colmap_of(camera).img_from_cam(points)
    assert theirs is not None
    np.testing.assert_allclose(camera.project(torch.from_numpy(points))[0], theirs, atol=1e-8)


@given(camera=cameras())
def test_matrix_is_colmaps_and_projects_what_is_not_distorted(camera: Camera) -> None:
    np.testing.assert_array_equal(camera.matrix(), colmap_of(camera).calibration_matrix())
    pinhole = camera.undistorted()
    rays = pinhole.unproject(pixel_grid(camera))
    homogeneous = torch.cat([pinhole.project(rays)[0], torch.ones_like(rays[:, 2:])], dim=-1)
    assert_close(homogeneous, rays @ camera.matrix().mT)


@real_cameras
def test_real_images_unproject_everywhere(camera: Camera) -> None:
    pixels = pixel_grid(camera, 60)
    rays = camera.unproject(pixels)
    again, visible = camera.project(rays)
    assert_close(again, pixels, rtol=0, atol=1e-9)
    inner = ((pixels > 0) & (pixels < torch.tensor([camera.width, camera.height]))).all(-1)
    assert visible[inner].all()
    single = camera.to(torch.float32)
    assert_close(single.unproject(pixels.float()), rays.float(), rtol=0, atol=1e-5)


@real_cameras
def test_pixels_that_no_ray_reaches_are_nan_as_in_colmap(camera: Camera) -> None:
    size = torch.tensor([camera.width, camera.height])
    pixels = (pixel_grid(camera, 21) - size / 2) * 5 + size / 2
    ours, theirs = camera.unproject(pixels), colmap_rays(camera, pixels)
    found = ours.isfinite().all(-1).numpy()
    assert 20 < found.sum() < len(found) / 2
    np.testing.assert_allclose(ours[found, :2], theirs[found], atol=1e-8)
    assert_close(camera.project(ours[found])[0], pixels[found], rtol=0, atol=1e-8)
    assert camera.unproject(torch.full((2, 2), torch.nan).double())[:, :2].isnan().all()


def test_centre_of_the_first_pixel_is_half_half() -> None:
    # 4 x 2 pixels, the optical axis through the middle: half of a pixel's size is 0.5 / f.
    camera = Camera.pinhole(4, 2, 10.0, 10.0, 2.0, 1.0)
    ray = camera.unproject(torch.tensor([0.5, 0.5]).double())
    assert_close(ray, torch.tensor([-0.15, -0.05, 1.0]).double())
    assert_close(camera.project(torch.tensor([0.0, 0.0, 5.0]).double())[0].tolist(), [2.0, 1.0])


def test_points_behind_or_outside_are_marked() -> None:
    camera = Camera.pinhole(4, 2, 10.0, 10.0, 2.0, 1.0)
    corners = [[-0.2, -0.1, 1.0], [0.2, 0.1, 1.0], [0.0, 0.0, 9.0]]
    outside = [[0.201, 0.0, 1.0], [-0.201, 0.0, 1.0], [0.0, 0.101, 1.0], [0.0, -0.101, 1.0]]
    behind = [[0.0, 0.0, -1.0], [0.01, 0.01, -1.0], [0.0, 0.0, 0.0]]
    points = torch.tensor([*corners, *outside, *behind], dtype=torch.float64)
    pixels, visible = camera.project(points)
    assert visible.tolist() == [True] * 3 + [False] * 7
    assert pixels.isfinite().all()


@real_cameras
def test_points_beyond_the_fold_of_the_distortion_are_outside(camera: Camera) -> None:
    # Far aside the polynomial turns back, and would draw these points into the image.
    sideways = torch.linspace(0, 4, 400, dtype=torch.float64)
    points = torch.stack([sideways, 0.1 * sideways, torch.ones_like(sideways)], dim=-1)
    pixels, visible = camera.project(points)
    in_frame = ((pixels >= 0) & (pixels <= torch.tensor([camera.width, camera.height]))).all(-1)
    assert (in_frame & (sideways > 1)).any()
    assert not (visible & (sideways > 1)).any()
    assert visible[: int(visible.sum())].all()  # nothing but the points nearest to the axis


@pytest.mark.parametrize(
    ("k1", "k2", "folds"), [(0.01, 0.01, False), (-0.1, 0.02, False), (0.01, -0.05, True)]
)
def test_distortion_that_rises_everywhere_never_folds(k1: float, k2: float, folds: bool) -> None:
    camera = camera_of("RADIAL", 1000, 1000, [100.0, 500.0, 500.0, k1, k2])
    aside = torch.tensor([[1.5, 1.5, 1.0], [2.0, 0.0, 1.0], [1.9, 1.9, 1.0]]).double()
    pixels, visible = camera.project(aside)
    assert ((pixels > 0) & (pixels < 1000)).all()
    assert (visible != folds).all()


# Batches.


def test_batched_cameras_broadcast_over_points() -> None:
    params = torch.tensor([FOX, EGYPT], dtype=torch.float64)
    both = Camera("OPENCV", 480, 270, params)
    pixels = pixel_grid(EGYPT_CAMERA)
    rays = both[:, None].unproject(pixels)
    seen, visible = both[:, None].project(rays)
    assert rays.shape == (2, len(pixels), 3)
    assert visible.shape == (2, len(pixels))
    assert_close(seen, pixels.expand(2, -1, -1), rtol=0, atol=1e-9)
    for i in range(2):
        assert_close(both[i].unproject(pixels), rays[i])
        assert_close(both[i].project(rays[i])[0], seen[i])
    apart = both[:, None].project(rays[0])[0]
    assert_close(apart, torch.stack([both[i].project(rays[0])[0] for i in range(2)]))


@real_cameras
def test_no_pixel_is_fine(camera: Camera) -> None:
    assert camera.unproject(torch.zeros(0, 2).double()).shape == (0, 3)
    assert camera.project(torch.zeros(0, 3).double())[1].shape == (0,)


# Other views of the same camera.


@given(camera=cameras(), width=st.integers(20, 3000), height=st.integers(20, 3000))
def test_resized_camera_sees_the_scaled_picture(camera: Camera, width: int, height: int) -> None:
    small = camera.resized(width, height)
    assert (small.width, small.height) == (width, height)
    rays = camera.unproject(pixel_grid(camera))
    scale = torch.tensor([width, height]).double() / torch.tensor([camera.width, camera.height])
    assert_close(small.project(rays)[0], scale * camera.project(rays)[0], rtol=0, atol=1e-8)


@given(camera=cameras(), factor=st.sampled_from([0.5, 2.0]))
def test_resizing_evenly_keeps_the_model(camera: Camera, factor: float) -> None:
    camera = camera.resized(camera.width // 2 * 2, camera.height // 2 * 2)
    resized = camera.resized(int(camera.width * factor), int(camera.height * factor))
    assert resized.model == camera.model
    assert_close(resized.resized(camera.width, camera.height).params, camera.params)


@given(camera=cameras(), left=st.integers(-50, 50), top=st.integers(-50, 50))
def test_cropped_camera_sees_the_shifted_picture(camera: Camera, left: int, top: int) -> None:
    window = camera.cropped(left, top, 40, 30)
    assert (window.model, window.width, window.height) == (camera.model, 40, 30)
    rays = camera.unproject(pixel_grid(camera))
    shift = torch.tensor([left, top])
    assert_close(window.project(rays)[0], camera.project(rays)[0] - shift, rtol=0, atol=1e-9)


@pytest.mark.parametrize("top", [7, torch.tensor([4, 5, 6])])
@pytest.mark.parametrize("left", [9, torch.tensor([1, 2, 3])])
def test_one_camera_is_cropped_to_many_windows(left: Tensor | int, top: Tensor | int) -> None:
    windows = FOX_CAMERA.cropped(left, top, 100, 100)
    shift = torch.stack(torch.broadcast_tensors(torch.as_tensor(left), torch.as_tensor(top)), -1)
    assert_close(windows.principal_point, FOX_CAMERA.principal_point - shift)
    assert_close(windows.focal, FOX_CAMERA.focal.expand_as(windows.focal))


@given(camera=cameras())
def test_undistorted_camera_keeps_what_is_not_distortion(camera: Camera) -> None:
    pinhole = camera.undistorted()
    assert (pinhole.model, pinhole.has_distortion) == ("PINHOLE", False)
    assert (pinhole.width, pinhole.height) == (camera.width, camera.height)
    assert_close(pinhole.focal, camera.focal)
    assert_close(pinhole.principal_point, camera.principal_point)


def test_distortion_is_noticed() -> None:
    assert FOX_CAMERA.has_distortion
    assert not camera_of("OPENCV", 480, 270, [*EGYPT[:4], 0, 0, 0, 0]).has_distortion
    for coefficient in torch.eye(8, dtype=torch.float64)[4:]:
        params = torch.tensor([*EGYPT[:4], 0, 0, 0, 0], dtype=torch.float64) + 1e-9 * coefficient
        assert Camera("OPENCV", 480, 270, params).has_distortion


def test_centred_camera_looks_through_the_middle() -> None:
    centred = EGYPT_CAMERA.centred()
    middle = torch.tensor([[240.0, 135.0]]).double()
    assert_close(centred.unproject(middle), torch.tensor([[0.0, 0.0, 1.0]]).double())
    assert centred.focal.tolist() == pytest.approx([419.035] * 2, abs=1e-3)


@given(camera=cameras())
def test_json_round_trip(camera: Camera) -> None:
    again = Camera.from_json(json.loads(json.dumps(camera.to_json())))
    assert (again.model, again.width, again.height) == (camera.model, camera.width, camera.height)
    assert_close(again.params, camera.params, rtol=0, atol=0)


# Refusals.


@pytest.mark.parametrize(
    ("name", "count", "near"),
    [
        ("PINHOL", 4, "PINHOLE"),
        ("PINHOL", 3, "SIMPLE_PINHOLE"),
        ("OPENCV_FISHEY", 8, "OPENCV_FISHEYE"),
        ("OPEN_CV", 8, "OPENCV"),
    ],
)
def test_a_hint_names_models_of_as_many_parameters(name: str, count: int, near: str) -> None:
    with pytest.raises(InputError, match=rf"no '{name}'. Did you mean (.*)\? Known") as refusal:
        camera_of(name, 640, 480, [500.0] * count)
    hint = str(refusal.value).split("mean ")[1].split("?")[0]
    assert near in hint.split(" or ")
    assert {len(CAMERA_MODELS[model]) for model in hint.split(" or ")} == {count}
    assert all(model in str(refusal.value) for model in CAMERA_MODELS)


@pytest.mark.parametrize(
    ("name", "count"),
    [("RAD_TAN_THIN_PRISM_FISHEYE", 16), ("EQUIRECTANGULAR", 2), ("OPENCV_FISHEYES", 5)],
)
def test_what_is_not_supported_is_refused_without_a_wrong_hint(name: str, count: int) -> None:
    with pytest.raises(InputError, match=name) as refusal:
        camera_of(name, 640, 480, [500.0] * count)
    assert "Did you mean" not in str(refusal.value)


def test_models_are_numbered_as_in_colmap() -> None:
    for number, name in enumerate(COLMAP_NUMBERS):
        assert pycolmap.CameraModelId(number).name == name
        if name in CAMERA_MODELS:
            theirs = pycolmap.Camera.create_from_model_name(1, name, 500.0, 640, 480)
            assert len(theirs.params) == len(CAMERA_MODELS[name])
    with pytest.raises(ValueError, match="Check failed"):
        pycolmap.Camera.create_from_model_id(
            1, pycolmap.CameraModelId(len(COLMAP_NUMBERS)), 1.0, 1, 1
        )
    assert set(CAMERA_MODELS) <= set(COLMAP_NUMBERS)


@every_model
def test_wrong_number_of_parameters_is_refused(model: str) -> None:
    names = CAMERA_MODELS[model]
    for count in (0, len(names) - 1, len(names) + 1):
        with pytest.raises(
            InputError, match=f"{model} has {len(names)} .*{names[-1]}.* not {count}"
        ):
            camera_of(model, 640, 480, [1.0] * count)


@pytest.mark.parametrize("size", [(0, 480), (640, 0), (-1, 480)])
def test_empty_image_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"{size[0]} x {size[1]}"):
        Camera.pinhole(*size, 500.0, 500.0, 320.0, 240.0)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_impossible_parameters_are_refused(index: int, value: float) -> None:
    params = [500.0, 500.0, 320.0, 240.0]
    params[index] = value
    if index >= 2 and value <= 0:
        assert Camera.pinhole(640, 480, *params)  # an axis beside the image is fine
        return
    for batch in (params, [[500.0, 500.0, 320.0, 240.0], params]):
        with pytest.raises(InputError, match=rf"PINHOLE .*{value:g}"):
            Camera("PINHOLE", 640, 480, batch)


def test_what_the_lens_does_not_show_repeats_its_border() -> None:
    camera = camera_of("OPENCV", 640, 480, [300, 300, 320, 240, -0.35, 0, 0, 0])
    ramp = torch.linspace(0, 255, 640).to(torch.uint8).expand(3, 480, 640)
    target = Camera.pinhole(320, 240, 100.0, 100.0, 160.0, 120.0)
    row = resample(ramp, camera, target)[0, 120].int()
    assert (row.diff() >= 0).all()  # beyond the fold the polynomial would run back inwards
    _, shown = sampling_grid(camera, target)
    assert 0.2 < float(shown.float().mean()) < 0.9


@pytest.mark.parametrize("focal", [1e-300, 1.0])
def test_focal_length_of_no_photo_is_refused(focal: float) -> None:
    with pytest.raises(InputError, match="--camera: a focal length of"):
        Camera.pinhole(160, 120, focal, 100.0, 80.0, 60.0).checked("--camera")
