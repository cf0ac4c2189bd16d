"""The loss study: the grid, what is equal in it, resuming, refusals, failures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from relocal.errors import InputError
from relocal.losses import LOSSES, LossConfig
from relocal.losses.uncoupled import Position
from relocal.scene import Scene, load_scene
from relocal.scene.splits import block_numbers
from relocal.studies import StudyConfig, cells, comparisons, load_study, study
from relocal.studies.folds import (
    Fold,
    asked_images,
    fold_scene,
    folds_of,
    training_images,
    with_points,
)
from relocal.studies.methods import DEPTHS, method_config, parse_method, settings
from relocal.training import PRESETS, TrainConfig

LOSSES_ASKED = "default,posenet+frustum,posenet+twin:frustum"


# Folds and blocks.


def test_every_block_is_tested_once(blocks_scene: Path) -> None:
    folds = folds_of(blocks_scene, "all")
    assert [fold.number for fold in folds] == [0, 1, 2, 3]
    asked = [asked_images(fold_scene(fold), final=True).tolist() for fold in folds]
    assert sorted(i for part in asked for i in part) == list(range(len(fold_scene(folds[0]))))
    numbers = [
        set(block_numbers(fold_scene(f), torch.tensor(a)))
        for f, a in zip(folds, asked, strict=True)
    ]
    for i, mine in enumerate(numbers):
        assert not any(mine & other for other in numbers[i + 1 :])


def test_blocks_are_stretches_of_a_recording(blocks_scene: Path) -> None:
    scene = fold_scene(Fold(blocks_scene))
    numbers = block_numbers(scene, torch.arange(len(scene)))
    assert (np.diff(numbers) >= 0).all()
    _, counts = np.unique(numbers, return_counts=True)
    assert counts.max() == 3
    sequences = [scene.sequence(i) for i in range(len(scene))]
    for number in np.unique(numbers):
        assert len({sequences[i] for i in np.flatnonzero(numbers == number)}) == 1


def test_validation_never_touches_test_images(blocks_scene: Path) -> None:
    for fold in folds_of(blocks_scene, "all"):
        scene = fold_scene(fold)
        test = set(scene.indices("test").tolist())
        asked, train = (f(scene, False).tolist() for f in (asked_images, training_images))
        assert asked
        assert not test & set(asked)
        assert not test & set(train)
        assert not set(asked) & set(train)
        assert training_images(scene, True).tolist() == scene.indices("train").tolist()


def test_folds_that_a_scene_does_not_have_are_refused(blocks_scene: Path, tiny_scene: Any) -> None:
    assert [f.number for f in folds_of(blocks_scene, "0,2")] == [0, 2]
    with pytest.raises(InputError, match="folds 0 to 3, not 4"):
        folds_of(blocks_scene, "1,4")
    assert len(folds_of(tiny_scene.folder, "all")) == 1


# Methods.


def test_options_of_the_loss_and_of_training_are_told_apart() -> None:
    text = "posenet+frustum/form=squared/model.rotation=6d/epochs=3/backbone.weights=none"
    method = parse_method(text)
    assert method.loss == LossConfig(name="posenet+frustum", form="squared")
    config = method_config(method, DEPTHS["full"])
    assert config.model.rotation == "6d"
    assert config.epochs == 3
    assert config.backbone.weights == "none"
    assert config.loss == method.loss


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("posenet/model.rotaton=6d", "model.rotation"),
        ("posenet/epochs=none", "epochs"),
        ("posenet/seed=3", "the study itself sets"),
        ("posenet/devices=2", "the study itself sets"),
        ("default/loss.beta=3", "write beta=3 instead"),
        ("posenet/model.rotation=6d/model.rotation=9d", "is given twice"),
        ("posenet/epochs=", "has no value"),
        ("posenet/precision=8", "precision"),
        ("posenet/model=3", "there is no 'model'"),
        ("posnet", "posenet"),
        ("posenet~position~rotation", "a pair is two"),
    ],
)
def test_wrong_methods_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        method_config(parse_method(text), DEPTHS["head"])


def test_every_loss_has_the_same_budget() -> None:
    for name in LOSSES:
        for term in ("", "+frustum", "+twin:frustum"):
            tries = settings(LossConfig(name=name + term), 4)
            assert len(tries) in (1, 4)
            assert len(set(tries)) == len(tries)
            assert (len(tries) == 1) == (not term and len({t.beta for t in tries}) == 1)
    fixed = settings(LossConfig(name="posenet+frustum", beta=1.0), 4)
    assert {t.beta for t in fixed} == {1.0}
    assert len({t.gamma for t in fixed}) == 4
    assert settings(LossConfig(name="posenet"), 1) == [LossConfig(name="posenet")]


def test_what_a_text_fixes_is_not_tuned() -> None:
    method = parse_method("posenet+frustum/gamma=1")
    tries = settings(method.loss, 4, method.fixed)
    assert {t.gamma for t in tries} == {1.0}
    assert len({t.beta for t in tries}) == 4
    assert parse_method(" posenet + frustum / gamma=1") == method


# The grid.


class Weighted(Position):
    """A loss that begins with random weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)


def test_all_methods_start_alike_and_see_the_same_batches(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    fit = cells.fit

    def watch(fabric: Any, model: Any, loss: Any, data: Any, *rest: Any) -> Any:
        mine = seen.setdefault(data.config.loss.name, [])
        mine += [value.clone() for value in model.state_dict().values()]
        draw = data.batch

        def batch(*arguments: Any) -> Any:
            view, target = draw(*arguments)
            mine.extend([view.clone(), target.pose.position.clone()])
            return view, target

        data.batch = batch
        return fit(fabric, model, loss, data, *rest)

    monkeypatch.setattr(cells, "fit", watch)
    losses = f"{LOSSES_ASKED},posenet+points,weighted"
    monkeypatch.setitem(LOSSES, "weighted", Weighted)
    study([blocks_scene], tmp_path, StudyConfig(losses=losses, seeds=1, tune=1), base)
    first, *others = seen.values()
    assert len(others) == 4
    for other in others:
        assert len(other) == len(first)
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_study_tables_every_image_and_seed(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    config = StudyConfig(losses=LOSSES_ASKED, seeds=2, folds="all", tune=2, final=True)
    found = study([blocks_scene], tmp_path, config, base)
    scene = found.scenes["tiny"]
    assert len(set(scene.images)) == len(scene.images) == 32
    for method in LOSSES_ASKED.split(","):
        row = scene.methods[method]
        assert row.position.shape == row.rotation_deg.shape == (2, 32)
        assert sorted(row.tuned) == ["0", "1", "2", "3"]
        assert row.curve.shape == (2, 3)
    assert set(scene.baselines) == {"mean pose", "oracle nearest", "retrieval"}
    assert np.allclose(scene.nearest, scene.baselines["oracle nearest"].position)
    assert len(found.looks) == 1
    again = load_study(tmp_path)
    assert np.array_equal(
        again.scenes["tiny"].methods["default"].position, scene.methods["default"].position
    )
    assert [c.verdict for c in comparisons(again)[0].scenes.values()] == ["no verdict (2 seeds)"]
    # A second call finds everything, and looks at no test image.
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("cells/**/*.json")}
    assert len(study([blocks_scene], tmp_path, config, base).looks) == 1
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.glob("cells/**/*.json")}


def test_a_study_of_one_seed_or_few_blocks_gives_no_verdict(
    tiny_scene: Scene, base: TrainConfig, tmp_path: Path
) -> None:
    assert tiny_scene.folder is not None
    config = StudyConfig(losses="default,posenet", seeds=1, tune=1, final=True)
    found = study([tiny_scene.folder], tmp_path, config, base)
    for comparison in comparisons(found):
        assert comparison.combined.interval is None
        assert comparison.combined.verdict.startswith("no verdict")


def test_settings_may_be_tried_on_frozen_features(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    """The same budget as ever, of cheaper trainings; the seeds train as they were asked to."""
    plain = StudyConfig(losses="posenet", seeds=2)
    tail = replace(PRESETS["frozen_stem"], epochs=1, batch_size=8)
    tail = replace(tail, backbone=base.backbone, view=replace(tail.view, input_px=32))
    found = study([blocks_scene], tmp_path, replace(plain, train="tail", tune_train="head"), tail)
    cells = {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("cells/*/pos*/*")}
    assert sorted(cells) == [
        *(f"validation-own-seed-{i}" for i in range(2)),
        *(f"validation-own-tune-all-{i}" for i in range(4)),
    ]
    head = {**DEPTHS["head"].to_json(), "validate": True}
    scores: dict[str, float] = {}
    for label, cell in cells.items():
        if "tune" in label:
            same = [key for key in head if key not in ("loss", "backbone", "precision")]
            assert {k: cell["train"][k] for k in same} == {k: head[k] for k in same}
            score = np.median(cell["position"]) * np.median(cell["rotation_deg"])
            scores[label] = float(score)
        else:
            assert cell["train"]["freeze"] == "stem"
    best = cells[min(scores, key=lambda label: scores[label])]["train"]["loss"]["beta"]
    assert cells["validation-own-seed-0"]["train"]["loss"]["beta"] == best
    row = found.scenes["tiny"].methods["posenet"]
    assert row.tuned == {"own": f"posenet/beta={best}"}
    assert row.position.shape[0] == 2
    # The same depth is no other one: seed 0 of the setting that was chosen is trained already.
    again = tmp_path / "again"
    study([blocks_scene], again, replace(plain, tune_train="head"), base)
    assert len(list(again.glob("cells/*/pos*/*"))) == 4 + 1
    assert study([blocks_scene], again, plain, base).scenes


def test_validation_reads_no_test_image(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    found = study([blocks_scene], tmp_path, StudyConfig(losses="posenet", seeds=1, tune=1), base)
    test = {
        fold_scene(Fold(blocks_scene)).images[i]
        for i in fold_scene(Fold(blocks_scene)).indices("test").tolist()
    }
    assert not test & set(found.scenes["tiny"].images)
    assert not found.looks
    assert not list(tmp_path.glob("cells/**/test-*"))


def test_a_folder_that_is_no_study_or_has_another_at_work_is_refused(
    blocks_scene: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no study"):
        study(blocks_scene, blocks_scene, StudyConfig(losses="posenet"))
    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another study is at work"):
        study(blocks_scene, tmp_path, StudyConfig(losses="posenet"))


def test_a_method_named_like_a_baseline_is_refused(
    blocks_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "retrieval", Position)
    with pytest.raises(InputError, match="what a baseline is called"):
        study(blocks_scene, tmp_path, StudyConfig(losses="default,retrieval"))


def test_a_loss_that_needs_a_variance_is_refused_before_any_training(
    blocks_scene: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--losses nll: --model.log_variance"):
        study(blocks_scene, tmp_path, StudyConfig(losses="default,nll"))
    assert not (tmp_path / "cells").exists()


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"validate": True}, {"devices": 2}, {"loss": LossConfig(name="default")}],
)
def test_options_that_the_study_sets_are_refused(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"--seeds says how many|in --losses|--workers"):
        study([blocks_scene], tmp_path, StudyConfig(), replace(base, **change))


def test_two_scenes_of_one_name_are_refused(
    blocks_scene: Path, tiny_scene: Scene, base: TrainConfig, tmp_path: Path
) -> None:
    assert tiny_scene.folder is not None
    with pytest.raises(InputError, match="another scene is called tiny"):
        study([blocks_scene, tiny_scene.folder], tmp_path, StudyConfig(losses="posenet"), base)


def test_a_pair_takes_positions_and_rotations_of_its_parts(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    losses = "position~rotation,position,rotation"  # a pair may come first
    rows = (
        study([blocks_scene], tmp_path, StudyConfig(losses=losses, seeds=1, tune=1), base)
        .scenes["tiny"]
        .methods
    )
    pair = rows["position~rotation"]
    assert np.array_equal(pair.position, rows["position"].position)
    assert np.array_equal(pair.rotation_deg, rows["rotation"].rotation_deg)
    alone = StudyConfig(losses="position,position~rotation")
    with pytest.raises(InputError, match="list rotation by itself"):
        study([blocks_scene], tmp_path, alone, base)


def test_folds_have_map_points_of_their_own_training_images(
    blocks_scene: Path, tmp_path: Path
) -> None:
    own = load_scene(blocks_scene)
    assert own.points is not None
    for fold in folds_of(blocks_scene, "all"):
        bare = fold_scene(fold)
        assert (bare.points is not None) == (bare.splits == own.splits)
        made = with_points(fold, tmp_path)
        scene = fold_scene(made)
        assert scene.points is not None
        if bare.points is None:  # else they are those that the room was rendered with
            assert set(scene.points.image_index.tolist()) <= set(scene.indices("train").tolist())
        assert with_points(fold, tmp_path) == made
        depth, known = scene.depth_range(), own.depth_range()
        assert depth is not None
        assert known is not None
        torch.testing.assert_close(depth, known, rtol=0.3, atol=0.0)
