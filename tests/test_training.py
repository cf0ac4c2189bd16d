"""Training: it learns, it resumes bit for bit, and it refuses what it cannot do."""

import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from relocal.backbones import BackboneConfig, build_backbone
from relocal.errors import InputError
from relocal.losses import LOSSES, LossConfig, build_loss
from relocal.metrics import mean_pose, median
from relocal.models import PoseNetConfig
from relocal.pose import position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.training import PRESETS, TrainConfig, ViewConfig, load_run, loop, train
from relocal.training.data import TrainingData, split_validation
from relocal.training.run import build_model

WEIGHTS = "weights.safetensors"


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights_of(run: Path) -> dict[str, Tensor]:
    return load_file(run / WEIGHTS)


def copy_of(scene: Scene, out: Path) -> Path:
    assert scene.folder is not None
    return shutil.copytree(scene.folder, out, ignore=shutil.ignore_patterns("cache"))


# --- it learns ---------------------------------------------------------------------------------


def test_it_overfits_eight_images(tiny_scene: Scene, tmp_path: Path) -> None:
    scene = tiny_scene.with_splits({"train": tiny_scene.splits["train"][::3]}, "every third")
    truth = scene.poses[scene.indices("train")]
    assert len(truth) == 8
    centre = mean_pose(truth)
    start = median((truth.position - centre.position).norm(dim=-1).numpy())
    start_deg = median(
        rotation_error_deg(truth, replace(truth, quaternion=centre.quaternion.expand(8, 4))).numpy()
    )
    config = TrainConfig(
        model=PoseNetConfig(pool="average", dropout=0.0, width=256),
        loss=LossConfig(name="position+frustum"),
        view=ViewConfig(input_px=64, augment="none", jitter=0.0),
        epochs=25,
        lr=3e-3,
        precision="32-true",
        accelerator="cpu",
    )
    train(scene, tmp_path / "run", config)
    last = rows_of(tmp_path / "run")[-1]
    assert last["train_position"] < start / 10
    assert last["train_rotation_deg"] < start_deg / 10


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    batch = TrainingData.batch

    def watch(self: TrainingData, index: Tensor, *rest: Any) -> Any:
        seen.extend(index.tolist())
        return batch(self, index, *rest)

    monkeypatch.setattr(TrainingData, "batch", watch)
    train(tiny_scene, tmp_path / "run", tiny_config)
    orders = [seen[start : start + 24] for start in range(0, 72, 24)]
    assert len(seen) == 72
    assert all(sorted(order) == tiny_scene.indices("train").tolist() for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


# --- what is kept ------------------------------------------------------------------------------


def test_saved_weights_are_the_moving_average_of_the_last_step(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, Tensor]] = []
    update = loop.update_average

    def watch(pairs: loop.Pairs, decay: float, step: int) -> None:
        assert step == len(states)
        now = (value for _, value in pairs)  # nothing is frozen here
        states.append({key: v.double().clone() for key, v in zip(average, now, strict=True)})
        update(pairs, decay, step)

    monkeypatch.setattr(loop, "update_average", watch)
    config = replace(tiny_config, ema_decay=0.6)
    torch.manual_seed(config.seed)
    model = build_model(config)
    relative = tiny_scene.poses.canonical().shifted(-tiny_scene.origin)
    model.fit_statistics(relative[tiny_scene.indices("train")].to(torch.float32))
    average = {key: value.double().clone() for key, value in model.state_dict().items()}
    train(tiny_scene, tmp_path / "run", config)
    assert len(states) == 9
    for step, state in enumerate(states):
        keep = min(0.6, (1 + step) / (10 + step))
        average = {key: keep * average[key] + (1 - keep) * state[key] for key in state}
    saved = weights_of(tmp_path / "run")
    for key, value in average.items():
        if saved[f"model.{key}"].is_floating_point():
            torch.testing.assert_close(saved[f"model.{key}"].double(), value, rtol=0, atol=1e-5)
    assert (
        saved["model.head.rotation.weight"] - states[-1]["head.rotation.weight"]
    ).abs().max() > 1e-4


def test_learned_loss_weights_train_without_decay_and_are_saved(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, loss=LossConfig(name="homoscedastic"), weight_decay=0.1)
    train(tiny_scene, tmp_path / "run", config)
    saved = {k: v for k, v in weights_of(tmp_path / "run").items() if not k.startswith("model.")}
    assert saved.keys() == {"loss.s_x", "loss.s_q"}
    assert saved["loss.s_x"] != 0
    assert saved["loss.s_q"] != -3
    load_run(tmp_path / "run").model()  # they do not disturb serving
    model, loss = build_model(config), build_loss(config.loss)
    groups = loop.build_optimizer(model, loss, config).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {decays[id(p)] for p in loss.parameters()} == {0.0}
    assert {decays[id(p)] for p in model.parameters()} == {0.1}


@pytest.mark.parametrize("freeze", ["none", "stem", "all"])
def test_frozen_layers_stay_bit_identical_statistics_included(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path, freeze: Any
) -> None:
    start = build_backbone(tiny_config.backbone).state_dict()
    save_file(start, tmp_path / "start.safetensors")
    backbone = BackboneConfig(name="tiny", weights=str(tmp_path / "start.safetensors"))
    config = replace(tiny_config, backbone=backbone, freeze=freeze, epochs=1)
    train(tiny_scene, tmp_path / "run", config)
    end = weights_of(tmp_path / "run")
    same = {key for key in start if torch.equal(end[f"model.backbone.{key}"], start[key])}
    stem = {key for key in start if key.split(".")[0] in ("conv1", "norm1", "relu1")}
    assert same == {"none": set(), "stem": stem, "all": set(start)}[freeze]


def test_run_remembers_its_options_scene_and_images(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    made = train(tiny_scene, tmp_path / "run", replace(tiny_config, precision="auto", epochs=1))
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["train"]["precision"] in ("bf16-mixed", "32-true")
    run = load_run(tmp_path / "run")
    assert run.config == made.config == TrainConfig.from_json(content["train"])
    assert (run.scene, run.unit, run.depth) == (tiny_scene.name, "m", made.depth)
    assert run.training_images == tiny_scene.splits["train"]
    for name in ("camera", "window", "photo_camera"):
        assert getattr(run, name).to_json() == getattr(made, name).to_json()
    assert run.training_seconds() == pytest.approx(rows_of(tmp_path / "run")[0]["seconds"])
    about = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert about["packages"]["torch"] == torch.__version__


@pytest.mark.parametrize("fast", [True, False])
def test_precision_follows_a_rule_of_the_device(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    capabilities = {"amx_bf16": fast, "avx512_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    config = loop._resolve(TrainConfig(accelerator="cpu"), Path("new"), resume=False)
    assert config.precision == ("bf16-mixed" if fast else "32-true")


def test_images_are_read_once_for_all_trainings(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    scene, read = copy_of(tiny_scene, tmp_path / "scene"), []
    for name in ("first", "second"):
        said: list[str] = []
        config = replace(tiny_config, epochs=1, seed=len(read))
        train(scene, tmp_path / name, config, report=lambda *call, said=said: said.append(call[2]))
        read.append(said.count("reading images"))
    assert read == [24, 0]
    assert len(list((scene / "cache").iterdir())) == 1


# --- validation --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [30, 200, 1000])
def test_validation_blocks_are_apart_from_training(scene_of: Any, count: int) -> None:
    names = [f"seq-01/{i:06d}.png" for i in range(count)]
    scene = scene_of(names, splits={"train": tuple(names)})
    every = scene.indices("train")
    rest, held = (part.tolist() for part in split_validation(scene, every, True))
    assert 0.10 <= len(held) / count <= 0.20
    gap = min(5, count // 14)
    nearest = min(abs(i - j) for i in rest for j in held)
    assert nearest > gap
    blocks = sum(i - 1 not in held for i in held)
    assert blocks >= 2
    assert len(held) / blocks >= min(40, count // 14) - 1  # blocks, not single frames
    assert len(rest) + len(held) + 2 * gap * blocks >= count  # nothing else is left out
    everything, nothing = split_validation(scene, every, False)
    assert torch.equal(everything, every)
    assert len(nothing) == 0


def test_too_few_images_to_validate_are_refused(scene_of: Any) -> None:
    scene = scene_of(["a.png", "b.png"], splits={"train": ("a.png", "b.png")})
    with pytest.raises(InputError, match="--validate: 2 training images"):
        split_validation(scene, scene.indices("train"), True)


def test_validation_rows_exist_only_when_asked_for(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run = train(tiny_scene, tmp_path / "held", replace(tiny_config, validate=True))
    every = tiny_scene.splits["train"]
    held = [name for i, name in enumerate(every) if i % 7 == 3]
    assert not set(held) & set(run.training_images)
    row = rows_of(tmp_path / "held")[-1]
    # The number is that of the weights that are kept, on the images that were held out.
    said = loop.predict(run.model(), _views(tiny_scene, run, held), run.camera, run.window)
    poses, truth = run.in_world(said), tiny_scene.poses[[tiny_scene.images.index(n) for n in held]]
    errors = position_error(poses, truth), rotation_error_deg(poses, truth)
    assert row["validation_position"] == pytest.approx(median(errors[0].numpy()), abs=1e-4)
    assert row["validation_rotation_deg"] == pytest.approx(median(errors[1].numpy()), abs=1e-2)
    train(tiny_scene, tmp_path / "all", replace(tiny_config, epochs=1))
    assert not any("validation" in key for row in rows_of(tmp_path / "all") for key in row)


def _views(scene: Scene, run: Any, names: list[str]) -> Tensor:
    from relocal.images import load_view

    return torch.stack(
        [load_view(scene.image_root / name, run.photo_camera, run.camera) for name in names]
    )


# --- the schedule ------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_learning_rate_rises_to_its_peak_and_falls_to_zero(warmup: float) -> None:
    optimizer = SimpleNamespace(param_groups=[{"peak": 2.0}, {"peak": 0.5}])

    def rate(progress: float) -> float:
        loop.set_learning_rate(optimizer, progress, warmup)
        assert optimizer.param_groups[0]["lr"] == 4 * optimizer.param_groups[1]["lr"]
        return optimizer.param_groups[0]["lr"]

    rates = [rate(k / 1000) for k in range(1001)]
    top = round(1000 * warmup)
    assert rates[top] == pytest.approx(2.0)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    assert min(rates[:-1]) > 0


# --- what is refused ---------------------------------------------------------------------------


def test_loss_that_is_no_number_stops_and_names_loss_and_image(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(nn.Module):
        def forward(self, prediction: Any, target: Any, progress: float) -> Tensor:
            return prediction.position.sum(-1) * (math.nan if progress > 0.4 else 1)

    monkeypatch.setitem(LOSSES, "broken", Broken)
    config = replace(tiny_config, loss=LossConfig(name="broken"))
    with pytest.raises(InputError, match=r"--loss broken: the loss is nan .*seq-01/frame-\d{6}"):
        train(tiny_scene, tmp_path / "run", config)
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_loss_that_needs_depth_is_refused_without_points_unless_it_is_given(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    scene = replace(tiny_scene, points=None)
    with pytest.raises(InputError, match=r"--loss default\+frustum .* no map points.*--loss.depth"):
        train(scene, tmp_path / "run", tiny_config)
    assert not (tmp_path / "run").exists()
    config = replace(tiny_config, epochs=1)
    train(scene, tmp_path / "blind", replace(config, loss=LossConfig(name="default")))
    given = replace(config, loss=LossConfig(name="default+frustum", depth=2.0))
    train(scene, tmp_path / "given", given)

    def strict(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    text = (tmp_path / "given" / "config.json").read_text()
    assert json.loads(text, parse_constant=strict)["depth"] == [None, 2.0, None]
    near, depth, far = load_run(tmp_path / "given").depth or (0, 0, 0)
    assert depth == 2.0
    assert math.isnan(near)
    assert math.isnan(far)


def test_damaged_image_is_named_and_leaves_no_run(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    scene = copy_of(tiny_scene, tmp_path / "scene")
    photo = scene / "images" / tiny_scene.splits["train"][7]
    photo.write_bytes(photo.read_bytes()[:1500])
    with pytest.raises(InputError, match=f"{photo.name}.*damaged"):
        train(scene, tmp_path / "run", tiny_config)
    assert not (tmp_path / "run").exists()
    assert list((scene / "cache").iterdir()) == []


def test_wrong_loss_is_refused_before_images_are_read(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, loss=LossConfig(name="posnet"))
    said: list[str] = []
    with pytest.raises(InputError, match=r"--loss.*'posnet'.*posenet"):
        train(tiny_scene, tmp_path / "run", config, report=lambda *call: said.append(call[2]))
    assert said == []


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        *PRESETS.values(),
        TrainConfig(loss=LossConfig(name="default", alpha=2.0), freeze="stem", validate=True),
    ],
)
def test_options_survive_json(config: TrainConfig) -> None:
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda content: content["train"].update(epoch=3), "epoch"),
        (lambda content: content["train"]["view"].update(zoom=2), "zoom"),
        (lambda content: content["train"]["loss"].update(gamma=-1.0), "gamma"),
        (lambda content: content["train"].update(model="posenet"), "mapping"),
        (lambda content: content.pop("window"), "window"),
        (lambda content: content.update(depth=[1.0]), "unpack"),
        (lambda content: content["camera"].update(width="wide"), "wide"),
    ],
)
def test_run_with_strange_config_is_refused(
    tiny_run: Path, tmp_path: Path, change: Any, complaint: str
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    content = json.loads((run / "config.json").read_text())
    change(content)
    (run / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"config\.json.*{complaint}"):
        load_run(run)


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("epochs", 0, "--epochs"),
        ("batch_size", 0, "--batch-size"),
        ("lr", -1.0, "--lr"),
        ("backbone_lr", math.inf, "--backbone-lr"),
        ("weight_decay", math.nan, "--weight-decay"),
        ("ema_decay", 1.0, "--ema-decay"),
        ("warmup", 1.0, "--warmup"),
        ("model", PoseNetConfig(name="posnet"), "--model.*Did you mean posenet"),
    ],
)
def test_senseless_option_is_refused_by_name(option: str, value: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        TrainConfig(**{option: value})


@pytest.mark.parametrize(
    ("option", "value", "right"),
    [("freeze", "stm", "stem"), ("precision", "bf16", "bf16-mixed"), ("accelerator", "gpu", "cpu")],
)
def test_unknown_word_is_refused_with_the_nearest_one(option: str, value: str, right: str) -> None:
    config = TrainConfig()
    object.__setattr__(config, option, value)  # past the type check that only tests have
    with pytest.raises(InputError, match=f"--{option}.*{right}"):
        config.__post_init__()
