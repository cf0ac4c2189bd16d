"""The hybrid: the regressor's pose, the map near it, and what it falls back to."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from relocal.cli import main
from relocal.errors import InputError
from relocal.localizers import (
    FeatureMap,
    Hybrid,
    Regressor,
    Structure,
    hybrid,
    load_map,
    open_localizers,
)
from relocal.pose import Pose, position_error
from relocal.scene import Scene
from relocal.scene.files import read_json
from relocal.training import load_run


@pytest.fixture(scope="module")
def map_(tiny_map: Path) -> FeatureMap:
    return load_map(tiny_map)


@pytest.fixture
def localizer(tiny_run: Path, map_: FeatureMap) -> Hybrid:
    return Hybrid(tiny_run, map_)


class Guess:
    """A regressor that answers what it is told."""

    def __init__(self, regressor: Regressor, pose: Pose) -> None:
        self.regressor, self.pose = regressor, pose

    def localize(self, *words: Any) -> Any:
        return replace(self.regressor.localize(*words), pose=self.pose)


def test_a_good_guess_saves_the_search(
    localizer: Hybrid, map_: FeatureMap, tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hybrid, "search", None)  # which would fail
    for i in tiny_scene.indices("test").tolist():
        truth, camera = tiny_scene.poses[i], tiny_scene.camera(i)
        aside = Pose(truth.position + 0.05, truth.quaternion)
        monkeypatch.setattr(localizer, "regressor", Guess(Regressor(localizer.run), aside))
        found = localizer.localize(tiny_scene.path(i), camera)
        assert found.method == "hybrid"
        whole = Structure(map_).localize(tiny_scene.path(i), camera)
        assert whole is not None
        assert position_error(found.pose, whole.pose) < 0.01
        monkeypatch.undo()
        monkeypatch.setattr(hybrid, "search", None)


def test_a_wrong_guess_is_put_right_by_the_whole_map(
    localizer: Hybrid, tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    i = int(tiny_scene.indices("test")[4])
    truth = tiny_scene.poses[i]
    turned = Pose(truth.position, torch.tensor([0.0, 0.0, 1.0, 0.0]).double())
    monkeypatch.setattr(localizer, "regressor", Guess(localizer.regressor, turned))
    found = localizer.localize(tiny_scene.path(i), tiny_scene.camera(i))
    assert found.method == "structure"
    assert position_error(found.pose, truth) < 0.03


def test_a_wrong_guess_that_found_a_few_alike_is_put_right(
    localizer: Hybrid, map_: FeatureMap, tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    i = int(tiny_scene.indices("test")[4])
    poses, right = [Pose.identity(), None], hybrid.pose_of

    def few_first(*words: Any) -> Any:
        found = right(*words)
        assert found is not None
        alike = (tiny_scene.poses[0], found[1][:13])
        return alike if poses.pop(0) is not None else found

    monkeypatch.setattr(hybrid, "pose_of", few_first)
    found = localizer.localize(tiny_scene.path(i), tiny_scene.camera(i))
    assert found.method == "structure"
    assert position_error(found.pose, tiny_scene.poses[i]) < 0.03


def test_where_nothing_is_found_the_regressor_answers(localizer: Hybrid, tiny_scene: Scene) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((120, 160, 3), 128, np.uint8)).save(file, "PNG")
    found = localizer.localize(file.getvalue(), tiny_scene.camera(0))
    assert found.method == localizer.regressor.method
    alone = localizer.regressor.localize(file.getvalue(), tiny_scene.camera(0))
    # The hybrid's network works on one core, which rounds otherwise.
    torch.testing.assert_close(found.pose.position, alone.pose.position, atol=1e-5, rtol=0)
    assert [warning.code for warning in found.warnings] == ["network-alone"]


def test_a_run_and_a_map_of_different_poses_are_refused(tiny_run: Path, map_: FeatureMap) -> None:
    moved = Pose(map_.poses.position + 0.01, map_.poses.quaternion)
    with pytest.raises(InputError, match="other poses"):
        Hybrid(tiny_run, replace(map_, poses=moved))


def test_a_run_and_a_map_of_different_images_are_refused(tiny_run: Path, map_: FeatureMap) -> None:
    run = load_run(tiny_run)
    some = run.training_images[1:]  # the others are for validation
    assert Hybrid(replace(run, training_images=some), map_).run.training_images == some
    with pytest.raises(InputError, match="different training images"):
        Hybrid(replace(run, training_images=(*some, "seq-03/other.png")), map_)
    with pytest.raises(InputError, match="does not go with a map of"):
        Hybrid(replace(run, scene="elsewhere"), map_)


def test_the_verb_measures_every_way_on_the_same_photos(
    tiny_run: Path, tiny_map: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    shutil.copytree(tiny_map, tmp_path / "maps" / tiny_run.name)
    out, folder = tmp_path / "report", str(tiny_scene.folder)
    words = [
        "--with",
        str(tmp_path / "maps" / tiny_run.name),
        "--localizer",
        "regressor,retrieval,structure,hybrid",
    ]
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(tiny_run), folder, *words, "--out", str(out)])
    assert not end.value.code
    methods = read_json(out / "report.json")["methods"]
    run, map_ = f"{tiny_run.parent.name}/tiny", "maps/tiny"
    assert list(methods)[-4:] == [run, "retrieval of 5", map_, "hybrid"]
    assert methods["hybrid"]["median_position"] < 0.03 < methods[run]["median_position"]
    assert set(methods["hybrid"]["other_methods"]) <= {"structure", "posenet"}


def test_kinds_that_cannot_be_had_are_refused(tiny_run: Path, tiny_map: Path) -> None:
    with pytest.raises(InputError, match="--localizer hybrid: needs a map"):
        open_localizers([tiny_run], ["hybrid"])
    with pytest.raises(InputError, match="--localizer structure: needs a map"):
        open_localizers([tiny_run], ["structure"])
    with pytest.raises(InputError, match="--localizer regressor: needs a run"):
        open_localizers([tiny_map], ["regressor"])
    with pytest.raises(InputError, match=r"--localizer.*hybrid"):
        open_localizers([tiny_run], ["hybird"])
    with pytest.raises(InputError, match="is given twice"):
        open_localizers([tiny_run, tiny_run])
    with pytest.raises(InputError, match="--localizer retrieval: needs a scene"):
        open_localizers([tiny_run], ["retrieval"])


def test_a_run_and_a_map_of_one_name_are_told_apart(tiny_run: Path, tiny_map: Path) -> None:
    names = list(open_localizers([tiny_run, tiny_map]))  # both are called tiny
    assert names == [f"{folder.parent.name}/{folder.name}" for folder in (tiny_run, tiny_map)]
    assert len(set(names)) == 2


def test_a_hybrid_leaves_torch_its_threads(tiny_run: Path, map_: FeatureMap) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        localizer = Hybrid(tiny_run, map_)
        assert localizer._pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
        assert ThreadPoolExecutor(1).submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(usual)
