"""Stopping and resuming: any kill costs one epoch, and changes no bit of what comes out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from relocal import cli
from relocal.backbones import BackboneConfig
from relocal.errors import InputError
from relocal.losses import LossConfig
from relocal.models import PoseNetConfig
from relocal.scene import Scene
from relocal.training import TrainConfig, ViewConfig, load_run, loop, run, train
from relocal.training.run import build_model, channels_last, locked

WEIGHTS = "weights.safetensors"


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def stop_at(step: int) -> Any:
    """A report that interrupts the training at a step."""

    def report(done: int, total: int, text: str) -> None:
        if text.startswith("epoch") and done == step:
            raise KeyboardInterrupt

    return report


DEMANDING = {
    "loss": LossConfig(name="homoscedastic+frustum"),
    "view": ViewConfig(input_px=32, augment="virtual", jitter=0.3),
    "ema_decay": 0.9,
    "validate": True,
}


def test_interrupted_training_resumes_bit_for_bit(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, **DEMANDING, epochs=4, batch_size=4)
    train(tiny_scene, tmp_path / "whole", config)
    out = tmp_path / "parts"
    for done in (2, 4, 9, 12):  # in epochs 1, 2, 3 and 4, which have 3 steps each
        with pytest.raises(KeyboardInterrupt):
            train(tiny_scene, out, config, resume=out.exists(), report=stop_at(done))
        assert not (out / WEIGHTS).exists()
    assert (out / "checkpoint").is_dir()
    resumed = train(tiny_scene, out, resume=True)
    assert (out / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert resumed.config == config
    assert not (out / "checkpoint").exists()
    assert [p.name for p in out.iterdir() if "partial" in p.name] == []
    rows, whole = rows_of(out), rows_of(tmp_path / "whole")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    for row in (*rows, *whole):
        del row["seconds"], row["images_per_s"]
    assert rows == whole


def test_killed_process_resumes_bit_for_bit(tiny_scene: Scene, tmp_path: Path) -> None:
    options = ["--pretrained", "none", "--model.width", "32", "--view.input-px", "32"]
    options += ["--epochs", "4", "--batch-size", "8", "--precision", "32-true"]
    options += ["--accelerator", "cpu"]
    command = [sys.executable, "-m", "relocal", "train", str(tiny_scene.folder), *options]
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, "--out", str(killed)], env=env)
    try:
        for _ in _ticks(300):
            if (killed / "checkpoint" / "checkpoint.json").exists():
                break
            assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert 1 <= len(rows_of(killed)) < 4
    assert not (killed / WEIGHTS).exists()
    with pytest.raises(InputError, match="resume"):
        load_run(killed)
    train(tiny_scene, killed, resume=True)
    train(tiny_scene, whole, load_run(killed).config)
    first, second = (load_file(run / WEIGHTS) for run in (killed, whole))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert [row["epoch"] for row in rows_of(killed)] == [1, 2, 3, 4]


def _ticks(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.005)
    raise AssertionError("the training did not get there in time")


def test_row_that_a_kill_cut_short_is_dropped(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny_scene, tmp_path / "run", tiny_config, report=stop_at(5))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    train(tiny_scene, tmp_path / "run", resume=True)
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == [1, 2, 3]


def test_resuming_with_other_options_is_refused(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_scene, out, tiny_config, report=stop_at(2))
    before = (out / "config.json").read_bytes()
    with pytest.raises(InputError, match=r"--resume goes on with the options of .*config\.json"):
        train(tiny_scene, out, replace(tiny_config, lr=0.5), resume=True)
    with pytest.raises(InputError, match="holds an unfinished run; go on with --resume"):
        train(tiny_scene, out, tiny_config)
    assert (out / "config.json").read_bytes() == before
    with pytest.raises(InputError, match="there is no run to go on with"):
        train(tiny_scene, tmp_path / "other", tiny_config, resume=True)
    assert not (tmp_path / "other").exists()


def test_resuming_starts_from_the_options_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "stored_config", lambda run: TrainConfig(epochs=7, seed=3))
    resume = ["train", "scene", "--out", "run", "--resume"]
    for options, epochs in (([], 7), (["--epochs", "30"], 30)):  # 30 is also the plain default
        verb = cli.parse([*resume, *options])
        assert isinstance(verb, cli.Train)
        assert verb.config == TrainConfig(epochs=epochs, seed=3)
    with pytest.raises(InputError, match=r"--preset: --resume goes on"):
        cli.parse([*resume, "--preset", "posenet2015"])


def test_folder_that_is_not_new_is_refused(
    tiny_scene: Scene, tiny_config: TrainConfig, tiny_run: Path, tmp_path: Path
) -> None:
    for resume in (False, True):
        with pytest.raises(InputError, match="this run is finished"):
            train(tiny_scene, tiny_run, tiny_config, resume=resume)
    (tmp_path / "letter.txt").write_text("dear")
    for out in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(InputError, match="exists already"):
            train(tiny_scene, out, tiny_config)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_second_training_in_a_folder_is_refused(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_scene, out, tiny_config, report=stop_at(5))
    rows = rows_of(out)
    with (
        locked(out),
        pytest.raises(InputError, match="run: another training is at work in this folder"),
    ):
        train(tiny_scene, out, resume=True)
    assert rows_of(out) == rows
    (out / "environment.json").unlink()  # as a kill between two files would leave it
    train(tiny_scene, out, resume=True)
    assert (out / "environment.json").is_file()


def test_full_disk_names_the_file_and_leaves_the_last_epoch(
    tiny_scene: Scene,
    tiny_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    with pytest.raises(KeyboardInterrupt):
        train(tiny_scene, tmp_path / "run", tiny_config, report=stop_at(5))
    real = run.save_file
    monkeypatch.setattr(run, "save_file", full)
    with pytest.raises(InputError, match=r"epoch-2\.safetensors: cannot be written .*No space"):
        train(tiny_scene, tmp_path / "run", resume=True)
    monkeypatch.setattr(run, "save_file", real)
    assert list((tmp_path / "run").rglob("*.partial")) == []
    train(tiny_scene, tmp_path / "run", resume=True)
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == [1, 2, 3]


def test_training_goes_on_with_the_same_depth_only(tiny_scene: Scene, tiny_run: Path) -> None:
    begun = load_run(tiny_run)
    assert begun.depth is not None
    near, median, far = begun.depth
    for depth in [(near, median * 1.009, far), (near, median, far * 0.991)]:
        run.begin(replace(begun, depth=depth), tiny_scene)
    for depth in [(near, median * 1.02, far), (near, median, far * 0.5), None]:
        with pytest.raises(InputError, match=r"--resume needs the map points .*depth are .* were"):
            run.begin(replace(begun, depth=depth), tiny_scene)


def test_depth_of_wrong_poses_is_refused(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    assert tiny_scene.points is not None
    far_away = replace(tiny_scene.points, xyz=tiny_scene.points.xyz + 1e3)
    with pytest.raises(InputError, match=r"observations of map points fit the poses"):
        train(replace(tiny_scene, points=far_away), tmp_path / "run", tiny_config)


def test_fused_steps_are_plain_adamw_on_weights_that_lie_channels_last() -> None:
    config = TrainConfig(backbone=BackboneConfig(weights="none"))
    config = replace(config, model=PoseNetConfig(pool="average", width=8))
    ends: list[list[Tensor]] = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = channels_last(build_model(config)).train()
        optimizer = loop.build_optimizer(model, nn.Identity(), config)
        for group in optimizer.param_groups:
            assert group["fused"]
            group["fused"] = fused
        model(torch.rand(2, 3, 64, 64) * 255).position.sum().backward()
        for _ in range(3):
            optimizer.step()
        ends.append([p.detach().clone() for p in model.parameters()])
    assert any(not p.is_contiguous() for p in ends[0])
    for fast, plain in zip(*ends, strict=True):
        torch.testing.assert_close(fast, plain)
