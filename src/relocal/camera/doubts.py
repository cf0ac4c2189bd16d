"""Doubts about a camera: numbers that hardly any lens has; nothing is refused for them."""

import math
from collections.abc import Iterator

from relocal.camera.camera import Camera

OFF_CENTRE = 0.15
"""Of a side. Lenses look within 3 % of the middle; crops of published datasets move that by a
tenth (KITTI: 1 % and 4 %, EuRoC: 2 % and 3 %, phones' video crops: 5 %)."""
EXCHANGED = 0.08
"""The same where cx and cy would be nearer to the middle if they were exchanged: of a 4 : 3 photo
they then lie 0.17 aside, less what the lens itself does."""
UNEQUAL = 1.2
"""Ratio of the two focal lengths. Pixels are square but for old video formats, whose ratios are
1.09 (PAL), 1.1 (NTSC) and 1.33 (HDV); calibrations with noise give 1.02."""
VIEW_DEG = (5.0, 170.0)
"""Along the longer side: telescopes, and beyond what a pinhole's photo can show."""
_FAR_MORE = 2.0  # how much nearer to the middle exchanged values must lie


def camera_doubts(camera: Camera) -> Iterator[tuple[str, str]]:
    """Codes of notices, and texts, of what can hardly be true of one camera; none of a good one."""
    fx, fy = camera.focal.tolist()
    cx, cy = camera.principal_point.tolist()
    size = f"{camera.width} x {camera.height} pixels"
    off, exchanged = off_centre(camera, cx, cy), off_centre(camera, cy, cx)
    if off > EXCHANGED and exchanged < off / _FAR_MORE:
        yield (
            "centre-exchanged",
            f"its principal point is {cx:g}, {cy:g} in {size}; {cy:g}, {cx:g} would be near the "
            "middle: are cx and cy exchanged, or width and height?",
        )
    elif off > OFF_CENTRE:
        yield (
            "centre-far-off",
            f"its principal point {cx:g}, {cy:g} is far from the middle of {size}; are the photos "
            "cropped, or is it in pixels of another size?",
        )
    if max(fx / fy, fy / fx) > UNEQUAL:
        yield (
            "focals-apart",
            f"its focal lengths fx {fx:g} and fy {fy:g} are far apart, as no square pixels have; "
            "were the photos stretched, or is a number of another photo size?",
        )
    view = _view_deg(camera)
    if not VIEW_DEG[0] <= view <= VIEW_DEG[1] and not _wide_by_nature(camera, view):
        yield (
            "field-of-view",
            f"by a focal length of {max(fx, fy):g} pixels its {size} show {_degrees(view)}°; is it "
            "in millimetres, or of another photo size?",
        )


def off_centre(camera: Camera, x: float, y: float) -> float:
    """How far a point is from the middle, as a share of the sides."""
    return max(abs(x / camera.width - 0.5), abs(y / camera.height - 0.5))


def _view_deg(camera: Camera) -> float:
    """What the longer side shows by the focal length alone, as a pinhole's or as a fisheye's."""
    half = max(side / 2 / f for side, f in zip(_size(camera), camera.focal.tolist(), strict=True))
    return math.degrees(2 * (math.atan(half) if camera.is_perspective else half))


def _degrees(angle: float) -> str:
    """Two digits or more, never an exponent."""
    return f"{angle:.0f}" if angle >= 10 else f"{angle:.2g}"


def _size(camera: Camera) -> tuple[int, int]:
    return camera.width, camera.height


def _wide_by_nature(camera: Camera, view: float) -> bool:
    return not camera.is_perspective and VIEW_DEG[1] < view <= 360
