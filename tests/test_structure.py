"""Maps of features and photos localized in them: laws, then the rendered room."""

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_matching import unit

from relocal.camera import Camera
from relocal.cli import main
from relocal.errors import InputError
from relocal.evaluation import evaluate
from relocal.features import Keypoints
from relocal.localizers import (
    FeatureMap,
    MapConfig,
    Structure,
    build_map,
    load_map,
    open_localizer,
    save_map,
)
from relocal.localizers.feature_map import principal_directions, signed_steps
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.scene.files import read_json, write_json
from relocal.training.run import read_tensors, write_tensors


@pytest.fixture(scope="module")
def map_(tiny_map: Path) -> FeatureMap:
    return load_map(tiny_map)


@pytest.fixture(scope="module")
def structure(map_: FeatureMap) -> Structure:
    return Structure(map_)


@pytest.fixture
def copy(tiny_map: Path, tmp_path: Path) -> Path:
    """A copy of the map, to be spoiled."""
    return shutil.copytree(tiny_map, tmp_path / "map")


def test_directions_keep_products() -> None:
    low = unit(300, 12) @ unit(12, 64, seed=2)
    basis = principal_directions(low, 12)
    assert torch.allclose(basis.T @ basis, torch.eye(12), atol=1e-4)
    assert torch.allclose((low @ basis) @ (low @ basis).T, low @ low.T, rtol=1e-3, atol=1e-3)


def test_signed_steps_keep_directions() -> None:
    values = unit(50, 64) - 0.1
    again = torch.nn.functional.normalize(signed_steps(values).float(), dim=1)
    assert (again * torch.nn.functional.normalize(values, dim=1)).sum(1).min() > 0.999


# --- the map -----------------------------------------------------------------------------------


def test_points_are_where_the_images_see_them(map_: FeatureMap, tiny_scene: Scene) -> None:
    assert len(map_) > 300
    assert map_.track.min() >= 3  # points of two images are not trusted
    camera = tiny_scene.camera(0)
    for i in (0, 11, 23):
        points = map_.points_of_image[i]
        row = tiny_scene.images.index(map_.training_images[i])
        local = tiny_scene.poses[row].inverse().apply(map_.xyz[points].double())
        _, inside = camera.project(local)
        assert inside.float().mean() > 0.99
    walls = tiny_scene.points
    assert walls is not None
    nearest = np.linalg.norm(map_.xyz.numpy()[:, None] - walls.xyz[None], axis=2).argmin(1)
    apart = np.abs(map_.rgb.numpy().astype(int) - walls.rgb[nearest]).mean()
    assert apart < 60  # colours are those of what is there, more or less
    low, high = walls.xyz.min(0) - 0.2, walls.xyz.max(0) + 0.2
    inside = ((map_.xyz.numpy() > low) & (map_.xyz.numpy() < high)).all(1)
    assert inside.mean() > 0.98


def test_points_stand_by_their_words(map_: FeatureMap) -> None:
    word = torch.repeat_interleave(torch.arange(len(map_.words)), map_.word_size.long())
    nearest = (map_.unit_descriptors @ map_.unit_words.T).argmax(1)
    assert (word == nearest).float().mean() > 0.97  # but for the steps


def test_only_training_images_are_in_a_map(map_: FeatureMap, tiny_scene: Scene) -> None:
    assert map_.training_images == tiny_scene.splits["train"]


def test_the_same_scene_gives_the_same_map(map_: FeatureMap, tiny_scene: Scene) -> None:
    again = build_map(tiny_scene, map_.config)
    assert torch.equal(again.descriptors, map_.descriptors)
    assert torch.equal(again.xyz, map_.xyz)


# --- localization ------------------------------------------------------------------------------


def test_photos_of_another_walk_are_localized(structure: Structure, tiny_scene: Scene) -> None:
    rows = tiny_scene.indices("test").tolist()
    found = [structure.localize(tiny_scene.path(i), tiny_scene.camera(i)) for i in rows]
    poses = [estimate.pose for estimate in found if estimate is not None]
    assert len(poses) == len(rows)
    truth = tiny_scene.poses[torch.tensor(rows)]
    assert position_error(Pose.stack(poses), truth).median() < 0.02
    assert rotation_error_deg(Pose.stack(poses), truth).median() < 0.4
    assert all(e is not None and e.inliers is not None and e.inliers > 30 for e in found)
    assert all(e is not None and e.warnings == () for e in found)
    stated = [e.sigma_m for e in found if e is not None and e.sigma_m is not None]
    assert len(stated) == len(rows)
    assert all(0 < sigma < 0.02 for sigma in stated)


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["blank", "noise"])
def test_a_photo_of_nothing_has_no_pose(structure: Structure, tiny_scene: Scene, kind: str) -> None:
    pixels = np.full((120, 160, 3), 128, np.uint8)
    if kind == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    assert structure.localize(jpeg(pixels), tiny_scene.camera(0)) is None


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_a_wrong_focal_length_is_doubted(
    structure: Structure, tiny_scene: Scene, factor: float
) -> None:
    right = tiny_scene.camera(0)
    fx, fy = (factor * right.focal).tolist()
    wrong = Camera.pinhole(160, 120, fx, fy, 80.0, 60.0)
    rows = tiny_scene.indices("test").tolist()
    found = [structure.localize(tiny_scene.path(i), wrong) for i in rows]
    doubted = [
        e
        for e in found
        if e is None or any("focal" in w.code or "lens" in w.code for w in e.warnings)
    ]
    # Of a flat wall, moving away and a longer lens look the same.
    assert len(doubted) >= 0.7 * len(rows)


@pytest.mark.parametrize("factor", [0.4, 2.0, 3.0])
def test_a_lens_unlike_the_maps_is_named(
    structure: Structure, tiny_scene: Scene, factor: float
) -> None:
    fx, fy = (factor * tiny_scene.camera(0).focal).tolist()
    wrong = Camera.pinhole(160, 120, fx, fy, 80.0, 60.0)
    found = [structure.localize(tiny_scene.path(i), wrong) for i in range(6)]
    answered = [estimate for estimate in found if estimate is not None]
    assert answered
    for estimate in answered:
        assert "other-lens" in [warning.code for warning in estimate.warnings]


def test_a_map_may_look_at_photos_at_another_scale(tiny_scene: Scene) -> None:
    larger = Structure(build_map(tiny_scene, MapConfig(limit=1000, scale=1.5)))
    rows = tiny_scene.indices("test").tolist()
    found = [larger.localize(tiny_scene.path(i), tiny_scene.camera(i)) for i in rows]
    poses = Pose.stack([estimate.pose for estimate in found if estimate is not None])
    assert len(poses) == len(rows)
    assert position_error(poses, tiny_scene.poses[torch.tensor(rows)]).median() < 0.02


def test_a_larger_photo_of_the_same_lens_gives_the_same_pose(
    structure: Structure, tiny_scene: Scene
) -> None:
    i = int(tiny_scene.indices("test")[3])
    with Image.open(tiny_scene.path(i)) as photo:
        large = np.asarray(photo.convert("RGB").resize((480, 360), Image.Resampling.BICUBIC))
    estimate = structure.localize(jpeg(large), tiny_scene.camera(i))
    assert estimate is not None
    assert position_error(estimate.pose, tiny_scene.poses[i]) < 0.05


# --- files -------------------------------------------------------------------------------------


def test_a_map_is_the_same_from_its_folder(
    map_: FeatureMap, tiny_scene: Scene, tmp_path: Path
) -> None:
    again = load_map(save_map(map_, tmp_path / "again"))
    i = int(tiny_scene.indices("test")[0])
    one, other = (
        Structure(m).localize(tiny_scene.path(i), tiny_scene.camera(i)) for m in (map_, again)
    )
    assert one is not None
    assert other is not None
    assert torch.equal(one.pose.position, other.pose.position)
    assert again.training_images == map_.training_images
    assert again.config == map_.config
    with pytest.raises(InputError, match="exists already"):
        save_map(map_, tmp_path / "again")


def test_a_map_is_compact(map_: FeatureMap, tiny_map: Path) -> None:
    size = sum(file.stat().st_size for file in tiny_map.iterdir())
    assert size < 150 * len(map_) + 100_000


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_map_cut_short_is_refused(copy: Path, keep: int) -> None:
    file = copy / "map.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"map\.safetensors"):
        load_map(copy)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("xyz", lambda v: v[:-1].clone()),
        ("xyz", lambda v: v * torch.nan),
        ("seen_by", lambda v: v + 1000),
        ("seen_by", lambda v: v[:-1].clone()),
        ("track", lambda v: v + 1),
        ("word_size", lambda v: v + 1),
        ("descriptors", lambda v: v[:, :-1].clone()),
        ("descriptors", lambda v: v.float()),
        ("poses", lambda v: v[:-1].clone()),
        ("poses", lambda v: v[:, :6].clone()),
        ("poses", lambda v: 2 * v),
        ("poses", lambda v: v.double()),
        ("basis", lambda v: v * torch.nan),
        ("basis", lambda v: v[:, :-1].clone()),
        ("track", lambda v: torch.cat([v[:1] + v[1] + 1, -v[1:2] * 0 - 1, v[2:]])),
        ("words", lambda v: v[:-1].clone()),
    ],
)
def test_arrays_that_do_not_fit_are_refused(copy: Path, name: str, change: object) -> None:
    arrays = read_tensors(copy / "map.safetensors")
    arrays[name] = change(arrays[name])  # type: ignore[operator]
    write_tensors(copy / "map.safetensors", arrays)
    with pytest.raises(InputError, match="map"):
        load_map(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"format": "1"},
        {"origin": [0.0, 0.0]},
        {"origin": [0.0, 0.0, float("nan")]},
        {"origin": "here"},
        {"origin": None},
        {"anchors": {}},
        {"anchors": {"a": [1.0, 2.0]}},
        {"map": {}},
        {"map": {"limit": 2048.5}},
        {"map": {"dimensions": 32}},
    ],
)
def test_edited_facts_are_refused(copy: Path, change: dict[str, Any]) -> None:
    content = read_json(copy / "map.json")
    for key, value in change.items():
        partly = key == "map" and value
        write_json(
            copy / "map.json", {**content, key: {**content["map"], **value} if partly else value}
        )
        with pytest.raises(InputError, match="map"):
            load_map(copy)


def test_descriptors_of_other_features_are_refused(map_: FeatureMap) -> None:
    alien = Keypoints(torch.zeros(5, 2), torch.ones(5), torch.zeros(5, 64, dtype=torch.int8))
    with pytest.raises(InputError, match="do not belong together"):
        map_.described(alien)


@pytest.mark.parametrize("key", ["scene", "unit", "photo_camera", "map", "training_images"])
def test_a_missing_fact_is_refused(copy: Path, key: str) -> None:
    content = read_json(copy / "map.json")
    del content[key]
    write_json(copy / "map.json", content)
    with pytest.raises(InputError, match=r"map\.json: is not what a map has"):
        load_map(copy)


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run and no map"):
        open_localizer(tmp_path)
    with pytest.raises(InputError, match="this is no map"):
        load_map(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 10},
        {"scale": 0.0},
        {"ratio": 0.0},
        {"dimensions": 1},
        {"neighbours": 1},
        {"turn_deg": 0.0},
        {"error_px": -1.0},
        {"features": "surf"},
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')}"):
        MapConfig(**options)  # type: ignore[arg-type]


# --- evaluation and verbs ----------------------------------------------------------------------


def test_a_map_of_test_images_is_refused(map_: FeatureMap, tiny_scene: Scene) -> None:
    seen = replace(map_, training_images=(*map_.training_images, tiny_scene.splits["test"][0]))
    with pytest.raises(InputError, match="made of 1 of the images to test"):
        evaluate({"map": Structure(seen)}, tiny_scene)


def test_a_map_of_another_scene_or_ground_truth_is_refused(
    map_: FeatureMap, tiny_scene: Scene
) -> None:
    with pytest.raises(InputError, match="made of the scene 'elsewhere'"):
        evaluate({"map": Structure(replace(map_, scene="elsewhere"))}, tiny_scene)
    moved = {name: [v + 0.01 for v in pose] for name, pose in map_.anchors.items()}
    with pytest.raises(InputError, match="other poses"):
        evaluate({"map": Structure(replace(map_, anchors=moved))}, tiny_scene)


def test_verbs_make_a_map_measure_it_beside_a_run_and_localize(
    tiny_scene: Scene, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tiny_scene.folder)
    out, report = tmp_path / "room-map", tmp_path / "report"
    for words in (
        ["map", folder, "--out", str(out), "--limit", "1000"],
        ["evaluate", str(tiny_run), folder, "--with", str(out), "--out", str(report)],
        ["localize", str(out), str(tiny_scene.path(0)), "--format", "json"],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert not end.value.code
    text = capsys.readouterr().out
    assert "points from 24 training images" in text
    content = read_json(report / "report.json")
    methods = content["methods"]
    assert methods["room-map"]["median_position"] < methods["tiny"]["median_position"]
    assert content["made_by"]["runs"]["room-map"]["map"]["limit"] == 1000
    assert "map of" in (report / "report.md").read_text("utf-8")
    assert '"method": "structure"' in text


def test_a_photo_that_is_nowhere_fails_by_name(
    tiny_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grey.jpg").write_bytes(jpeg(np.full((120, 160, 3), 128, np.uint8)))
    with pytest.raises(SystemExit) as end:
        main(["localize", str(tiny_map), str(tmp_path / "grey.jpg")])
    assert end.value.code == 2
    assert "grey.jpg: cannot tell where it was taken" in capsys.readouterr().err
