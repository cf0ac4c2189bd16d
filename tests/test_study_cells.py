"""Cells of a study: known by all that they depend on, the same anywhere, refused when damaged."""

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
from relocal.scene import load_scene, save_scene
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

    def known(change: float) -> dict[str, Any]:
        out = tmp_path / f"moved by {change}"
        poses = Pose(scene.poses.position * (1 + change), scene.poses.quaternion)
        save_scene(replace(scene, poses=poses), out)
        return cells.data_identity(Fold(out), validate=False)

    same = known(0.0)
    assert known(1e-15) == same == known(-1e-15)
    assert known(1e-6) != same


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
