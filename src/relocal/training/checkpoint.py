"""Checkpoints: all that the next epoch depends on, so that any kill costs one epoch."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relocal.errors import InputError
from relocal.scene.files import read_json, write_json
from relocal.training import run as files


def save_checkpoint(
    folder: Path,
    epochs: int,
    model: nn.Module,
    loss: nn.Module,
    optimizer: Any,
    ema: dict[str, Tensor],
) -> None:
    """Keeps all that the next epoch depends on; random states follow from the epoch's number."""
    folder.mkdir(exist_ok=True)
    parts = {"model": model.state_dict(), "loss": loss.state_dict(), "ema": ema}
    tensors = {f"{part}.{k}": v for part, state in parts.items() for k, v in state.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{key}": value for key, value in state.items()}
    name = f"epoch-{epochs}.safetensors"
    files.write_tensors(folder / name, tensors)
    write_json(folder / "checkpoint.json", {"epochs": epochs, "tensors": name})
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(
    folder: Path, model: nn.Module, loss: nn.Module, optimizer: Any, ema: dict[str, Tensor]
) -> int:
    """Restores a checkpoint in place, if there is one; returns the number of finished epochs."""
    if not (folder / "checkpoint.json").is_file():
        return 0
    try:
        return _restore(folder, model, loss, optimizer, ema)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{folder}: this checkpoint does not fit its run ({error!r:.200}); remove the run to "
            "start again."
        ) from error


def _restore(
    folder: Path, model: nn.Module, loss: nn.Module, optimizer: Any, ema: dict[str, Tensor]
) -> int:
    about = read_json(folder / "checkpoint.json")
    tensors = files.read_tensors(folder / about["tensors"])

    def part(name: str) -> dict[str, Tensor]:
        prefix = f"{name}."
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model"))
    loss.load_state_dict(part("loss"))
    ema.update(part("ema"))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = _laid_out_as(parameters[int(number)], value)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return int(about["epochs"])


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """The same values in the parameter's memory layout: fused AdamW pairs them by place in memory.

    Files hold them row by row, and weights of convolutions are kept channels last.
    """
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def finish(out: Path, ema: dict[str, Tensor], loss: nn.Module) -> None:
    """Writes the final weights, and drops the checkpoint that they replace."""
    tensors = {f"model.{k}": v for k, v in ema.items()}
    tensors |= {f"loss.{k}": v for k, v in loss.state_dict().items()}
    files.write_tensors(out / files.WEIGHTS, tensors)
    for file in (out / files.CHECKPOINT).glob("*"):
        file.unlink()
    (out / files.CHECKPOINT).rmdir()
