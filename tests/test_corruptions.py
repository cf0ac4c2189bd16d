"""Corruptions: they leave the camera where it is, and grow with severity."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from relocal.corruptions import CORRUPTIONS, SEVERITIES, SHORT_SIDE_PX, corrupt
from relocal.errors import InputError
from relocal.images import decode

RANDOM, CODEC = {"noise", "occlusion", "crop"}, {"jpeg"}  # JPEG's blocks are counted from the left
LEVELS = range(1, SEVERITIES + 1)


def levels(*values: float) -> list[tuple[int, float]]:
    """Each severity with its number."""
    return list(zip(LEVELS, values, strict=True))


def photo_of(width: int, height: int) -> bytes:
    """Edges, texture and all brightnesses, as a PNG file."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
    fine = random.integers(-20, 20, (height, width, 3))
    pixels = (np.asarray(image).astype(int) + fine).clip(0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return photo_of(320, 240)


def pixels_of(content: bytes) -> np.ndarray:
    return decode(content).numpy().astype(float)


def mirrored(content: bytes) -> bytes:
    result = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(content))).save(result, "PNG")
    return result.getvalue()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_harm_grows_with_severity(kind: str, photo: bytes) -> None:
    clean = pixels_of(photo)
    harm = [np.abs(pixels_of(corrupt(photo, kind, level, "a")) - clean).mean() for level in LEVELS]
    assert harm[0] > 0
    assert harm == sorted(harm)
    assert harm[-1] > 1.2 * harm[0]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_everybody_is_asked_the_same_photo(kind: str, photo: bytes, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(photo)
    first = corrupt(photo, kind, 3, "seq-01/a.png")
    assert corrupt(file, kind, 3, "seq-01/a.png") == first
    other = corrupt(photo, kind, 3, "seq-01/b.png")
    assert (other == first) == (kind not in RANDOM)


@pytest.mark.parametrize("kind", sorted(CORRUPTIONS.keys() - RANDOM - CODEC))
def test_mirrored_photo_is_corrupted_to_the_mirror_image(kind: str, photo: bytes) -> None:
    """So that nothing moves to a side, which would be a turn of the camera."""
    for level in LEVELS:
        there = pixels_of(corrupt(mirrored(photo), kind, level, "a"))[:, :, ::-1]
        here = pixels_of(corrupt(photo, kind, level, "a"))
        assert np.abs(there - here).mean() < 0.6


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("size", [(1280, 960), (540, 960), (16, 24)])
def test_photos_keep_their_shape(kind: str, size: tuple[int, int]) -> None:
    found = pixels_of(corrupt(photo_of(*size), kind, SEVERITIES, "a"))
    scale = min(1.0, SHORT_SIDE_PX / min(size))
    assert found.shape == (3, round(scale * size[1]), round(scale * size[0]))


def test_photo_that_lies_on_its_side_is_turned_upright(photo: bytes, tmp_path: Path) -> None:
    file, image = tmp_path / "a.png", Image.open(io.BytesIO(photo))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(file, exif=exif)
    assert pixels_of(corrupt(file, "blur", 1, "a")).shape == (3, 320, 240)


def test_light_is_halved_by_a_stop_and_lost_where_it_is_too_much(photo: bytes) -> None:
    """Twice the light and half of it again is the photo, but for what was white."""
    for dark, bright in (("dark", "bright"), ("bright", "dark")):
        back = pixels_of(corrupt(corrupt(photo, dark, 2, "a"), bright, 2, "a"))
        clean = pixels_of(photo)
        known = clean < 255 / 2 ** (1 / 2.2) - 1
        assert np.abs(back - clean)[known].max() <= 2
    assert pixels_of(corrupt(photo, "bright", 5, "a")).max() == 255


def grey(level: int, width: int = 320, height: int = 224) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def file_of(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


# What docs/conventions.md says of each severity, measured on pictures made for it.


@pytest.mark.parametrize(("level", "sigma"), levels(0.08, 0.12, 0.18, 0.26, 0.38))
def test_noise_is_what_its_row_says(level: int, sigma: float) -> None:
    found = pixels_of(corrupt(file_of(grey(128)), "noise", level, "a")) - 128
    other = pixels_of(corrupt(file_of(grey(128)), "noise", level, "b")) - 128
    assert abs(found.mean()) < 1.5
    clipped = np.clip(255 * sigma * np.random.default_rng(1).normal(size=100_000), -128, 127)
    assert found.std() == pytest.approx(clipped.std(), rel=0.02)
    for pair in ((found[0], found[1]), (found, other), (found[:, 1:], found[:, :-1])):
        assert abs(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1]) < 0.02


def test_what_is_random_differs_from_severity_to_severity() -> None:
    first, second = (pixels_of(corrupt(file_of(grey(128)), "noise", k, "a")) for k in (1, 2))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def spread(found: np.ndarray, axis: int) -> tuple[float, float]:
    """Mean and standard deviation of the light of a bright line, across it, in pixels."""
    light = found.mean(0).mean(axis)
    places = np.arange(len(light))
    middle = (light * places).sum() / light.sum()
    return middle, float(np.sqrt((light * (places - middle) ** 2).sum() / light.sum()))


@pytest.mark.parametrize(("level", "length"), levels(5, 10, 15, 20, 30))
def test_motion_is_sideways_and_as_long_as_its_row_says(level: int, length: float) -> None:
    upright, lying = grey(0), grey(0)
    upright[:, 160], lying[112] = 255, 255
    middle, wide = spread(pixels_of(corrupt(file_of(upright), "motion", level, "a")), 0)
    assert middle == pytest.approx(160, abs=0.1)
    assert wide * np.sqrt(12) == pytest.approx(length, abs=1.2)  # of a box
    assert np.array_equal(pixels_of(corrupt(file_of(lying), "motion", level, "a")),
                          lying.transpose(2, 0, 1))  # fmt: skip


@pytest.mark.parametrize(("level", "sigma"), levels(1, 2, 3, 4, 6))
def test_blur_is_as_wide_as_its_row_says(level: int, sigma: float) -> None:
    for axis, place in ((0, 160), (1, 112)):
        photo = grey(0)
        where = (
            (slice(None), slice(place - 4, place + 5)) if axis == 0 else slice(place - 4, place + 5)
        )
        photo[where] = 255
        middle, wide = spread(pixels_of(corrupt(file_of(photo), "blur", level, "a")), axis)
        assert middle == pytest.approx(place, abs=0.1)
        assert np.sqrt(wide**2 - 80 / 12) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize(("level", "stops"), levels(0.5, 1, 1.5, 2, 3))
def test_light_is_what_its_row_says(level: int, stops: float) -> None:
    for kind, sign, value in (("dark", -1, 200), ("bright", 1, 60)):
        found = pixels_of(corrupt(file_of(grey(value)), kind, level, "a"))
        light = (found / 255) ** 2.2 / (value / 255) ** 2.2
        assert np.log2(light).mean() == pytest.approx(sign * stops, abs=0.03)


@pytest.mark.parametrize(("level", "share"), levels(0.4, 0.3, 0.2, 0.1, 0.05))
def test_contrast_is_what_its_row_says(level: int, share: float, photo: bytes) -> None:
    found = pixels_of(corrupt(photo, "contrast", level, "a"))
    assert found.std() == pytest.approx(share * pixels_of(photo).std(), rel=0.03)
    assert found.mean() == pytest.approx(pixels_of(photo).mean(), abs=12)  # of all channels alike


@pytest.mark.parametrize(("level", "quality"), levels(25, 18, 15, 10, 7))
def test_jpeg_is_what_its_row_says(level: int, quality: int, photo: bytes) -> None:
    small = Image.open(io.BytesIO(photo)).resize((299, 224))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=quality)
    there = np.asarray(Image.open(content).resize((320, 240)), dtype=float).transpose(2, 0, 1)
    assert np.abs(pixels_of(corrupt(photo, "jpeg", level, "a")) - there).max() == 0


def test_occlusion_covers_its_share_anywhere_and_nothing_else(photo: bytes) -> None:
    clean, corners = pixels_of(photo), set[tuple[int, int]]()
    for level in LEVELS:
        for name in "abcdef":
            found = pixels_of(corrupt(photo, "occlusion", level, name))
            changed = (found != clean).any(0)
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            assert (found[(slice(None), *box)] == 128).all()
            assert changed[box].mean() > 0.95  # else by chance of the same grey
            share = changed[box].size / changed.size
            assert share == pytest.approx(0.1 * level, abs=0.01)
            corners.add((int(rows[0]), int(columns[0])))
    assert min(len({c[k] for c in corners}) for k in (0, 1)) > 10


def test_a_crop_keeps_its_share_where_it_was_and_nothing_else(photo: bytes) -> None:
    before = pixels_of(photo)
    corners: set[tuple[int, int]] = set()
    for level, share in enumerate((0.8, 0.6, 0.4, 0.2, 0.1), start=1):
        for name in "abc":
            found = pixels_of(corrupt(photo, "crop", level, name))
            kept = (found == before).all(0)
            rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
            window = np.zeros_like(kept)
            window[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            assert kept[window].all()
            assert (found[:, ~window] == 0).all()
            assert window.mean() == pytest.approx(share, abs=0.02)
            corners.add((int(rows[0]), int(columns[0])))
    assert len(corners) > 10


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (lambda photo, severity, random: None, "NoneType"),
        (lambda photo, severity, random: np.asarray(photo), "ndarray"),
        (lambda photo, severity, random: photo.convert("LA"), "LA of 320 x 240"),
        (lambda photo, severity, random: photo.crop((0, 0, 160, 120)), "RGB of 160 x 120"),
    ],
)
def test_kind_from_outside_must_keep_the_camera(
    mine: Any, said: str, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CORRUPTIONS, "mine", mine)
    with pytest.raises(InputError, match=f"corruption mine: of seq/a.png it made {said}"):
        corrupt(photo, "mine", 1, "seq/a.png")


def test_unknown_kinds_are_refused(photo: bytes) -> None:
    with pytest.raises(InputError, match=r"corruption.*'nois'.*noise"):
        corrupt(photo, "nois", 1, "a")
    for severity in (0, SEVERITIES + 1):
        with pytest.raises(ValueError, match="severity"):
            corrupt(photo, "noise", severity, "a")
