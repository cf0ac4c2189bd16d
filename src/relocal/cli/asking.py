"""What `localize` asks, photo by photo: of photos, of a video's frames, of all but the unsure."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

from relocal.camera import Camera
from relocal.cli.console import counted, warn
from relocal.errors import InputError
from relocal.images import Source, same_shape, upright_size
from relocal.localizers import Localizer
from relocal.localizers.doubt import calibration_of, check_calibrated, check_doubts, refused
from relocal.localizers.sequence import Filtered, Measured, PoseFilter, measured
from relocal.notices import Notice
from relocal.scene.order import natural_key
from relocal.sfm.frames import video_frames
from relocal.sfm.sources import PHOTOS, VIDEOS
from relocal.types import Estimate

_MANY = 0.2  # of the answers: more than wrong ones explain
_BEFORE = "this is how the camera moved before."
_SQUARE = (
    " Where a video's pixels are not square its frames are resampled to square ones, and the "
    "camera must be of that size."
)
Ask = Callable[[str, Source], Estimate]
"""Name and photo -> where it was taken; InputError where that cannot be told."""


def photos_in(folder: Path) -> list[Path]:
    """All photos in a folder and in those in it.

    Raises:
        InputError: If it holds none.
    """
    photos = (
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in PHOTOS and not file.name.startswith(".")
    )
    found = sorted(photos, key=lambda file: natural_key(file.as_posix()))
    if not found:
        raise InputError(
            f"--others {folder}: is no folder that holds photos ({', '.join(PHOTOS)})."
        )
    return found


def photos_of(files: Sequence[Path]) -> Iterator[tuple[str, Source]]:
    """Photos by name; of a video each frame, as a photo without compression."""
    import cv2

    for file in files:
        if file.suffix.lower() not in VIDEOS:
            yield str(file), file
            continue
        for number, frame in enumerate(video_frames(file)):
            yield f"{file}:{number:06d}", bytes(cv2.imencode(".bmp", frame)[1])


def asking(
    name: str, localizer: Localizer, camera: Camera | None, *, reject: bool, step: float | None
) -> Ask:
    """How photos are asked about.

    Args:
        name: What the user calls the localizer: its folder.
        localizer: What answers.
        camera: The photos' camera, if it is known.
        reject: Whether answers that are too unsure are refused.
        step: How many frames of the recording that was learned from lie between two photos, which
            are then filtered as a video's; None: they are single photos.

    Raises:
        InputError: If the localizer does not say how sure it is where that is needed.
    """
    if reject:
        check_doubts(name, localizer)
    filter = _filter(name, localizer) if step is not None else None
    unit, photos = "", -1

    def ask(photo_name: str, photo: Source) -> Estimate:
        nonlocal unit, photos
        start, photos = perf_counter(), photos + 1
        try:
            estimate = localizer.localize(photo, camera)
        except InputError as error:
            if isinstance(photo, Path):
                raise
            # A frame of a video has no file to name.
            reason = str(error).removeprefix("photo: ")
            square = "" if camera is None or same_shape(camera, *upright_size(photo)) else _SQUARE
            raise InputError(f"{photo_name}: {reason}{square}") from error
        if reject and refused(localizer, estimate):
            estimate = None
        unit = unit if estimate is None else estimate.unit
        if filter is not None:
            known = filter.step(_measured(estimate), photos * (step or 1.0))
            spent = 1000 * (perf_counter() - start)
            estimate = known and _filtered(estimate, known, localizer.method, unit, spent)
        if estimate is None:
            raise InputError(f"{photo_name}: cannot tell where it was taken.")
        return estimate

    return ask


class Warnings:
    """Warnings of many photos: each kind is told once, and how often it came."""

    def __init__(self) -> None:
        self._count = Counter[tuple[str, str]]()

    def tell(self, name: str, warnings: Iterable[Notice]) -> None:
        """Tells what is new about a photo."""
        for warning in warnings:
            # The same with other numbers is the same.
            kind = warning.code, re.sub(r"[\d.]+", "", warning.text)
            if kind not in self._count:
                warn(f"{name}: {warning.text}")
            self._count[kind] += 1

    def tell_rest(self, photos: int) -> None:
        """Tells how many more photos there were of each kind, of ``photos`` in all."""
        for kind, count in self._count.items():
            if count > 1:
                # Its numbers are the first photo's alone.
                have = f"{'has' if count == 2 else 'have'} the same warning ({kind[0]})."
                warn(f"{counted(count - 1, 'more photo')} {have}")
        misfits = sum(n for (code, _), n in self._count.items() if code == "frame-misfit")
        if misfits > _MANY * photos:
            warn(
                f"{misfits} of {photos} answers do not fit how the camera moved in training; were "
                "frames left out, or is it faster? --step says how many frames lie between two."
            )


def _filter(name: str, localizer: Localizer) -> PoseFilter:
    check_calibrated(name, localizer)
    known = calibration_of(localizer)
    if known is None or known.motion is None:
        raise InputError(
            f"--sequence: {name} was made of photos that are no recording, so how the "
            "camera moves is not known."
        )
    return PoseFilter(known.motion)


def _filtered(
    estimate: Estimate | None, known: Filtered, method: str, unit: str, time_ms: float
) -> Estimate:
    """What is known after a frame as an answer about it."""
    own = () if estimate is None else estimate.warnings
    alone = (
        Notice("frame-unseen", f"it has no answer of its own; {_BEFORE}")
        if estimate is None
        else Notice("frame-misfit", f"its own answer does not fit; {_BEFORE}")
    )
    return Estimate(
        pose=known.pose,
        unit=unit,
        method=f"{method}, filtered",
        time_ms=time_ms,
        sigma_m=known.sigma,
        sigma_deg=known.sigma_deg,
        inliers=None if estimate is None else estimate.inliers,
        warnings=own if known.used else (*own, alone),
    )


def _measured(estimate: Estimate | None) -> Measured | None:
    if estimate is None:
        return None
    return measured(estimate.pose, estimate.sigma_m, estimate.sigma_deg)
