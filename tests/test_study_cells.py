"""Cells of a study: known by all that they depend on, the same anywhere, refused when damaged."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from relocal.backbones import BackboneConfig, build_backbone
from relocal.errors import InputError
from relocal.losses import LossConfig
from relocal.pose import Pose
from relocal.report import save_study
from relocal.scene import Scene, apply_split, load_scene, save_scene
from relocal.studies import StudyConfig, cells, study
from relocal.studies.cells import Cell, run_cell
from relocal.studies.folds import Fold
from relocal.training import TrainConfig


def test_cells_of_other_options_are_not_taken(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    config = StudyConfig(losses="posenet", seeds=1, tune=1)
    study([blocks_scene], tmp_path, config, base)
    with pytest.raises(InputError, match=r"tune-0.json: --epochs was 2, and is 3 now"):
        study([blocks_scene], tmp_path, config, replace(base, epochs=3))


def test_weights_are_known_by_the_name_of_their_file(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    config, out = StudyConfig(losses="default", seeds=1, tune=1), tmp_path / "out"
    made: list[dict[Path, int]] = []
    for folder in ("here", "there"):
        file = tmp_path / folder / "weights.safetensors"
        file.parent.mkdir()
        save_file(build_backbone(BackboneConfig()).state_dict(), file)
        mine = replace(base, backbone=BackboneConfig(weights=str(file)))
        save_study(study(blocks_scene, out, config, mine), out)
        texts = [f.read_text() for kind in ("json", "md", "html") for f in out.rglob(f"*.{kind}")]
        assert any("weights.safetensors" in text for text in texts)
        assert not any(str(tmp_path) in text for text in texts)
        made.append({f: f.stat().st_mtime_ns for f in (out / "cells").rglob("*.json")})
    assert made[0] == made[1]


def test_a_cell_of_a_loss_without_depth_stays_when_map_points_come(
    blocks_scene: Path, base: TrainConfig
) -> None:
    for name, depends in (("posenet", False), ("posenet+frustum", True), ("reprojection", True)):
        config = replace(base, validate=True, loss=LossConfig(name=name))
        cell = Cell("tiny", Fold(blocks_scene), name, config, "seed-0")
        assert ("depth" in cells.identity(cell)) == depends


def test_a_scene_is_known_on_a_processor_that_rounds_otherwise(
    blocks_scene: Path, tmp_path: Path
) -> None:
    scene = load_scene(blocks_scene)
    # Nine digits that end in 5, as single precision prints them, are halfway between eight.
    printed = (scene.poses.position * 1e8).floor() / 1e8 + 5e-9

    def known(change: float) -> dict[str, Any]:
        out = tmp_path / f"moved by {change}"
        poses = Pose(printed * (1 + change), scene.poses.quaternion)
        save_scene(replace(scene, poses=poses), out)
        return cells.data_identity(Fold(out), validate=False)

    same = known(0.0)
    assert known(1e-15) == same == known(-1e-15)
    assert known(1e-6) != same


def _other_photo(scene: Scene) -> Scene:
    scene.path(0).unlink()  # a hard link of another scene's
    shutil.copyfile(scene.path(1), scene.path(0))
    return scene


def _other_focal_length(scene: Scene) -> Scene:
    (camera,) = scene.cameras
    return replace(scene, cameras=(replace(camera, params=camera.params * 1.1),))


@pytest.mark.parametrize(
    "change",
    [_other_photo, _other_focal_length, lambda scene: replace(scene, unit="unit")],
    ids=["photo", "focal length", "unit"],
)
def test_cells_and_baselines_of_other_pictures_are_not_taken(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path, change: Callable[[Scene], Scene]
) -> None:
    place, out = tmp_path / "scene", tmp_path / "out"
    save_scene(load_scene(blocks_scene), place)
    config = StudyConfig(losses="posenet", seeds=1, tune=1)
    study([place], out, config, base)
    changed = change(load_scene(place))
    save_scene(changed, tmp_path / "changed")
    shutil.rmtree(place)
    (tmp_path / "changed").rename(place)
    with pytest.raises(InputError, match="other pictures"):
        study([place], out, config, base)
    kept = next(out.glob("cells/*/baselines-*.json"))
    before = kept.read_text()
    for cell in out.glob("cells/*/posenet-*/*.json"):
        cell.unlink()
    study([place], out, config, base)
    assert kept.read_text() != before


def test_cells_of_before_pictures_were_told_apart_are_taken(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    config = StudyConfig(losses="posenet", seeds=1, tune=1)
    study([blocks_scene], tmp_path, config, base)
    for file in tmp_path.glob("cells/**/*.json"):
        content = json.loads(file.read_text())
        del content["pictures"]
        file.write_text(json.dumps(content))
    before = {file: file.read_text() for file in tmp_path.glob("cells/**/*.json")}
    study([blocks_scene], tmp_path, config, base)
    assert before == {file: file.read_text() for file in tmp_path.glob("cells/**/*.json")}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("baselines-validation-own.json", '{"errors": 3}'),
        ("baselines-validation-own.json", "[]"),
        ("looks.json", "3"),
        ("looks.json", "[{}]"),
        ("weights.json", "[]"),
    ],
)
def test_a_damaged_file_of_a_study_is_named(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path, file: str, content: str
) -> None:
    config = StudyConfig(losses="posenet", seeds=1, tune=1)
    study([blocks_scene], tmp_path, config, base)
    place = next(tmp_path.rglob(file), tmp_path / file)
    place.write_text(content)
    with pytest.raises(InputError, match=f"{file}: is damaged"):
        study([blocks_scene], tmp_path, config, base)


def test_a_scene_made_anew_is_read_anew(
    tiny_scene: Scene, base: TrainConfig, tmp_path: Path
) -> None:
    config, asked = StudyConfig(losses="posenet", seeds=1, tune=1, final=True), []
    for fold in (3, 2):
        save_scene(apply_split(tiny_scene, "blocks:3/4/1", fold), tmp_path / "scene")
        found = study(tmp_path / "scene", tmp_path / f"out-{fold}", config, base)
        asked.append(found.scenes["tiny"].images)
        shutil.rmtree(tmp_path / "scene")
    assert not set(asked[0]) & set(asked[1])


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"position": 1}', "{"])
def test_a_damaged_cell_is_named(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path, content: str
) -> None:
    config = StudyConfig(losses="posenet", seeds=1, tune=1)
    study([blocks_scene], tmp_path, config, base)
    (file,) = tmp_path.glob("cells/tiny/posenet-*/*.json")
    file.write_text(content)
    with pytest.raises(InputError, match=f"{file.name}.*remove it"):
        study([blocks_scene], tmp_path, config, base)


def test_a_cell_is_the_same_in_any_process(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    config = replace(base, validate=True, loss=LossConfig(name="posenet"))
    cell = Cell("tiny", Fold(blocks_scene), "posenet", config, "seed-0")
    first, second = run_cell(cell, tmp_path / "a"), run_cell(cell, tmp_path / "b")
    assert first["position"] == second["position"]
    assert first["rotation_deg"] == second["rotation_deg"]
