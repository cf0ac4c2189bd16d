"""Laws of decoding and resampling; NumPy, Pillow and analytic pictures give the second opinion."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import (
    build_cache,
    decode,
    exif_focal_px,
    fit_camera,
    load_view,
    open_photo,
    resample,
    training_camera,
    upright_size,
)

# What EXIF says of each orientation: how the stored rows and columns become the upright picture.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
# Storing is the inverse, and 6 and 8 undo each other.
STORED = {**UPRIGHT, 6: UPRIGHT[8], 8: UPRIGHT[6]}

SIDES = st.integers(16, 200) | st.integers(2, 25).map(lambda n: 8 * n)
LENS = Camera("OPENCV", 400, 300, torch.tensor([310.0, 305, 207, 146, 0.06, -0.08, 1e-3, -5e-4]))


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exif_of(orientation: int, focal_35mm: object = None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if focal_35mm is not None:
        exif.get_ifd(0x8769)[0xA405] = focal_35mm
    return exif


def stored(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)
    return path


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b"")]
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def seen_by(camera: Camera) -> Tensor:
    """The picture that a camera takes of a smooth painted wall, each pixel at its centre."""
    y, x = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (camera.height, camera.width))
    rays = camera.unproject(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1))
    u, v, _ = rays.unbind(-1)
    waves = [(40 * u).sin() * (31 * v).cos(), (35 * u + 20 * v).sin(), (38 * v - 15 * u).cos()]
    return (127.5 + 100 * torch.stack(waves)).round().to(torch.uint8)


def offset_px(image: Tensor, truth: Tensor, border: int = 6) -> float:
    """The largest shift of any ninth of the image against the truth, by least squares."""
    a, b = (t[:, border:-border, border:-border].double() for t in (image, truth))
    dy, dx = torch.gradient(b, dim=(1, 2))
    worst = 0.0
    for rows in np.array_split(np.arange(b.shape[1]), 3):
        for columns in np.array_split(np.arange(b.shape[2]), 3):
            part = (slice(None), slice(rows[0], rows[-1]), slice(columns[0], columns[-1]))
            slope = torch.stack([dx[part].flatten(), dy[part].flatten()], dim=-1)
            shift = torch.linalg.lstsq(slope, (a - b)[part].flatten()[:, None]).solution
            worst = max(worst, float(shift.norm()))
    return worst


def moved(camera: Camera, pixels: float) -> Camera:
    return camera.cropped(torch.tensor(pixels), torch.tensor(0), camera.width, camera.height)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_every_orientation_is_decoded_upright(orientation: int, kind: str) -> None:
    raw = encoded(noise(40, 24), kind, exif=exif_of(orientation))
    plain = np.array(Image.open(io.BytesIO(encoded(noise(40, 24), kind))).convert("RGB"))
    turned = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB"))
    result = decode(raw).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(result, UPRIGHT[orientation](plain))
    np.testing.assert_array_equal(result, turned)
    assert upright_size(raw) == (result.shape[1], result.shape[0])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_every_colour_mode_becomes_rgb_channels_last_in_memory(mode: str, tmp_path: Path) -> None:
    Image.fromarray(noise(40, 24)).convert(mode).save(tmp_path / "a.tif")
    image = decode(tmp_path / "a.tif")
    assert image.shape == (3, 24, 40)
    assert image.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_cut_photo_is_refused_by_name(kind: str, share: float, tmp_path: Path) -> None:
    raw = encoded(noise(64, 48), kind)
    path = tmp_path / "cut.jpg"
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(InputError, match=re.escape(str(path))):
        decode(path)
    with pytest.raises(InputError):
        load_view(path, LENS, training_camera(LENS, 32))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a photo"),
        (b"no photo at all", "not a photo"),
        (encoded(noise(1, 1), "PNG"), "too few"),
        (encoded(noise(2000, 15), "PNG"), "too few"),
        (png_header(60000, 60000), "more than the 64 megapixels"),
        (png_header(12000, 12000), "more than the 64 megapixels"),  # where Pillow only warns
        (png_header(9000, 8000), "9000 x 8000 pixels"),  # where Pillow says nothing
        (encoded(np.zeros((24, 32), np.float32), "TIFF"), "mode F"),
    ],
    ids=["empty", "text", "1x1", "thin", "3600MP", "144MP", "72MP", "depth"],
)
def test_what_is_no_usable_photo_is_refused_by_its_header(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(InputError, match=reason):
            open_photo(source)
    with pytest.raises(InputError, match=re.escape(str(path))):
        upright_size(path)


def test_folder_and_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jpg"):
        with pytest.raises(InputError, match=re.escape(str(path))):
            decode(path)


@given(
    width=SIDES,
    height=SIDES,
    wanted=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    orientation=st.sampled_from([1, 6]),
)
@settings(max_examples=40)
def test_reduced_decoding_is_an_exact_scale_and_never_too_small(
    width: int, height: int, wanted: tuple[int, int], orientation: int
) -> None:
    raw = encoded(np.zeros((height, width, 3), np.uint8), "JPEG", exif=exif_of(orientation))
    full, reduced = decode(raw).shape[1:], decode(raw, wanted).shape[1:]
    scale = full[0] // reduced[0]
    assert scale in (1, 2, 4, 8)
    assert full == (scale * reduced[0], scale * reduced[1])
    assert scale == 1 or (reduced[1] >= wanted[0] and reduced[0] >= wanted[1])


def test_reduced_decoding_does_reduce() -> None:
    raw = encoded(noise(640, 480), "JPEG")
    widths = [decode(raw, (w, 3 * w // 4)).shape[2] for w in (80, 81, 160, 400)]
    assert widths == [80, 160, 160, 640]


@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_focal_length_compares_diagonals(orientation: int) -> None:
    # 36 mm of film along the longer side of a 3:2 photo.
    raw = encoded(np.zeros((400, 600, 3), np.uint8), "JPEG", exif=exif_of(orientation, 28))
    assert exif_focal_px(raw) == pytest.approx(28 / 36 * 600, rel=1e-3)


def test_exif_focal_length_of_another_shape_keeps_the_diagonal_angle() -> None:
    raw = encoded(np.zeros((300, 400, 3), np.uint8), "PNG", exif=exif_of(1, 26))
    assert exif_focal_px(raw) == pytest.approx(26 * 500 / np.hypot(36, 24), rel=1e-3)


@pytest.mark.parametrize("focal", [None, 0, "wide"])
def test_unknown_exif_focal_length_is_none(focal: object) -> None:
    assert exif_focal_px(encoded(noise(40, 24), "JPEG", exif=exif_of(1, focal))) is None


def test_resampling_changes_nothing_for_the_same_camera_and_follows_a_pixel() -> None:
    camera = training_camera(Camera.pinhole(64, 48, 50.0, 50.0, 32.0, 24.0), 48)
    image = torch.from_numpy(noise(64, 48)).permute(2, 0, 1)
    assert torch.equal(resample(image, camera, camera), image)
    shifted = resample(image, moved(camera, 1.0), camera)
    assert_close(shifted[..., 1:].int(), image[..., :-1].int(), atol=1, rtol=0)


@pytest.mark.parametrize("short", [20, 37, 48])
def test_plain_resize_is_the_antialiased_bilinear_one(short: int) -> None:
    camera = Camera.pinhole(128, 96, 100.0, 100.0, 64.0, 48.0)
    target = training_camera(camera, short)
    image = torch.from_numpy(noise(128, 96)).permute(2, 0, 1)
    expected = F.interpolate(
        image[None].double(), (target.height, target.width), mode="bilinear", antialias=True
    )[0]
    assert_close(resample(image, camera, target).double(), expected, atol=1.01, rtol=0)


@given(
    zoom=st.floats(0.7, 1.7),
    stretch=st.floats(0.97, 1.03),
    centre=st.tuples(st.floats(-12, 12), st.floats(-12, 12)),
    bend=st.tuples(st.floats(-0.1, 0.1), st.floats(-0.05, 0.05)),
)
@settings(max_examples=25)
def test_resampled_picture_is_the_one_that_the_target_camera_takes(
    zoom: float, stretch: float, centre: tuple[float, float], bend: tuple[float, float]
) -> None:
    fx, fy, cx, cy = 320.0, 320 * stretch, 200 + centre[0], 150 + centre[1]
    camera = Camera("OPENCV", 400, 300, torch.tensor([fx, fy, cx, cy, *bend, 1e-3, -1e-3]))
    # A window that the camera sees whatever its lens.
    width, height = int(300 * zoom), int(216 * zoom)
    target = Camera.pinhole(width, height, 320 * zoom, 320 * zoom, width / 2 + 3.3, height / 2)
    picture = seen_by(camera)
    assert offset_px(resample(picture, camera, target), seen_by(target)) < 0.06
    # The measure sees half a pixel of the photo, however it is scaled.
    off = offset_px(resample(picture, moved(camera, 0.5), target), seen_by(target))
    assert off == pytest.approx(0.5 * zoom, abs=0.1)


@pytest.mark.parametrize("size", [(1280, 960), (1028, 772), (1001, 751), (160, 120)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_photo_at_any_resolution_gives_the_view_of_the_training_camera(
    size: tuple[int, int], orientation: int
) -> None:
    target = training_camera(LENS, 144)
    pixels = seen_by(LENS.resized(*size)).permute(1, 2, 0).numpy()
    options = {"quality": 97, "subsampling": 0, "exif": exif_of(orientation)}
    view = load_view(encoded(STORED[orientation](pixels), "JPEG", **options), LENS, target)
    assert offset_px(view, seen_by(target)) < 0.07


def test_reduced_decoding_gives_the_view_of_full_decoding() -> None:
    camera, target = LENS.resized(1600, 1200), training_camera(LENS, 144)
    raw = encoded(seen_by(camera).permute(1, 2, 0).numpy(), "JPEG", quality=95)
    full, view = resample(decode(raw), camera, target), load_view(raw, camera, target)
    assert offset_px(view, full) < 0.03
    assert (view.double() - full.double()).abs().mean() < 2


def test_training_camera_is_a_centred_pinhole_of_the_same_focal_length() -> None:
    camera = training_camera(LENS, 150)
    assert (camera.model, camera.width, camera.height) == ("PINHOLE", 200, 150)
    assert_close(camera.params, torch.tensor([155, 152.5, 100, 75], dtype=torch.float64))


def test_camera_follows_another_resolution_and_refuses_another_shape() -> None:
    assert fit_camera(LENS, 400, 300, "a.jpg") is LENS
    assert fit_camera(LENS, 800, 600, "a.jpg").focal.tolist() == [620, 610]
    for width, height in ((300, 400), (400, 290), (300, 300)):
        with pytest.raises(InputError, match=r"a\.jpg.*its own|of its own"):
            fit_camera(LENS, width, height, "a.jpg")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [stored(tmp_path / f"{i}.png", noise(64, 48, i)) for i in range(5)]


CAMERA = Camera.pinhole(64, 48, 50.0, 50.0, 31.0, 25.0)
TARGET = training_camera(CAMERA, 24)


def cached(photos: list[Path], folder: Path, target: Camera = TARGET) -> Tensor:
    return build_cache(photos, [CAMERA] * len(photos), target, folder)


def test_cache_holds_the_views_in_order_channels_last(photos: list[Path], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    cache = build_cache(
        photos, [CAMERA] * 5, TARGET, tmp_path / "new" / "cache", lambda *call: calls.append(call)
    )
    assert torch.equal(cache, torch.stack([load_view(p, CAMERA, TARGET) for p in photos]))
    assert cache.is_contiguous(memory_format=torch.channels_last)
    assert calls == [(i, 5) for i in range(1, 6)]


def test_cache_is_mapped_and_no_write_reaches_the_file(photos: list[Path], tmp_path: Path) -> None:
    cache = cached(photos, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    cache.zero_()
    assert file.read_bytes() == content
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(file) in maps.read_text()


def test_cache_is_used_again(photos: list[Path], tmp_path: Path) -> None:
    first = cached(photos, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    before = file.stat()
    assert torch.equal(cached(photos, tmp_path / "cache"), first)
    assert list((tmp_path / "cache").iterdir()) == [file]
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_cache_follows_a_changed_image_camera_or_order(photos: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cached(photos, folder)
    stored(photos[2], noise(64, 48, 99))
    assert torch.equal(cached(photos, folder)[2], load_view(photos[2], CAMERA, TARGET))
    smaller = training_camera(CAMERA, 20)
    assert cached(photos, folder, smaller).shape[2:] == (20, 27)
    swapped = photos[::-1]
    assert torch.equal(cached(swapped, folder)[0], load_view(swapped[0], CAMERA, TARGET))
    other = build_cache(photos, [moved(CAMERA, 2.0)] * 5, TARGET, folder)
    assert torch.equal(other[0], load_view(photos[0], moved(CAMERA, 2.0), TARGET))


def test_damaged_image_is_named_and_leaves_no_cache(photos: list[Path], tmp_path: Path) -> None:
    photos[3].write_bytes(photos[3].read_bytes()[:-200])
    with pytest.raises(InputError, match=re.escape(str(photos[3]))):
        cached(photos, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_image_is_named(photos: list[Path], tmp_path: Path) -> None:
    photos[1].unlink()
    with pytest.raises(InputError, match=re.escape(str(photos[1]))):
        cached(photos, tmp_path / "cache")


def test_interrupted_cache_leaves_nothing(photos: list[Path], tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(photos, [CAMERA] * 5, TARGET, tmp_path / "cache", stop)
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_refuses_a_disk_that_is_too_full(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match="GB are free"):
        cached(photos, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
