"""The room's pictures against ray casting and against each other; its walks; its sensor."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest

from relocal.datasets.room.config import Pinhole, RoomConfig
from relocal.datasets.room.landmarks import scatter, visible
from relocal.datasets.room.layout import FREE_BOX_M, ROOM_SIZE_M, Quad, furnish
from relocal.datasets.room.renderer import Room, assemble, build_room, photograph, render, see
from relocal.datasets.room.sensor import expose, motion_px
from relocal.datasets.room.textures import plaster
from relocal.datasets.room.walk import walk

DEFAULT = RoomConfig()
# Nothing about it is symmetric, so that no two axes or signs can be swapped unseen.
ODD = Pinhole(width_px=70, height_px=52, fx_px=61.0, fy_px=66.0, cx_px=31.0, cy_px=28.5)


@pytest.fixture(scope="module")
def room() -> Room:
    return build_room(DEFAULT)


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return walk(DEFAULT.rng("walk", 1), DEFAULT.train_frames, DEFAULT.train_lap_frames)


@pytest.fixture(scope="module")
def test() -> np.ndarray:
    return walk(DEFAULT.rng("walk", 2), DEFAULT.test_frames, DEFAULT.test_lap_frames)


# --- an independent, slow oracle -------------------------------------------------------------


def cast(
    quads: Sequence[Quad], start: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many ray lengths (N,) it is to the first quad seen from its front, and which one."""
    nearest, which = np.full(len(rays), np.inf), np.full(len(rays), -1)
    for index, quad in enumerate(quads):
        towards = rays @ quad.normal
        seen = towards < 0
        distance = ((quad.corner - start) @ quad.normal) / np.where(seen, towards, -1)
        on_quad = start + distance[:, None] * rays - quad.corner
        for side in (quad.right, quad.down):
            seen &= (on_quad @ side >= 0) & (on_quad @ side <= side @ side)
        seen &= (distance > 0) & (distance < nearest)
        nearest[seen], which[seen] = distance[seen], index
    return nearest, which


def centres(camera: Pinhole) -> np.ndarray:
    """The pixels' centres (H * W, 2), row by row."""
    u, v = np.meshgrid(np.arange(camera.width_px), np.arange(camera.height_px))
    return np.stack([u.ravel(), v.ravel()], axis=1) + 0.5


def rays_of(camera: Pinhole, pose: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """World rays of pixels (N, 2), one metre deep."""
    x = (pixels[:, 0] - camera.cx_px) / camera.fx_px
    y = (pixels[:, 1] - camera.cy_px) / camera.fy_px
    return np.stack([x, y, np.ones(len(pixels))], axis=1) @ pose[:3, :3].T


def project(camera: Pinhole, pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels and z-depth (N, 3) of world points."""
    x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).T
    u, v = camera.fx_px * x / z + camera.cx_px, camera.fy_px * y / z + camera.cy_px
    return np.stack([u, v, z], axis=1)


def any_pose(rng: np.random.Generator) -> np.ndarray:
    """Somewhere in the free space, looking anywhere, rolled anyhow."""
    pose = np.eye(4)
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    pose[:3, :3] = q * np.linalg.det(q)
    pose[:3, 3] = rng.uniform(*FREE_BOX_M)
    return pose


def board(corner: tuple[float, ...], right: tuple[float, ...], down: tuple[float, ...]) -> Quad:
    paint = partial(plaster, colour=(200, 200, 200))
    return Quad(corner=np.array(corner), right=np.array(right), down=np.array(down), paint=paint)


# --- geometry --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_depth_agrees_with_ray_casting(room: Room, seed: int) -> None:
    pose = any_pose(np.random.default_rng(seed))
    _, depth = render(room, pose, ODD)
    expected, which = cast(room.quads, pose[:3, 3], rays_of(ODD, pose, centres(ODD)))
    same = see(room, pose, ODD).quad.reshape(-1) == which
    assert same.mean() > 0.999  # in the edge between two surfaces either may be named
    np.testing.assert_allclose(depth.reshape(-1)[same], expected[same], rtol=1e-4)


def test_depth_is_right_beside_a_surface_that_passes_behind_the_camera() -> None:
    # A wall along the line of sight: one end 3 m ahead, the other 3 m behind, 10 cm to the right.
    wall = board((0.1, -0.5, 3.0), (0.0, 0.0, -6.0), (0.0, 1.0, 0.0))
    room = assemble([wall], [np.full((8, 48, 3), 200, np.uint8)])
    _, depth = render(room, np.eye(4), ODD)
    expected, _ = cast([wall], np.zeros(3), rays_of(ODD, np.eye(4), centres(ODD)))
    np.testing.assert_allclose(depth.reshape(-1), expected, rtol=1e-4)
    assert np.isinf(depth).any()
    assert depth.min() < 0.3


def test_nearer_surface_hides_the_farther_and_backs_are_not_seen() -> None:
    far = board((-2.0, -2.0, 3.0), (4.0, 0.0, 0.0), (0.0, 4.0, 0.0))
    near = board((-0.2, -0.2, 1.0), (0.4, 0.0, 0.0), (0.0, 0.4, 0.0))
    back = board((0.5, -0.5, 0.5), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    paints = [np.full((16, 16, 3), level, np.uint8) for level in (50, 200, 120)]
    for order in ([0, 1, 2], [2, 1, 0]):
        room = assemble([[far, near, back][k] for k in order], [paints[k] for k in order])
        image, depth = render(room, np.eye(4), ODD)
        assert depth[28, 31] == pytest.approx(1.0)
        assert depth[5, 5] == pytest.approx(3.0)
        assert image[28, 31].tolist() == [200] * 3
        assert image[5, 5].tolist() == [50] * 3


def test_centre_of_the_first_pixel_is_at_one_half() -> None:
    # One texel a pixel, brightness linear in both, so that half a pixel off shows everywhere.
    u, v = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    ramp = np.stack([10 + 4 * u, 10 + 6 * v, 250 - 4 * u], axis=2).astype(np.uint8)
    room = assemble([board((-0.5, -0.375, 1.0), (1.0, 0.0, 0.0), (0.0, 0.75, 0.0))], [ramp])
    camera = Pinhole(width_px=40, height_px=30, fx_px=40.0, fy_px=40.0, cx_px=20.0, cy_px=15.0)
    image = photograph(room, np.eye(4), camera).astype(int)
    assert np.abs(image - ramp)[1:-1, 1:-1].max() <= 1


@pytest.mark.parametrize("start", [30, 170, 290])
def test_two_views_show_the_same_colours(room: Room, train: np.ndarray, start: int) -> None:
    camera, one, other = DEFAULT.camera, train[start], train[start + 4]
    (image, depth), (image2, depth2) = (render(room, pose, camera) for pose in (one, other))
    rays = rays_of(camera, one, centres(camera))
    points = one[:3, 3] + rays * depth.reshape(-1, 1)

    def differences(shift: float) -> tuple[np.ndarray, float]:
        x, y, z = project(camera, other, points).astype(np.float32).T
        maps = (x - 0.5 + shift).reshape(depth.shape), (y - 0.5).reshape(depth.shape)
        z2 = cv2.remap(depth2, *maps, cv2.INTER_NEAREST, borderValue=(-1.0,))
        both = np.abs(z2 - z.reshape(depth.shape)) < 0.01 * z2
        moved = cv2.remap(image2, *maps, cv2.INTER_LINEAR)
        return np.abs(moved.astype(int) - image)[both], float(both.mean())

    aligned, overlap = differences(0.0)
    assert overlap > 0.5
    assert np.mean(aligned) < 6
    assert np.mean(aligned) < 0.7 * min(np.mean(differences(d)[0]) for d in (-0.5, 0.5))


def test_picture_is_the_mean_of_a_sharper_one(room: Room, train: np.ndarray) -> None:
    """Fine patterns are averaged, not skipped over, or frames would shimmer."""
    camera = replace(DEFAULT, width_px=160, height_px=120).camera
    sharp = replace(DEFAULT, width_px=640, height_px=480).camera
    for pose in train[::150]:
        expected = cv2.resize(
            photograph(room, pose, sharp), (160, 120), interpolation=cv2.INTER_AREA
        )
        difference = np.abs(photograph(room, pose, camera).astype(int) - expected)
        assert difference.mean() < 5


def test_landmarks_are_seen_where_ray_casting_sees_them(room: Room, train: np.ndarray) -> None:
    camera, pose = DEFAULT.camera, train[120]
    landmarks = scatter(room, 6000, np.random.default_rng(0))
    index, xy = visible(landmarks, see(room, pose, camera), pose, camera)
    np.testing.assert_allclose(xy, project(camera, pose, landmarks.xyz[index])[:, :2], atol=1e-9)

    u, v, z = project(camera, pose, landmarks.xyz).T
    inside = (z > 0) & (u >= 0) & (u < camera.width_px) & (v >= 0) & (v < camera.height_px)
    free, _ = cast(room.quads, pose[:3, 3], landmarks.xyz - pose[:3, 3])
    expected = np.flatnonzero(inside & (free > 1 - 1e-6))
    assert len(expected) > 300
    # They may differ within a pixel of a silhouette only.
    assert len(np.setxor1d(expected, index)) < 0.03 * len(expected)


def test_landmarks_have_the_depth_and_colour_of_their_pixel(room: Room, train: np.ndarray) -> None:
    camera, pose = DEFAULT.camera, train[40]
    image, depth = render(room, pose, camera)
    landmarks = scatter(room, 3000, np.random.default_rng(0))
    index, xy = visible(landmarks, see(room, pose, camera), pose, camera)
    column, row = xy.astype(int).T
    z = project(camera, pose, landmarks.xyz[index])[:, 2]
    assert np.quantile(np.abs(depth[row, column] / z - 1), 0.98) < 0.03
    difference = np.abs(image[row, column].astype(int) - landmarks.rgb[index])
    assert np.median(difference) < 12


# --- the walks -------------------------------------------------------------------------------


def angles_deg(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angles between the rotations of poses (..., 4, 4)."""
    trace = (one[..., :3, :3] * other[..., :3, :3]).sum((-1, -2))
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


@pytest.mark.parametrize("seed", range(3))
def test_walks_are_smooth_upright_and_inside_the_free_space(seed: int) -> None:
    poses = walk(np.random.default_rng(seed), 400, 240)
    rotation, position = poses[:, :3, :3], poses[:, :3, 3]
    np.testing.assert_allclose(
        rotation.transpose(0, 2, 1) @ rotation, np.tile(np.eye(3), (400, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    assert (position > FREE_BOX_M[0]).all()
    assert (position < FREE_BOX_M[1]).all()
    assert (rotation[:, 2, 1] < -0.9).all()  # the image's down is down
    assert np.linalg.norm(np.diff(position, axis=0), axis=1).max() < 0.2
    assert angles_deg(poses[1:], poses[:-1]).max() < 12


def test_free_space_keeps_its_distance_from_everything() -> None:
    lower, upper = np.array(FREE_BOX_M)
    for quad in furnish():
        s, t = np.meshgrid(*(np.linspace(0, 1, 2 + int(size / 0.02)) for size in quad.size_m))
        points = quad.corner + s[..., None] * quad.right + t[..., None] * quad.down
        outside = np.maximum(np.maximum(lower - points, points - upper), 0)
        assert np.linalg.norm(outside, axis=-1).min() > 0.3


def test_nearest_training_pose_is_near_but_can_be_beaten(
    train: np.ndarray, test: np.ndarray
) -> None:
    distance = np.linalg.norm(test[:, None, :3, 3] - train[None, :, :3, 3], axis=-1)
    angle = angles_deg(test[:, None], train[None])
    nearest = np.arange(len(test)), (distance + np.radians(angle)).argmin(1)
    share = np.median(distance[nearest]) / np.linalg.norm(ROOM_SIZE_M)
    assert 0.035 < share < 0.045
    assert 6 < np.median(angle[nearest]) < 7.5


@pytest.mark.parametrize("name", ["train", "test"])
def test_walk_looks_in_every_direction(name: str, request: pytest.FixtureRequest) -> None:
    poses: np.ndarray = request.getfixturevalue(name)
    yaw = np.degrees(np.arctan2(poses[:, 1, 2], poses[:, 0, 2])) % 360
    assert set((yaw // 45).astype(int)) == set(range(8))


# --- looks -----------------------------------------------------------------------------------


def grey(room: Room, pose: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(photograph(room, pose, DEFAULT.camera), cv2.COLOR_RGB2GRAY)


def test_room_is_rich_in_keypoints_and_its_plain_variant_is_not(
    room: Room, train: np.ndarray
) -> None:
    sift, plain = cv2.SIFT.create(), build_room(replace(DEFAULT, textureless=True))
    counts = [len(sift.detect(grey(room, pose))) for pose in train[::25]]
    plain_counts = [len(sift.detect(grey(plain, pose))) for pose in train[::25]]
    assert min(counts) > 300
    assert np.median(plain_counts) < 0.1 * np.median(counts)
    _, depth = render(room, train[0], ODD)
    _, plain_depth = render(plain, train[0], ODD)
    assert np.array_equal(depth, plain_depth)


@pytest.mark.parametrize("start", [0, 140, 260])
def test_frames_ten_apart_can_be_matched(room: Room, train: np.ndarray, start: int) -> None:
    sift = cv2.SIFT.create(2000)
    (points, features), (points2, features2) = (
        sift.detectAndCompute(grey(room, train[k]), None) for k in (start, start + 10)
    )
    pairs = cv2.BFMatcher().knnMatch(features, features2, k=2)
    good = [best for best, second in pairs if best.distance < 0.8 * second.distance]
    a = np.array([points[m.queryIdx].pt for m in good], np.float32)
    b = np.array([points2[m.trainIdx].pt for m in good], np.float32)
    cv2.setRNGSeed(0)
    _, inliers = cv2.findFundamentalMat(a, b, cv2.FM_RANSAC, 1.0, 0.999)
    assert inliers.sum() >= 100


# --- the sensor ------------------------------------------------------------------------------

STILL = np.zeros(2)


def test_perfect_sensor_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    perfect = replace(DEFAULT, noise_levels=0.0, blur_px=0.0)
    rng = np.random.default_rng(0)
    assert np.array_equal(expose(image, perfect, stops=0.0, motion_px=STILL, rng=rng), image)


def test_sensor_exposes_and_adds_noise() -> None:
    image = np.full((100, 100, 3), 100, np.uint8)
    config = replace(DEFAULT, noise_levels=3.0)
    rng = np.random.default_rng(0)
    values = expose(image, config, stops=1.0, motion_px=STILL, rng=rng).astype(float)
    assert values.mean() == pytest.approx(100 * 2 ** (1 / 2.2), abs=0.2)
    assert values.std() == pytest.approx(3, abs=0.1)


def test_moving_camera_smears_along_its_motion() -> None:
    dot = np.zeros((21, 21, 3), np.uint8)
    dot[10, 10] = 250
    perfect = replace(DEFAULT, noise_levels=0.0)
    rng = np.random.default_rng(0)
    moved = expose(dot, perfect, stops=0.0, motion_px=np.array([4.0, 0.0]), rng=rng)[..., 0]
    assert np.flatnonzero(moved.any(0)).tolist() == [8, 9, 10, 11, 12]
    assert np.flatnonzero(moved.any(1)).tolist() == [10]


def test_motion_follows_the_picture() -> None:
    pose, turned = np.eye(4), np.eye(4)
    a = np.radians(1)
    turned[:3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    assert motion_px(pose, pose, ODD) == pytest.approx([0, 0])
    # Turned to the right, what is ahead moves to the left.
    assert motion_px(pose, turned, ODD) == pytest.approx([-61 * np.tan(a), 0])
