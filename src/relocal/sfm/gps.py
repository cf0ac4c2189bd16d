"""GPS: how long a metre is in a labelled scene by its photos' places, and how sure that is."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from relocal.errors import InputError
from relocal.scene import Scene
from relocal.sfm.alignment import LEAST_FIT, Similarity, check_spread, few_places, moved, umeyama
from relocal.sfm.places import gps_place

UNCERTAIN, HOPELESS = 0.1, 0.5
"""Errors of the places as a share of how far they spread: from the first on the scale is told with
its uncertainty, from the second on it is none. GPS errors of one walk are alike, so that many
photos help less than their number says."""
HOPELESS_ERROR = 0.2
"""Relative standard error beyond which a scale is none."""
_GPS_ERROR_M = 5.0  # of a phone under open sky: a place so near always has a say
_MEDIAN_NORM = {2: 1.1774, 3: 1.5382}  # of a standard normal vector, by its dimensions
_GATE = 4.0  # standard deviations; of 3D normal errors 1 in 900 is beyond
_DRAWS, _ROUNDS = 40, 20  # of 40 draws one is good in 98 of 100 where half of places are


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
    origin = _middle(rows)
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


def _middle(rows: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"]:
    """The mean latitude, longitude and altitude, also where longitude goes from 180 to -180."""
    around = (rows - rows[0] + 180) % 360 - 180  # from the first the shorter way around
    middle = rows.mean(0)
    middle[1] = (rows[0, 1] + around[:, 1].mean() + 180) % 360 - 180
    return middle


def fit_places(
    centres: Float[Tensor, "n 3"], places: Float[Tensor, "n 3"], *, level: bool
) -> ScaleFit:
    """Fits camera centres to places in metres, without a say of places that are far off.

    Args:
        centres: In an upright world.
        places: East, north and up.
        level: Fit east and north alone, with a turn about up.

    Raises:
        InputError: If no scale makes them fit, or they lie on a line.
    """
    centres, places = centres.double(), places.double()
    axes = 2 if level else 3
    if not level:
        for xyz in (centres, places):
            check_spread(xyz, "--scale gps")
    by = _start(centres, places, level)
    kept = torch.zeros(len(places), dtype=torch.bool)
    for _ in range(_ROUNDS):
        left = _left(by, centres, places, axes)
        # A gate in metres alone would drop honest places where GPS errs more than usual, and the
        # rest would then look better than they are.
        limit = max(_GATE * float(left.quantile(0.5)) / _MEDIAN_NORM[axes], _GPS_ERROR_M)
        if torch.equal(now := left <= limit, kept):
            break
        kept, by = now, _fit(centres[now], places[now], level)
    left = _left(by, centres, places, axes)
    # Fitted numbers take up part of the noise.
    count, free = axes * int(kept.sum()), 4 if level else 7
    sigma = float((left[kept].square().sum() / max(count - free, 1)).sqrt())
    agreed = places[kept, :axes]
    # Errors spread the places, too.
    spread = float((agreed - agreed.mean(0)).square().sum(1).mean()) - axes * sigma**2
    return ScaleFit(by, left, int(kept.sum()), sigma, max(spread, 0.0) ** 0.5)


def _start(centres: Float[Tensor, "n 3"], places: Float[Tensor, "n 3"], level: bool) -> Similarity:
    """Of the fits to few places that with the least median residual (Rousseeuw 1984)."""
    draw, axes = np.random.default_rng(0), 2 if level else 3
    found: list[tuple[float, Similarity]] = []
    for i in range(_DRAWS):
        rows = torch.from_numpy(draw.choice(len(centres), LEAST_FIT, replace=False))
        rows = rows if i else torch.arange(len(centres))  # all are as good as any
        if min(float(xyz[rows, :axes].std(0).max()) for xyz in (centres, places)) <= 0:
            continue
        by = _fit(centres[rows], places[rows], level)
        score = float(_left(by, centres, places, axes).quantile(0.5))
        if by.scale > 0 and np.isfinite(score):
            found.append((score, by))
    if not found:
        raise InputError("--scale gps: no scale, turn and shift make the images fit.")
    return min(found, key=lambda one: one[0])[1]


def _fit(centres: Float[Tensor, "n 3"], places: Float[Tensor, "n 3"], level: bool) -> Similarity:
    """The similarity of least squares; where only east and north count, about up.

    On the ground it is w = a z + b of complex numbers, east + i north.
    """
    if not level:
        return umeyama(centres, places)
    z, w = (torch.view_as_complex(xyz[:, :2].contiguous()) for xyz in (centres, places))
    apart, there = z - z.mean(), w - w.mean()
    a = complex((apart.conj() * there).sum() / apart.abs().square().sum())
    b = complex(w.mean() - a * z.mean())
    cosine, sine = a.real / abs(a), a.imag / abs(a)
    turn = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)
    up = -abs(a) * float(centres[:, 2].mean())
    return Similarity(abs(a), turn, torch.tensor([b.real, b.imag, up], dtype=torch.float64))


def _left(
    by: Similarity, centres: Float[Tensor, "n 3"], places: Float[Tensor, "n 3"], axes: int
) -> Float[Tensor, " n"]:
    return (by.points(centres) - places)[:, :axes].norm(dim=1)
