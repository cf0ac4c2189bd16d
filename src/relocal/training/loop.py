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

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relocal.errors import InputError
from relocal.losses import build_loss, check_log_variance, check_rotation, check_scene
from relocal.metrics import median
from relocal.models import PoseNet
from relocal.pose import position_error, rotation_error_deg
from relocal.precision import bf16_is_fast_on_cpu
from relocal.scene import Scene, load_scene
from relocal.scene.files import check_new
from relocal.training import run as files
from relocal.training.checkpoint import finish, load_checkpoint, save_checkpoint
from relocal.training.config import TrainConfig
from relocal.training.data import Origin, Report, TrainingData
from relocal.training.prediction import predict
from relocal.training.progress import check_finite, epoch_row, errors_row, progress_line
from relocal.training.run import Run, build_model, channels_last
from relocal.types import Prediction, Target

AUXILIARY_WEIGHT = 0.3  # PoseNet's released training files
_SECONDS_A_LINE = 0.1


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
    out = Path(out)
    scene = scene if isinstance(scene, Scene) else load_scene(Path(scene))
    config = _resolve(config, out, resume)
    begun = files.stored_run(out)
    origin = None if begun is None else begun.origin
    fabric, model, loss, data = prepare(scene, config, report, origin=origin)
    if not fabric.is_global_zero:
        report = _quiet
    run = data.run(out)
    with files.locked(out) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            files.begin(run, scene)
        ema, _ = fit(fabric, model, loss, data, out, report)
        if fabric.is_global_zero:
            finish(out, ema, loss)
    return run


def prepare(
    scene: Scene,
    config: TrainConfig,
    report: Report,
    every_image: bool = False,
    origin: Origin | None = None,
) -> tuple[Any, PoseNet, nn.Module, TrainingData]:
    """All that a training starts from; what is quick to refuse is refused before images are read.

    Args:
        scene: The scene.
        config: Every option, with a precision.
        report: Called with images done, images in all, and what is being done.
        every_image: Also read the images that are not trained on.
        origin: What positions are relative to, where a training goes on; by default the scene's.

    Returns:
        Lightning Fabric, launched and seeded; the network and the loss as they start; the data.

    Raises:
        InputError: If an option cannot be used with this scene.
    """
    from lightning_fabric import Fabric

    # It would announce the precision, which config.json says.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
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
    keep_freed_memory()
    loss = build_loss(config.loss)
    check_rotation(loss, config.model.rotation)
    check_log_variance(loss, config.model.log_variance)
    # After the loss, which may have random weights of its own: all losses start from one network.
    fabric.seed_everything(config.seed, verbose=False)
    model = build_model(config)
    report = report if fabric.is_global_zero else _quiet
    data = TrainingData(scene, config, model, report, every_image, origin)
    has_points = scene.points is not None
    check_scene(loss, config.loss.name, scene.name, data.depth, has_points)
    model.fit_statistics(data.poses[data.train].to(torch.float32))
    return fabric, model, loss, data


def _quiet(done: int, total: int, text: str) -> None:
    """What all processes but the first report."""


def fit(
    fabric: Any,
    model: PoseNet,
    loss: nn.Module,
    data: TrainingData,
    out: Path | None,
    report: Report,
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The loop: every epoch a fresh order, then a checkpoint, so that any kill costs one epoch.

    Args:
        fabric: Lightning Fabric, launched and seeded.
        model: The network as it starts; it is trained in place.
        loss: The loss.
        data: The training images.
        out: Folder of the run; None keeps nothing on disk.
        report: Called with steps done, steps in all and a line of progress.

    Returns:
        The averaged weights, and a row an epoch of what was measured.
    """
    config = data.config
    model.backbone.freeze(config.freeze)
    model = channels_last(model)
    optimizer = build_optimizer(model, loss, config)
    ema = {key: value.clone() for key, value in model.state_dict().items()}
    start, measured = 0, list[dict[str, Any]]()
    if out is not None:
        start = load_checkpoint(out / files.CHECKPOINT, model, loss, optimizer, ema)
        files.keep_rows(out / files.METRICS, start)
    loss = loss.to(fabric.device)
    network, optimizer = fabric.setup(model, optimizer)
    ema = {key: value.to(fabric.device) for key, value in ema.items()}
    pairs = moving_pairs(ema, model)
    steps = data.steps_per_epoch
    total = config.epochs * steps
    for epoch in range(start, config.epochs):
        # All randomness of an epoch follows from its number: a resumed run draws the same.
        fabric.seed_everything((config.seed * 100_003 + epoch) % 2**32, verbose=False)
        generator = torch.Generator().manual_seed(torch.initial_seed())
        network.train()
        rows: list[tuple[float, Tensor, Tensor]] = []
        line, told, began = "", -math.inf, time.perf_counter()
        for step, index in enumerate(data.batches(generator, fabric), start=epoch * steps):
            set_learning_rate(optimizer, step / total, config.warmup)
            images, target = data.batch(index, generator, fabric.device)
            prediction = network(images, config.cached)
            values = batch_loss(loss, prediction, target, step / total)
            mean = values.mean()
            check_finite(values, loss, prediction, target, step / total, data, index)
            fabric.backward(mean)
            reduce_loss_gradients(fabric, loss)
            optimizer.step()
            optimizer.zero_grad()
            update_average(pairs, config.ema_decay, step)
            rows.append(errors_row(mean, prediction, target))
            now = time.perf_counter()
            if now - told > _SECONDS_A_LINE:  # medians cost as much as a small step
                line, told = progress_line(epoch, data, rows, now - began), now
            report(step + 1, total, line)
        row = epoch_row(epoch, rows, data, time.perf_counter() - began)
        if config.validate:
            row |= validation_row(model, pairs, data, fabric.device)
        measured.append(row)
        if out is not None and fabric.is_global_zero:
            files.append_row(out / files.METRICS, row)
            save_checkpoint(out / files.CHECKPOINT, epoch + 1, model, loss, optimizer, ema)
        fabric.barrier()
    return ema, measured


def batch_loss(
    loss: nn.Module, prediction: Prediction, target: Target, progress: float
) -> Float[Tensor, " B"]:
    """The loss a sample, with PoseNet's auxiliary regressors where the model has them.

    Raises:
        InputError: If a loss from outside gives something else.
    """
    value = loss(prediction, target, progress)
    if value.shape != target.pose.shape:
        raise InputError(
            f"--loss: {type(loss).__name__} gives values of shape {tuple(value.shape)} for "
            f"{len(target.pose.position)} images; a loss gives one value an image."
        )
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
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: Any, progress: float, warmup: float) -> None:
    """Linear warm-up, then half a cosine down to zero."""
    if progress < warmup:
        factor = (progress + 1e-3) / (warmup + 1e-3)
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


Pairs = list[tuple[Tensor, Tensor]]


def moving_pairs(ema: dict[str, Tensor], model: PoseNet) -> Pairs:
    """The averaged and the present tensors of all that training changes."""
    still = {f"backbone.{key}" for key in model.backbone.frozen_state()}
    return [(ema[key], value) for key, value in model.state_dict().items() if key not in still]


@torch.no_grad()
def update_average(pairs: Pairs, decay: float, step: int) -> None:
    """Moves the averaged weights towards the present ones, faster at the start."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, now in pairs:
        if now.is_floating_point():
            mean.lerp_(now, 1 - decay)
        else:
            mean.copy_(now)


def reduce_loss_gradients(fabric: Any, loss: nn.Module) -> None:
    """Averages the gradients of learned loss weights over processes, as those of the model are."""
    if fabric.world_size > 1:
        for parameter in loss.parameters():
            if parameter.grad is not None:
                parameter.grad = fabric.all_reduce(parameter.grad, reduce_op="mean")


@torch.no_grad()
def validation_row(
    model: PoseNet, pairs: Pairs, data: TrainingData, device: torch.device
) -> dict[str, float]:
    """Median errors of the averaged weights on the held-out blocks."""
    kept = [now.clone() for _, now in pairs]
    for mean, now in pairs:
        now.copy_(mean)
    images = data.images[data.row[data.validation]]
    poses = predict(model, images, data.camera, data.window, data.config.cached, device)
    for (_, now), old in zip(pairs, kept, strict=True):
        now.copy_(old)
    truth = data.poses[data.validation]
    return {
        "validation_position": median(position_error(poses, truth).numpy()),
        "validation_rotation_deg": median(rotation_error_deg(poses, truth).numpy()),
    }


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
        return with_precision(config or TrainConfig())
    if not resume:
        raise InputError(f"{out}: holds an unfinished run; go on with --resume, or remove it.")
    if config is not None and with_precision(config) != old:
        raise InputError(f"{out}: --resume goes on with the options of {stored}; give no others.")
    return old


def with_precision(config: TrainConfig) -> TrainConfig:
    """The same options, with the precision that ``auto`` means on this machine."""
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
