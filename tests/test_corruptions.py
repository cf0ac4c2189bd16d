"""Corruptions: they leave the camera where it is, grow with severity, and reach the report."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_tree import Tree, check_alone, check_shape
from PIL import Image, ImageOps

from relocal import evaluation
from relocal.camera import Camera
from relocal.corruptions import CORRUPTIONS, SEVERITIES, SHORT_SIDE_PX, corrupt
from relocal.errors import InputError
from relocal.evaluation import Report, evaluate
from relocal.images import decode
from relocal.pose import Pose
from relocal.report import plain_table, report_to_html, save_report
from relocal.report.corruptions import changes
from relocal.report.photos import Photos
from relocal.scene import Scene
from relocal.types import Estimate

RANDOM, CODEC = {"noise", "occlusion"}, {"jpeg"}  # JPEG's blocks are counted from the left
LEVELS = range(1, SEVERITIES + 1)


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
        patch.setattr(evaluation, "describe_images", lambda s, indices, p: torch.eye(len(indices)))
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
    assert "worse under corruptions, position / rotation, by severity 1: × 2.00 / " in plain_table(
        report
    )


def test_report_that_asked_for_none_says_nothing_of_them(
    asked: tuple[Report, dict[str, Fake]], tmp_path: Path
) -> None:
    report, fakes = asked
    assert report.methods["worse"].errors.position[0] == pytest.approx(0.1)
    assert math.isfinite(report.summary()["worse"]["median_position"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "describe_images", lambda s, indices, p: torch.eye(len(indices)))
        scene = fakes["worse"].scene
        bare = evaluate({"near": Fake(scene, away(0.1))}, scene)
    assert bare.corruptions == {}
    folder = save_report(bare, tmp_path / "out").parent
    assert not (folder / "corruptions.png").exists()
    for file in ("report.md", "report.json"):
        assert "corruption" not in (folder / file).read_text()
    assert "Under corruptions" not in report_to_html(bare, Photos("none"))
