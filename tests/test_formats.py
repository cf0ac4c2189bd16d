"""Which kinds of files are taken for photos."""

import io
from pathlib import Path

import pytest
from PIL import Image

from relocal.errors import InputError
from relocal.images import decode, open_photo


def file_of(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.eps", "a.jpg"])
def test_what_would_start_a_program_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(file_of(Image.new("RGB", (64, 48)), "EPS"))
    for source in (tmp_path / name, (tmp_path / name).read_bytes()):
        with pytest.raises(InputError, match="not a photo; accepted are JPEG, PNG"):
            open_photo(source)


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_photos_of_every_accepted_kind_are_decoded(kind: str) -> None:
    content = file_of(Image.new("RGB", (64, 48), (0, 0, 255)), kind)
    assert decode(content)[2].float().mean() > 250
