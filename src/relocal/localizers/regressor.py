"""The regressor: one forward pass of a trained network gives the pose."""

import time
from pathlib import Path

import torch

from relocal.camera import Camera
from relocal.images import Source, camera_of_photo, load_view
from relocal.localizers.calibration import read_held_out
from relocal.training import Run, load_run, predictions
from relocal.types import Estimate, Prediction


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
        self.method = self.run.config.model.name
        held = read_held_out(self.run.folder)
        self.calibration = None if held is None else held.calibration("regressor")

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
        source = Path(image) if isinstance(image, str) else image
        warning = None
        if camera is None:
            camera, warning = camera_of_photo(source, self.run.photo_camera)
        view = load_view(source, camera, self.run.camera)
        cached = self.run.config.cached
        said = predictions(self.model, view[None], self.run.camera, self.run.window, cached)
        sigma, sigma_deg = _spread(said)
        estimate = Estimate(
            pose=said.pose()[0].to(torch.float64).canonical(),
            unit=self.run.unit,
            method=self.method,
            time_ms=1000 * (time.perf_counter() - start),
            sigma_m=sigma,
            sigma_deg=sigma_deg,
            warnings=() if warning is None else (warning,),
        )
        return estimate if self.calibration is None else self.calibration.of(estimate)


def _spread(said: Prediction) -> tuple[float, float] | tuple[None, None]:
    """How sure a network that says so is: per axis, of position and rotation vector in degrees."""
    if said.log_var is None:
        return None, None
    position, rotation = (said.log_var[0] / 2).exp()
    return float(position), float(torch.rad2deg(rotation))
