"""Bayesian: the network's dropout stays on, and how much its answers scatter says how sure it is.

Kendall & Cipolla, Modelling Uncertainty in Deep Learning for Camera Relocalization (2016).
"""

import time
from pathlib import Path

import torch

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import Source, view_of_photo
from relocal.localizers.calibration import read_held_out
from relocal.localizers.spread import middle_and_spread
from relocal.training import Run, load_run
from relocal.training.prediction import seen_features
from relocal.types import Estimate

SAMPLES = 64


class Bayesian:
    """Localizes photos with many samples of a trained network.

    The backbone looks once; only the head, which is small, answers again and again.

    Args:
        run: The run, or its folder; trained with dropout.
        samples: How many answers.

    Raises:
        InputError: If the run cannot be opened, or has no dropout.
    """

    method = "bayesian"

    def __init__(self, run: Run | Path | str, samples: int = SAMPLES) -> None:
        self.run = run if isinstance(run, Run) else load_run(Path(run))
        if self.run.config.model.dropout == 0:
            raise InputError(
                f"{self.run.folder}: was trained without dropout, so all samples are the same; "
                "train with --model.dropout."
            )
        if samples < 2:
            raise InputError(f"--samples: must be at least 2, not {samples}.")
        self.samples = samples
        held = read_held_out(self.run.folder)
        self.calibration = None if held is None else held.calibration("bayesian")
        self.model = self.run.model()
        self.model.head.dropout.train()

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate:
        """Says where a photo was taken, and how sure that is; the same for the same photo.

        Args:
            image: A file, or the bytes of one.
            camera: Its camera. Without it the focal length comes from EXIF, and failing that from
                the scene, with a warning in the estimate.

        Raises:
            InputError: If the photo cannot be read or does not fit the camera.
        """
        start = time.perf_counter()
        source = Path(image) if isinstance(image, str) else image
        run = self.run
        view, warnings = view_of_photo(source, camera, run.photo_camera, run.camera)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            seen = seen_features(self.model, view[None], run.camera, run.window, run.config.cached)
            said = self.model.answer(seen.expand(self.samples, -1))
        pose, sigma, sigma_deg = middle_and_spread(said.pose())
        estimate = Estimate(
            pose=run.in_world(pose),
            unit=run.unit,
            method=self.method,
            time_ms=1000 * (time.perf_counter() - start),
            sigma_m=sigma,
            sigma_deg=sigma_deg,
            warnings=warnings,
        )
        return estimate if self.calibration is None else self.calibration.of(estimate)
