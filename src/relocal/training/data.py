"""What training reads: the training images in memory, and how batches are drawn from them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.backbones import STEM_STRIDE
from relocal.errors import InputError
from relocal.images import build_cache, cache_name, training_camera
from relocal.losses import build_loss, takes_points
from relocal.models import PoseNet
from relocal.pose import mean_quaternion
from relocal.scene import Scene, block_split
from relocal.sfm.consistency import check_points
from relocal.training.config import TrainConfig
from relocal.training.features import (
    build_feature_cache,
    build_view_cache,
    cells_corner,
    central_cells,
    random_cells,
)
from relocal.training.points import PointSampler
from relocal.training.run import Run
from relocal.training.views import augmented_view, expanded, input_camera, turned_poses
from relocal.types import Target

VALIDATION_BLOCK, VALIDATION_EVERY, VALIDATION_GAP = 40, 7, 5
_CHECKED_IMAGES = 100

Report = Callable[[int, int, str], None]
Origin = tuple[float, float, float]


class TrainingData:
    """The training images in memory, and how batches are drawn from them.

    Args:
        scene: The scene.
        config: Every option.
        model: The network, of which a frozen part looks at the images now.
        report: Called with images done, images in all, and what is being done.
        every_image: Also read the images that are not trained on, for predictions later.
        origin: What positions are relative to, in the world; by default the scene's origin.
    """

    def __init__(
        self,
        scene: Scene,
        config: TrainConfig,
        model: PoseNet,
        report: Report,
        every_image: bool = False,
        origin: Origin | None = None,
    ) -> None:
        self.scene, self.config = scene, config
        # Taken away in double precision: what is left is small enough for single precision.
        self.origin = scene.origin if origin is None else torch.tensor(origin, dtype=torch.float64)
        every = scene.indices("train")
        self.photo_camera = scene.usual_camera(every)
        short_side = round(config.view.input_px * config.view.margin)
        self.camera = training_camera(self.photo_camera, short_side)
        cell_px = STEM_STRIDE if config.cached == "stem" else 1
        self.window = input_camera(self.camera, config.view, cell_px)
        self.train, self.validation = split_validation(scene, every, config.validate)
        if scene.points is not None:
            some = self.train[:: max(1, len(self.train) // _CHECKED_IMAGES)].tolist()
            check_points(scene, scene.points, some, scene.name)
        self.depth = _depth(scene, config)
        self.poses = scene.poses.canonical().shifted(-self.origin)
        self.points: PointSampler | None = None
        self.point_generator = torch.Generator()
        if scene.points is not None and takes_points(build_loss(config.loss)):
            points = replace(scene.points, xyz=scene.points.xyz - self.origin.numpy())
            self.points = PointSampler(points, len(scene), self.train)
        used = torch.cat([self.train, self.validation])
        used = torch.arange(len(scene)) if every_image else used
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
        self.turns: Tensor | None = None
        if config.cached != "none":
            name = cache_name(files, cameras, self.camera, folder)
            self._keep_features(
                model, name, folder, lambda done, total: report(done, total, "computing features")
            )
        # The cache holds the used images only: row[i] is where image i lies in it.
        self.row = torch.full((len(scene),), -1).scatter(0, used, torch.arange(len(used)))
        self.hemisphere = mean_quaternion(self.poses.quaternion[self.train]).float()
        self.batch_size = min(config.batch_size, len(self.train))
        self.steps_per_epoch = len(self.train) // self.batch_size

    def _keep_features(
        self, model: PoseNet, name: str, folder: Path, progress: Callable[[int, int], None]
    ) -> None:
        """Puts features in the images' place."""
        if self.config.cached == "stem":
            self.images = build_feature_cache(model.backbone, self.images, name, folder, progress)
            return
        self.images, self.turns = build_view_cache(
            model.backbone,
            model.pool,
            self.images,
            (self.camera, self.window),
            self.config.view,
            name,
            folder,
            progress,
        )

    def run(self, out: Path) -> Run:
        """What the run must remember of the scene."""
        names = tuple(self.scene.images[i] for i in self.train.tolist())
        depth = None if self.depth is None else tuple(self.depth.tolist())
        x, y, z = self.origin.tolist()
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
            origin=(x, y, z),
        )

    def batches(self, generator: torch.Generator, fabric: Any) -> list[Int[Tensor, " b"]]:
        """This process's share of every batch of an epoch, in a fresh order."""
        # Points have randomness of their own: losses without them see the same views.
        self.point_generator.manual_seed(2**32 + generator.initial_seed())
        order = self.train[torch.randperm(len(self.train), generator=generator)]
        order = order[: self.steps_per_epoch * self.batch_size]
        return [
            batch[fabric.global_rank :: fabric.world_size] for batch in order.split(self.batch_size)
        ]

    def batch(
        self, index: Int[Tensor, " b"], generator: torch.Generator, device: torch.device
    ) -> tuple[Float[Tensor, "b c h w"], Target]:
        """Augmented images, or windows of feature maps, and their labels."""
        row, poses = self.row[index], self.poses[index].to(torch.float32)
        cameras = expanded(self.window, len(index))
        if self.turns is not None:
            kept = torch.randint(self.turns.shape[1], (len(index),), generator=generator)
            view, poses = self.images[row, kept].float(), turned_poses(poses, self.turns[row, kept])
        elif self.config.cached == "stem" and self.config.view.augment == "crop":
            view, cameras = random_cells(self.images[row], self.camera, self.window, generator)
        elif self.config.cached == "stem":
            corner = cells_corner(self.camera, self.window)
            view = central_cells(self.images[row], corner, self.window)
        else:
            images, poses = self.images[row].to(device), poses.to(device)
            view, poses, cameras = augmented_view(
                images, poses, self.camera, self.window, self.config.view, generator
            )
        poses, cameras = poses.to("cpu"), cameras.to("cpu")
        points, visible = None, None
        if self.points is not None:
            points, visible = self.points.draw(index, poses, cameras, self.point_generator)
        target = Target(
            pose=poses.to(device),
            camera=cameras.to(device),
            hemisphere=self.hemisphere.to(device),
            depth=None if self.depth is None else self.depth.to(device, torch.float32),
            points=None if points is None else points.to(device),
            visible=None if visible is None else visible.to(device),
        )
        return view.to(device), target


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
