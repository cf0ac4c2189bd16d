"""GPS: how long a metre is in a labelled scene by its photos' places, and how sure that is."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from relocal.errors import InputError
from relocal.scene import Scene
from relocal.sfm.alignment import LEAST_FIT, Similarity, few_places, fitted, moved
from relocal.sfm.places import gps_place

UNCERTAIN, HOPELESS = 0.1, 0.5
"""Errors of the places as a share of how far they spread: from the first on the scale is told with
its uncertainty, from the second on it is none. GPS errors of one walk are alike, so that many
photos help less than their number says."""
HOPELESS_ERROR = 0.2
"""Relative standard error beyond which a scale is none."""
_GPS_ERROR_M = 5.0  # of a phone under open sky
_MEDIAN_NORM = {2: 1.1774, 3: 1.5382}  # of a standard normal vector, by its dimensions
_DRAWS = 200


@dataclass(frozen=True)
class ScaleFit:
    """A similarity from a labelled scene to metres, and how sure its scale is."""

    by: Similarity
    residual_m: Float[Tensor, " n"]
    """How far each place is from where the similarity puts its photo."""
    agreeing: int
    """How many places are near enough to have a say."""
    sigma_m: float
    """Standard deviation of the places per axis."""
    spread_m: float
    """How far the places are from their middle, root mean square, without what errors add."""

    @property
    def relative_error(self) -> float:
        """Standard error of the scale as a share of it, as if places erred independently.

        The scale is ``sum(q . R p) / sum(p . p)`` of centred positions p and places q (Umeyama
        1991), so that noise of the places moves it by ``sigma / sqrt(sum(q . q))``.
        """
        return self.sigma_m / (self.agreeing**0.5 * max(self.spread_m, 1e-12))

    @property
    def hopeless(self) -> bool:
        """Whether the places err too much to tell a scale."""
        share = self.sigma_m / max(self.spread_m, 1e-12)
        return share > HOPELESS or self.relative_error > HOPELESS_ERROR


def scaled_by_gps(scene: Scene) -> tuple[Scene, dict[str, Any]]:
    """Gives an upright scene metres by its photos' places.

    Where half of the places or more have an altitude these are fitted in three dimensions, and the
    others have no say; else all are fitted on the ground, about the scene's own up.

    Returns:
        The metric scene, east, north and up; the scene as it is where the places err too much for
        its size. And what is to be said of the fit.

    Raises:
        InputError: If fewer than three photos have a place, or all have the same.
    """
    import pycolmap

    found = {i: place for i in range(len(scene)) if (place := gps_place(scene.path(i)))}
    if len(found) < LEAST_FIT:
        raise InputError(few_places(len(found), f"{len(scene)} placed photos"))
    high = {i: place for i, place in found.items() if place.altitude is not None}
    level = len(high) < max(LEAST_FIT, len(found) / 2)
    used = found if level else high
    rows = np.array([(p.latitude, p.longitude, p.altitude or 0.0) for p in used.values()])
    if level:
        rows[:, 2] = 0.0  # a place on the ellipsoid: only east and north count
    origin = rows.mean(0)
    # East, north and up, in metres from the middle of the places.
    metres = torch.from_numpy(pycolmap.GPSTransform().ellipsoid_to_enu(rows, *origin.tolist()))
    target, index = metres - metres.mean(0), torch.tensor(list(used))
    fit = fit_places(scene.poses.position[index], target, level=level)
    about = {
        "by": "gps",
        "images": len(used),
        "images_without_altitude": len(found) - len(high),
        "level": level,
        "median_residual_m": float(fit.residual_m.median()),
        "sigma_m": fit.sigma_m,
        "spread_m": fit.spread_m,
        "relative_error": fit.relative_error,
        "hopeless": fit.hopeless,
        "origin_lat_lon_alt": origin.tolist() if not level else [*origin.tolist()[:2], None],
    }
    if fit.hopeless:
        return scene, about
    return replace(moved(scene, fit.by), unit="m"), about


def fit_places(
    centres: Float[Tensor, "n 3"], places: Float[Tensor, "n 3"], *, level: bool
) -> ScaleFit:
    """Fits camera centres to places in metres, without a say of places that are far off.

    Args:
        centres: In an upright world.
        places: East, north and up.
        level: Fit east and north alone, with a turn about up.

    Raises:
        InputError: If no scale makes them fit.
    """
    centres, places = centres.double(), places.double()
    axes = 2 if level else 3
    if level:
        by, kept = _level_fit(centres, places)
    else:
        by = fitted(centres, places, _GPS_ERROR_M, "--scale gps")
        kept = (by.points(centres) - places).norm(dim=1) <= _GPS_ERROR_M
        if int(kept.sum()) > LEAST_FIT:  # of all that agree, not of the few that found them
            by = fitted(centres[kept], places[kept], None, "--scale gps")
    left = (by.points(centres) - places)[:, :axes].norm(dim=1)
    # Fitted numbers take up part of the noise; the median leaves outliers aside.
    count, free = axes * len(places), 4 if level else 7
    sigma = float(left.median()) / _MEDIAN_NORM[axes] * (count / max(count - free, 1)) ** 0.5
    agreed = places[kept, :axes]
    # Errors spread the places, too.
    spread = float((agreed - agreed.mean(0)).square().sum(1).mean()) - axes * sigma**2
    return ScaleFit(by, left, int(kept.sum()), sigma, max(spread, 0.0) ** 0.5)


def _level_fit(
    centres: Float[Tensor, "n 3"], places: Float[Tensor, "n 3"]
) -> tuple[Similarity, Bool[Tensor, " n"]]:
    """The similarity about the z axis: in the plane it is w = a z + b of complex numbers."""
    z, w = (torch.complex(p[:, 0], p[:, 1]).numpy() for p in (centres, places))
    draw = np.random.default_rng(0)
    best = np.zeros(len(z), dtype=bool)
    for _ in range(_DRAWS):
        pair = draw.choice(len(z), 2, replace=False)
        if z[pair[0]] == z[pair[1]]:
            continue
        kept = _left(z, w, *_line(z[pair], w[pair])) <= _GPS_ERROR_M
        best = kept if kept.sum() > best.sum() else best
    if best.sum() < LEAST_FIT or np.ptp(np.abs(w[best] - w[best].mean())) == 0:
        raise InputError("--scale gps: no scale, turn and shift make the images fit.")
    a, b = _line(z[best], w[best])
    cosine, sine = a.real / abs(a), a.imag / abs(a)
    turn = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)
    up = -float(abs(a)) * float(centres[:, 2].mean())
    shift = torch.tensor([b.real, b.imag, up], dtype=torch.float64)
    return Similarity(float(abs(a)), turn, shift), torch.from_numpy(best)


def _line(z: Complex[np.ndarray, " k"], w: Complex[np.ndarray, " k"]) -> tuple[complex, complex]:
    """A and b of w = a z + b, by least squares."""
    apart, there = z - z.mean(), w - w.mean()
    a = complex((apart.conj() * there).sum() / (abs(apart) ** 2).sum())
    return a, complex(w.mean() - a * z.mean())


def _left(z: Any, w: Any, a: complex, b: complex) -> Float[np.ndarray, " n"]:
    return np.abs(a * z + b - w)
