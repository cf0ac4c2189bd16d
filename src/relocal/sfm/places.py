"""Places: where photos were taken, by their EXIF."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags

from relocal.images import open_photo


class Place(NamedTuple):
    """Where EXIF says that a photo was taken."""

    latitude: float
    """Degrees, north positive."""
    longitude: float
    """Degrees, east positive."""
    altitude: float | None
    """Metres; None where it is not said, which is not the sea's level."""


def gps_place(file: Path) -> Place | None:
    """What a photo's EXIF says of its place; None where it has no latitude and longitude."""
    with open_photo(file) as image:
        tags = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    try:
        angles: list[float] = []
        for value, side, negative in (
            (tags[ExifTags.GPS.GPSLatitude], tags[ExifTags.GPS.GPSLatitudeRef], "S"),
            (tags[ExifTags.GPS.GPSLongitude], tags[ExifTags.GPS.GPSLongitudeRef], "W"),
        ):
            degrees, minutes, seconds = (float(part) for part in value)
            angle = degrees + minutes / 60 + seconds / 3600
            angles.append(-angle if str(side).strip().upper() == negative else angle)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return Place(angles[0], angles[1], _altitude(tags)) if np.isfinite(angles).all() else None


def _altitude(tags: Any) -> float | None:
    below = tags.get(ExifTags.GPS.GPSAltitudeRef, b"\x00") in (1, b"\x01")
    try:
        height = float(tags[ExifTags.GPS.GPSAltitude])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not np.isfinite(height):
        return None
    return -height if below else height
