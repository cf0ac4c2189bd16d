"""Corruptions: what a photo of the same place looks like on a worse day.

After ImageNet-C (Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations"): noise, blur, contrast and JPEG have its strengths, with lengths as
shares of the photo's short side; light, motion and occlusion are told as a photographer would. None
moves the camera: the label stays true.
"""

import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch.nn import functional as F

from relocal.errors import InputError, unknown
from relocal.images import Source, decode, resize

SEVERITIES = 5
SHORT_SIDE_PX = 480
"""Larger photos are scaled to this first: noise of single pixels would vanish in them."""
_REFERENCE_PX = 224  # short side that ImageNet-C's lengths are told for

Corruption = Callable[[Image.Image, int, np.random.Generator], Image.Image]


def corrupt(source: Source, kind: str, severity: int, name: str) -> bytes:
    """A photo as it looks corrupted: upright, its short side at most ``SHORT_SIDE_PX``.

    Args:
        source: A file or its bytes.
        kind: An entry of ``CORRUPTIONS``.
        severity: 1 (mild) to ``SEVERITIES``.
        name: The photo's name, which fixes what is random: everybody is asked the same photo.

    Returns:
        The bytes of a BMP file.

    Raises:
        InputError: If the kind is unknown, the photo cannot be read, or a kind from outside gives
            anything but an RGB image of the same size: another size would be another camera.
    """
    if kind not in CORRUPTIONS:
        raise unknown("corruption", kind, CORRUPTIONS)
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity must be 1 to {SEVERITIES}, not {severity}")
    pixels = decode(source)
    scale = SHORT_SIDE_PX / min(pixels.shape[1:])
    if scale < 1:
        pixels = resize(pixels, round(scale * pixels.shape[2]), round(scale * pixels.shape[1]))
    photo = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    seed = zlib.crc32(f"{name} {kind} {severity}".encode())
    changed: Any = CORRUPTIONS[kind](photo, severity, np.random.default_rng(seed))
    if not isinstance(changed, Image.Image) or (changed.mode, changed.size) != ("RGB", photo.size):
        raise InputError(
            f"corruption {kind}: of {name} it made {_what(changed)}, not an RGB image of "
            f"{photo.width} x {photo.height} pixels; correct the function."
        )
    content = io.BytesIO()
    changed.save(content, "BMP")
    return content.getvalue()


def _what(changed: Any) -> str:
    if isinstance(changed, Image.Image):
        return f"{changed.mode} of {changed.width} x {changed.height} pixels"
    return type(changed).__name__


def _noise(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """Sensor noise: Gaussian, of every channel of every pixel."""
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    pixels = np.asarray(photo, dtype=np.float32)
    noisy = pixels + 255 * sigma * random.standard_normal(pixels.shape, dtype=np.float32)
    return _image(noisy)


def _blur(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """A lens out of focus: Gaussian."""
    sigma = (1, 2, 3, 4, 6)[severity - 1] / _REFERENCE_PX
    return photo.filter(ImageFilter.GaussianBlur(sigma * min(photo.size)))


def _motion(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """A camera that turned sideways while the shutter was open; the label is its middle."""
    length = (5, 10, 15, 20, 30)[severity - 1] / _REFERENCE_PX * min(photo.size)
    half = max(1, round((length - 1) / 2))
    rows = torch.from_numpy(np.array(photo, dtype=np.float32)).permute(2, 0, 1)
    padded = F.pad(rows, (half, half), mode="replicate")
    return _image(F.avg_pool1d(padded, 2 * half + 1, stride=1).permute(1, 2, 0).numpy())


def _dark(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """Less light: half a stop to three stops, quantised as a sensor would."""
    stops = (0.5, 1.0, 1.5, 2.0, 3.0)[severity - 1]
    return _exposed(photo, -stops)


def _bright(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """Too much light: half a stop to three stops; what is white stays white."""
    stops = (0.5, 1.0, 1.5, 2.0, 3.0)[severity - 1]
    return _exposed(photo, stops)


def _contrast(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """Haze: every pixel nearer to the photo's mean grey."""
    return ImageEnhance.Contrast(photo).enhance((0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1])


def _jpeg(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """A poor connection: JPEG of low quality, at the short side that ImageNet-C has."""
    quality = (25, 18, 15, 10, 7)[severity - 1]
    scale = min(1.0, _REFERENCE_PX / min(photo.size))
    small = photo.resize((round(scale * photo.width), round(scale * photo.height)))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB").resize(photo.size)


def _occlusion(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """Somebody in the way: a grey rectangle of the photo's shape, a tenth of it to a half."""
    side = (0.1 * severity) ** 0.5
    size = round(side * photo.width), round(side * photo.height)
    corner = (
        int(random.integers(photo.width - size[0] + 1)),
        int(random.integers(photo.height - size[1] + 1)),
    )
    covered = photo.copy()
    covered.paste((128, 128, 128), (*corner, corner[0] + size[0], corner[1] + size[1]))
    return covered


def _crop(photo: Image.Image, severity: int, random: np.random.Generator) -> Image.Image:
    """A narrower view: a part of the photo's shape, four fifths of it to a tenth; black around.

    Black where the photo was cut keeps the camera what it is said to be.
    """
    side = (0.8, 0.6, 0.4, 0.2, 0.1)[severity - 1] ** 0.5
    size = round(side * photo.width), round(side * photo.height)
    x = int(random.integers(photo.width - size[0] + 1))
    y = int(random.integers(photo.height - size[1] + 1))
    window = (x, y, x + size[0], y + size[1])
    cut = Image.new("RGB", photo.size)
    cut.paste(photo.crop(window), window)
    return cut


def _exposed(photo: Image.Image, stops: float) -> Image.Image:
    """Light times 2 to the ``stops``, by a display's gamma of 2.2."""
    pixels = np.asarray(photo, dtype=np.float32)
    return _image(pixels * 2 ** (stops / 2.2))


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


CORRUPTIONS: dict[str, Corruption] = {
    "noise": _noise,
    "blur": _blur,
    "motion": _motion,
    "dark": _dark,
    "bright": _bright,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "occlusion": _occlusion,
    "crop": _crop,
}
