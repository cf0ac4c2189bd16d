"""Answers that are refused, photos of other places, and the frames of a video."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_cli import Ended
from test_scene import SceneOf

from relocal.errors import InputError
from relocal.evaluation import MethodResult, evaluate
from relocal.evaluation.rejection import rejection
from relocal.evaluation.sequences import as_videos
from relocal.evaluation.uncertainty import reliability
from relocal.localizers import Calibration, Regressor, Structure, load_map
from relocal.localizers.calibration import HeldOut, write_held_out
from relocal.localizers.doubt import check_doubts, doubt
from relocal.localizers.sequence import Motion
from relocal.metrics import pose_errors
from relocal.pose import Pose, position_error, quaternion_exp
from relocal.report import plain_table, report_to_json, report_to_markdown, save_report
from relocal.scene import Scene, apply_split
from relocal.scene.splits import block_numbers

DOUBTS = st.lists(st.sampled_from([0.1, 0.5, 1.0, 1.5, np.inf]), min_size=1, max_size=30)


@given(DOUBTS, DOUBTS)
def test_auroc_is_how_often_the_other_place_leaves_more_doubt(
    own: list[float], others: list[float]
) -> None:
    found = rejection(np.array(own), np.array(others))
    wins = [1.0 if b > a else 0.5 if a == b else 0.0 for a in own for b in others]
    assert found.auroc == pytest.approx(np.mean(wins))
    assert found.falsely == np.mean([a > 1 for a in own])
    assert found.rejected == np.mean([b > 1 for b in others])


def test_true_spreads_are_reliable_at_every_share() -> None:
    draw = np.random.default_rng(0)
    sigma = draw.uniform(0.1, 2, 20_000)
    errors = sigma * np.linalg.norm(draw.normal(size=(20_000, 3)), axis=1)
    said, found = reliability(errors, sigma)
    np.testing.assert_allclose(said, found, atol=0.02)
    assert (np.diff(said) > 0).all()
    assert said[-1] > 0.998
    said, found = reliability(errors, sigma / 2)
    assert (found[10:20] < said[10:20] - 0.1).all()


@pytest.fixture
def sure_map(tiny_map: Path, tiny_scene: Scene, tmp_path: Path) -> Path:
    """A map that is calibrated by answers that are right to a few centimetres."""
    folder = Path(shutil.copytree(tiny_map, tmp_path / "sure"))
    poses = tiny_scene.poses[:20]
    spread = np.linspace(0.5, 3, 20)
    aside = Pose(
        torch.full((3,), 0.02).double(), quaternion_exp(torch.tensor([0, 0, 0.005]).double())
    )
    answers = [(poses[i] @ aside, s, s) for i, s in enumerate(spread.tolist())]
    motion = Motion(acceleration=1.0, turn_acceleration_deg=40.0)
    held = HeldOut(tiny_scene.images[:20], poses, {"structure": answers}, motion)
    write_held_out(folder, held)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Photos of other places: nothing but noise."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(3):
        pixels = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((256, 192)).save(folder / f"{i}.png")
    return folder


def test_doubt_grows_with_the_spread(tiny_map: Path, tiny_scene: Scene) -> None:
    localizer = Structure(load_map(tiny_map))
    i = int(tiny_scene.indices("test")[0])
    estimate = localizer.localize(tiny_scene.path(i), tiny_scene.camera(i))
    assert estimate is not None
    assert doubt(localizer, None) == np.inf
    assert doubt(localizer, estimate) == 0
    localizer.calibration = Calibration(1.0, 1.0, 9, (0.1, 2.0))
    for sigma, sigma_deg, expected in ((0.05, 1.0, 0.5), (0.05, 3.0, 1.5), (0.3, 1.0, 3.0)):
        stated = replace(estimate, sigma_m=sigma, sigma_deg=sigma_deg)
        assert doubt(localizer, stated) == pytest.approx(expected)


def test_what_cannot_tell_photos_apart_refuses_to_reject(
    tiny_run: Path, tiny_map: Path, tiny_scene: Scene
) -> None:
    run = Regressor(tiny_run)
    run.calibration = Calibration(0.5, 3.0, 9, (0.5, 3.0))
    with pytest.raises(InputError, match="run states the same spread for every photo"):
        check_doubts("run", run)
    with pytest.raises(InputError, match="map: how sure its answers are is not known; calibrate"):
        evaluate({"map": Structure(tiny_map)}, tiny_scene, reject=True)
    with pytest.raises(InputError, match="map: how sure its answers are is not known; calibrate"):
        evaluate({"map": Structure(tiny_map)}, tiny_scene, sequence=True)


def test_what_cannot_tell_refuses_none_beside_what_can(
    sure_map: Path, tiny_run: Path, tiny_scene: Scene
) -> None:
    localizers = {"map": Structure(sure_map), "run": Regressor(tiny_run)}
    report = evaluate(localizers, tiny_scene, reject=True)
    assert report.summary()["run"]["failures"] == 0
    assert any("How sure run may be is not known" in remark for remark in report.remarks())
    localizers["run"].calibration = Calibration(0.5, 3.0, 9, (0.5, 3.0))
    report = evaluate(localizers, tiny_scene, reject=True)
    assert any("run states the same spread for every photo" in r for r in report.remarks())


def test_a_damaged_photo_of_another_place_costs_no_time(
    tiny_map: Path, tiny_scene: Scene, elsewhere: Path, tmp_path: Path
) -> None:
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"no photo")
    asked: list[str] = []
    with pytest.raises(InputError, match=r"junk\.png: this is not a photo"):
        evaluate(
            tiny_map,
            tiny_scene,
            others=[*elsewhere.iterdir(), junk],
            progress=lambda done, total, text: asked.append(text),
        )
    assert not asked


def test_unsure_answers_are_failures(sure_map: Path, tiny_scene: Scene) -> None:
    localizer = Structure(sure_map)
    every = evaluate({"map": localizer}, tiny_scene).methods["map"]
    assert every.doubts is not None
    assert localizer.calibration is not None
    middle = float(np.median(every.doubts))
    most = (middle * localizer.calibration.most[0], middle * localizer.calibration.most[1])
    localizer.calibration = replace(localizer.calibration, most=most)
    # Structure puts spreads right by its map's factors, which stay.
    some = evaluate({"map": localizer}, tiny_scene, reject=True).methods["map"]
    assert some.doubts is not None
    refused = [pose is None for pose in some.estimates]
    assert refused == (some.doubts > 1).tolist()
    assert 0 < sum(refused) < len(refused)


def test_photos_of_other_places_are_told(
    sure_map: Path, tiny_run: Path, elsewhere: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    localizers = {"map": Structure(sure_map), "run": Regressor(tiny_run)}
    report = evaluate(localizers, tiny_scene, others=sorted(elsewhere.iterdir()))
    found = report.rejections
    assert found["map"].photos == 3
    assert found["map"].rejected == 1
    assert found["map"].auroc > 0.95
    assert found["run"].rejected == found["run"].falsely == 0  # it knows nothing of doubt
    assert found["run"].auroc == 0.5
    assert "## Photos of other places" in report_to_markdown(report)
    assert report_to_json(report)["rejections"]["map"]["photos"] == 3
    assert "AUROC" in plain_table(report)
    page = save_report(report, tmp_path / "report").read_text("utf-8")
    assert "What would be refused" in page
    assert "Reliability of position spreads" in page


def test_answers_are_filtered_block_by_block(scene_of: SceneOf) -> None:
    time = torch.arange(200, dtype=torch.float64) / 30
    way = torch.stack([time.cos(), time.sin(), 0.2 * time], dim=1)
    names = [f"walk/{i:03d}.png" for i in range(200)]
    scene = scene_of(names, poses=Pose(way, Pose.identity(200).quaternion.double()))
    scene = apply_split(scene, "blocks:20/5/5")
    test = scene.indices("test")
    draw = np.random.default_rng(0)
    noisy = scene.poses.position[test] + torch.from_numpy(draw.normal(0, 0.05, (len(test), 3)))
    poses: list[Pose | None] = [Pose(x, scene.poses.quaternion[0]) for x in noisy]
    poses[7] = None  # of one frame nothing is known
    sigmas = np.full((len(test), 2), [0.05, 0.5])
    alone = MethodResult(poses, pose_errors(poses, scene.poses[test]), 9.0, None, sigmas)
    found = as_videos(alone, scene, test)
    assert found.time_ms == alone.time_ms
    assert np.isfinite(found.errors.position).all()
    assert np.median(found.errors.position) < 0.8 * np.median(alone.errors.position)
    # A block knows nothing of the one before: its first frame is as it was.
    for first in np.flatnonzero(np.diff(block_numbers(scene, test), prepend=-1)):
        assert found.errors.position[first] == pytest.approx(alone.errors.position[first])


@pytest.fixture
def film(tiny_scene: Scene, tmp_path: Path) -> Path:
    """The test images as a video, one of them black."""
    rows = tiny_scene.indices("test").tolist()[:6]
    camera = tiny_scene.camera(rows[0])
    out = tmp_path / "walk.avi"
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(out), fourcc, 10, (camera.width, camera.height))
    for k, i in enumerate(rows):
        frame = np.asarray(cv2.imread(str(tiny_scene.path(i))))
        writer.write(frame * (k != 4))
    writer.release()
    return out


Call = Callable[..., Ended]


def test_a_video_is_localized_frame_by_frame(
    call: Call, sure_map: Path, film: Path, tiny_scene: Scene
) -> None:
    camera = tiny_scene.camera(0)
    text = f"{camera.model},{camera.width},{camera.height}," + ",".join(
        map(str, camera.params.tolist())
    )
    common = ("--camera", text, "--format", "tum")
    code, out, error = call("localize", sure_map, film, *common)
    assert code == 3
    assert [line.split()[0] for line in out.splitlines()] == ["0", "1", "2", "3", "5"]
    assert "walk.avi:000004: cannot tell where it was taken" in error
    code, out, error = call("localize", sure_map, film, *common, "--sequence", "--reject")
    assert code == 0
    assert "walk.avi:000004: it has no answer of its own; this is how the camera moved" in error
    rows = tiny_scene.indices("test").tolist()[:6]
    for line, i in zip(out.splitlines(), rows, strict=True):
        place = Pose.identity().position.new_tensor([float(v) for v in line.split()[1:4]])
        there = Pose(place.double(), Pose.identity().quaternion.double())
        assert position_error(there, tiny_scene.poses[i].to(there.position.dtype)) < 0.6


def test_words_that_do_not_go_together_are_refused(
    call: Call, tiny_map: Path, tiny_run: Path, elsewhere: Path, tmp_path: Path
) -> None:
    photo = elsewhere / "0.png"
    refusals = {
        ("localize", tiny_map, photo, "--sequence"): "is not known; calibrate",
        ("localize", tiny_map, photo, "--with", tiny_run): "say what to make of the folders",
        ("localize", tiny_map, photo, "--localizer", "hybrid"): "needs a run",
        ("localize", tiny_run, photo, "--with", tiny_run, "--localizer", "regressor"): "twice",
        ("evaluate", tiny_map, tmp_path, "--out", tmp_path / "r", "--reject"): "this is no scene",
    }
    for words, reason in refusals.items():
        code, out, error = call(*words)
        assert (code, out) == (2, ""), words
        assert reason in error


def test_the_hybrid_is_a_way_to_localize(
    call: Call, tiny_run: Path, tiny_map: Path, tiny_scene: Scene
) -> None:
    photo = tiny_scene.path(int(tiny_scene.indices("test")[0]))
    words = ("--with", tiny_map, "--localizer", "hybrid", "--format", "json")
    code, out, _ = call("localize", tiny_run, photo, *words)
    assert code == 0
    assert '"method": "' in out
