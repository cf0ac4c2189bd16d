"""What a photo file says beside its pixels: when, where and by which camera it was taken."""

import io
import struct
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from relocal.errors import InputError

_PNG = b"\x89PNG\r\n\x1a\n"
# All that is needed for pixels and their colours; whatever else a file holds are words.
_PNG_KEPT = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"),
    *(b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP"),
)
_START, _SCAN, _END, _COMMENT = 0xD8, 0xDA, 0xD9, 0xFE
_APPLICATIONS = range(0xE0, 0xF0)
_JFIF = 0xE0
_KEPT = {_JFIF: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_RESTARTS = range(0xD0, 0xD8)
_INSIDE = (0x00, *_RESTARTS)  # behind 0xFF within a scan: a byte of it, a restart
_ALONE = (0x01, *_RESTARTS)  # markers without a length
_WEBP_KEPT = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"}
# TIFF tags that say how pixels lie, and the colour profile.
_TIFF_KEPT = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 283, 284, 296),
    *(317, 320, 322, 323, 324, 325, 338, 339, 530, 531, 532, 34675),
}


def without_metadata(content: bytes, name: str) -> bytes:
    """A photo's file without what it says of time, place and camera; its pixels stay as they are.

    Only what pixels and their colours are made of is kept: EXIF, XMP, IPTC, comments, thumbnails,
    and what stands behind the image go.

    Args:
        content: A JPEG or PNG file; a file of another kind is returned as it is if it says nothing.
        name: What to call it in a message.

    Raises:
        InputError: If it is no photo, or of another kind and may say something.
    """
    if content.startswith(_PNG):
        return _same_pixels(content, _png(content), name)
    if content.startswith(bytes([0xFF, _START])):
        return _same_pixels(content, _jpeg(content), name)
    silent: dict[str, Callable[[bytes], bool]] = {"WEBP": _webp, "TIFF": _tiff, "BMP": _bmp}
    with _opened(content, name) as image:
        kind = str(image.format)
    if kind not in silent or not silent[kind](content):
        raise InputError(
            f"{name}: its file may say when, where or by what it was taken, which can be taken "
            "out of JPEG and PNG files only; make it one, or publish it with --keep-metadata."
        )
    return content


def _opened(content: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: this is not a photo that can be read.") from error


def _same_pixels(content: bytes, bare: bytes, name: str) -> bytes:
    """The bare file, once it is seen to hold the same pixels."""
    if bare == content:
        return content
    try:
        with _opened(content, name) as one, _opened(bare, name) as other:
            same = one.mode == other.mode and one.tobytes() == other.tobytes()
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{name}: is damaged ({error}).") from error
    if not same:
        raise InputError(
            f"{name}: what its file says beside the pixels cannot be told from them; write it anew "
            "with another program, or publish it with --keep-metadata."
        )
    return bare


def _jpeg(content: bytes) -> bytes:
    """The first image of a file alone: phones hang others behind it, which say as much."""
    kept, at = [content[:2]], 2
    while at + 4 <= len(content):
        marker = content[at + 1]
        if marker == _END:
            break
        if content[at] != 0xFF or marker == 0xFF:  # filling
            at += 1
            continue
        if marker in _ALONE:
            kept.append(content[at : at + 2])
            at += 2
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        end = at + 2 + length
        if marker == _SCAN:
            end = _scan_end(content, end)
        data = content[at + 4 : end]
        words = marker == _COMMENT or marker in _APPLICATIONS
        if marker == _JFIF and data.startswith(_KEPT[_JFIF]) and len(data) >= 14:
            # Without its thumbnail, and what may stand behind it.
            kept.append(bytes([0xFF, _JFIF, 0, 16]) + data[:12] + bytes(2))
        elif not words or (marker in _KEPT and data.startswith(_KEPT[marker])):
            kept.append(content[at:end])
        at = end
    return b"".join([*kept, bytes([0xFF, _END])])


def _scan_end(content: bytes, at: int) -> int:
    """Where the next marker begins that is none of the scan's own."""
    while (at := content.find(b"\xff", at)) >= 0:
        behind = at
        while behind < len(content) and content[behind] == 0xFF:  # several are filling
            behind += 1
        if behind < len(content) and content[behind] not in _INSIDE:
            return behind - 1
        at = behind
    return len(content)


def _png(content: bytes) -> bytes:
    kept, at = [content[:8]], 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length  # length, kind, data, checksum
        if kind in _PNG_KEPT:
            kept.append(content[at:end])
        at = end
        if kind == b"IEND":  # what is behind it may be an image that was cut away
            break
    return b"".join(kept)


def _webp(content: bytes) -> bool:
    """Whether a WebP file holds one image and nothing else."""
    (size,) = struct.unpack_from("<I", content, 4)
    at = 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        if kind not in _WEBP_KEPT:
            return False
        at += 8 + length + length % 2
    return at == len(content) == size + 8


def _tiff(content: bytes) -> bool:
    """Whether a TIFF file's tags say how its pixels lie and nothing else."""
    with Image.open(io.BytesIO(content)) as image:
        return set(image.getexif()) <= _TIFF_KEPT and getattr(image, "n_frames", 1) == 1


def _bmp(content: bytes) -> bool:
    """Whether a BMP file ends where it says."""
    (size,) = struct.unpack_from("<I", content, 2)
    return size == len(content)
