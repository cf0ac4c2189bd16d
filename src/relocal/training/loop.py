"""Training: Scene + model + loss -> Run."""

import ctypes
import logging
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.losses import build_loss, check_rotation, needs_depth
from relocal.metrics import median
from relocal.models import PoseNet
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene import Scene, load_scene
from relocal.scene.files import check_new
from relocal.training import run as files
from relocal.training.checkpoint import finish, load_checkpoint, save_checkpoint
from relocal.training.config import TrainConfig
from relocal.training.data import Report, TrainingData
from relocal.training.features import central_cells
from relocal.training.run import Run, build_model, channels_last
from relocal.training.views import central_view
from relocal.types import Prediction, Target

AUXILIARY_WEIGHT = 0.3  # PoseNet's released training files
_EVALUATION_BATCH = 64


def train(
    scene: Scene | Path | str,
    out: Path | str,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    report: Report = lambda done, total, text: None,
) -> Run:
    """Trains a pose regressor on the training images of a scene.

    Args:
        scene: A scene with a ``train`` split, or its folder.
        out: Folder of the run; must be new, or hold an unfinished run with ``resume``.
        config: Every option; None takes the defaults, or with ``resume`` the run's own.
        resume: Goes on after the last finished epoch. On one CPU the weights become the same, bit
            for bit, as without the interruption.
        report: Called with steps done, steps in all and a line of progress.

    Returns:
        The finished run.

    Raises:
        InputError: If an option cannot be used with this scene, or ``out`` cannot be written.
    """
    from lightning_fabric import Fabric

    # It would announce the precision, which config.json says.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    out = Path(out)
    scene = scene if isinstance(scene, Scene) else load_scene(Path(scene))
    config = _resolve(config, out, resume)
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            precision="32-true" if config.precision == "auto" else config.precision,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--accelerator {config.accelerator}: {error}") from error
    fabric.launch()
    if not fabric.is_global_zero:
        report = _quiet
    keep_freed_memory()
    fabric.seed_everything(config.seed, verbose=False)
    # First what is quick to refuse, then the images.
    loss = build_loss(config.loss)
    check_rotation(loss, config.model.rotation)
    model = build_model(config)
    data = TrainingData(scene, config, model.backbone, report)
    if needs_depth(loss) and data.depth is None:
        raise InputError(
            f"--loss {config.loss.name} uses the scene's depth, and {scene.name} has no map "
            f"points: make some with relocal triangulate {scene.folder or 'SCENE'}, or give its "
            "median depth with --loss.depth."
        )
    model.fit_statistics(data.poses[data.train].to(torch.float32))
    run = data.run(out)
    with files.locked(out) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            files.begin(run, scene)
        fit(fabric, model, loss, data, out, report)
    return run


def _quiet(done: int, total: int, text: str) -> None:
    """What all processes but the first report."""


def fit(
    fabric: Any, model: PoseNet, loss: nn.Module, data: TrainingData, out: Path, report: Report
) -> None:
    """The loop: every epoch a fresh order, then a checkpoint, so that any kill costs one epoch."""
    config = data.config
    model.backbone.freeze(config.freeze)
    model = channels_last(model)
    optimizer = build_optimizer(model, loss, config)
    ema = {key: value.clone() for key, value in model.state_dict().items()}
    start = load_checkpoint(out / files.CHECKPOINT, model, loss, optimizer, ema)
    files.keep_rows(out / files.METRICS, start)
    loss = loss.to(fabric.device)
    network, optimizer = fabric.setup(model, optimizer)
    ema = {key: value.to(fabric.device) for key, value in ema.items()}
    steps = data.steps_per_epoch
    total = config.epochs * steps
    for epoch in range(start, config.epochs):
        # All randomness of an epoch follows from its number: a resumed run draws the same.
        fabric.seed_everything((config.seed * 100_003 + epoch) % 2**32, verbose=False)
        generator = torch.Generator().manual_seed(torch.initial_seed())
        network.train()
        rows: list[tuple[float, Tensor, Tensor]] = []
        began = time.perf_counter()
        for step, index in enumerate(data.batches(generator, fabric), start=epoch * steps):
            set_learning_rate(optimizer, step / total, config.warmup)
            images, target = data.batch(index, generator, fabric.device)
            prediction = network(images, data.cells)
            values = batch_loss(loss, prediction, target, step / total)
            mean = values.mean()
            check_finite(mean, data, index, out)
            fabric.backward(mean)
            reduce_loss_gradients(fabric, loss)
            optimizer.step()
            optimizer.zero_grad()
            update_average(ema, model, config.ema_decay, step)
            rows.append(errors_row(mean, prediction, target))
            speed = len(rows) * data.batch_size / (time.perf_counter() - began)
            report(step + 1, total, progress_line(epoch, data, rows, speed))
        row = epoch_row(epoch, rows, data, time.perf_counter() - began)
        if config.validate:
            row |= validation_row(model, ema, data, fabric.device)
        if fabric.is_global_zero:
            files.append_row(out / files.METRICS, row)
            save_checkpoint(out / files.CHECKPOINT, epoch + 1, model, loss, optimizer, ema)
        fabric.barrier()
    if fabric.is_global_zero:
        finish(out, ema, loss)


def batch_loss(
    loss: nn.Module, prediction: Prediction, target: Target, progress: float
) -> Float[Tensor, " B"]:
    """The loss a sample, with PoseNet's auxiliary regressors where the model has them."""
    value = loss(prediction, target, progress)
    for inner in prediction.auxiliary:
        value = value + AUXILIARY_WEIGHT * loss(inner, target, progress)
    return value


def build_optimizer(model: PoseNet, loss: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with one rate for the backbone and one for the rest; no decay on loss weights."""
    backbone = {id(p) for p in model.backbone.parameters()}
    groups = [
        {
            "params": [p for p in model.parameters() if id(p) in backbone and p.requires_grad],
            "peak": config.backbone_lr,
        },
        {"params": [p for p in model.parameters() if id(p) not in backbone], "peak": config.lr},
        {"params": list(loss.parameters()), "peak": config.lr, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: Any, progress: float, warmup: float) -> None:
    """Linear warm-up, then half a cosine down to zero."""
    if progress < warmup:
        factor = (progress + 1e-3) / (warmup + 1e-3)
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


@torch.no_grad()
def update_average(ema: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Moves the averaged weights towards the present ones, faster at the start."""
    decay = min(decay, (1 + step) / (10 + step))
    state = model.state_dict()
    floats = [key for key, value in state.items() if value.is_floating_point()]
    for key in floats:
        ema[key].lerp_(state[key], 1 - decay)
    for key in state.keys() - set(floats):
        ema[key].copy_(state[key])


def reduce_loss_gradients(fabric: Any, loss: nn.Module) -> None:
    """Averages the gradients of learned loss weights over processes, as those of the model are."""
    if fabric.world_size > 1:
        for parameter in loss.parameters():
            if parameter.grad is not None:
                parameter.grad = fabric.all_reduce(parameter.grad, reduce_op="mean")


def check_finite(mean: Tensor, data: TrainingData, index: Tensor, out: Path) -> None:
    """Stops at a loss that is no number, and names the batch."""
    if not bool(torch.isfinite(mean)):
        names = [data.scene.images[i] for i in index.tolist()]
        raise InputError(
            f"--loss {data.config.loss.name}: the loss is {float(mean.detach())} on a batch with "
            f"{names[0]}. Look at these images and poses, or remove {out} and lower --lr."
        )


def errors_row(
    mean: Tensor, prediction: Prediction, target: Target
) -> tuple[float, Tensor, Tensor]:
    """Loss and errors of a batch, for the progress line."""
    with torch.no_grad():
        pose = prediction.pose()
        return (
            float(mean),
            position_error(pose, target.pose),
            rotation_error_deg(pose, target.pose),
        )


def _medians(rows: list[tuple[float, Tensor, Tensor]]) -> tuple[float, float]:
    return (
        median(torch.cat([row[1] for row in rows]).cpu().numpy()),
        median(torch.cat([row[2] for row in rows]).cpu().numpy()),
    )


def progress_line(
    epoch: int, data: TrainingData, rows: list[tuple[float, Tensor, Tensor]], images_per_s: float
) -> str:
    """Epoch, loss, median errors of the latest training batches, and speed; fits a terminal."""
    position, rotation = _medians(rows[-20:])
    return (
        f"epoch {epoch + 1}/{data.config.epochs} loss {rows[-1][0]:.3f} "
        f"train {position:.3f} {data.scene.unit} {rotation:.1f}° {images_per_s:.0f} img/s"
    )


def epoch_row(
    epoch: int,
    rows: list[tuple[float, Tensor, Tensor]],
    data: TrainingData,
    seconds: float,
) -> dict[str, Any]:
    """The row of ``metrics.jsonl``; its training medians are of augmented images."""
    position, rotation = _medians(rows)
    return {
        "epoch": epoch + 1,
        "loss": float(np.mean([row[0] for row in rows])),
        "train_position": position,
        "train_rotation_deg": rotation,
        "images_per_s": data.steps_per_epoch * data.batch_size / seconds,
        "seconds": seconds,
    }


def validation_row(
    model: PoseNet, ema: dict[str, Tensor], data: TrainingData, device: torch.device
) -> dict[str, float]:
    """Median errors of the averaged weights on the held-out blocks."""
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(ema)
    images = data.images[data.row[data.validation]]
    poses = predict(model, images, data.camera, data.window, data.cells, device)
    model.load_state_dict(kept)
    truth = data.poses[data.validation].to(torch.float32)
    return {
        "validation_position": median(position_error(poses, truth).numpy()),
        "validation_rotation_deg": median(rotation_error_deg(poses, truth).numpy()),
    }


@torch.no_grad()
def predict(
    model: PoseNet,
    images: Tensor,
    camera: Camera,
    window: Camera,
    cells: bool = False,
    device: torch.device | str = "cpu",
) -> Pose:
    """Poses (n,) of images, in float32, on the CPU.

    Args:
        model: The network.
        images: Images of the training camera, uint8, or their maps of the stem, bfloat16.
        camera: The training camera.
        window: Its part that the network sees.
        cells: Whether the network was trained on windows of the stem's maps.
        device: Where the network is.
    """
    was_training = model.training
    model.eval()
    poses: list[Pose] = []
    for batch in images.split(_EVALUATION_BATCH):
        batch = batch.to(device)
        if cells:
            maps = batch if batch.dtype == torch.bfloat16 else model.backbone.stem(batch.float())
            prediction = model(central_cells(maps, camera, window), True)
        else:
            prediction = model(central_view(batch, window))
        poses.append(prediction.pose().to("cpu"))
    model.train(was_training)
    return Pose(torch.cat([p.position for p in poses]), torch.cat([p.quaternion for p in poses]))


def _resolve(config: TrainConfig | None, out: Path, resume: bool) -> TrainConfig:
    """Checks the folder, and fixes what the options leave open."""
    stored = out / files.CONFIG
    if (out / files.WEIGHTS).is_file():
        raise InputError(f"{out}: this run is finished; give another --out.")
    old = files.stored_config(out)
    if old is None:
        if resume:
            raise InputError(f"{out}: there is no run to go on with; leave out --resume.")
        check_new(out)
        return _with_precision(config or TrainConfig())
    if not resume:
        raise InputError(f"{out}: holds an unfinished run; go on with --resume, or remove it.")
    if config is not None and _with_precision(config) != old:
        raise InputError(f"{out}: --resume goes on with the options of {stored}; give no others.")
    return old


def _with_precision(config: TrainConfig) -> TrainConfig:
    if config.precision != "auto":
        return config
    on_gpu = config.accelerator == "cuda" or (
        config.accelerator == "auto" and torch.cuda.is_available()
    )
    fast = on_gpu or bf16_is_fast_on_cpu()
    return replace(config, precision="bf16-mixed" if fast else "32-true")


def keep_freed_memory() -> None:
    """Makes glibc keep freed blocks for the next step, which asks for the same sizes again.

    Given back to the system, every block costs its page faults anew: a fifth of a step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: take large blocks from the heap, too
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and never shrink it


def bf16_is_fast_on_cpu() -> bool:
    """Whether this processor multiplies bfloat16 itself (AMX, AVX-512 BF16)."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
