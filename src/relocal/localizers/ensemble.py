"""Ensemble: several networks of one place answer, and how much they differ says how sure they are.

Lakshminarayanan, Pritzel & Blundell, Simple and Scalable Predictive Uncertainty Estimation using
Deep Ensembles (2017).
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import Source
from relocal.localizers.calibration import Answer, Calibration, fitted, read_held_out
from relocal.localizers.regressor import Regressor
from relocal.localizers.spread import middle_and_spread
from relocal.pose import Pose
from relocal.training import Run
from relocal.training.run import WEIGHTS
from relocal.types import Estimate


class Ensemble:
    """Localizes photos with the mean of several runs.

    Args:
        runs: Two runs or more, or their folders, of the same training images; of other seeds, say.

    Raises:
        InputError: If one cannot be opened, or they were made of different images or poses.
    """

    method = "ensemble"

    def __init__(self, runs: Sequence[Run | Path | str]) -> None:
        self.members = [Regressor(run) for run in runs]
        if len(self.members) < 2:
            raise InputError("--localizer ensemble: needs two runs or more.")
        self.run = self.members[0].run
        for member in self.members[1:]:
            other = member.run
            same = (other.scene, other.unit, other.training_images, dict(other.anchors)) == (
                *(self.run.scene, self.run.unit, self.run.training_images),
                dict(self.run.anchors),
            )
            if not same:
                raise InputError(
                    f"{other.folder}: was not trained on the images and poses of "
                    f"{self.run.folder}; an ensemble is of one scene and split."
                )
        if len({_digest(member.run.folder / WEIGHTS) for member in self.members}) < len(runs):
            raise InputError(
                "--localizer ensemble: two of its runs have the same weights; train them with "
                "other seeds (--seed)."
            )
        self.calibration = _calibration(self.members)

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate:
        """Says where a photo was taken, and how far the networks differ.

        Args:
            image: A file, or the bytes of one.
            camera: Its camera. Without it the focal length comes from EXIF, and failing that from
                the scene, with a warning in the estimate.

        Raises:
            InputError: If the photo cannot be read or does not fit the camera.
        """
        start = time.perf_counter()
        source = Path(image) if isinstance(image, str) else image
        answers = [member.localize(source, camera) for member in self.members]
        pose, sigma, sigma_deg = middle_and_spread(Pose.stack([one.pose for one in answers]))
        estimate = Estimate(
            pose=pose,
            unit=self.run.unit,
            method=self.method,
            time_ms=1000 * (time.perf_counter() - start),
            sigma_m=sigma,
            sigma_deg=sigma_deg,
            warnings=answers[0].warnings,  # those of the photo, the same for all
        )
        return estimate if self.calibration is None else self.calibration.of(estimate)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _calibration(members: Sequence[Regressor]) -> Calibration | None:
    """The calibration that follows from what the members answered about the same images."""
    about = [read_held_out(member.run.folder) for member in members]
    held = [one for one in about if one is not None and "regressor" in one.answers]
    if len(held) < len(members) or len({one.images for one in held}) > 1:
        return None
    answers: list[Answer | None] = []
    for together in zip(*(one.answers["regressor"] for one in held), strict=True):
        poses = [answer[0] for answer in together if answer is not None]
        answers.append(middle_and_spread(Pose.stack(poses)) if len(poses) > 1 else None)
    return fitted(answers, held[0].truth, held[0].motion)
