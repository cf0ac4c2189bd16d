"""Corruptions: they leave the camera where it is, grow with severity, and reach the report."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_tree import Tree, check_alone, check_shape
from PIL import Image, ImageOps

from relocal.camera import Camera
from relocal.cli import localizing, main
from relocal.corruptions import CORRUPTIONS, SEVERITIES, SHORT_SIDE_PX, corrupt
from relocal.errors import InputError
from relocal.evaluation import Report, evaluate, evaluating, untrained
from relocal.images import decode
from relocal.pose import Pose
from relocal.report import plain_table, report_to_html, save_report
from relocal.report.corruptions import changes
from relocal.report.photos import Photos
from relocal.scene import Scene
from relocal.types import Estimate

RANDOM, CODEC = {"noise", "occlusion"}, {"jpeg"}  # JPEG's blocks are counted from the left
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


# --- in a report -------------------------------------------------------------------------------


@dataclass
class Fake:
    """Answers in the order of the test images, the same for every kind and severity."""

    scene: Scene
    answer: Callable[[int, Pose, int], Pose | None]
    method: str = "fake"
    asked: list[Any] = field(default_factory=list)

    def localize(self, image: Any, camera: Camera | None = None) -> Estimate | None:
        test = self.scene.indices("test").tolist()
        index = test[len(self.asked) % len(test)]
        assert camera is self.scene.camera(index)
        # Asked as it is first, then corrupted: kind by kind, severity by severity.
        level = 0 if not self.asked else (len(self.asked) // len(test) - 1) % SEVERITIES + 1
        level = 0 if len(self.asked) < len(test) else level
        pose = self.answer(index, self.scene.poses[index], level)
        self.asked.append(image)
        return None if pose is None else Estimate(pose, self.scene.unit, self.method, 1.0)


def away(metres: float) -> Callable[[int, Pose, int], Pose]:
    step = torch.tensor([1.0, 0, 0], dtype=torch.float64)

    def answer(index: int, truth: Pose, level: int) -> Pose:
        return Pose(truth.position + metres * (1 + level) * step, truth.quaternion)

    return answer


@pytest.fixture(scope="module")
def asked(tiny_scene: Scene) -> tuple[Report, dict[str, Fake]]:
    fakes = {
        "worse": Fake(tiny_scene, away(0.1)),
        "blind": Fake(tiny_scene, lambda index, truth, level: None if level else truth),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(untrained, "describe_images", lambda s, indices, p: torch.eye(len(indices)))
        return evaluate(fakes, tiny_scene, corruptions=True), fakes


def test_every_photo_is_asked_under_every_corruption(
    asked: tuple[Report, dict[str, Fake]], tiny_scene: Scene
) -> None:
    report, fakes = asked
    test = tiny_scene.indices("test").tolist()
    wanted = [
        corrupt(tiny_scene.path(i), kind, level, tiny_scene.images[i])
        for kind in CORRUPTIONS
        for level in LEVELS
        for i in test
    ]
    for name, fake in fakes.items():
        assert fake.asked[len(test) :] == wanted
        assert list(report.corruptions[name]) == list(CORRUPTIONS)
    for kind in CORRUPTIONS:
        found = [np.median(e.position) for e in report.corruptions["worse"][kind]]
        np.testing.assert_allclose(found, [0.2, 0.3, 0.4, 0.5, 0.6], rtol=1e-9)
        for errors in report.corruptions["blind"][kind]:
            assert np.isinf(errors.position).all()
    np.testing.assert_allclose(changes(report, "worse", "position"), [2, 3, 4, 5, 6], rtol=1e-9)


def test_report_has_the_medians_as_table_curves_and_json(
    asked: tuple[Report, dict[str, Fake]], tmp_path: Path
) -> None:
    report, _ = asked
    folder = save_report(report, tmp_path / "out").parent
    kinds = json.loads((folder / "report.json").read_text())["corruptions"]["worse"]
    assert [row["median_position"] for row in kinds["blur"]] == pytest.approx(
        [0.2, 0.3, 0.4, 0.5, 0.6]
    )
    blind = json.loads((folder / "report.json").read_text())["corruptions"]["blind"]["noise"][0]
    assert blind == {
        "median_position": None,
        "median_rotation_deg": None,
        "failures": len(report.images),
    }
    text = (folder / "report.md").read_text()
    assert "| blur | 0.100 / 0.00 | 0.200 / 0.00 |" in text
    assert "| change |  | × 2.00 /" in text
    assert "| noise | 0.000 / 0.00 | ∞ / ∞ |" in text
    with Image.open(folder / "corruptions.png") as picture:
        assert min(picture.size) > 500
    page = (folder / "report.html").read_text()
    root = Tree(page).root
    check_shape(root)
    check_alone(root, page)
    captions = [next(table.all("caption")).text() for table in root.all("table")]
    assert "Medians of worse, m / °, by severity" in captions
    assert "position / rotation, by severity 1: × 2.00 / " in plain_table(report)


def test_change_is_the_geometric_mean_over_kinds(asked: tuple[Report, dict[str, Fake]]) -> None:
    report, _ = asked
    kinds = list(CORRUPTIONS)
    mixed = dict(report.corruptions["worse"])
    mixed[kinds[0]] = tuple(replace(e, position=4 * e.position) for e in mixed[kinds[0]])
    other = replace(report, corruptions={"worse": mixed, "blind": report.corruptions["blind"]})
    factor = 4 ** (1 / len(kinds))
    found = changes(other, "worse", "position")
    np.testing.assert_allclose(found, [factor * k for k in (2, 3, 4, 5, 6)], rtol=1e-9)
    mixed[kinds[1]] = report.corruptions["blind"][kinds[1]]
    assert changes(other, "worse", "position") == [math.inf] * SEVERITIES
    # Photos as they are have no answer: nothing is said, whatever comes after.
    never = replace(report.methods["blind"], errors=report.corruptions["blind"]["blur"][0])
    lost = replace(other, corruptions={"blind": mixed}, methods={**report.methods, "blind": never})
    assert all(math.isnan(value) for value in changes(lost, "blind", "position"))


def test_no_localizer_is_asked_nothing(tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrained, "describe_images", lambda s, i, p: torch.eye(len(i)))
    monkeypatch.setattr(evaluating, "corrupt", None)
    assert evaluate({}, tiny_scene, corruptions=True).corruptions == {}


def test_command_line_passes_the_wish_on(
    asked: tuple[Report, dict[str, Fake]], tiny_scene: Scene, tiny_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wishes: list[bool] = []

    def evaluated(run: Path, scene: Scene, *, corruptions: bool, progress: Any) -> Report:
        wishes.append(corruptions)
        return asked[0]

    monkeypatch.setattr(localizing, "evaluate", evaluated)
    assert tiny_scene.folder is not None
    for name, words in (("a", []), ("b", ["--corruptions"])):
        folders = [str(tiny_run), str(tiny_scene.folder)]
        with pytest.raises(SystemExit, match="0"):
            main(["evaluate", *folders, "--out", str(tmp_path / name), *words])
    assert wishes == [False, True]


def test_report_that_asked_for_none_says_nothing_of_them(
    asked: tuple[Report, dict[str, Fake]], tmp_path: Path
) -> None:
    report, fakes = asked
    assert report.methods["worse"].errors.position[0] == pytest.approx(0.1)
    assert math.isfinite(report.summary()["worse"]["median_position"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(untrained, "describe_images", lambda s, indices, p: torch.eye(len(indices)))
        scene = fakes["worse"].scene
        bare = evaluate({"near": Fake(scene, away(0.1))}, scene)
    assert bare.corruptions == {}
    folder = save_report(bare, tmp_path / "out").parent
    assert not (folder / "corruptions.png").exists()
    for file in ("report.md", "report.json"):
        assert "corruption" not in (folder / file).read_text()
    assert "Under corruptions" not in report_to_html(bare, Photos("none"))
