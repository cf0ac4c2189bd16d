"""What must never be mixed: splits, ground truths, baselines and what is measured beside them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.evaluation import ORACLE, evaluate
from relocal.images import resample
from relocal.losses import LossConfig
from relocal.pose import Pose
from relocal.scene import Scene, load_scene
from relocal.training import TrainConfig, load_run, train
from relocal.training.run import WEIGHTS


def test_run_cannot_go_on_with_train_and_test_exchanged(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if text.startswith("epoch 2"):
            raise KeyboardInterrupt

    config = replace(tiny_config, loss=LossConfig(name="posenet"), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_scene, tmp_path / "run", config, report=stop)
    before = (tmp_path / "run/config.json").read_bytes()
    splits = {"train": tiny_scene.splits["test"], "test": tiny_scene.splits["train"]}
    with pytest.raises(InputError, match="--resume needs the scene, split and poses"):
        train(tiny_scene.with_splits(splits, "exchanged"), tmp_path / "run", config, resume=True)
    assert (tmp_path / "run/config.json").read_bytes() == before


@pytest.mark.parametrize("moved", [0.0, 0.01])
def test_run_is_not_measured_with_another_ground_truth(
    tiny_scene: Scene, tiny_run: Path, moved: float
) -> None:
    poses = Pose(tiny_scene.poses.position + moved, tiny_scene.poses.quaternion)
    other = replace(tiny_scene, poses=poses)
    same = other.world(load_run(tiny_run).training_images) == load_run(tiny_run).world
    assert same == (moved == 0)
    if not same:
        with pytest.raises(InputError, match="other poses"):
            evaluate(tiny_run, other)


def test_world_is_blind_to_signs_and_rounding_but_not_to_the_unit(tiny_scene: Scene) -> None:
    names = tiny_scene.images[:5]
    poses = Pose(tiny_scene.poses.position + 1e-12, -tiny_scene.poses.quaternion)
    assert replace(tiny_scene, poses=poses).world(names) == tiny_scene.world(names)
    assert replace(tiny_scene, unit="unit").world(names) != tiny_scene.world(names)


def test_run_that_is_called_like_a_baseline_does_not_replace_it(
    tiny_scene: Scene, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / ORACLE)
    with pytest.raises(InputError, match="name of a baseline"):
        evaluate(tmp_path / ORACLE, tiny_scene)


def test_rotation_that_is_none_is_no_label(tiny_scene: Scene) -> None:
    quaternion = tiny_scene.poses.quaternion.clone()
    quaternion[3] = 0
    with pytest.raises(InputError, match=tiny_scene.images[3]):
        replace(tiny_scene, poses=Pose(tiny_scene.poses.position, quaternion))


@pytest.mark.parametrize(
    "camera",
    [
        Camera.pinhole(160, 120, 1e12, 1e12, 80.0, 60.0),
        Camera.pinhole(160, 120, 140.0, 140.0, 1e9, 60.0),
    ],
)
def test_camera_that_cannot_have_taken_the_photo_is_refused(camera: Any) -> None:
    image = torch.zeros(3, 120, 160, dtype=torch.uint8)
    with pytest.raises(InputError, match="--camera"):
        resample(image, camera, Camera.pinhole(96, 72, 86.0, 86.0, 48.0, 36.0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("camera", {"params": 5}),
        ("camera", {"params": [-1.0, 100.0, 48.0, 36.0]}),
        ("photo_camera", {"params": [float("inf"), 100.0, 48.0, 36.0]}),
        ("window", {"width": 5000}),
        ("window", {"width": float("inf")}),
        ("unit", "parsec"),
        ("world", None),
    ],
)
def test_run_edited_to_nonsense_is_refused(
    tiny_run: Path, tmp_path: Path, key: str, value: Any
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    content = json.loads((run / "config.json").read_text())
    if value is None:
        del content[key]
    else:
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    (run / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"config\.json"):
        load_run(run)


def test_scene_without_its_provenance_is_refused(tiny_scene: Scene, tmp_path: Path) -> None:
    assert tiny_scene.folder is not None
    scene = shutil.copytree(tiny_scene.folder, tmp_path / "scene")
    content = json.loads((scene / "scene.json").read_text())
    (scene / "scene.json").write_text(json.dumps({**content, "provenance": None}))
    with pytest.raises(InputError, match=r"scene\.json"):
        load_scene(scene)


def test_run_is_as_readable_as_its_other_files(tiny_run: Path) -> None:
    modes = {(tiny_run / name).stat().st_mode & 0o44 for name in ("config.json", WEIGHTS)}
    assert len(modes) == 1
