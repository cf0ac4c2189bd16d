"""Studies in which something goes wrong: wrong losses, killed processes, other processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relocal.losses import LOSSES, Loss
from relocal.pose import safe_norm
from relocal.studies import StudyConfig, study
from relocal.training import TrainConfig


class Broken(Loss):
    """No number on one image."""

    def forward(self, prediction: Any, target: Any, progress: float) -> torch.Tensor:
        value = safe_norm(prediction.position - target.pose.position)
        return torch.where(torch.arange(len(value)) == 1, torch.nan, value)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(LOSSES, "broken", Broken)
    return "broken"


def test_a_loss_that_is_no_number_fails_its_cell_and_the_others_go_on(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path, broken: str
) -> None:
    losses = f"default,{broken}+frustum"
    config = StudyConfig(losses=losses, seeds=2, tune=1)
    found = study([blocks_scene], tmp_path, config, base)
    assert list(found.scenes["tiny"].methods) == ["default"]
    assert len(found.failed) >= 1
    assert "the loss is nan" in found.failed[0]
    assert "(in Broken; a batch of 8 images" in found.failed[0]
    assert "frame-" in found.failed[0]


class Raising(Loss):
    """Fails in its own way."""

    def forward(self, prediction: Any, target: Any, progress: float) -> torch.Tensor:
        return prediction.positions


class Scalar(Loss):
    """Reduces too early."""

    def forward(self, prediction: Any, target: Any, progress: float) -> torch.Tensor:
        return prediction.position.mean()


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (Raising, r"AttributeError: .*positions.*test_study_failures.py, line"),
        (Scalar, "one value an"),
    ],
)
def test_a_loss_that_is_wrong_fails_its_cell_and_the_others_go_on(
    blocks_scene: Path,
    base: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loss: Any,
    reason: str,
) -> None:
    monkeypatch.setitem(LOSSES, "wrong", loss)
    config = StudyConfig(losses="wrong,wrong+frustum,default", seeds=1, tune=1)
    found = study(blocks_scene, tmp_path, config, base)
    assert list(found.scenes["tiny"].methods) == ["default"]
    assert len(found.failed) == 2
    for failure in found.failed:
        assert re.search(reason, failure)


def test_a_process_that_is_killed_fails_its_cell_and_the_others_go_on(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text(
        "import os, relocal\n"
        "from relocal.losses import Loss\n"
        "class Deadly(Loss):\n"
        "    def forward(self, prediction, target, progress):\n"
        "        os.kill(os.getpid(), 9)\n"
        "relocal.LOSSES['deadly'] = Deadly\n"
    )
    config = StudyConfig(losses="default,deadly,posenet", seeds=1, tune=1)
    found = study(blocks_scene, tmp_path / "out", config, base, workers=2, modules=(str(deadly),))
    assert list(found.scenes["tiny"].methods) == ["default", "posenet"]
    assert "killed twice" in found.failed[0]
    del LOSSES["deadly"]


# Killed and started again.


def run_study(scene: Path, out: Path, workers: int = 1) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "relocal", "study", str(scene), "--out", str(out)]
    command += ["--losses", "default,posenet", "--seeds", "2", "--tune", "1", "--train", "tail"]
    command += ["--epochs", "4", "--batch-size", "8", "--view.input-px", "64"]
    command += ["--model.width", "32", "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def table(out: Path) -> dict[str, Any]:
    scene = json.loads((out / "study.json").read_text())["scenes"]["tiny"]
    return {name: (m["position"], m["rotation_deg"]) for name, m in scene["methods"].items()}


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_table(blocks_scene: Path, tmp_path: Path) -> None:
    whole = run_study(blocks_scene, tmp_path / "whole")
    assert whole.wait(timeout=600) == 0
    killed = run_study(blocks_scene, tmp_path / "killed")
    deadline = time.monotonic() + 300
    # In the middle of a cell: one of its epochs is finished.
    while not list((tmp_path / "killed").glob("scratch/unfinished/*/checkpoint/epoch-2*")):
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "study.json").exists()
    assert run_study(blocks_scene, tmp_path / "killed").wait(timeout=600) == 0
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    two = run_study(blocks_scene, tmp_path / "two", workers=2)
    assert two.wait(timeout=600) == 0
    for name, errors in table(tmp_path / "two").items():
        np.testing.assert_allclose(errors, table(tmp_path / "whole")[name], rtol=0.2)


@pytest.mark.slow
def test_tasks_of_ray_give_the_same_table(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    config = StudyConfig(losses="default,posenet", seeds=1, tune=1)
    near, far = (
        study(blocks_scene, tmp_path / (ray or "here"), config, base, ray=ray).scenes["tiny"]
        for ray in (None, "local")
    )
    for name, row in near.methods.items():
        np.testing.assert_allclose(far.methods[name].position, row.position, rtol=0.05)
