"""Models: one suite over every architecture and every way to write a rotation."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from relocal.backbones import BACKBONES, BackboneConfig, build_backbone
from relocal.errors import InputError
from relocal.metrics import mean_pose
from relocal.models import MODELS, PoseNet, PoseNetConfig
from relocal.models.posenet import PoseHead
from relocal.pose import ROTATIONS, Pose, position_error, rotation_error_deg
from relocal.training.run import read_tensors, write_tensors

ENTRIES = [(name, rotation) for name in MODELS for rotation in ROTATIONS]
SIZE = (48, 64)


@pytest.fixture(params=ENTRIES, ids="-".join)
def make(request: pytest.FixtureRequest, tiny_config: Any) -> Any:
    """Builds a model of this entry on the tiny backbone; options may be changed."""
    name, rotation = request.param

    def build(**options: Any) -> PoseNet:
        config = replace(tiny_config.model, name=name, rotation=rotation, **options)
        return MODELS[name](build_backbone(tiny_config.backbone), config)

    return build


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, *SIZE) * 255


def poses(count: int = 40) -> Pose:
    """Poses far from the origin, spread over metres, around one rotation."""
    position = torch.randn(count, 3) * torch.tensor([4.0, 0.5, 2.0]) + torch.tensor([90.0, -7, 30])
    quaternion = torch.tensor([0.5, -0.5, 0.5, 0.5]) + 0.2 * torch.randn(count, 4)
    return Pose.from_quaternion(position, quaternion)


@pytest.mark.parametrize("pool", ["average", "grid"])
def test_prediction_has_the_shapes_of_its_rotation(make: Any, pool: str) -> None:
    prediction = make(pool=pool).eval()(images(3))
    assert prediction.position.shape == (3, 3)
    assert prediction.rotation.shape == (3, ROTATIONS[prediction.rotation_name].size)
    assert prediction.pose().shape == (3,)
    torch.testing.assert_close(prediction.pose().quaternion.norm(dim=-1), torch.ones(3))


def test_weights_alone_give_the_same_predictions(make: Any, tmp_path: Path) -> None:
    model, other, image = make().eval(), make().eval(), images()
    model.fit_statistics(poses())
    write_tensors(tmp_path / "weights.safetensors", model.state_dict())
    before, after = model(image), other(image)
    assert not torch.allclose(before.position, after.position, atol=10)
    other.load_state_dict(read_tensors(tmp_path / "weights.safetensors"))
    after = other(image)
    assert torch.equal(before.position, after.position)
    assert torch.equal(before.rotation, after.rotation)


def test_positions_are_in_the_unit_of_the_training_poses(make: Any) -> None:
    model, image, seen = make().eval(), images(), poses()
    plain = model(image).position
    model.fit_statistics(seen)
    # The head's bias was drawn at random; fitting sets it to zero.
    bare = model.head.position.weight @ model.head.wide(_features(model, image)).relu().mT
    spread = (seen.position - seen.position.mean(0)).square().sum(-1).mean().sqrt()
    expected = seen.position.mean(0) + spread * bare.mT
    torch.testing.assert_close(model(image).position, expected, rtol=0, atol=1e-4)
    assert (plain - expected).norm(dim=-1).min() > 50


def _features(model: PoseNet, image: Tensor) -> Tensor:
    return model.backbone(image).mean((2, 3))


def silence(head: PoseHead) -> None:
    """Makes a head blind, as if the picture had no features."""
    torch.nn.init.zeros_(head.wide.weight)
    torch.nn.init.zeros_(head.wide.bias)


def test_training_starts_from_the_mean_pose(make: Any) -> None:
    model, seen = make().eval(), poses()
    model.fit_statistics(seen)
    silence(model.head)
    start = model(images()).pose()
    centre = mean_pose(seen)
    centre = Pose(centre.position.expand(4, 3), centre.quaternion.expand(4, 4))
    assert position_error(start, centre).max() < 1e-4
    assert rotation_error_deg(start, centre).max() < 0.01


def test_one_place_is_enough_to_fit(make: Any) -> None:
    model = make().eval()
    model.fit_statistics(poses(1))
    assert model(images()).position.isfinite().all()


def test_dropout_acts_while_training_only(make: Any) -> None:
    model, image = make(dropout=0.5), images()
    assert not torch.equal(model(image).position, model(image).position)
    model.eval()
    assert torch.equal(model(image).position, model(image).position)


def test_answers_stay_float32_under_bfloat16(make: Any) -> None:
    model, seen = make(), []
    model.fit_statistics(poses())
    model.head.wide.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(images())
        pose = prediction.pose()
    assert seen == [torch.bfloat16]
    answers = (prediction.position, prediction.rotation, pose.position, pose.quaternion)
    assert {answer.dtype for answer in answers} == {torch.float32}


@pytest.mark.parametrize("name", BACKBONES)
def test_auxiliary_regressors_exist_while_training_and_where_there_are_taps(name: str) -> None:
    backbone = build_backbone(BackboneConfig(name=name, weights="none"))
    config = PoseNetConfig(width=16, auxiliary=True)
    if not backbone.taps:
        with pytest.raises(InputError, match=r"--model\.auxiliary.*googlenet"):
            PoseNet(backbone, config)
        return
    model, image, seen = PoseNet(backbone, config), images(2), poses()
    model.fit_statistics(seen)
    for head in model.modules():
        if isinstance(head, PoseHead):
            silence(head)
    inner = model.train()(image).auxiliary
    assert len(inner) == len(backbone.taps) == 2
    for prediction in inner:  # they start from the mean pose, too
        expected = seen.position.mean(0).expand(2, 3)
        torch.testing.assert_close(prediction.position, expected)
        assert prediction.pose().shape == (2,)
    assert model.eval()(image).auxiliary == ()
    assert PoseNet(backbone, PoseNetConfig(width=16)).train()(image).auxiliary == ()


@pytest.mark.parametrize(
    ("option", "value"), [("rotation", "quaternoin"), ("dropout", 1.0), ("width", 0)]
)
def test_senseless_option_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"--model\.{option}"):
        PoseNetConfig(**{option: value})


def test_unknown_word_is_refused_with_the_nearest_one() -> None:
    config = PoseNetConfig()
    object.__setattr__(config, "pool", "grit")  # past the type check that only tests have
    with pytest.raises(InputError, match=r"--model\.pool.*Did you mean grid"):
        config.__post_init__()


def test_two_heads_share_nothing_but_the_backbone() -> None:
    backbone = build_backbone(BackboneConfig(weights="none"))
    model = PoseNet(backbone, PoseNetConfig(width=8, heads=2, dropout=0.0)).eval()
    prediction = model(torch.rand(2, 3, 64, 64) * 255)
    prediction.position.sum().backward()
    assert model.head.wide.weight.grad is not None
    assert model.head.wide_rotation is not None
    assert model.head.wide_rotation.weight.grad is None


def test_log_variance_follows_the_scene_s_scale() -> None:
    backbone = build_backbone(BackboneConfig(weights="none"))
    model = PoseNet(backbone, PoseNetConfig(width=8, log_variance=True)).eval()
    image = torch.rand(2, 3, 64, 64) * 255
    before = model(image).log_var
    model.position_scale.mul_(10)
    after = model(image).log_var
    assert before is not None
    assert after is not None
    assert_close(after[:, 0] - before[:, 0], torch.full((2,), 2 * math.log(10)))
    assert_close(after[:, 1], before[:, 1])
