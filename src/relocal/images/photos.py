"""Photos: decode, turn upright, resample to a camera.

This is the one path from a file to the pixels that a network sees. Training goes through it once
(the cache), serving goes through it for every photo, so the two cannot differ.
"""

import io
import math
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from relocal.camera import Camera
from relocal.errors import InputError

MAX_PIXELS = 64_000_000  # a decompressed photo larger than this is refused before it is decoded
MIN_SIDE_PX = 16
_EXIF_ORIENTATION, _EXIF_IFD, _EXIF_FOCAL_35MM = 0x0112, 0x8769, 0xA405
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""What photos come as, in Pillow's words; others could start programs, as EPS does Ghostscript."""
_FULL_FRAME_DIAGONAL_MM = 43.27
_FOCAL_MM = (3.0, 3000.0)  # lenses that exist, as 35 mm equivalents
_LEAST_SEEN = 0.05
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_NOT_PHOTOS = ("I", "F")  # 32 bits a pixel: a depth map, not a photo
_DEEP = "I;16"  # how the modes of 16-bit grey photos begin
_TOO_MANY = f"more than the {MAX_PIXELS // 10**6} megapixels that are accepted; scale it down."
_DAMAGE = (OSError, ValueError, SyntaxError)  # what Pillow raises on damaged files

Source = Path | bytes
"""Where a photo comes from: a file, or the bytes of one."""


def open_photo(source: Source) -> Image.Image:
    """Opens a photo and reads its header only; close it, or use it in a ``with``.

    Raises:
        InputError: If it is no photo, or of a size that cannot be used.
    """
    name = photo_name(source)
    bomb = Image.DecompressionBombError, Image.DecompressionBombWarning
    try:
        image = _opened(source)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{name}: this is a folder, not a photo.") from None
    except bomb as error:
        raise InputError(f"{name}: has {_TOO_MANY}") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise InputError(f"{name}: this is not a photo; accepted are {known}.") from error
    except _DAMAGE as error:
        raise InputError(f"{name}: this is not a photo that can be read ({error}).") from error
    if fault := _fault(image):
        image.close()
        raise InputError(f"{name}: {fault}")
    return image


def _opened(source: Source) -> Image.Image:
    if isinstance(source, bytes):
        return Image.open(io.BytesIO(source), formats=FORMATS)
    if source.exists() and not (source.is_file() or source.is_dir()):
        raise OSError("a pipe or a device")  # which may block for ever
    return Image.open(source, formats=FORMATS)


def _fault(image: Image.Image) -> str | None:
    """Why a photo cannot be used, as far as its header says."""
    width, height = image.size
    if image.mode in _NOT_PHOTOS:
        return f"pixels of mode {image.mode} are not a photo's; save it as RGB."
    if width * height > MAX_PIXELS:
        return f"{width} x {height} pixels are {_TOO_MANY}"
    if min(width, height) < MIN_SIDE_PX:
        return f"{width} x {height} pixels are too few; each side needs {MIN_SIDE_PX}."
    return None


def is_there(file: Path) -> bool:
    """Whether a photo that a list names exists.

    Raises:
        InputError: If a folder has its name, or no file can have it.
    """
    try:
        if file.is_dir():
            raise InputError(f"{file}: this is a folder, not a photo.")
        return file.is_file()
    except OSError as error:
        raise InputError(f"{str(file)[:200]}: cannot be read ({error.strerror}).") from error


def upright_size(source: Source) -> tuple[int, int]:
    """Width and height of the photo once its EXIF orientation is applied."""
    with open_photo(source) as image:
        return photo_sizes(image, photo_name(source))[1]


def decode(source: Source, min_size: tuple[int, int] | None = None) -> UInt8[Tensor, "3 H W"]:
    """Decodes a photo to upright RGB of 8 bits a channel; transparency is left aside.

    Args:
        source: A file or its bytes.
        min_size: Width and height that are enough. A JPEG is then decoded at a reduced scale
            (1/2, 1/4, 1/8) that is not smaller, which is several times faster.

    Raises:
        InputError: If the photo cannot be decoded whole; a cut file is never filled with grey.
    """
    with open_photo(source) as image:
        return _decode(image, photo_name(source), min_size)


def exif_focal_px(source: Source) -> float | None:
    """Focal length in pixels from EXIF's 35 mm equivalent, or None when it is not there.

    The equivalent compares diagonals, so the result holds for any aspect ratio.
    """
    with open_photo(source) as image:
        focal_mm = _exif(image, photo_name(source)).get_ifd(_EXIF_IFD).get(_EXIF_FOCAL_35MM)
    # Cameras that do not know it write 0; damaged fields hold text, 0/0 or 1/0.
    if not isinstance(focal_mm, Real) or not _FOCAL_MM[0] <= float(focal_mm) <= _FOCAL_MM[1]:
        return None
    return float(focal_mm) / _FULL_FRAME_DIAGONAL_MM * math.hypot(*image.size)


def equivalent_mm(camera: Camera) -> float:
    """The focal length in millimetres that a camera has by EXIF's 35 mm equivalent."""
    diagonal = math.hypot(camera.width, camera.height)
    return float(camera.focal.mean()) * _FULL_FRAME_DIAGONAL_MM / diagonal


def exif_orientation(image: Image.Image, name: str) -> int:
    """How the stored pixels become upright, 1 (as they are) to 8, in EXIF's numbers.

    Args:
        image: A photo from ``open_photo``.
        name: What to call it if it is damaged.
    """
    value = _exif(image, name).get(_EXIF_ORIENTATION)
    return value if isinstance(value, int) and 2 <= value <= 8 else 1


def _exif(image: Image.Image, name: str) -> Image.Exif:
    try:
        return image.getexif()
    except _DAMAGE as error:
        raise InputError(f"{name}: the photo is damaged ({error}).") from error


def photo_sizes(image: Image.Image, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of a photo's pixels as they are stored, and of the upright picture.

    Args:
        image: A photo from ``open_photo``, not loaded yet.
        name: What to call it if it is damaged.
    """
    width, height = image.size
    if exif_orientation(image, name) not in SIDEWAYS:
        return image.size, image.size
    turned = (height, width)
    # Of a TIFF Pillow says the upright size, and loads it upright.
    return (turned, image.size) if image.format == "TIFF" else (image.size, turned)


def _decode(image: Image.Image, name: str, min_size: tuple[int, int] | None) -> Tensor:
    if min_size is not None:
        sideways = exif_orientation(image, name) in SIDEWAYS
        width, height = min_size
        image.draft("RGB", _reduced(image.size, (height, width) if sideways else (width, height)))
    try:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.array(_rgb(image))
    except _DAMAGE as error:
        raise InputError(f"{name}: the photo is damaged ({error}).") from error
    # Channels last in memory: what the resize, the cache and the convolutions all read fastest.
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(_DEEP):
        # The high byte, which is what Pillow takes of 16-bit colour; its conversion would clip.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # whose transparency gets lost only on this way without a warning
        image = image.convert("RGBA")
    return image.convert("RGB")


def _reduced(size: tuple[int, int], enough: tuple[int, int]) -> tuple[int, int]:
    """The smallest of 1/8, 1/4, 1/2 and 1 of a size that is not smaller than ``enough``.

    Only scales that divide the size are taken: with a padded last column the reduced image would
    not be the same view, and its intrinsics would be wrong.
    """
    width, height = size
    for scale in (8, 4, 2):
        exact = width % scale == 0 and height % scale == 0
        if exact and width >= scale * enough[0] and height >= scale * enough[1]:
            return width // scale, height // scale
    return size


def fit_camera(camera: Camera, width: int, height: int, name: str) -> Camera:
    """The same lens for a photo of another resolution; a photo of another shape is refused."""
    if not same_shape(camera, width, height):
        raise InputError(
            f"{name}: {width} x {height} pixels do not have the shape of its camera "
            f"({camera.width} x {camera.height}); a cropped photo needs a camera of its own."
        )
    same = (width, height) == (camera.width, camera.height)
    return camera if same else camera.resized(width, height)


def same_shape(camera: Camera, width: int, height: int) -> bool:
    """Whether a photo has a camera's ratio of width to height."""
    return abs(width * camera.height - height * camera.width) <= 0.01 * width * camera.height


def training_camera(camera: Camera, short_side_px: int) -> Camera:
    """The pinhole camera a network is trained with: no distortion, centred, a fixed short side."""
    scale = short_side_px / min(camera.width, camera.height)
    size = (round(camera.width * scale), round(camera.height * scale))
    # Undistorted and centred without a change of focal length; for a camera that is both
    # already, resampling to this is a plain resize.
    fx, fy = camera.undistorted().resized(*size).focal.tolist()
    return Camera.pinhole(*size, fx, fy, size[0] / 2, size[1] / 2)


def load_view(
    source: Source, camera: Camera, target: Camera, said_by: str = "the camera given"
) -> UInt8[Tensor, "3 h w"]:
    """Decodes a photo and resamples it to what the ``target`` camera sees from the same place.

    Args:
        source: A file or its bytes.
        camera: The photo's camera at any resolution.
        target: The training camera.
        said_by: What said the photo's camera, for messages.

    Raises:
        InputError: If the photo cannot be read, or the camera cannot be its.
    """
    pixels, camera = decode_for(source, camera, target)
    try:
        return resample(pixels, camera, target, said_by)
    except InputError as error:
        raise InputError(f"{photo_name(source)}: {error}") from error


def decode_for(
    source: Source, camera: Camera, target: Camera
) -> tuple[UInt8[Tensor, "3 H W"], Camera]:
    """Decodes a photo at the smallest scale that ``target`` needs: its pixels, and their camera.

    Arguments as ``load_view``.
    """
    name = photo_name(source)
    with open_photo(source) as photo:
        width, height = photo_sizes(photo, name)[1]
        camera = fit_camera(camera, width, height, name)
        scale = min(1.0, float((target.focal / camera.focal).max()))
        image = _decode(photo, name, (math.ceil(width * scale), math.ceil(height * scale)))
    return image, camera.resized(image.shape[2], image.shape[1])


def resample(
    image: UInt8[Tensor, "3 H W"], camera: Camera, target: Camera, said_by: str = "the camera given"
) -> UInt8[Tensor, "3 h w"]:
    """Resamples an image of ``camera`` to the pinhole ``target`` with the same centre and axes.

    First an antialiased resize to the target's focal length, then, only where lens, principal
    point or size still differ, a warp. What the photo does not show repeats its border.

    Raises:
        InputError: If by its camera the image shows next to nothing of the target's view; the
            message begins with ``said_by``.
    """
    scale = (target.focal / camera.focal).tolist()
    size = (round(camera.width * scale[0]), round(camera.height * scale[1]))
    if min(size) < 1:
        raise InputError(
            f"{said_by}: a focal length of {float(camera.focal.max()):g} pixels is not that of a "
            f"photo of {camera.width} x {camera.height}; {_mended(said_by)}"
        )
    if size != (camera.width, camera.height) and max(scale) < 1.5:
        image = resize(image, *size)
        camera = camera.resized(*size)
    if same_view(camera, target):
        return image
    grid, shown = sampling_grid(camera, target)
    seen = float(shown.float().mean())
    if seen < _LEAST_SEEN:
        raise InputError(
            f"{said_by}: by this camera the photo shows {100 * seen:.0f} % of what the localizer "
            f"looks at; {_mended(said_by)}"
        )
    warped = F.grid_sample(
        image[None].float(), grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return warped[0].round().to(torch.uint8)


def _mended(said_by: str) -> str:
    return "correct it." if "given" in said_by else "give --camera if that is wrong."


def resize(image: UInt8[Tensor, "3 H W"], width: int, height: int) -> UInt8[Tensor, "3 h w"]:
    """Antialiased bilinear resize."""
    return F.interpolate(
        image[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )[0]


def sampling_grid(
    camera: Camera, target: Camera
) -> tuple[Float[Tensor, "h w 2"], Bool[Tensor, "h w"]]:
    """Where each target pixel lies in the image of ``camera``, in ``grid_sample`` coordinates.

    Returns:
        The grid, and whether the image shows the pixel at all. Beyond where the lens model turns
        back the grid stays at that border.
    """
    y = torch.arange(target.height, dtype=torch.float64) + 0.5
    x = torch.arange(target.width, dtype=torch.float64) + 0.5
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    rays = target.unproject(pixels)
    _, shown = camera.project(rays)
    radius = rays[..., :2].norm(dim=-1, keepdim=True).clamp(min=1e-12)
    inward = (0.999 * camera.fold_radius() / radius).clamp(max=1.0)
    source, _ = camera.project(torch.cat([inward * rays[..., :2], rays[..., 2:]], dim=-1))
    size = source.new_tensor([camera.width, camera.height])
    return (2 * source / size - 1).float(), shown


def same_view(camera: Camera, target: Camera) -> bool:
    """Whether no pixel moves by more than a tenth of a pixel from a pinhole ``target``'s place."""
    size = (target.width, target.height)
    if (camera.width, camera.height) != size or camera.has_distortion or target.has_distortion:
        return False
    # In plain numbers: asked for every photo, where tensors of two values take half a millisecond.
    ours, pinhole = (c.undistorted().params.tolist() for c in (camera, target))
    corners = [(axis, at) for axis in (0, 1) for at in (0, size[axis])]
    rays = [(axis, at, (at - pinhole[2 + axis]) / pinhole[axis]) for axis, at in corners]
    return all(abs(ours[axis] * ray + ours[2 + axis] - at) < 0.1 for axis, at, ray in rays)


def photo_name(source: Source) -> str:
    """What a photo is called in messages."""
    return "photo" if isinstance(source, bytes) else str(source)
