"""What a photo file says beside its pixels: when, where and by which camera it was taken."""

import io
import struct

from PIL import Image

from relocal.errors import InputError

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_WORDS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME")
_START, _SCAN, _END, _COMMENT = 0xD8, 0xDA, 0xD9, 0xFE
_APPLICATIONS = range(0xE0, 0xF0)
_KEPT = {0xE0: b"JFIF", 0xE2: b"ICC_PROFILE", 0xEE: b"Adobe"}  # what colours are made with
_INSIDE = (0x00, *range(0xD0, 0xD8))  # behind 0xFF within a scan: a byte of it, a restart


def without_metadata(content: bytes, name: str) -> bytes:
    """A photo's file without what it says of time, place and camera; its pixels stay as they are.

    EXIF, XMP, IPTC and comments go; colour profiles stay, since without them colours change.

    Args:
        content: A JPEG or PNG file; a file of another kind is returned as it is if it says nothing.
        name: What to call it in a message.

    Raises:
        InputError: If it is of another kind and does say something.
    """
    if content.startswith(_PNG):
        return _png(content)
    if content.startswith(bytes([0xFF, _START])):
        return _jpeg(content)
    with Image.open(io.BytesIO(content)) as image:
        if len(image.getexif()) or "xmp" in image.info:
            raise InputError(
                f"{name}: its file says when, where or by what it was taken, which can be taken "
                "out of JPEG and PNG files only; --keep-metadata publishes it too."
            )
    return content


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
        (length,) = struct.unpack_from(">H", content, at + 2)
        end = at + 2 + length
        if marker == _SCAN:
            end = _scan_end(content, end)
        data = content[at + 4 : end]
        words = marker == _COMMENT or marker in _APPLICATIONS
        if not words or (marker in _KEPT and data.startswith(_KEPT[marker])):
            kept.append(content[at:end])
        at = end
    return b"".join([*kept, bytes([0xFF, _END])])


def _scan_end(content: bytes, at: int) -> int:
    """Where the next marker begins that is none of the scan's own."""
    while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
        if content[at + 1] not in _INSIDE:
            return at
        at += 2
    return len(content)


def _png(content: bytes) -> bytes:
    kept, at = [content[:8]], 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length  # length, kind, data, checksum
        if kind not in _PNG_WORDS:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)
