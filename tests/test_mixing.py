"""What must never be mixed: splits, ground truths, baselines and what is measured beside them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.evaluation import ORACLE, evaluate
from relocal.images import resample
from relocal.losses import LossConfig
from relocal.pose import Pose
from relocal.scene import Scene, load_scene, save_scene
from relocal.scene.scene import MAX_ANCHORS
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
    same = other.has_anchors(load_run(tiny_run).anchors)
    assert same == (moved == 0)
    if not same:
        with pytest.raises(InputError, match="other poses"):
            evaluate(tiny_run, other)


def test_anchors_are_blind_to_signs_and_rounding(tiny_scene: Scene) -> None:
    anchors = tiny_scene.anchors(tiny_scene.images)
    assert 1 < len(anchors) <= MAX_ANCHORS
    # Half of a millionth, where a digest of rounded numbers would flip.
    poses = Pose(tiny_scene.poses.position + 5e-7, -tiny_scene.poses.quaternion)
    assert replace(tiny_scene, poses=poses).has_anchors(anchors)
    turned = Pose(tiny_scene.poses.position, tiny_scene.poses.quaternion.roll(1, 0))
    assert not replace(tiny_scene, poses=turned).has_anchors(anchors)
    assert not tiny_scene.has_anchors({"nowhere.jpg": [0.0] * 7})


def test_run_is_not_measured_in_another_unit(tiny_scene: Scene, tiny_run: Path) -> None:
    with pytest.raises(InputError, match="other poses"):
        evaluate(tiny_run, replace(tiny_scene, unit="unit"))


def test_seven_digit_labels_evaluate_as_they_were_trained(
    tiny_config: TrainConfig, tiny_scene: Scene, tmp_path: Path
) -> None:
    rounded = Pose(tiny_scene.poses.position.round(decimals=7), tiny_scene.poses.quaternion)
    scene = save_scene(replace(tiny_scene, poses=rounded), tmp_path / "scene")
    train(scene, tmp_path / "run", replace(tiny_config, epochs=1))
    assert evaluate(tmp_path / "run", tmp_path / "scene").localizers() == ["run"]


def test_nothing_of_the_test_poses_reaches_the_run(
    tiny_config: TrainConfig, tiny_scene: Scene, tmp_path: Path
) -> None:
    test = tiny_scene.indices("test")
    position, quaternion = tiny_scene.poses.position.clone(), tiny_scene.poses.quaternion.clone()
    position[test] += 100
    quaternion[test] = quaternion[test].roll(1, -1)
    far = replace(tiny_scene, poses=Pose(position, quaternion), folder=None)
    config = replace(tiny_config, epochs=1)
    for name, scene in (("near", tiny_scene), ("far", far)):
        train(scene, tmp_path / name, config)
    near, other = (load_file(tmp_path / n / "weights.safetensors") for n in ("near", "far"))
    assert all(torch.equal(near[key], other[key]) for key in near)
    mean = tiny_scene.poses[tiny_scene.indices("train")].position.mean(0)
    origin = torch.tensor(load_run(tmp_path / "far").origin, dtype=torch.float64)
    torch.testing.assert_close(origin, mean)
    torch.testing.assert_close(origin + near["model.position_mean"], mean)


def test_run_that_is_called_like_a_baseline_does_not_replace_it(
    tiny_scene: Scene, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / ORACLE)
    with pytest.raises(InputError, match="name of a baseline"):
        evaluate(tmp_path / ORACLE, tiny_scene)


@pytest.mark.parametrize(("size", "orientation"), [((160, 120), 3), ((160, 120), 2), ((90, 90), 6)])
def test_turned_photo_whose_label_may_be_of_either_is_refused(
    tiny_scene: Scene, size: tuple[int, int], orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(tmp_path / "a.jpg", exif=exif)
    camera = Camera.pinhole(*size, 80.0, 80.0, 45.0, 45.0)
    scene = replace(
        tiny_scene,
        image_root=tmp_path,
        images=("a.jpg",),
        cameras=(camera,),
        camera_index=tiny_scene.camera_index[:1],
        poses=tiny_scene.poses[:1],
        splits={},
        points=None,
    )
    with pytest.raises(InputError, match=r"a\.jpg: by its EXIF it must be turned"):
        save_scene(scene, tmp_path / "scene")
    assert not (tmp_path / "scene").exists()


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
    with pytest.raises(InputError, match="the camera given"):
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
        ("anchors", None),
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
