"""Loss surfaces: every loss and twin has one; errors compensate in terms, never in twins."""

import numpy as np
import pytest
import torch
from torch import nn

from relocal.losses import COUPLED, LOSSES
from relocal.report.study_pictures import surfaces_picture
from relocal.report.surfaces import DEPTH, SIDE, error_axes, every_surface, left_out


def test_surfaces_are_of_every_loss_and_twin() -> None:
    bases, terms = every_surface()
    assert [s.name for s in bases] == list(LOSSES)
    assert [s.name for s in terms] == [n for t in COUPLED for n in (t, f"twin:{t}")]
    for surface in (*bases, *terms):
        assert surface.value.shape == (SIDE, SIDE)
        assert np.isfinite(surface.value).all()
        assert surface.value.min() > -1e-9  # least at the label
        assert surface.value[SIDE // 2, SIDE // 2] == 0


def test_errors_compensate_in_terms_and_never_in_twins() -> None:
    shift, yaw = error_axes()
    value = {surface.name: surface.value for surface in every_surface()[1]}
    for name in ("sightline", "frustum", "points", "bearing"):
        for row in (5, SIDE - 6):
            valley = int(np.abs(shift + DEPTH * np.tan(np.deg2rad(yaw[row]))).argmin())
            assert value[name][row, valley] < 0.5 * value[f"twin:{name}"][row, valley]
            # Less than with the turn alone; in the twin any shift makes it worse.
            assert value[name][row, valley] < value[name][row, SIDE // 2]
            assert value[f"twin:{name}"][row, valley] > value[f"twin:{name}"][row, SIDE // 2]


def test_valley_is_marked_only_where_there_is_one() -> None:
    marked = {surface.name for part in every_surface() for surface in part if surface.valley}
    assert marked == {"sightline", "frustum", "points", "bearing"}


def test_loss_from_outside_has_a_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "mine", LOSSES["geodesic"])
    assert every_surface()[0][-1].name == "mine"


class Broken(nn.Module):
    def forward(self, prediction: object, target: object, progress: float) -> torch.Tensor:
        raise KeyError("mine")


class Needy(nn.Module):
    def __init__(self, *, weights: object) -> None:
        super().__init__()


class Mean(nn.Module):
    def forward(self, prediction: object, target: object, progress: float) -> torch.Tensor:
        return torch.zeros(())


@pytest.mark.parametrize("loss", [Broken, Needy, Mean])
def test_broken_loss_from_outside_is_left_out_and_named(
    loss: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "mine", loss)
    monkeypatch.setitem(COUPLED, "term", loss)
    surfaces = every_surface()
    assert left_out(surfaces) == ["mine", "term", "twin:term"]
    assert "Left out, since they cannot be asked alone: mine, term" in surfaces_picture().caption
