"""Corruptions in a report: who is asked what, and what is said of it."""

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
from PIL import Image
from test_corruptions import LEVELS

from relocal.camera import Camera
from relocal.cli import localizing, main
from relocal.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from relocal.evaluation import Report, evaluate, evaluating, untrained
from relocal.pose import Pose
from relocal.report import plain_table, report_to_html, save_report
from relocal.report.corruptions import changes
from relocal.report.photos import Photos
from relocal.scene import Scene
from relocal.types import Estimate


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

    def evaluated(run: Path, scene: Scene, *, corruptions: bool, **words: Any) -> Report:
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
