"""Which frames of a recording are worth labelling: the sharp ones, where the camera moved.

Neighbouring frames of a video show nearly the same picture, and Structure from Motion pays for each
of them; a blurred one gives it nothing. So a recording is cut into stretches of equal motion in the
picture, and the sharpest frame of each is taken.
"""

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from relocal.errors import InputError
from relocal.sfm.database import Progress

_WIDTH_PX = 320  # motion is looked for at this width
_SHARPNESS_WIDTH_PX = 640  # where a blur of a few pixels of a phone's video still shows
_CORNERS, _LEAST_TRACKED = 200, 0.25
_CUT = 0.25
"""Motion that is assumed where next to nothing is found again: a cut, or a blur."""
_NEARER = 0.7  # the middle part of a stretch, so that two frames never stand side by side
_STILL = 0.01
_JPEG_QUALITY = 95
_MOST_STRETCH = 4.0  # old formats have 0.5 to 2.2


@dataclass(frozen=True)
class FrameLooks:
    """What is known of each frame of a recording."""

    sharpness: Float[np.ndarray, " n"]
    """Variance of the Laplacian: more is sharper, among frames of the same thing."""
    motion: Float[np.ndarray, " n"]
    """Median way of what is seen since the frame before, as a share of the image's width."""
    stated: int
    """How many frames the file says it has; 0 where it does not say."""


def video_frames(video: Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Frames of a video, upright and of square pixels, blue first as OpenCV has them.

    Where pixels are not square, as in HDV, AVCHD and DVDs, frames are stretched by their ratio, so
    that one focal length holds along both sides; along the side that grows, so that nothing is
    lost.

    Raises:
        InputError: If it cannot be opened, has no frame, or pixels of a shape that none has.
    """
    if not video.is_file():
        raise InputError(f"{video}: there is no such file.")
    with _opened(video) as capture:
        found, frame = capture.read()
        if not found:
            raise InputError(
                f"{video}: is no video that can be read, or its beginning or end is missing."
            )
        stretch = _stretch(capture, video)
        while found:
            yield frame if stretch == 1 else _stretched(frame, stretch)
            found, frame = capture.read()


@contextmanager
def _opened(video: Path) -> Generator[Any]:
    # Read when the first video is opened: what is wrong is said by an error, not on the screen.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    try:
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(before)


def _stretch(capture: Any, video: Path) -> float:
    """How many times as wide as high a pixel of an upright frame is."""
    import cv2

    wide, high = (capture.get(key) for key in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
    if not (wide > 0 and high > 0):
        return 1.0  # not said
    ratio = wide / high
    if not 1 / _MOST_STRETCH <= ratio <= _MOST_STRETCH:
        raise InputError(
            f"{video}: says that its pixels are {wide:g} : {high:g}, which no camera's are; write "
            "it anew with square pixels."
        )
    # It is said of frames as they are stored; OpenCV has turned them.
    turned = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
    return 1 / ratio if turned else ratio


def _stretched(frame: UInt8[np.ndarray, "h w 3"], ratio: float) -> UInt8[np.ndarray, "_ _ 3"]:
    import cv2

    height, width = frame.shape[:2]
    size = (round(width * max(ratio, 1)), round(height * max(1 / ratio, 1)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)


def stated_length(video: Path) -> tuple[int, float]:
    """How many frames, and frames a second, the file says it has; 0 where it does not say."""
    import cv2

    with _opened(video) as capture:
        count, rate = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
    return max(0, int(count)), max(0.0, float(rate))


def greys(video: Path) -> Iterator[UInt8[np.ndarray, "h w"]]:
    """Frames of a video without their colours."""
    import cv2

    for frame in video_frames(video):
        yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))


def look_at(
    frames: Iterable[UInt8[np.ndarray, "h w"]], stated: int, name: str, progress: Progress
) -> FrameLooks:
    """Looks at the sharpness of each frame of a recording, and at the motion.

    Args:
        frames: Its frames without colours, in order.
        stated: How many frames there should be; 0 if that is not known.
        name: What to call it.
        progress: Called with frames done, frames in all, and what is being done.
    """
    import cv2

    before = None
    sharpness: list[float] = []
    motion: list[float] = []
    for done, grey in enumerate(frames, start=1):
        sharpness.append(float(cv2.Laplacian(_narrow(grey, _SHARPNESS_WIDTH_PX), cv2.CV_32F).var()))
        small = _narrow(grey, _WIDTH_PX)
        motion.append(0.0 if before is None else motion_between(before, small))
        before = small
        progress(done, max(stated, done), f"looking at {name}")
    return FrameLooks(np.array(sharpness), np.array(motion), stated)


def _narrow(grey: UInt8[np.ndarray, "h w"], width: int) -> UInt8[np.ndarray, "_ _"]:
    """The picture at a width, if it is wider."""
    import cv2

    height = round(grey.shape[0] * width / grey.shape[1])
    narrower = grey.shape[1] > width
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA) if narrower else grey


def motion_between(before: UInt8[np.ndarray, "h w"], now: UInt8[np.ndarray, "h w"]) -> float:
    """Median way of corners from one picture to the next, as a share of the width.

    Nothing to follow, as on a white wall, is no motion; corners that are not found again are
    ``_CUT``.
    """
    import cv2

    corners: Any = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, 7)
    if corners is None or not len(corners):
        return 0.0
    found: Any
    back: Any
    # OpenCV's types know no None for the points to start from.
    found, status, _ = cv2.calcOpticalFlowPyrLK(before, now, corners, corners.copy())
    back, again, _ = cv2.calcOpticalFlowPyrLK(now, before, found, found.copy())
    # A corner that does not come back to where it was has been taken for another.
    kept = np.logical_and(status, again).ravel()
    kept &= np.linalg.norm((back - corners).reshape(-1, 2), axis=1) < 1
    if kept.mean() < _LEAST_TRACKED:
        return _CUT
    way = np.linalg.norm((found - corners).reshape(-1, 2)[kept], axis=1)
    return float(np.median(way)) / before.shape[1]


def choose_frames(looks: FrameLooks, step: float, most: int) -> list[int]:
    """The sharpest frame of each of as many stretches of equal motion as are needed.

    Args:
        looks: Every frame.
        step: Motion that a stretch has, as a share of the image's width.
        most: Most frames.

    Returns:
        Indices of frames, rising; one where nothing moves.
    """
    way = np.cumsum(looks.motion)
    if way[-1] < _STILL:
        return [int(looks.sharpness.argmax())]
    stretches = int(np.clip(round(way[-1] / step), 1, most))
    place = way / way[-1] * stretches  # in stretches, from 0
    chosen: list[int] = []
    for k in range(stretches):
        inside = np.flatnonzero((place >= k) & ((place < k + 1) | (k == stretches - 1)))
        if not len(inside):  # one leap across all of it
            continue
        middle = np.abs(place[inside] - (k + 0.5)) <= _NEARER / 2
        likely = inside[middle] if middle.any() else inside
        chosen.append(int(likely[looks.sharpness[likely].argmax()]))
    return chosen


def frame_name(index: int) -> str:
    """The file that a frame of a video is written to."""
    return f"frame-{index:06d}.jpg"


def write_frames(video: Path, indices: list[int], folder: Path, progress: Progress) -> list[str]:
    """Writes frames of a video as JPEG files; those that are there already are kept.

    Args:
        video: The file.
        indices: Which frames, rising.
        folder: Where to; it is made.
        progress: Called with frames written, frames to write, and what is being done.

    Returns:
        The names of the files, ``frame-000123.jpg``.
    """
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    names = {i: frame_name(i) for i in indices}
    left = {i: name for i, name in names.items() if not (folder / name).is_file()}
    frames = enumerate(video_frames(video)) if left else ()
    for i, frame in frames:
        if i not in left:
            continue
        partial = folder / f".{left[i]}"
        ok, content = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        assert ok  # of an array that was decoded
        partial.write_bytes(content.tobytes())
        partial.replace(folder / left[i])
        progress(len(names) - len(left), len(names), f"taking frames of {video.name}")
        if i == indices[-1]:
            break
    return list(names.values())
