"""Map points: how deep a scene is, and in batches those that an image sees, and no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_scene import SceneOf, some_points

from relocal.camera import Camera
from relocal.losses import LossConfig
from relocal.scene import Points, Scene
from relocal.training import TrainConfig
from relocal.training.loop import prepare
from relocal.training.points import POINTS_AN_IMAGE, PointSampler
from relocal.training.views import expanded


@pytest.fixture
def sampler(tiny_scene: Scene) -> PointSampler:
    assert tiny_scene.points is not None
    return PointSampler(tiny_scene.points, len(tiny_scene), tiny_scene.indices("train"))


def seen_by(points: Points, image: int) -> set[tuple[float, ...]]:
    rows = points.point_index[points.image_index == image]
    return {tuple(xyz) for xyz in points.xyz[rows].astype(np.float32).tolist()}


def test_points_are_those_that_the_image_sees(tiny_scene: Scene, sampler: PointSampler) -> None:
    index = tiny_scene.indices("train")[:6]
    poses = tiny_scene.poses[index].to(torch.float32)
    camera = expanded(tiny_scene.camera(0), len(index))
    generator = torch.Generator().manual_seed(0)
    xyz, visible = sampler.draw(index, poses, camera, generator)
    assert xyz.shape == (6, POINTS_AN_IMAGE, 3)
    assert tiny_scene.points is not None
    for i, image in enumerate(index.tolist()):
        known = seen_by(tiny_scene.points, image)
        assert {tuple(p) for p in xyz[i].tolist()} <= known
    # They were observed in the whole image, so its camera sees nearly all of them.
    assert visible.float().mean() > 0.95
    narrow = Camera.pinhole(2, 2, 500.0, 500.0, 1.0, 1.0)
    _, through_a_keyhole = sampler.draw(index, poses, expanded(narrow, 6), generator)
    assert through_a_keyhole.float().mean() < 0.5


def test_no_point_counts_that_only_test_images_see(tiny_scene: Scene) -> None:
    test = tiny_scene.indices("test")
    assert tiny_scene.points is not None
    # As if every point had been seen by one test image alone.
    points = replace(
        tiny_scene.points,
        image_index=np.full_like(tiny_scene.points.image_index, int(test[0])),
    )
    sampler = PointSampler(points, len(tiny_scene), tiny_scene.indices("train"))
    index = tiny_scene.indices("train")[:3]
    _, visible = sampler.draw(
        index,
        tiny_scene.poses[index].to(torch.float32),
        expanded(tiny_scene.camera(0), 3),
        torch.Generator().manual_seed(0),
    )
    assert not visible.any()


@pytest.mark.parametrize("loss", ["position+points", "position+bearing", "posenet"])
def test_batches_have_points_where_the_loss_takes_them(
    tiny_scene: Scene, tiny_config: TrainConfig, loss: str
) -> None:
    config = replace(tiny_config, loss=LossConfig(name=loss))
    fabric, _, _, data = prepare(tiny_scene, config, lambda *_: None)
    _, target = data.batch(data.train[:4], torch.Generator().manual_seed(0), fabric.device)
    assert (target.points is not None) == (loss != "posenet")
    assert (target.visible is not None) == (loss != "posenet")


def test_depth_range_is_that_of_what_training_images_see(scene_of: SceneOf) -> None:
    points = some_points(4, points=300, observations=2000)
    points.xyz[150:] += 1000  # seen by test images only: near and far would leap
    points.point_index[:] = np.where(points.image_index < 2, 0, 150) + points.point_index % 150
    scene = scene_of([f"{i}.png" for i in range(4)], points=points)
    scene = scene.with_splits({"train": scene.images[:2], "test": scene.images[2:]}, "by hand")
    depths = []
    for image, point in zip(points.image_index, points.point_index, strict=True):
        if image < 2:
            cam_from_world = np.linalg.inv(scene.poses[int(image)].matrix().numpy())
            depths.append((cam_from_world @ [*points.xyz[point], 1])[2])
    expected = np.percentile(depths, [5, 50, 95])
    result = scene.depth_range()
    assert result is not None
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9)


def test_depth_range_of_no_or_few_points_is_none(scene_of: SceneOf) -> None:
    scene = scene_of(["a.png"], splits={"train": ("a.png",)})
    assert scene.depth_range() is None
    assert replace(scene, points=some_points(1, observations=9)).depth_range() is None
    assert replace(scene, points=some_points(1, observations=10)).depth_range() is not None
