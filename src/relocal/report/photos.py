"""Photos of a report: which ones tell most, and whether the page may show them."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from relocal.errors import InputError
from relocal.evaluation import Report
from relocal.images import decode, resize
from relocal.scene import Scene

_EACH = 3
_SIDE_PX, _QUALITY = 320, 80

PRIVATE = (
    "These photos are here for private use (--photos). Whether this page may be passed on is for "
    "their licence to say."
)
_NOT_SHAREABLE = (
    "No photos are shown: nothing says that those of this scene may be shared. For private use, "
    "relocal evaluate --photos shows them."
)
_NO_SCENE = "No photos are shown: the report was written without the scene that has them."


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG without the photo's EXIF."""

    width_px: int
    height_px: int
    jpeg: bytes

    def address(self) -> str:
        """The picture itself, as a ``data:`` address."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


@dataclass(frozen=True)
class Photos:
    """What a page shows of a scene's photos."""

    note: str = ""
    """Why there are none, or for whom they are; empty where they may be shared."""
    thumbnails: Mapping[int, Thumbnail | None] | None = None
    """By the image's number; None for a file that cannot be read. None as a whole when withheld."""


def choose_photos(report: Report, scene: Scene | None, private: bool) -> Photos:
    """Makes thumbnails of the median and the worst photos, if they may be shown.

    Args:
        report: The report.
        scene: The scene, which has the files; without it nothing can be shown.
        private: Show them although nothing says that they may be shared.
    """
    if scene is None:
        return Photos(_NO_SCENE)
    shareable = scene.provenance.get("photos") == "shareable"
    if not (shareable or private):
        return Photos(_NOT_SHAREABLE)
    chosen = {i for name in report.localizers() for part in telling(report, name) for i in part}
    files = {name: scene.path(i) for i, name in enumerate(scene.images)}
    thumbnails: dict[int, Thumbnail | None] = {}
    for i in sorted(chosen):
        try:
            thumbnails[i] = _thumbnail(files[report.images[i]])
        except (InputError, KeyError):  # gone since, or of another scene: the numbers still hold
            thumbnails[i] = None
    return Photos("" if shareable else PRIVATE, thumbnails)


def telling(report: Report, method: str) -> tuple[list[int], list[int]]:
    """Numbers of the images about the median of a method's position errors, and of the worst.

    At most three each, and none in both; an image without an answer is worse than any other.
    """
    errors = report.methods[method].errors
    order = np.lexsort((errors.rotation_deg, errors.position)).tolist()
    start = max(0, (len(order) - _EACH) // 2)
    middle = order[start : start + _EACH]
    return middle, [i for i in reversed(order) if i not in middle][:_EACH]


def _thumbnail(file: Path) -> Thumbnail:
    pixels = decode(file, (_SIDE_PX, _SIDE_PX))
    height, width = pixels.shape[1:]
    scale = min(1.0, _SIDE_PX / max(width, height))
    width, height = max(1, round(scale * width)), max(1, round(scale * height))
    content = io.BytesIO()
    small = resize(pixels, width, height).permute(1, 2, 0).numpy()
    Image.fromarray(small).save(content, format="JPEG", quality=_QUALITY)
    return Thumbnail(width, height, content.getvalue())
