"""Contrasts: which methods are compared, and which comparisons were fixed beforehand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relocal.errors import InputError
from relocal.report.study_words import standing
from relocal.studies import StudyConfig, comparisons, study
from relocal.studies.contrasts import base_of, is_coupled, twin_of
from relocal.studies.methods import parse_method
from relocal.training import TrainConfig


def test_a_twin_has_every_term_decoupled() -> None:
    assert twin_of("posenet+frustum/form=squared") == "posenet+twin:frustum/form=squared"
    assert base_of("posenet+twin:frustum+points/beta=2/form=squared") == "posenet/beta=2"
    assert twin_of("posenet+twin:frustum+points") == "posenet+twin:frustum+twin:points"


@pytest.mark.parametrize(
    ("primary", "reason"),
    [
        ("posenet:defualt", "there is no 'defualt'. Did you mean default"),
        ("posenet+twin:frustm:default", "there is no 'posenet.twin:frustm'"),
        ("posenet", "write A:B"),
        ("posenet:posenet", "write A:B"),
    ],
)
def test_a_wrong_primary_contrast_is_refused_before_any_training(
    tiny_scene: Any, tmp_path: Path, primary: str, reason: str
) -> None:
    config = StudyConfig(losses="default,posenet,posenet+twin:frustum", primary=primary)
    with pytest.raises(InputError, match=reason) as caught:
        study([tiny_scene.folder], tmp_path / "out", config)
    assert len(str(caught.value)) < 300
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.parametrize(
    ("secondary", "reason"),
    [
        ("posenet:defualt", "--secondary posenet:defualt: there is no 'defualt'"),
        ("posenet:default,posenet", "--secondary posenet: write A:B"),
        ("posenet + frustum : default", "are compared already"),
        ("posenet:default, posenet:default", "are compared already"),
        ("posenet:posenet+frustum,posenet+frustum:posenet", "are compared already"),
        ("default:posenet", "default is the reference; write posenet:default"),
    ],
)
def test_wrong_secondary_contrasts_are_refused_before_any_training(
    tiny_scene: Any, tmp_path: Path, secondary: str, reason: str
) -> None:
    losses, primary = "default,posenet,posenet+frustum", "posenet+frustum:default"
    config = StudyConfig(losses=losses, primary=primary, secondary=secondary)
    with pytest.raises(InputError, match=reason):
        study([tiny_scene.folder], tmp_path / "out", config)
    assert not (tmp_path / "out" / "cells").exists()


def test_contrasts_are_noted_with_the_look(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    config = StudyConfig(losses="default,posenet,position", seeds=1, tune=1, final=True)
    config = replace(config, primary="posenet:default", secondary="position:default")
    (look,) = study([blocks_scene], tmp_path, config, base).looks
    assert (look["primary"], look["secondary"]) == ("posenet:default", "position:default")
    # What is named once they have been read was not fixed beforehand, and the report says so.
    late = replace(config, primary="position:default", secondary="posenet:default")
    found = study([blocks_scene], tmp_path, late, base)
    assert found.looks == (look,)
    assert {c.kind for c in comparisons(found)} == {"reference"}
    assert "primary contrast posenet:default, secondary position:default." in standing(found)
    assert standing(found).endswith(
        "Named only after that, and so among the rest: position against default, posenet against "
        "default."
    )


def test_without_a_record_of_the_looks_nothing_counts_as_fixed(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    config = StudyConfig(losses="default,posenet", seeds=1, tune=1, final=True)
    study([blocks_scene], tmp_path, config, base)
    (tmp_path / "looks.json").unlink()
    found = study([blocks_scene], tmp_path, replace(config, primary="posenet:default"), base)
    assert {c.kind for c in comparisons(found)} == {"reference"}
    assert "is not on record (looks.json)" in standing(found)


def test_a_pair_with_a_coupled_part_is_no_coupled_loss() -> None:
    assert is_coupled(parse_method("posenet+frustum"))
    assert not is_coupled(parse_method("posenet+twin:frustum"))
    assert not is_coupled(parse_method("posenet+frustum~rotation"))
