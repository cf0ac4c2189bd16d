"""Matches between a photo's features and a map's points, against slow twins."""

from pathlib import Path

import numpy as np
import pytest
import torch

from relocal.camera import Camera
from relocal.features import Keypoints, quantised
from relocal.localizers import FeatureMap, load_map
from relocal.localizers.feature_map import Described
from relocal.localizers.matching import expected, match_near, mutual, pairs_within, search
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.sfm.tracks import epipolar_error_px, mutual_matches


@pytest.fixture(scope="module")
def map_(tiny_map: Path) -> FeatureMap:
    return load_map(tiny_map)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.rand(*shape, generator=draw), dim=-1)


@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.7])
def test_mutual_matches_are_those_of_a_slow_twin(ratio: float) -> None:
    one, other = unit(40, 8), unit(50, 8, seed=1)
    distance = np.linalg.norm(one[:, None].numpy() - other[None].numpy(), axis=2)
    slow: list[list[int]] = []
    for i in range(40):
        j = int(distance[i].argmin())
        first, second = np.sort(distance[i])[:2]
        if int(distance[:, j].argmin()) == i and first <= ratio * second + 1e-7:
            slow.append([i, j])
    assert mutual_matches(one, other, ratio).tolist() == slow
    if ratio < 1:
        assert mutual(one, other, ratio).tolist() == slow


def test_few_descriptors_match_nothing() -> None:
    for count in (0, 1):
        assert mutual_matches(unit(count, 8), unit(5, 8)).shape == (0, 2)
        assert mutual(unit(count, 8), unit(5, 8), 0.9).shape == (0, 2)
        assert mutual(unit(5, 8), unit(count, 8), 0.9).shape == (0, 2)


def test_epipolar_error_is_the_distance_from_the_line() -> None:
    camera = Camera.pinhole(640, 480, 500.0, 500.0, 320.0, 240.0)
    aside = Pose(torch.tensor([0.5, 0.0, 0.0]).double(), torch.tensor([1.0, 0, 0, 0]).double())
    points = torch.tensor([[0.0, 0.0, 2.0], [0.3, -0.2, 3.0], [-0.5, 0.4, 4.0]]).double()
    poses = (Pose.identity(), aside)
    one, other = (camera.project(pose.inverse().apply(points))[0] for pose in poses)
    cameras = (camera, camera)
    assert epipolar_error_px((one, other), cameras, poses).max() < 1e-9
    # A step aside: lines are rows of both images, and an offset is shared by the two.
    moved = other + torch.tensor([0.0, 3.0]).double()
    found = epipolar_error_px((one, moved), cameras, poses)
    assert torch.allclose(found, torch.full((3,), 3 / 2**0.5).double(), rtol=1e-3)
    along = other + torch.tensor([7.0, 0.0]).double()
    assert epipolar_error_px((one, along), cameras, poses).max() < 1e-9


def test_epipolar_error_of_wide_lenses_is_in_their_pixels() -> None:
    wide = Camera("OPENCV_FISHEYE", 900, 700, (310, 320, 440, 360, 0.03, -0.01, 0.002, 0))
    bent = Camera("FULL_OPENCV", 900, 700, (500, 500, 450, 350, -0.2, 0.05, 0, 0, -0.003, 0, 0, 0))
    cameras = (wide, bent)
    turned = Pose.from_quaternion(
        torch.tensor([0.6, 0.1, -0.2]).double(), torch.tensor([1.0, 0.05, -0.1, 0.02]).double()
    )
    poses = (Pose.identity(), turned)
    pixels = torch.rand(2, 50, 2, generator=torch.Generator().manual_seed(0)).double() * 690

    def equation(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        rays = [camera.unproject(x) for camera, x in zip(cameras, (one, other), strict=True)]
        at = [pose.rotation @ ray[:, :, None] for pose, ray in zip(poses, rays, strict=True)]
        base = turned.position.expand(50, 3)
        return torch.linalg.cross(at[0][..., 0], at[1][..., 0]).mul(base).sum(1)

    one, other = (x.clone().requires_grad_() for x in pixels)
    value = equation(one, other)
    value.sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    slope = (one.grad.square().sum(1) + other.grad.square().sum(1)).sqrt()
    expected = value.detach().abs() / slope
    found = epipolar_error_px((pixels[0], pixels[1]), cameras, poses)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_a_planted_feature_is_found(map_: FeatureMap) -> None:
    rows = torch.arange(0, len(map_), 7)
    # The point's own descriptor, as the photo's features would have it.
    values = (map_.unit_descriptors[rows] @ map_.basis.T).clamp(min=0)
    keypoints = Keypoints(torch.rand(len(rows), 2), torch.ones(len(rows)), quantised(values))
    matches = search(map_, map_.described(keypoints), 0.9)
    right = rows[matches[:, 0]] == matches[:, 1]
    assert right.float().mean() > 0.9
    assert len(matches) > 0.5 * len(rows)
    assert len(matches[:, 0].unique()) == len(matches[:, 1].unique()) == len(matches)


def test_expected_points_are_in_view(map_: FeatureMap, tiny_scene: Scene) -> None:
    row = tiny_scene.images.index(map_.training_images[3])
    pose, camera = tiny_scene.poses[row], tiny_scene.camera(row)
    points, pixels = expected(map_, pose, camera, 0.0)
    local = pose.inverse().apply(map_.xyz[points].double())
    again, inside = camera.project(local)
    assert inside.all()
    assert torch.allclose(again.float(), pixels, atol=1e-3)
    seen = map_.points_of_image[3]
    assert torch.isin(seen, points).float().mean() > 0.95


def test_matches_stay_within_their_radius(map_: FeatureMap, tiny_scene: Scene) -> None:
    row = tiny_scene.images.index(map_.training_images[3])
    pose, camera = tiny_scene.poses[row], tiny_scene.camera(row)
    points, pixels = expected(map_, pose, camera, 0.0)
    values = (map_.unit_descriptors[points] @ map_.basis.T).clamp(min=0)
    aside = torch.full((len(points), 2), 4.0) / 2**0.5
    keypoints = Keypoints(pixels + aside, torch.ones(len(points)), quantised(values))
    seen = map_.described(keypoints)
    near = match_near(map_, seen, pose, camera, 5.0, 0.95)
    assert (points[near[:, 0]] == near[:, 1]).float().mean() > 0.9
    found = match_near(map_, seen, pose, camera, 3.0, 0.95)
    assert (points[found[:, 0]] != found[:, 1]).all()


@pytest.mark.parametrize("radius", [2.0, 7.0, 30.0])
def test_matches_near_a_pose_are_those_among_all_pairs(
    map_: FeatureMap, tiny_scene: Scene, radius: float
) -> None:
    row = tiny_scene.images.index(map_.training_images[3])
    pose, camera = tiny_scene.poses[row], tiny_scene.camera(row)
    draw = torch.Generator().manual_seed(0)
    xy = torch.rand(300, 2, generator=draw) * torch.tensor([camera.width, camera.height])
    descriptors = torch.nn.functional.normalize(torch.randn(300, 64, generator=draw), dim=1)
    seen = Described(xy, descriptors[:, : map_.descriptors.shape[1]])
    points, pixels = expected(map_, pose, camera, radius)
    near = torch.cdist(xy, pixels) < radius
    assert sorted(pairs_within(xy, pixels, radius).tolist()) == near.nonzero().tolist()
    whole = mutual(seen.descriptors, map_.unit_descriptors[points], 0.95, near)
    found = match_near(map_, seen, pose, camera, radius, 0.95)
    assert found.tolist() == [[i, int(points[j])] for i, j in whole.tolist()]
    assert len(found) > 5
