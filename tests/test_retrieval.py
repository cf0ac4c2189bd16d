"""Retrieval: search, blending, and the room."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from relocal.errors import InputError
from relocal.evaluation import RETRIEVAL, evaluate
from relocal.localizers import Retrieval, index_images
from relocal.localizers.retrieval import blended, nearest_by_cosine
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene import Scene


def unit(count: int, size: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, size, generator=draw), dim=1)


@pytest.mark.parametrize("exact_up_to", [1000, 0])
def test_the_nearest_are_found_exactly_and_by_faiss(exact_up_to: int) -> None:
    values = unit(600, 64, 0)
    queries = torch.nn.functional.normalize(values[::37] + 0.02 * unit(17, 64, 1), dim=1)
    alike, rows = nearest_by_cosine(values, exact_up_to)(queries, 3)
    assert rows[:, 0].tolist() == list(range(0, 600, 37))
    assert torch.allclose(alike[:, 0], (queries * values[::37]).sum(1), atol=0.02)
    assert (alike[:, 0] >= alike[:, 1]).all()
    assert rows.shape == alike.shape == (17, 3)


@given(st.integers(0, 10_000))
def test_a_blend_of_one_pose_is_that_pose(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(7, generator=draw).double()
    pose = Pose.from_quaternion(values[:3], values[3:])
    signs = torch.tensor([1.0, -1.0, 1.0]).double()  # q and -q are one rotation
    same = Pose(pose.position.expand(3, 3), signs[:, None] * pose.quaternion)
    found = blended(same, torch.tensor([0.9, 0.9, 0.8]).double())
    assert position_error(found, pose) < 1e-12
    assert rotation_error_deg(found, pose) < 1e-5


def test_equally_similar_images_give_the_mean() -> None:
    angles = torch.tensor([10.0, 30.0]).double().deg2rad()
    quaternion = torch.stack([(angles / 2).cos(), (angles / 2).sin(), 0 * angles, 0 * angles], 1)
    position = torch.tensor([[0.0, 0, 0], [2.0, 4, 6]]).double()
    found = blended(Pose(position, quaternion), torch.tensor([0.7, 0.7]).double())
    assert torch.allclose(found.position, torch.tensor([1.0, 2, 3]).double())
    turned = Rotation.from_quat(found.quaternion.numpy(), scalar_first=True).as_rotvec(degrees=True)
    assert turned == pytest.approx([20, 0, 0], abs=1e-6)


def test_a_much_more_similar_image_decides() -> None:
    poses = Pose(torch.eye(3).double(), torch.tensor([[1.0, 0, 0, 0]] * 3).double())
    found = blended(poses, torch.tensor([0.95, 0.5, 0.5]).double())
    assert torch.allclose(found.position, poses.position[0], atol=1e-6)


def test_one_neighbour_is_the_baseline(tiny_scene: Scene) -> None:
    report = evaluate({"one": Retrieval(tiny_scene, neighbours=1)}, tiny_scene)
    one, baseline = report.methods["one"].errors, report.methods[RETRIEVAL].errors
    assert one.position.tolist() == pytest.approx(baseline.position.tolist(), abs=1e-9)


def test_training_images_find_themselves(tiny_scene: Scene) -> None:
    index = index_images(tiny_scene)
    assert index.training_images == tiny_scene.splits["train"]
    localizer = Retrieval(index, neighbours=1)
    for i in tiny_scene.indices("train").tolist()[::5]:
        found = localizer.localize(tiny_scene.path(i), tiny_scene.camera(i))
        assert position_error(found.pose, tiny_scene.poses[i]) < 1e-9


def test_what_cannot_be_is_refused(tiny_scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--neighbours"):
        Retrieval(tiny_scene, neighbours=0)
    with pytest.raises(InputError, match="this is no scene"):
        Retrieval(tmp_path)


def test_more_neighbours_than_images_are_all(tiny_scene: Scene) -> None:
    index = index_images(tiny_scene)
    i = int(tiny_scene.indices("test")[0])
    found = Retrieval(index, neighbours=1000).localize(tiny_scene.path(i), tiny_scene.camera(i))
    assert found.pose.position.isfinite().all()


def test_the_scene_itself_is_not_asked_about_its_training_images(tiny_scene: Scene) -> None:
    with pytest.raises(InputError, match="made of 24 of the images to test"):
        evaluate({"self": Retrieval(tiny_scene)}, tiny_scene, split="train")
