"""What `localize` asks, photo by photo: of photos, of a video's frames, of all but the unsure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from relocal.camera import Camera
from relocal.cli.cameras import camera_doubts
from relocal.errors import InputError
from relocal.images import Source
from relocal.localizers import Localizer
from relocal.localizers.doubt import calibration_of, check_calibrated, check_doubts, doubt
from relocal.localizers.sequence import Filtered, Measured, PoseFilter
from relocal.sfm.frames import video_frames
from relocal.sfm.sources import PHOTOS, VIDEOS
from relocal.types import Estimate

Ask = Callable[[str, Source], Estimate]
"""Name and photo -> where it was taken; InputError where that cannot be told."""


def photos_in(folder: Path) -> list[Path]:
    """All photos in a folder and in those in it.

    Raises:
        InputError: If it holds none.
    """
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PHOTOS)
    if not found:
        raise InputError(f"--others {folder}: is no folder that holds photos.")
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


def asking(localizer: Localizer, camera: Camera | None, *, reject: bool, sequence: bool) -> Ask:
    """How photos are asked about.

    Args:
        localizer: What answers.
        camera: The photos' camera, if it is known.
        reject: Whether answers that are too unsure are refused.
        sequence: Whether the photos are the frames of a video, whose answers are filtered.

    Raises:
        InputError: If the localizer does not say how sure it is where that is needed.
    """
    if reject:
        check_doubts(localizer.method, localizer)
    filter = _filter(localizer) if sequence else None
    unit, time = "", -1

    def ask(name: str, photo: Source) -> Estimate:
        nonlocal unit, time
        start, time = perf_counter(), time + 1
        estimate = localizer.localize(photo, camera)
        if reject and doubt(localizer, estimate) > 1:
            estimate = None
        unit = unit if estimate is None else estimate.unit
        if filter is not None:
            known = filter.step(_measured(estimate), float(time))
            spent = 1000 * (perf_counter() - start)
            estimate = known and _filtered(estimate, known, localizer.method, unit, spent)
        if estimate is None:
            raise InputError(f"{name}: cannot tell where it was taken.")
        if camera is not None:
            doubts = (*camera_doubts(camera, photo), *estimate.warnings)
            estimate = replace(estimate, warnings=doubts)
        return estimate

    return ask


def _filter(localizer: Localizer) -> PoseFilter:
    check_calibrated(localizer.method, localizer)
    known = calibration_of(localizer)
    if known is None or known.motion is None:
        raise InputError(
            f"--sequence: {localizer.method} was made of photos that are no recording, so how the "
            "camera moves is not known."
        )
    return PoseFilter(known.motion)


def _filtered(
    estimate: Estimate | None, known: Filtered, method: str, unit: str, time_ms: float
) -> Estimate:
    """What is known after a frame as an answer about it."""
    own = () if estimate is None else estimate.warnings
    alone = "its own answer does not fit" if estimate is not None else "it has no answer of its own"
    return Estimate(
        pose=known.pose,
        unit=unit,
        method=f"{method}, filtered",
        time_ms=time_ms,
        sigma_m=known.sigma,
        sigma_deg=known.sigma_deg,
        inliers=None if estimate is None else estimate.inliers,
        warnings=own if known.used else (*own, f"{alone}; this is how the camera moved before."),
    )


def _measured(estimate: Estimate | None) -> Measured | None:
    if estimate is None or estimate.sigma_m is None or estimate.sigma_deg is None:
        return None
    return Measured(estimate.pose, estimate.sigma_m, estimate.sigma_deg)
