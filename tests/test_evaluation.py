"""Evaluation: its numbers against answers made by hand, its baselines, and what it refuses."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.evaluation import (
    MEAN,
    ORACLE,
    RETRIEVAL,
    Report,
    evaluate,
    radian_weight,
    regime_of,
    untrained,
)
from relocal.pose import Pose
from relocal.scene import Scene, load_scene
from relocal.types import Estimate

COPIED = 5  # the training photo that also stands among the test photos


@dataclass
class Fake:
    """A localizer that knows the scene, and answers as it is told."""

    scene: Scene
    answer: Callable[[int, Pose], Pose | None]
    method: str = "fake"
    asked: list[tuple[int, Camera | None]] = field(default_factory=list)

    def localize(self, image: Any, camera: Camera | None = None) -> Estimate | None:
        index = self.scene.images.index(image.relative_to(self.scene.image_root).as_posix())
        pose = self.answer(len(self.asked), self.scene.poses[index])
        time_ms = 5.0 if self.asked else 1.0
        self.asked.append((index, camera))
        return None if pose is None else Estimate(pose, self.scene.unit, self.method, time_ms)


def moved(pose: Pose) -> Pose:
    """0.2 m and 8° away."""
    turn = torch.tensor([math.cos(math.radians(4)), 0, math.sin(math.radians(4)), 0]).double()
    offset = torch.tensor([0.12, -0.16, 0.0], dtype=torch.float64)
    return Pose(pose.position + offset, (pose @ Pose(torch.zeros(3).double(), turn)).quaternion)


@pytest.fixture(scope="module")
def scene(tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The tiny scene, with a training photo once more in the place of the first test photo."""
    assert tiny_scene.folder is not None
    folder = shutil.copytree(tiny_scene.folder, tmp_path_factory.mktemp("scenes") / "judged")
    copy = load_scene(folder)
    test, train = copy.indices("test").tolist(), copy.indices("train").tolist()
    shutil.copyfile(copy.path(train[COPIED]), copy.path(test[0]))
    return copy


@pytest.fixture(scope="module")
def fakes(scene: Scene) -> dict[str, Fake]:
    return {
        "exact": Fake(scene, lambda _, truth: truth),
        "never": Fake(scene, lambda _, truth: None),
        "half": Fake(scene, lambda number, truth: truth if number % 2 else None),
        "moved": Fake(scene, lambda _, truth: moved(truth)),
        "far": Fake(scene, lambda _, truth: Pose(truth.position + 5, truth.quaternion)),
    }


@pytest.fixture(scope="module")
def report(scene: Scene, fakes: dict[str, Fake]) -> Report:
    return evaluate(fakes, scene)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: for tests that do not look at retrieval."""

    def describe(scene: Scene, indices: Any, progress: Any) -> torch.Tensor:
        return torch.eye(len(indices))

    monkeypatch.setattr(untrained, "describe_images", describe)


# --- numbers -----------------------------------------------------------------------------------


def test_every_test_photo_is_asked_once_with_its_camera(
    report: Report, scene: Scene, fakes: dict[str, Fake]
) -> None:
    test = scene.indices("test").tolist()
    assert report.images == tuple(scene.images[i] for i in test)
    for fake in fakes.values():
        assert [index for index, _ in fake.asked] == test
        assert all(camera is scene.camera(index) for index, camera in fake.asked)


def test_true_poses_have_no_error(report: Report) -> None:
    numbers = report.summary()["exact"]
    assert numbers["median_position"] == 0
    assert numbers["median_rotation_deg"] == pytest.approx(0, abs=1e-6)
    assert numbers["recall"] == [1.0] * len(report.thresholds)
    assert numbers["failures"] == 0
    assert numbers["position_to_oracle"] == 0
    assert numbers["time_ms"] == 5.0


def test_first_photo_does_not_count_for_the_time(scene: Scene, quick: None) -> None:
    splits = {**scene.splits, "test": scene.splits["test"][:2]}
    report = evaluate({"exact": Fake(scene, lambda _, truth: truth)}, replace(scene, splits=splits))
    assert report.summary()["exact"]["time_ms"] == 5.0


def test_no_answer_is_an_infinite_error(report: Report) -> None:
    numbers = report.summary()["never"]
    assert numbers["median_position"] == numbers["median_rotation_deg"] == math.inf
    assert numbers["mean_position"] == numbers["mean_rotation_deg"] == math.inf
    assert numbers["recall"] == [0.0] * len(report.thresholds)
    assert numbers["failures"] == 8
    assert numbers["position_to_oracle"] == math.inf
    assert numbers["time_ms"] is None
    half = report.summary()["half"]
    assert half["failures"] == 4
    assert half["recall"] == [0.5] * len(report.thresholds)
    assert half["mean_position"] == math.inf


def test_fixed_offset_is_the_error_of_every_image(report: Report) -> None:
    errors, numbers = report.methods["moved"].errors, report.summary()["moved"]
    np.testing.assert_allclose(errors.position, 0.2, atol=1e-9)
    np.testing.assert_allclose(errors.rotation_deg, 8.0, atol=1e-6)
    reached = [position >= 0.2 and degrees >= 8 for position, degrees in report.thresholds]
    assert numbers["recall"] == [float(inside) for inside in reached]
    assert set(numbers["recall"]) == {0.0, 1.0}
    oracle = report.summary()[ORACLE]
    assert numbers["position_to_oracle"] == pytest.approx(0.2 / oracle["median_position"])
    assert numbers["rotation_to_oracle"] == pytest.approx(8 / oracle["median_rotation_deg"])


def test_remarks_name_failures_and_who_does_not_beat_the_oracle(report: Report) -> None:
    remarks = "\n".join(report.remarks())
    for baseline in ("mean pose", "retrieval", "oracle nearest"):
        assert f"never does not beat {baseline} in position and rotation." in remarks
    assert "never gave no answer for 8 of 8 images" in remarks
    assert "half gave no answer for 4 of 8" in remarks
    assert "far does not beat oracle nearest in position." in remarks
    assert "exact" not in remarks
    assert report.localizers() == ["exact", "never", "half", "moved", "far"]


# --- baselines ---------------------------------------------------------------------------------


def answers(report: Report, name: str) -> Pose:
    return Pose.stack([pose for pose in report.methods[name].estimates if pose is not None])


def distances(poses: Pose, truth: Pose) -> np.ndarray:
    """Metres plus radians, pairwise (n, m), without this library."""
    position = np.linalg.norm(
        truth.position.numpy()[:, None] - poses.position.numpy()[None], axis=-1
    )
    cosine = np.abs(truth.quaternion.numpy() @ poses.quaternion.numpy().T).clip(max=1)
    return position + 2 * np.arccos(cosine)


def test_oracle_is_the_nearest_training_pose(report: Report) -> None:
    table = distances(report.training, report.truth)
    own = np.diag(distances(answers(report, ORACLE), report.truth))
    np.testing.assert_allclose(own, table.min(1), atol=1e-6)
    retrieval = np.diag(distances(answers(report, RETRIEVAL), report.truth))
    assert (own <= retrieval + 1e-6).all()


def test_baselines_answer_with_training_poses_only(report: Report, scene: Scene) -> None:
    training = scene.poses[scene.indices("train")]
    assert torch.equal(report.training.position, training.position)
    for name in (ORACLE, RETRIEVAL):
        assert distances(training, answers(report, name)).min(1).max() < 1e-6


def test_retrieval_finds_the_photo_that_is_the_same(report: Report) -> None:
    found = report.methods[RETRIEVAL].estimates[0]
    assert found is not None
    assert torch.equal(found.position, report.training.position[COPIED])


def test_mean_pose_is_the_mean_of_the_training_poses(report: Report, scene: Scene) -> None:
    training = scene.poses[scene.indices("train")]
    (pose, *others) = report.methods[MEAN].estimates
    assert pose is not None
    assert all(other is pose for other in others)
    np.testing.assert_allclose(pose.position, training.position.numpy().mean(0), atol=1e-12)
    mean = Rotation.from_quat(training.quaternion.numpy()[:, [1, 2, 3, 0]]).mean()
    turn = Rotation.from_quat(pose.quaternion.numpy()[[1, 2, 3, 0]]) * mean.inv()
    assert turn.magnitude() < 1e-6


def test_baselines_do_not_change_when_test_images_do(scene: Scene, quick: None) -> None:
    poses = Pose(scene.poses.position.clone(), scene.poses.quaternion)
    poses.position[scene.indices("test")] += 7.0
    before, after = (evaluate({}, s) for s in (scene, replace(scene, poses=poses)))
    for report in (before, after):
        assert set(report.methods) == {MEAN, ORACLE, RETRIEVAL}
    first, second = before.methods[MEAN].estimates[0], after.methods[MEAN].estimates[0]
    assert first is not None
    assert second is not None
    assert torch.equal(first.position, second.position)


# --- units and regimes -------------------------------------------------------------------------


def test_scene_without_scale_has_thresholds_in_percent_of_its_extent(
    scene: Scene, quick: None
) -> None:
    report = evaluate({}, replace(scene, unit="unit"))
    assert report.unit == "unit"
    centres = scene.poses.position.numpy()
    extent = float(np.linalg.norm(centres.max(0) - centres.min(0)))
    assert report.extent == pytest.approx(extent)
    expected = [(0.01, 5), (0.02, 5), (0.05, 2), (0.1, 5), (0.2, 10)]
    for found, (share, degrees) in zip(report.thresholds, expected, strict=True):
        assert found == (pytest.approx(share * extent), degrees)


def test_radian_weighs_a_metre_or_half_of_the_depth_or_of_the_extent(scene: Scene) -> None:
    assert radian_weight(scene) == 1.0
    free, depth = replace(scene, unit="unit"), scene.depth_range()
    assert depth is not None
    assert radian_weight(free) == pytest.approx(float(depth[1]) / 2)
    assert radian_weight(replace(free, points=None)) == pytest.approx(scene.extent() / 2)


@pytest.mark.parametrize(
    ("rule", "regime"),
    [
        ("official", "another recording"),
        ("sequence fold 1", "another recording"),
        ("blocks:40/5/5 fold 4", "interpolation"),
        ("last:25%", "extrapolation"),
        ("blocks.json", "as blocks.json says"),
        ("sequences.json", "as sequences.json says"),
        ("last.json", "as last.json says"),
    ],
)
def test_regime_follows_the_rule_of_the_split(scene: Scene, rule: str, regime: str) -> None:
    assert regime_of(scene.with_splits(scene.splits, rule)).startswith(regime)


# --- what is refused ---------------------------------------------------------------------------


def test_run_is_not_judged_on_images_that_it_was_trained_on(tiny_run: Path, scene: Scene) -> None:
    with pytest.raises(InputError, match="made of 24 of the images to test: seq-01/frame-0"):
        evaluate(tiny_run, replace(scene, name="tiny"), split="train")
    swapped = {"train": scene.splits["test"], "test": scene.splits["train"][:3]}
    with pytest.raises(InputError, match="made of 3 of the images to test"):
        evaluate(tiny_run, replace(scene, name="tiny", splits=swapped))


def test_run_of_another_scene_is_refused(tiny_run: Path, scene: Scene) -> None:
    with pytest.raises(InputError, match="made of the scene 'tiny', this is 'kitchen'"):
        evaluate(tiny_run, replace(scene, name="kitchen"))


@pytest.mark.parametrize("split", ["test", "train"])
def test_scene_without_images_for_a_split_is_refused(scene: Scene, split: str) -> None:
    splits = {**scene.splits, split: ()}
    with pytest.raises(InputError, match=f"no '{split}' images"):
        evaluate({}, replace(scene, splits=splits))


def test_run_and_its_options_stand_in_the_report(
    tiny_run: Path, scene: Scene, tmp_path: Path, quick: None
) -> None:
    """But not where the weights lay that it began with."""
    said: list[str] = []
    tiny_run = shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((tiny_run / "config.json").read_text())
    config["train"]["backbone"]["weights"] = "/home/me/secret/weights.safetensors"
    (tiny_run / "config.json").write_text(json.dumps(config))
    report = evaluate(
        tiny_run, replace(scene, name="tiny"), progress=lambda *call: said.append(call[2])
    )
    assert report.localizers() == [tiny_run.name]
    about = report.made_by["runs"][tiny_run.name]
    assert about["train"]["loss"]["name"] == "posenet+frustum"
    assert about["training_images"] == 24
    assert about["training_seconds"] > 0
    assert about["train"]["backbone"]["weights"] == "weights.safetensors"
    assert report.made_by["provenance"]["labels"] == "exact, as rendered"
    assert said.count(tiny_run.name) == 8
