"""The synthetic scene: the same each time, true to what was rendered, wary of damage."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import relocal
from relocal.datasets.room.config import RoomConfig
from relocal.datasets.room.recording import film
from relocal.datasets.synthetic import read_synthetic, render_room
from relocal.errors import InputError

PLAIN = RoomConfig(textureless=True, train_frames=6, test_frames=3, width_px=80, height_px=60)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rooms") / "plain"
    render_room(out, PLAIN)
    return out


@pytest.fixture
def copy(rendered: Path, tmp_path: Path) -> Path:
    return shutil.copytree(rendered, tmp_path / "room")


def test_frames_come_out_the_same_in_any_order() -> None:
    config = replace(PLAIN, shutter=0.5, blur_px=0.5)
    sequence, _, _ = film(config)
    frames = [sequence.frame(k) for k in range(6)]
    again, other, _ = film(config)
    assert all(np.array_equal(again.frame(k), frames[k]) for k in (5, 0, 3))
    assert not np.array_equal(other.frame(0), frames[0])
    unlike, _, _ = film(replace(config, seed=1))
    assert not np.array_equal(unlike.frame(0), frames[0])


def test_rendering_again_gives_the_same_bytes(rendered: Path, tmp_path: Path) -> None:
    render_room(tmp_path / "again", PLAIN)
    files = sorted(p.relative_to(rendered) for p in rendered.rglob("*") if p.is_file())
    assert len(files) == 6 + 3 + 2
    assert all((rendered / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)


def test_rooms_are_rendered_and_imported_as_the_study_does(tmp_path: Path) -> None:
    relocal.render_room(f"{tmp_path}/photos/bare", PLAIN)
    relocal.import_scene("synthetic", f"{tmp_path}/photos/bare", f"{tmp_path}/scene")
    assert relocal.load_scene(tmp_path / "scene").splits.keys() == {"train", "test"}


def test_scene_says_what_was_rendered(rendered: Path) -> None:
    scene = read_synthetic(rendered)
    assert scene.unit == "m"
    assert {split: len(names) for split, names in scene.splits.items()} == {"train": 6, "test": 3}
    assert scene.images[0] == "seq-01/frame-000000.jpg"
    assert scene.images[-1] == "seq-02/frame-000002.jpg"
    planned = np.concatenate([sequence.poses for sequence in film(PLAIN)[:2]])
    np.testing.assert_allclose(scene.poses.matrix().numpy(), planned, atol=1e-12)
    camera = scene.camera(0)
    with Image.open(scene.path(0)) as image:
        assert image.size == (camera.width, camera.height) == (80, 60)
    assert camera.focal.tolist() == [72, 72]
    assert camera.principal_point.tolist() == [40, 30]


def test_map_points_project_to_their_pixels_and_come_from_training_images(rendered: Path) -> None:
    scene = read_synthetic(rendered)
    points = scene.points
    assert points is not None
    assert set(points.image_index) == set(scene.indices("train").tolist())
    assert set(points.point_index) == set(range(len(points.xyz)))
    xyz = torch.from_numpy(points.xyz[points.point_index])
    in_camera = scene.poses.inverse()[torch.from_numpy(points.image_index)].apply(xyz)
    pixels, inside = scene.camera(0).project(in_camera)
    assert inside.all()
    assert np.abs(pixels.numpy() - points.xy).max() < 1e-4
    depth = scene.depth_range()
    assert depth is not None
    assert 1 < depth[1] < 4


def test_room_is_rendered_where_there_is_none(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    scene = read_synthetic(tmp_path / "new", PLAIN, lambda done, total: calls.append((done, total)))
    assert calls == [(k, 9) for k in range(1, 10)]
    calls.clear()
    again = read_synthetic(tmp_path / "new", PLAIN, lambda done, total: calls.append((done, total)))
    assert calls == []
    assert again.images == scene.images


def test_interrupted_rendering_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_room(tmp_path / "room", PLAIN, interrupt)
    assert list(tmp_path.iterdir()) == []


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("train_frames", 0), ("test_frames", 0), ("train_lap_frames", 3), ("points", 0)),
        *(("width_px", 4), ("height_px", 100_000), ("focal_px", 1.0), ("focal_px", float("nan"))),
        *(("exposure_stops", -1.0), ("noise_levels", float("inf")), ("blur_px", -0.1)),
        *(("shutter", 1.5), ("seed", -1)),
    ],
)
def test_senseless_config_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        RoomConfig(**{name: value})


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for attempt in (read_synthetic, partial(render_room, config=PLAIN)):
        with pytest.raises(InputError, match="no rendered room"):
            attempt(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_another_room_in_the_folder_is_refused(rendered: Path) -> None:
    with pytest.raises(InputError, match="seed 0"):
        read_synthetic(rendered, replace(PLAIN, seed=5))
    with pytest.raises(InputError, match="holds a room"):
        render_room(rendered, PLAIN)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda about: about.update(format=7), "format 7"),
        (lambda about: about.pop("camera"), "camera"),
        (lambda about: about.update(frames=3), "room.json"),
        (lambda about: about["camera"].update(fx_px=-1.0), "focal"),
        (lambda about: about["camera"].update(width_px="wide"), "room.json"),
        (lambda about: about["frames"][2].update(world_from_cam=[[1, 2], [3, 4]]), "frame-000002"),
        (lambda about: about["frames"][2].update(world_from_cam="here"), "room.json"),
        (lambda about: about["frames"][1].update(image="gone.jpg"), "gone.jpg"),
    ],
)
def test_damaged_description_is_refused_by_name(copy: Path, change: Any, complaint: str) -> None:
    file = copy / "room.json"
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))
    with pytest.raises(InputError, match=complaint):
        read_synthetic(copy)


def test_cut_description_is_refused_by_name(copy: Path) -> None:
    (copy / "room.json").write_text('{"format": 1, ')
    with pytest.raises(InputError, match=r"room\.json"):
        read_synthetic(copy)


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays: arrays["image_index"].fill(9),
        lambda arrays: arrays["point_index"].fill(-1),
        lambda arrays: arrays.update(point_index=arrays["point_index"] / 2),
        lambda arrays: arrays.update(xy=arrays["xy"][1:]),
        lambda arrays: arrays.update(rgb=np.zeros(3, np.uint8)),
        lambda arrays: arrays.update(xyz=np.array([{}], dtype=object)),
        lambda arrays: arrays.pop("rgb"),
    ],
)
def test_damaged_map_points_are_refused_by_name(copy: Path, damage: Any) -> None:
    file = copy / "points.npz"
    with np.load(file) as content:
        arrays: dict[str, Any] = dict(content)
    damage(arrays)
    np.savez(file, **arrays)
    with pytest.raises(InputError, match=r"points\.npz"):
        read_synthetic(copy)


def test_missing_or_cut_map_points_are_refused_by_name(copy: Path) -> None:
    file = copy / "points.npz"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"points\.npz: these map points cannot be read"):
        read_synthetic(copy)
    file.unlink()
    with pytest.raises(InputError, match=r"points\.npz: there is no such file"):
        read_synthetic(copy)
