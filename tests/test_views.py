"""Views: whatever is drawn from a photo, the image agrees with the pose and camera returned.

The oracle is a world painted at infinity: the colour of a pixel is a smooth function of the
direction that it looks in, so what any camera there sees is known without warping anything.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Generator, Tensor

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.pose import Pose
from relocal.training import ViewConfig
from relocal.training.views import augmented_view, central_view, input_camera

CAMERA = Camera.pinhole(120, 90, 100.0, 104.0, 61.3, 44.1)
PLAIN = ViewConfig(input_px=72, margin=90 / 72, turn_deg=10.0, jitter=0.0)
COUNT = 6


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def some_poses(count: int = COUNT) -> Pose:
    quaternion = torch.randn(count, 4, generator=seeded(1), dtype=torch.float64)
    position = torch.randn(count, 3, generator=seeded(2), dtype=torch.float64)
    return Pose.from_quaternion(position, quaternion).to(torch.float32)


def world_from_cam(pose: Pose) -> np.ndarray:
    return Rotation.from_quat(pose.quaternion.double().numpy()[:, [1, 2, 3, 0]]).as_matrix()


def rays(camera: Camera) -> np.ndarray:
    """Rays (B, h, w, 3) of pixel centres, from the intrinsics alone."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    fx, fy, cx, cy = (v[:, None, None] for v in np.atleast_2d(camera.params.double().numpy()).T)
    return np.stack(np.broadcast_arrays((x - cx) / fx, (y - cy) / fy, 1.0), axis=-1)


def seen_by(camera: Camera, rotations: np.ndarray) -> np.ndarray:
    """What cameras (B, 3, h, w) with these world_from_cam rotations see of the painted world."""
    directions = np.einsum("bij,bhwj->bhwi", rotations, rays(camera))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    colours = 128 + 100 * np.sin(5 * directions + np.array([0.3, 1.1, 2.0]))
    return colours.transpose(0, 3, 1, 2)


def photos(poses: Pose) -> Tensor:
    return torch.from_numpy(seen_by(CAMERA, world_from_cam(poses)).round()).to(torch.uint8)


def draw(config: ViewConfig, seed: int = 0, images: Tensor | None = None) -> Any:
    poses = some_poses()
    images = photos(poses) if images is None else images
    window = input_camera(CAMERA, config)
    return augmented_view(images, poses, CAMERA, window, config, seeded(seed))


def inside_photo(before: Pose, after: Pose, cameras: Camera) -> np.ndarray:
    """Which pixels (B, h, w) of the views lie inside the photos."""
    old_from_new = world_from_cam(before).transpose(0, 2, 1) @ world_from_cam(after)
    seen = np.einsum("bij,bhwj->bhwi", old_from_new, rays(cameras))
    fx, fy, cx, cy = CAMERA.params.numpy()
    x, y = (seen[..., k] / seen[..., 2] for k in (0, 1))
    x, y = fx * x + cx, fy * y + cy
    return (x > 1) & (x < CAMERA.width - 1) & (y > 1) & (y < CAMERA.height - 1)


@pytest.mark.parametrize("shape", ["full", "square"])
@pytest.mark.parametrize("augment", ["virtual", "crop", "none"])
def test_view_is_what_the_returned_camera_sees_at_the_returned_pose(
    augment: Any, shape: Any
) -> None:
    for seed in range(3):
        view, poses, cameras = draw(replace(PLAIN, augment=augment, shape=shape), seed)
        truth = seen_by(cameras, world_from_cam(poses))
        inside = inside_photo(some_poses(), poses, cameras)
        assert inside.mean() > 0.7
        error = np.abs(view.numpy() - truth).max(1)
        assert error[inside].max() < 1.5  # half a pixel off would be 3 levels


def test_law_above_sees_a_label_that_does_not_turn() -> None:
    view, _, cameras = draw(PLAIN)
    wrong = np.abs(view.numpy() - seen_by(cameras, world_from_cam(some_poses())))
    assert np.median(wrong.max((1, 2, 3))) > 30


def test_virtual_camera_turns_about_its_centre_within_the_limit() -> None:
    before, components = some_poses(), []
    for seed in range(20):
        _, after, _ = draw(PLAIN, seed)
        assert torch.equal(after.position, before.position)
        turn = world_from_cam(before).transpose(0, 2, 1) @ world_from_cam(after)
        components.append(np.rad2deg(Rotation.from_matrix(turn).as_rotvec()))
    components = np.concatenate(components)
    assert np.abs(components).max() <= PLAIN.turn_deg + 1e-3
    assert (components.max(0) > 0.8 * PLAIN.turn_deg).all()  # each axis, both ways
    assert (components.min(0) < -0.8 * PLAIN.turn_deg).all()


def test_turn_by_nothing_is_the_central_view() -> None:
    view, poses, cameras = draw(replace(PLAIN, turn_deg=0.0))
    window = input_camera(CAMERA, PLAIN)
    torch.testing.assert_close(view, central_view(photos(some_poses()), window), rtol=0, atol=0.02)
    torch.testing.assert_close(poses.quaternion, some_poses().quaternion)
    torch.testing.assert_close(cameras.params, window.params.expand(COUNT, -1))


def test_crop_is_a_window_that_moves_the_principal_point_and_not_the_label() -> None:
    images = torch.randint(0, 256, (COUNT, 3, 90, 120), generator=seeded(), dtype=torch.uint8)
    corners = set()
    for seed in range(20):
        view, poses, cameras = draw(replace(PLAIN, augment="crop"), seed, images)
        assert torch.equal(poses.quaternion, some_poses().quaternion)
        assert torch.equal(poses.position, some_poses().position)
        moved = CAMERA.principal_point - cameras.principal_point
        for i, (left, top) in enumerate(moved.round().int().tolist()):
            window = images[i, :, top : top + cameras.height, left : left + cameras.width]
            torch.testing.assert_close(view[i], window.float(), rtol=0, atol=0.05)
            corners.add((left, top))
    lefts, tops = zip(*corners, strict=True)
    assert (min(lefts), max(lefts)) == (0, 120 - 96)  # the whole room is used, ends included
    assert (min(tops), max(tops)) == (0, 90 - 72)


def test_input_is_the_central_window_of_the_training_camera() -> None:
    window = input_camera(CAMERA, PLAIN)
    assert (window.width, window.height) == (96, 72)
    assert window.focal.tolist() == CAMERA.focal.tolist()
    assert (CAMERA.principal_point - window.principal_point).tolist() == [12, 9]
    images = photos(some_poses())
    assert torch.equal(central_view(images, window), images[..., 9:81, 12:108].float())
    square = input_camera(CAMERA, replace(PLAIN, shape="square"))
    assert (square.width, square.height) == (72, 72)
    assert input_camera(CAMERA, replace(PLAIN, margin=1.0, input_px=90)).width == 120


@pytest.mark.parametrize("augment", ["virtual", "crop", "none"])
def test_jitter_changes_colours_only(augment: Any) -> None:
    images = torch.randint(0, 256, (COUNT, 3, 90, 120), generator=seeded(), dtype=torch.uint8)
    plain, poses, cameras = draw(replace(PLAIN, augment=augment), 0, images)
    view, turned, moved = draw(replace(PLAIN, augment=augment, jitter=0.9), 0, images)
    assert torch.equal(turned.quaternion, poses.quaternion)
    assert torch.equal(moved.params, cameras.params)
    assert view.min() == 0
    assert view.max() == 255
    assert not torch.allclose(view, plain, atol=20)


def test_jitter_scales_brightness_within_its_limit_and_each_image_by_itself() -> None:
    grey = torch.full((COUNT, 3, 90, 120), 150, dtype=torch.uint8)
    factors = torch.cat(
        [draw(replace(PLAIN, jitter=0.3), seed, grey)[0].mean((1, 2, 3)) for seed in range(20)]
    )
    factors = factors / 150
    assert 0.7 <= factors.min() < 0.75
    assert 1.25 < factors.max() <= 1.3
    assert factors.unique().numel() == len(factors)


@pytest.mark.parametrize("augment", ["virtual", "crop"])
def test_each_image_has_a_draw_of_its_own(augment: Any) -> None:
    photo = photos(some_poses())[:1].expand(COUNT, -1, -1, -1)
    view, _, _ = draw(replace(PLAIN, augment=augment, jitter=0.2), 0, photo)
    assert all(not torch.allclose(view[0], view[i], atol=1) for i in range(1, COUNT))


@pytest.mark.parametrize("augment", ["virtual", "crop", "none"])
def test_same_seed_gives_the_same_batch(augment: Any) -> None:
    config = replace(PLAIN, augment=augment, jitter=0.3)
    (view, poses, cameras), (again, same, cameras_too) = draw(config, 5), draw(config, 5)
    assert torch.equal(view, again)
    assert torch.equal(poses.quaternion, same.quaternion)
    assert torch.equal(cameras.params, cameras_too.params)
    assert not torch.equal(view, draw(config, 6)[0])


@pytest.mark.parametrize("augment", ["virtual", "crop", "none"])
def test_nothing_is_mirrored(augment: Any) -> None:
    ramp = torch.arange(120).expand(COUNT, 3, 90, 120) + torch.arange(90)[:, None]
    for seed in range(10):
        config = replace(PLAIN, augment=augment, jitter=0.3)
        view, _, _ = draw(config, seed, ramp.to(torch.uint8))
        right, down = view.mean((1, 2)), view.mean((1, 3))
        assert (right[:, -1] > right[:, 0] + 20).all()
        assert (down[:, -1] > down[:, 0] + 10).all()


@pytest.mark.parametrize(
    ("option", "value"), [("input_px", 8), ("margin", 0.5), ("jitter", 1.0), ("turn_deg", 60.0)]
)
def test_senseless_option_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"--view.{option.replace('_', '-')}"):
        ViewConfig(**{option: value})


@pytest.mark.parametrize(
    ("option", "value", "right"), [("augment", "virtaul", "virtual"), ("shape", "sqare", "square")]
)
def test_unknown_word_is_refused_with_the_nearest_one(option: str, value: str, right: str) -> None:
    config = ViewConfig()
    object.__setattr__(config, option, value)  # past the type check that only tests have
    with pytest.raises(InputError, match=f"--view.{option}.*Did you mean {right}"):
        config.__post_init__()
