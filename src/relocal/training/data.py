"""What training reads: the training images in memory, and how batches are drawn from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.backbones import STEM_STRIDE, Backbone
from relocal.errors import InputError
from relocal.images import build_cache, cache_name, training_camera
from relocal.pose import mean_quaternion
from relocal.scene import Scene, block_split
from relocal.training.config import TrainConfig
from relocal.training.features import build_feature_cache, central_cells, random_cells
from relocal.training.run import Run
from relocal.training.views import augmented_view, expanded, input_camera
from relocal.types import Target

VALIDATION_BLOCK, VALIDATION_EVERY, VALIDATION_GAP = 40, 7, 5

Report = Callable[[int, int, str], None]


class TrainingData:
    """The training images in memory, and how batches are drawn from them."""

    def __init__(
        self, scene: Scene, config: TrainConfig, backbone: Backbone, report: Report
    ) -> None:
        self.scene, self.config = scene, config
        every = scene.indices("train")
        self.photo_camera = scene.camera(int(torch.mode(scene.camera_index[every]).values))
        short_side = round(config.view.input_px * config.view.margin)
        self.camera = training_camera(self.photo_camera, short_side)
        self.cells = config.cache == "features"
        self.window = input_camera(self.camera, config.view, STEM_STRIDE if self.cells else 1)
        self.train, self.validation = split_validation(scene, every, config.validate)
        self.depth = _depth(scene, config)
        self.poses = scene.poses.canonical()
        used = torch.cat([self.train, self.validation])
        files = [scene.path(i) for i in used.tolist()]
        cameras = [scene.camera(i) for i in used.tolist()]
        folder = scene.cache_folder()
        self.images: Tensor = build_cache(
            files,
            cameras,
            self.camera,
            folder,
            lambda done, total: report(done, total, "reading images"),
        )
        if self.cells:
            self.images = build_feature_cache(
                backbone,
                self.images,
                cache_name(files, cameras, self.camera, folder),
                folder,
                lambda done, total: report(done, total, "computing features of the stem"),
            )
        # The cache holds the used images only: row[i] is where image i lies in it.
        self.row = torch.full((len(scene),), -1).scatter(0, used, torch.arange(len(used)))
        self.hemisphere = mean_quaternion(self.poses.quaternion[self.train]).float()
        self.batch_size = min(config.batch_size, len(self.train))
        self.steps_per_epoch = len(self.train) // self.batch_size

    def run(self, out: Path) -> Run:
        """What the run must remember of the scene."""
        names = tuple(self.scene.images[i] for i in self.train.tolist())
        depth = None if self.depth is None else tuple(self.depth.tolist())
        return Run(
            folder=out,
            config=self.config,
            scene=self.scene.name,
            unit=self.scene.unit,
            camera=self.camera,
            window=self.window,
            photo_camera=self.photo_camera,
            depth=depth,
            training_images=names,
            anchors=self.scene.anchors(names),
        )

    def batches(self, generator: torch.Generator, fabric: Any) -> list[Int[Tensor, " b"]]:
        """This process's share of every batch of an epoch, in a fresh order."""
        order = self.train[torch.randperm(len(self.train), generator=generator)]
        order = order[: self.steps_per_epoch * self.batch_size]
        return [
            batch[fabric.global_rank :: fabric.world_size] for batch in order.split(self.batch_size)
        ]

    def batch(
        self, index: Int[Tensor, " b"], generator: torch.Generator, device: torch.device
    ) -> tuple[Float[Tensor, "b c h w"], Target]:
        """Augmented images, or windows of feature maps, and their labels."""
        images = self.images[self.row[index]].to(device)
        poses = self.poses[index].to(torch.float32).to(device)
        if self.cells and self.config.view.augment == "crop":
            view, cameras = random_cells(images, self.camera, self.window, generator)
        elif self.cells:
            view = central_cells(images, self.camera, self.window)
            cameras = expanded(self.window, len(images))
        else:
            view, poses, cameras = augmented_view(
                images, poses, self.camera, self.window, self.config.view, generator
            )
        target = Target(
            pose=poses,
            camera=cameras.to(device),
            hemisphere=self.hemisphere.to(device),
            depth=None if self.depth is None else self.depth.to(device, torch.float32),
        )
        return view, target


def split_validation(
    scene: Scene, train: Int[Tensor, " n"], validate: bool
) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Holds out blocks of the training images (15 %), with a gap, when settings are chosen."""
    if not validate:
        return train, train[:0]
    # At least two validation blocks, however few images there are.
    size = max(1, min(VALIDATION_BLOCK, len(train) // (2 * VALIDATION_EVERY)))
    names = [scene.images[i] for i in train.tolist()]
    gap = min(VALIDATION_GAP, size)
    rest, held = block_split(names, size, VALIDATION_EVERY, gap, VALIDATION_EVERY // 2)
    if not rest or not held:
        raise InputError(f"--validate: {len(train)} training images are too few to hold some out.")
    position = {name: i for i, name in enumerate(scene.images)}
    return torch.tensor([position[n] for n in rest]), torch.tensor([position[n] for n in held])


def _depth(scene: Scene, config: TrainConfig) -> Float[Tensor, "3"] | None:
    """Near, median and far depth: from the map points, or as ``--loss.depth`` says."""
    known = scene.depth_range()
    if known is not None and float(known[0]) <= 0:
        raise InputError(
            f"{scene.name}: map points lie behind the cameras that see them (near depth "
            f"{float(known[0]):.3g}); the poses are probably wrong."
        )
    if config.loss.depth is None:
        return known
    median_depth = torch.tensor(config.loss.depth, dtype=torch.float64)
    if known is None:
        # Near and far are not known; no loss that uses them may run on a guess.
        return torch.stack([median_depth * torch.nan, median_depth, median_depth * torch.nan])
    return torch.stack([known[0], median_depth, known[2]])
