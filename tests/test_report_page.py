"""The page of a report: whole, safe to open, the same numbers as report.json, photos by licence."""

import base64
import hashlib
import io
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from page_tree import Element, Tree, check_alone, check_shape
from PIL import Image

from relocal import datasets
from relocal.cli import localizing
from relocal.evaluation import MEAN, ORACLE, MethodResult, Report
from relocal.metrics import RECALL_THRESHOLDS_M, pose_errors
from relocal.pose import Pose
from relocal.report import choose_photos, report_to_html, save_report
from relocal.report.photos import Photos, telling
from relocal.scene import Scene

COUNT, HOSTILE = 12, "<script>alert('$x$')</script>&\"--><b>"


def tree(report: Report, photos: Photos | None = None) -> Element:
    return Tree(report_to_html(report, photos or Photos("none"))).root


def rows_of(page: Element, caption: str) -> list[list[Element]]:
    """The cells of the body of the table that has this in its caption."""
    for table in page.all("table"):
        if caption in next(table.all("caption")).text():
            body = next(table.all("tbody"))
            return [list(row.all("td", "th")) for row in body.all("tr")]
    raise AssertionError(f"no table {caption}")


def some_report(count: int = COUNT) -> Report:
    """Two localizers, one with a hostile name; the first has no answer to its second photo."""
    quaternion = torch.tensor([1.0, 0, 0, 0]).double() + 0.1 * torch.randn(count, 4).double()
    truth = Pose.from_quaternion(torch.randn(count, 3).double(), quaternion)
    training = Pose(truth.position + 0.2 * torch.randn(count, 3).double(), truth.quaternion)
    found = Pose(truth.position + 0.1 * torch.randn(count, 3).double(), truth.quaternion)
    far = [found[i] for i in range(count)]
    far[0] = Pose(truth.position[0] + 100, truth.quaternion[0])
    some: list[Pose | None] = [None if i == 1 else found[i] for i in range(count)]
    names = ("<b>.jpg", 'a" onerror="x.jpg', *(f"seq-02/{i}.jpg" for i in range(2, count)))
    answers: dict[str, list[Pose | None]] = {
        MEAN: [training[0]] * count,
        ORACLE: [training[i] for i in range(count)],
        "posenet": some,
        HOSTILE: [*far],
    }
    loss, backbone = {"name": "posenet+frustum", "gamma": 0.25}, {"name": "googlenet"}
    train = {"backbone": backbone, "loss": loss, "epochs": 7, "seed": 3}
    about = {"train": train, "training_images": count, "training_seconds": 90.0}
    return Report(
        scene=f"room {HOSTILE}",
        unit="m",
        split="test",
        regime="another recording",
        images=names[:count],
        truth=truth,
        training=training,
        methods={
            name: MethodResult(poses, pose_errors(poses, truth), 4.25 if name == HOSTILE else None)
            for name, poses in answers.items()
        },
        thresholds=RECALL_THRESHOLDS_M,
        extent=4.0,
        made_by={
            "commit": "0123456789ab",
            "date": "2026-01-02T03:04:05+00:00",
            "processor": "an abacus",
            "cores": 2,
            "packages": {"torch": "2.9"},
            "provenance": {"labels": f"by {HOSTILE}", "split": "official", "scale": math.nan},
            "runs": {"posenet": about, HOSTILE: {}},
        },
    )


@pytest.fixture(scope="module")
def report() -> Report:
    torch.manual_seed(0)
    return some_report()


@pytest.fixture(scope="module")
def page(report: Report) -> Element:
    return tree(report)


# --- the page as a page ------------------------------------------------------------------------


def test_page_is_balanced_accessible_and_alone(report: Report) -> None:
    text = report_to_html(report, Photos("none"))
    page = Tree(text).root
    check_shape(page)
    check_alone(page, text)
    assert len(list(page.all("svg"))) == 2 + 2 + 2 * 2


def test_names_from_data_stay_text(report: Report, page: Element) -> None:
    tags = Counter(element.tag for element in page.all())
    assert tags["script"] == 1
    assert tags["b"] == 0
    assert next(page.all("h1")).text() == f"room {HOSTILE}: {COUNT} test images"
    assert [cells[0].text() for cells in rows_of(page, "Every image")] == list(report.images)
    assert HOSTILE in [cells[0].text() for cells in rows_of(page, "Errors of every method")]


def test_only_the_page_s_own_script_may_run(page: Element) -> None:
    policy = next(m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes)
    script = next(page.all("script")).text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


# --- the numbers -------------------------------------------------------------------------------


def test_numbers_are_those_of_report_json(report: Report, tmp_path: Path) -> None:
    path = save_report(report, tmp_path / "out")
    content = json.loads((path.parent / "report.json").read_text())
    page = Tree(path.read_text("utf-8")).root
    for cells in rows_of(page, "Errors of every method"):
        numbers = content["methods"][cells[0].text()]
        texts = [cell.text() for cell in cells[1:]]
        assert texts[0] == f"{numbers['median_position']:.3f}"
        assert texts[1] == f"{numbers['median_rotation_deg']:.2f}"
        assert texts[5:-3] == [f"{100 * share:.1f} %" for share in numbers["recall"]]
        assert texts[-3] == str(numbers["failures"])
    remarks = next(ul for ul in page.all("ul") if ul.attributes.get("class") == "remarks")
    assert [item.text() for item in remarks.all("li")] == content["remarks"]
    for cells, row in zip(rows_of(page, "Every image"), content["rows"], strict=True):
        methods = [ORACLE, "posenet", "posenet", HOSTILE, HOSTILE]
        keys = ["position_error", *["position_error", "rotation_error_deg"] * 2]
        for cell, method, key in zip(cells[2:], methods, keys, strict=True):
            value, key_to_sort = row["answers"][method][key], cell.attributes["data-value"]
            if value is None:
                assert (cell.text(), key_to_sort) == ("no answer", "")
            else:
                assert float(key_to_sort) == value
                assert abs(float(cell.text()) - value) <= 0.005


def test_headers_of_the_images_are_buttons(page: Element) -> None:
    table = next(t for t in page.all("table") if "Every image" in next(t.all("caption")).text())
    heads = list(next(table.all("thead")).all("th"))
    assert [head.text() for head in heads] == [
        *("image", "sequence", "nearest training pose, m"),
        *("posenet: position, m", "posenet: rotation, °"),
        *(f"{HOSTILE}: position, m", f"{HOSTILE}: rotation, °"),
    ]
    for head in heads:
        assert head.attributes["aria-sort"] == "none"
        assert [button.attributes["type"] for button in head.all("button")] == ["button"]
    assert [cells[1].text() for cells in rows_of(page, "Every image")][1:3] == ["", "seq-02"]


def test_page_says_how_the_result_was_made(page: Element) -> None:
    terms = [element.text() for element in page.all("dt")]
    facts = dict(zip(terms, (element.text() for element in page.all("dd")), strict=True))
    assert facts["Labels"] == f"by {HOSTILE}"
    assert facts["Training of posenet"] == (
        f"{COUNT} training images, googlenet, loss posenet+frustum/gamma=0.25, rotation as "
        "quaternion, 7 epochs, seed 3, 1.5 min"
    )
    assert facts["Unit"] == "metres"
    assert facts["Commit"] == "0123456789ab"
    assert facts["Date"].startswith("2026-01-02")
    assert facts["Machine"] == "an abacus, 2 cores"
    assert facts["Versions"] == "torch 2.9"
    options = {c[0].text(): [x.text() for x in c[1:]] for c in rows_of(page, "Options")}
    assert options["train.loss.gamma"] == ["0.25", "–"]


def test_answers_that_a_picture_cannot_hold_are_counted(page: Element) -> None:
    assert "1 answer lies outside the pictures." in page.text()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_no_answers_and_no_localizer_make_a_page(count: int) -> None:
    report = some_report(count)
    nothing: list[Pose | None] = [None] * count
    never = MethodResult(nothing, pose_errors(nothing, report.truth))
    baselines = {name: report.methods[name] for name in (MEAN, ORACLE)}
    for methods in (report.methods, {**baselines, "posenet": never}, baselines):
        page = tree(replace(report, methods=methods))
        check_shape(page)
        assert len(rows_of(page, "Every image")) == count


def test_scene_without_scale_and_provenance_makes_a_page(report: Report) -> None:
    page = tree(replace(report, unit="unit", made_by={}))
    check_shape(page)
    assert "metres" not in page.text()
    assert "the scene's own unit" in page.text()
    assert "not stated" in page.text()


def test_page_of_many_images_stays_small() -> None:
    report = some_report(1500)
    text = report_to_html(report, Photos("none"))
    assert len(text) < 2_000_000
    assert len(rows_of(Tree(text).root, "Every image")) == 1500


# --- the photos --------------------------------------------------------------------------------


def of_scene(report: Report, scene: Scene) -> Report:
    """The report as if it were about the scene's images."""
    return replace(report, images=scene.images[:COUNT])


def test_photos_of_the_room_are_in_the_page(
    report: Report, tiny_scene: Scene, tmp_path: Path
) -> None:
    assert tiny_scene.provenance["photos"] == "shareable"
    path = save_report(of_scene(report, tiny_scene), tmp_path / "out", tiny_scene)
    text = path.read_text("utf-8")
    page = Tree(text).root
    check_shape(page)
    check_alone(page, text)
    images = list(page.all("img"))
    assert len(images) == 2 * (3 + 3)
    for image in images:
        content = base64.b64decode(image.attributes["src"].partition("base64,")[2])
        with Image.open(io.BytesIO(content)) as photo:
            assert photo.format == "JPEG"
            assert photo.size == (160, 120)
            assert not photo.getexif()
    assert "private use" not in page.text()


def test_photos_of_unknown_licence_are_named_only(report: Report, tiny_scene: Scene) -> None:
    report = of_scene(report, tiny_scene)
    silent = replace(tiny_scene, provenance={"reader": "7scenes"})
    page = tree(report, choose_photos(report, silent, False))
    assert list(page.all("img")) == []
    assert "nothing says that those of this scene may be shared" in page.text()
    worst = telling(report, "posenet")[1][0]
    assert report.images[worst] in page.text()
    private = tree(report, choose_photos(report, silent, True))
    assert len(list(private.all("img"))) == 12
    assert "private use" in private.text()


@pytest.mark.parametrize("photos", [False, True])
def test_command_line_shows_photos_when_asked_to(
    report: Report,
    tiny_scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    photos: bool,
) -> None:
    silent = replace(tiny_scene, provenance={})
    monkeypatch.setattr(localizing, "load_scene", lambda folder: silent)
    monkeypatch.setattr(
        localizing, "evaluate", lambda *given, **options: of_scene(report, tiny_scene)
    )
    monkeypatch.setattr(localizing, "open_localizers", lambda *given: {})
    run, out = Path("run"), tmp_path / "out"
    assert localizing.Evaluate(run_folder=run, scene=run, out=out, photos=photos).run() == 0
    page = out / "report.html"
    assert capsys.readouterr().out.endswith(f"Report: {page}\n")
    assert ("data:image/jpeg" in page.read_text("utf-8")) == photos


def test_photos_need_the_scene_and_its_files(
    report: Report, tiny_scene: Scene, tmp_path: Path
) -> None:
    report = of_scene(report, tiny_scene)
    assert "without the scene" in tree(report, choose_photos(report, None, True)).text()
    gone = replace(tiny_scene, image_root=tmp_path)
    page = tree(report, choose_photos(report, gone, False))
    assert page.text().count("This file cannot be read.") == 12


def test_large_photo_is_made_small(report: Report, tiny_scene: Scene, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    report = of_scene(report, tiny_scene)
    for name in report.images:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = draw.integers(0, 256, (30, 50, 3), np.uint8).repeat(20, 0).repeat(20, 1)
        Image.fromarray(pixels).save(tmp_path / name)
    chosen = choose_photos(report, replace(tiny_scene, image_root=tmp_path), False).thumbnails
    assert chosen
    for small in chosen.values():
        assert small is not None
        with Image.open(io.BytesIO(small.jpeg)) as photo:
            assert photo.size == (320, 192)


def test_no_other_reader_says_that_photos_may_be_shared() -> None:
    folder = Path(datasets.__file__).parent
    saying = [p.name for p in folder.rglob("*.py") if '"shareable"' in p.read_text("utf-8")]
    assert saying == ["synthetic.py"]


def test_telling_photos_are_the_median_and_the_worst_ones(report: Report) -> None:
    errors, (middle, worst) = report.methods["posenet"].errors.position, telling(report, "posenet")
    assert worst[0] == 1  # no answer is worse than any
    assert sorted(errors[worst])[:2] == sorted(errors[np.isfinite(errors)])[-2:]
    assert min(errors[middle]) <= np.median(errors) <= max(errors[middle])
    assert not set(middle) & set(worst)
    assert telling(some_report(1), "posenet") == ([0], [])
