"""Doubts about a scene: what cannot be true is told, what is good stays quiet."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relocal.camera import Camera
from relocal.datasets import import_scene
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.doubts import scene_doubts

DATA = Path(__file__).parents[2] / "shared" / "data"


def scene_of(cameras: Sequence[Camera], poses: Pose | None = None) -> Scene:
    """Twenty images on a line, their cameras in turn."""
    count = 20
    if poses is None:
        position = torch.arange(3.0 * count).reshape(count, 3).double()
        poses = Pose(position, torch.tensor([[1.0, 0, 0, 0]]).double().repeat(count, 1))
    return Scene(
        name="place",
        unit="m",
        image_root=Path("nowhere"),
        images=tuple(f"walk/{i:02d}.jpg" for i in range(count)),
        cameras=tuple(cameras),
        camera_index=torch.arange(count) % len(cameras),
        poses=poses,
    )


def told(*cameras: Camera) -> list[str]:
    return [notice.code for notice in scene_doubts(scene_of(cameras))]


@pytest.mark.parametrize(
    ("camera", "codes"),
    [
        ((640, 480, 525, 525, 320, 240), []),
        ((640, 480, 517.3, 516.5, 318.6, 255.3), []),  # TUM's
        ((1080, 1920, 1375.5, 1374.5, 554.6, 965.3), []),  # a phone held upright
        ((752, 480, 458.7, 457.3, 367.2, 248.4), []),  # EuRoC's
        ((1241, 376, 718.9, 718.9, 607.2, 185.2), []),  # KITTI's
        ((720, 576, 600, 656, 360, 288), []),  # PAL video as it is stored
        ((640, 480, 525, 525, 240, 320), ["centre-exchanged"]),
        ((640, 480, 525, 525, 251, 300), ["centre-exchanged"]),  # of a lens that looks aside
        ((480, 640, 525, 525, 320, 240), ["centre-exchanged"]),
        ((1920, 1080, 1500, 1500, 320, 240), ["centre-far-off"]),
        ((640, 480, 525, 525, 0, 0), ["centre-far-off"]),
        ((640, 480, 525, 394, 320, 240), ["focals-apart"]),
        ((640, 480, 4.2, 4.2, 320, 240), ["field-of-view"]),
        ((640, 480, 8000, 8000, 320, 240), ["field-of-view"]),
        ((640, 480, 52.5, 525, 0, 240), ["centre-far-off", "focals-apart"]),
    ],
)
def test_a_camera_that_no_lens_has_is_told(camera: tuple[float, ...], codes: list[str]) -> None:
    width, height, *numbers = camera
    assert told(Camera.pinhole(int(width), int(height), *map(float, numbers))) == codes


def test_the_view_is_that_of_the_longer_side() -> None:
    half = np.tan(np.deg2rad(2.6))  # 5.2 degrees
    assert told(Camera.pinhole(480, 640, 320 / half, 320 / half, 240.0, 320.0)) == []
    assert told(Camera.pinhole(480, 640, 340 / half, 340 / half, 240.0, 320.0)) != []


def test_cameras_with_one_fault_are_told_of_together() -> None:
    good = Camera.pinhole(640, 480, 525.0, 525.0, 320.0, 240.0)
    bad = [Camera.pinhole(640, 480, f, f, 240.0, 320.0) for f in (500.0, 510.0)]
    (notice,) = scene_doubts(scene_of([good, *bad]))
    assert notice.code == "centre-exchanged"
    assert "2 cameras of 13 of 20 images" in notice.text


@pytest.mark.parametrize(("same", "doubted"), [(0, False), (2, True), (3, True), (20, True)])
def test_identical_poses_are_told_and_a_robot_may_wait(same: int, doubted: bool) -> None:
    scene = scene_of([Camera.pinhole(640, 480, 525.0, 525.0, 320.0, 240.0)])
    position, quaternion = scene.poses.position.clone(), scene.poses.quaternion.clone()
    position[:same] = position[0]
    quaternion[1:same:2] *= -1  # the same rotation
    notices = scene_doubts(replace(scene, poses=Pose(position, quaternion)))
    assert [notice.code for notice in notices] == ["poses-identical"] * doubted
    for notice in notices:
        assert f"{same} of 20 images" in notice.text
        assert "robot waits" in notice.text


def test_a_single_pair_among_many_is_no_tenth() -> None:
    scene = scene_of([Camera.pinhole(640, 480, 525.0, 525.0, 320.0, 240.0)])
    position = torch.cat([scene.poses.position, scene.poses.position[-1:]])
    many = replace(
        scene,
        images=(*scene.images, "twin.png"),
        camera_index=torch.cat([scene.camera_index, scene.camera_index[-1:]]),
        poses=Pose(position, torch.cat([scene.poses.quaternion, scene.poses.quaternion[-1:]])),
    )
    assert len(many) == 21
    assert scene_doubts(many) == ()


def test_a_camera_that_no_image_uses_is_not_doubted() -> None:
    sound = Camera.pinhole(640, 480, 525.0, 525.0, 320.0, 240.0)
    scene = scene_of([sound])
    assert (
        scene_doubts(replace(scene, cameras=(sound, Camera.pinhole(640, 480, 5.0, 50.0, 9.0, 9.0))))
        == ()
    )


@pytest.mark.parametrize(("focal", "view"), [(20.0, "173°"), (20000.0, "1.8°"), (8000.0, "4.6°")])
def test_the_field_of_view_is_told_in_plain_digits(focal: float, view: str) -> None:
    (notice,) = scene_doubts(scene_of([Camera.pinhole(640, 480, focal, focal, 320.0, 240.0)]))
    assert f"640 x 480 pixels show {view}" in notice.text


def nerfstudio_project(folder: Path, **wrong: float) -> Path:
    (folder / "images").mkdir(parents=True)
    frames = []
    for i in range(6):
        Image.fromarray(np.full((48, 64, 3), i, np.uint8)).save(folder / f"images/{i}.jpg")
        matrix = np.eye(4)
        matrix[:3, 3] = i
        frames.append({"file_path": f"images/{i}.jpg", "transform_matrix": matrix.tolist()})
    content = {"w": 64, "h": 48, "fl_x": 58.0, "fl_y": 58.0, "cx": 32.0, "cy": 24.0}
    (folder / "transforms.json").write_text(json.dumps({**content, **wrong, "frames": frames}))
    return folder


def tum_recording(folder: Path, camera: str) -> Path:
    (folder / "rgb").mkdir(parents=True)
    (folder / "cameras.txt").write_text(f"1 PINHOLE 64 48 {camera}\n")
    rgb, truth = [], []
    for i in range(6):
        Image.fromarray(np.full((48, 64, 3), i, np.uint8)).save(folder / f"rgb/{i}.png")
        rgb.append(f"{i} rgb/{i}.png")
        truth.append(f"{i} {i} 0 0 0 0 0 1")
    (folder / "rgb.txt").write_text("\n".join(rgb))
    (folder / "groundtruth.txt").write_text("\n".join(truth))
    return folder


def test_import_keeps_doubts_and_refuses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from relocal.cli import main

    good = import_scene("nerfstudio", nerfstudio_project(tmp_path / "good"), tmp_path / "a")
    assert good.account is not None
    assert good.account.notices == ()
    bad = nerfstudio_project(tmp_path / "bad", cx=24.0, cy=32.0)
    scene = import_scene("nerfstudio", bad, tmp_path / "b")
    assert scene.account is not None
    assert [notice.code for notice in scene.account.notices] == ["centre-exchanged"]
    other = tum_recording(tmp_path / "tum", "58 120 32 24")
    with pytest.raises(SystemExit) as ended:
        main(["import", "tum", str(other), "--out", str(tmp_path / "c")])
    assert ended.value.code == 0
    assert re.search(r"fx 58 and fy 120 are far apart", capsys.readouterr().err)


@pytest.mark.skipif(not DATA.is_dir(), reason="the development data is not here")
@pytest.mark.parametrize(
    ("reader", "folder", "labels"),
    [
        ("nerfstudio", "fox", None),
        ("nerfstudio", "egypt_480", None),
        ("nerfstudio", "cube_diorama_room", None),
        ("7scenes", "7scenes/redkitchen", None),
        ("7scenes", "7scenes/redkitchen", "sfm_pgt_seq-01.txt"),
    ],
)
def test_good_data_stays_quiet(reader: str, folder: str, labels: str | None) -> None:
    from relocal.datasets import DATASETS

    options = {} if labels is None else {"labels": DATA / folder / labels}
    assert scene_doubts(DATASETS[reader](DATA / folder, **options)) == ()


def test_rooms_stay_quiet(tiny_scene: Scene) -> None:
    assert scene_doubts(tiny_scene) == ()
