"""The regressor: one forward pass of a trained network gives the pose."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from relocal.camera import Camera
from relocal.images import Source, view_of_photo
from relocal.localizers.calibration import read_held_out
from relocal.notices import Notice
from relocal.pose import Pose
from relocal.training import Run, load_run, predictions
from relocal.types import Estimate

Answers = tuple[Float[Tensor, "B 3"], Float[Tensor, "B 4"], Float[Tensor, "B 2"]]
"""Positions relative to the run's origin, unit quaternions w x y z, and stated spreads of position
and rotation (radians)."""
Network = Callable[[UInt8[Tensor, "B 3 h w"]], Answers]


class Regressor:
    """Localizes photos with a trained run.

    Args:
        run: The run, or its folder.

    Raises:
        InputError: If the run cannot be opened.
    """

    def __init__(self, run: Run | Path | str) -> None:
        self.run = run if isinstance(run, Run) else load_run(Path(run))
        self.model = self.run.model()
        self._open(self.run.camera, self._predicted)

    def _open(self, seen: Camera, network: Network) -> None:
        """Takes what every network has: the camera of what it sees, and what answers that."""
        self.seen, self.network = seen, network
        self.method = self.run.config.model.name
        held = read_held_out(self.run.folder)
        self.calibration = None if held is None else held.calibration("regressor")

    def _predicted(self, views: UInt8[Tensor, "B 3 h w"]) -> Answers:
        run = self.run
        said = predictions(self.model, views, run.camera, run.window, run.config.cached)
        pose = said.pose()
        spread = torch.ones(len(views), 2) if said.log_var is None else (said.log_var / 2).exp()
        return pose.position, pose.quaternion, spread

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate:
        """Says where a photo was taken.

        The photo is resampled to the camera that the network was trained with, because a regressor
        that is fed another field of view is wrong without noticing.

        Args:
            image: A file, or the bytes of one.
            camera: Its camera. Without it the focal length comes from EXIF, and failing that from
                the scene, with a warning in the estimate.

        Raises:
            InputError: If the photo cannot be read or does not fit the camera.
        """
        start = time.perf_counter()
        view, warnings = self.look(Path(image) if isinstance(image, str) else image, camera)
        estimate = self.answer(view[None])[0]
        spent = 1000 * (time.perf_counter() - start)
        return replace(estimate, time_ms=spent, warnings=warnings)

    def look(
        self, source: Source, camera: Camera | None
    ) -> tuple[UInt8[Tensor, "3 h w"], tuple[Notice, ...]]:
        """What the network sees of a photo, and warnings; arguments and errors as ``localize``."""
        return view_of_photo(source, camera, self.run.photo_camera, self.seen)

    def answer(self, views: UInt8[Tensor, "B 3 h w"]) -> list[Estimate]:
        """What it says of views, all at once; their time is not counted."""
        position, quaternion, spread = self.network(views)
        # Of length one in double precision, too: their matrices are then rotations.
        poses = Pose.from_quaternion(position.double(), quaternion.double()).canonical()
        poses = self.run.in_world(poses)
        says = self.run.config.model.log_variance
        estimates = [
            Estimate(
                pose=poses[i],
                unit=self.run.unit,
                method=self.method,
                time_ms=0.0,
                sigma_m=float(spread[i, 0]) if says else None,
                sigma_deg=float(torch.rad2deg(spread[i, 1])) if says else None,
            )
            for i in range(len(views))
        ]
        known = self.calibration
        return estimates if known is None else [known.of(estimate) for estimate in estimates]
