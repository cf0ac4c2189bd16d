"""What all tests share: quiet threads, fixed seeds, and the folder of real images."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Tests of geometry build tensors in their first example, which no per-example deadline allows for.
settings.register_profile("relocal", deadline=None)
settings.register_profile("relocal-ci", deadline=None, derandomize=True, database=None)
settings.load_profile("relocal-ci" if os.environ.get("CI") else "relocal")


def pytest_configure() -> None:
    """Bound the threads and choose the drawing backend before any test module is imported."""
    os.environ["MPLBACKEND"] = "Agg"
    # Also for the processes that tests start: spinning threads slow each other many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests marked gpu where there is no CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Start each test from the same random state; NumPy draws come from explicit generators."""
    import torch

    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and pretrained weights (`data/`, `weights/`), which is not shipped.

    It is $RELOCAL_SHARED, or `shared` beside the repository.
    """
    folder = Path(os.environ.get("RELOCAL_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"{folder} not found: real images are not shipped; set RELOCAL_SHARED")
    return folder


@pytest.fixture(scope="session")
def scene_of() -> Callable[..., Any]:
    """Makes a scene in memory from image names; other fields may be given."""
    import numpy as np
    import torch

    from relocal.camera import Camera
    from relocal.pose import Pose
    from relocal.scene import Scene

    def make(names: Sequence[str], **fields: Any) -> Scene:
        draw, count = np.random.default_rng(0), len(names)
        position, quaternion = (torch.from_numpy(draw.normal(size=(count, k))) for k in (3, 4))
        defaults: dict[str, Any] = {
            "name": "place",
            "unit": "m",
            "image_root": Path("photos"),
            "images": tuple(names),
            "cameras": (Camera.pinhole(32, 24, 30.0, 30.0, 16.0, 12.0),),
            "camera_index": torch.zeros(count, dtype=torch.long),
            "poses": Pose.from_quaternion(position, quaternion).canonical(),
        }
        return Scene(**{**defaults, **fields})

    return make


@pytest.fixture(scope="session")
def tiny_room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered room: 24 training and 8 test photos of 160 x 120 pixels."""
    from relocal.datasets.room.config import RoomConfig
    from relocal.datasets.synthetic import render_room

    room = RoomConfig(
        train_frames=24,
        test_frames=8,
        train_lap_frames=60,
        test_lap_frames=20,
        width_px=160,
        height_px=120,
    )
    out = tmp_path_factory.mktemp("rooms") / "tiny"
    render_room(out, room)
    return out


@pytest.fixture(scope="session")
def tiny_scene(tiny_room: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny room as a scene on disk; copy its folder before changing a file."""
    from relocal.datasets import import_scene

    return import_scene("synthetic", tiny_room, tmp_path_factory.mktemp("scenes") / "tiny")


@pytest.fixture(scope="session")
def tiny_run(tiny_scene: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the tiny scene that knows little, but whose answers depend on what it sees."""
    from relocal.losses import LossConfig
    from relocal.models import PoseNetConfig
    from relocal.training import TrainConfig, ViewConfig, train

    config = TrainConfig(
        model=PoseNetConfig(pool="average", dropout=0.0, width=256),
        loss=LossConfig(name="posenet+frustum"),
        view=ViewConfig(input_px=64, margin=1.5, augment="virtual", turn_deg=10.0, jitter=0.2),
        epochs=30,
        batch_size=8,
        lr=3e-3,
        freeze="all",
        precision="32-true",
        accelerator="cpu",
    )
    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(tiny_scene, out, config)
    return out


@pytest.fixture(scope="session")
def tiny_map(tiny_scene: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of the tiny scene's training images."""
    from relocal.localizers import MapConfig, build_map, save_map

    made = build_map(tiny_scene, MapConfig(limit=1000))
    return save_map(made, tmp_path_factory.mktemp("maps") / "tiny")


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of a rendered room, two recordings, to be labelled."""
    from labelled_room import ROOM

    from relocal.datasets.synthetic import render_room

    out = tmp_path_factory.mktemp("rooms") / "room"
    render_room(out, ROOM)
    return out


@pytest.fixture(scope="session")
def truth(room: Path) -> dict[str, Any]:
    """Where each photo of the room was rendered from."""
    from relocal.datasets.synthetic import read_synthetic

    scene = read_synthetic(room)
    return {name: scene.poses[i] for i, name in enumerate(scene.images)}


@pytest.fixture
def tiny_config(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Options of a training of a second, with a backbone of its own."""
    from torch import nn

    from relocal.backbones import BACKBONES, Backbone, BackboneConfig, Preprocess
    from relocal.losses import LossConfig
    from relocal.models import PoseNetConfig
    from relocal.training import TrainConfig, ViewConfig

    def backbone() -> Backbone:
        layers = {
            "preprocess": Preprocess(mean=(127.0, 127.0, 127.0), scale=64.0, bgr=False),
            "conv1": nn.Conv2d(3, 8, 5, stride=4, padding=2),
            "norm1": nn.BatchNorm2d(8),
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(8, 16, 3, stride=2, padding=1),
            "norm2": nn.BatchNorm2d(16),
            "relu2": nn.ReLU(),
        }
        return Backbone(layers, stem="relu1", channels=16, stride=8, pretrained=dict)

    monkeypatch.setitem(BACKBONES, "tiny", backbone)
    return TrainConfig(
        model=PoseNetConfig(pool="average", dropout=0.5, width=32),
        backbone=BackboneConfig(name="tiny", weights="none"),
        loss=LossConfig(name="default+frustum"),
        view=ViewConfig(input_px=32, augment="virtual"),
        epochs=3,
        batch_size=8,
        precision="32-true",
        accelerator="cpu",
    )


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A web server on this machine, which a client asks again without waiting."""
    from web_server import serving

    from relocal.datasets import fetching

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetching, "BACKOFF_S", 0.0)
    with serving() as server:
        yield server


@pytest.fixture
def base() -> Any:
    """How studies train in tests: a head on features of small photos, a second a cell."""
    from dataclasses import replace

    from relocal.models import PoseNetConfig
    from relocal.studies.methods import DEPTHS
    from relocal.training import ViewConfig

    return replace(
        DEPTHS["head"],
        model=PoseNetConfig(width=32, pool="average"),
        view=ViewConfig(input_px=64, kept=2),
        epochs=2,
        batch_size=8,
        precision="32-true",
        accelerator="cpu",
    )


@pytest.fixture(scope="session")
def blocks_scene(tiny_scene: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny room in blocks of three frames, every fourth of which is test."""
    from relocal.scene import apply_split, save_scene

    out = tmp_path_factory.mktemp("scenes") / "blocks"
    save_scene(apply_split(tiny_scene, "blocks:3/4/1", 3), out)
    return out


@pytest.fixture
def double() -> Iterator[None]:
    """Everything in double precision, but for what a test casts."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def target(double: None) -> Any:
    """Six labels for losses."""
    from loss_cases import draw_target

    return draw_target(6)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line; returns its exit code, output and error output."""
    from relocal import cli

    def run(*arguments: Any) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        out, error = capsys.readouterr()
        assert "Traceback" not in out + error
        assert isinstance(end.value.code, int)
        return end.value.code, out, error

    return run
