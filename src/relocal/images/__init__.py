"""Images: from a file to the pixels that a network sees, and the cache that training reads."""

from relocal.images.cache import build_cache
from relocal.images.photos import (
    MAX_PIXELS,
    MIN_SIDE_PX,
    SIDEWAYS,
    Source,
    camera_of_photo,
    decode,
    exif_focal_px,
    exif_orientation,
    fit_camera,
    is_there,
    load_view,
    open_photo,
    resample,
    resize,
    sampling_grid,
    training_camera,
    upright_size,
)

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE_PX",
    "SIDEWAYS",
    "Source",
    "build_cache",
    "camera_of_photo",
    "decode",
    "exif_focal_px",
    "exif_orientation",
    "fit_camera",
    "is_there",
    "load_view",
    "open_photo",
    "resample",
    "resize",
    "sampling_grid",
    "training_camera",
    "upright_size",
]
