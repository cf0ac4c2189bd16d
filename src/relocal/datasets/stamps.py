"""Time stamps of two files: which pose is nearest to each image.

A file may give them in seconds, or in milli-, micro- or nanoseconds. Their size tells which where
they count from 1970; else they are taken as seconds, unless the two files fit otherwise alone: all
images have a pose then, or both last about as long where images or poses are a part of the other.
Stamps are read with all their digits: nanoseconds since 1970 have more than a float keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import product

import numpy as np
from jaxtyping import Bool, Int

from relocal.errors import InputError
from relocal.notices import Notice

MAX_APART_S = 0.02
"""An image whose pose is farther away in time has none, as in the benchmark's own tools."""
_US = 10**6  # of a second: what times are counted in
_UNITS = {"seconds": Decimal(_US), "milliseconds": Decimal(1000), "microseconds": Decimal(1)}
_UNITS["nanoseconds"] = Decimal("0.001")
# Stamps from 1970, of today, have 10, 13, 16 or 19 digits.
_LEAST = {"nanoseconds": Decimal(10) ** 17, "microseconds": Decimal(10) ** 14}
_LEAST["milliseconds"] = Decimal(10) ** 11
_MOST = Decimal(9 * 10**18)  # a larger number is no time in any unit; in 64 bits it has its place
_MOMENT_S = 10 * MAX_APART_S
_FITS, _FEW, _APART = 0.9, 0.5, 0.5  # shares of the images, of the images, of the fewer of both
_COMMON = 0.1  # share of the time of both; units are a thousand apart

Stamp = tuple[str, str]
"""Where a stamp stands, and its text."""


@dataclass(frozen=True)
class Matched:
    """Which pose each image has."""

    order: list[int]
    """The images in the order of their stamps."""
    rows: list[int | None]
    """For each image in that order the pose, None where none is near in time."""
    ranges: str
    """From when to when images and poses are, for people."""
    notices: tuple[Notice, ...]
    """What units were recognised, and whether most images have no pose."""


def match_stamps(
    images: Sequence[Stamp], poses: Sequence[Stamp], lost: Bool[np.ndarray, " P"]
) -> Matched:
    """Finds the pose nearest to each image.

    Args:
        images: Stamps of the images.
        poses: Stamps of the poses.
        lost: Poses that are none. An image that such a pose is nearest to has none, though its
            neighbour's is near; of two of one time the other counts.

    Raises:
        InputError: If a stamp is no number.
    """
    mine, theirs = [_File([_stamp(*stamp) for stamp in file]) for file in (images, poses)]
    chosen = mine.unit, theirs.unit
    if _share(mine.times(chosen[0]), theirs.times(chosen[1])) < _FEW:
        pairs = list(product(mine.possible(), theirs.possible()))
        for fits in (_fit, _fit_in_part):
            fitting = (pair for pair in pairs if fits(mine.times(pair[0]), theirs.times(pair[1])))
            if (found := next(fitting, None)) is not None:
                chosen = found
                break
    times, known = mine.times(chosen[0]), theirs.times(chosen[1])
    order = sorted(range(len(images)), key=lambda i: mine.stamps[i])
    rows = _nearest_rows(times[order], known, lost)
    ranges = f"Images are {_range(times)}, poses {_range(known)}."
    told = [
        Notice("stamps-scaled", f"{what}: its time stamps are taken as {unit}.")
        for what, unit in zip(("rgb.txt", "groundtruth.txt"), chosen, strict=True)
        if unit != "seconds"
    ]
    bare = sum(row is None for row in rows)
    if _FEW * len(rows) < bare < len(rows):
        text = f"{bare} of {len(rows)} images have no pose within {MAX_APART_S} s. {ranges}"
        told.append(Notice("clocks-apart", text))
    return Matched(order, rows, ranges, tuple(told))


class _File:
    """The stamps of a file."""

    def __init__(self, stamps: list[Decimal]) -> None:
        self.stamps = stamps
        self._largest = max(stamp.copy_abs() for stamp in stamps)
        #: The unit that their size tells.
        self.unit = next((u for u, least in _LEAST.items() if self._largest >= least), "seconds")

    def possible(self) -> tuple[str, ...]:
        """Units that they may be in, that of their size first, then from the largest on."""
        whole = all(stamp == stamp.to_integral_value() for stamp in self.stamps)
        held = [u for u, us in _UNITS.items() if whole and self._largest * us < _MOST]
        return (self.unit, *held)

    def times(self, unit: str) -> Int[np.ndarray, " n"]:
        """Microseconds."""
        return np.array([int(stamp * _UNITS[unit]) for stamp in self.stamps], dtype=np.int64)


def _stamp(where: str, word: str) -> Decimal:
    try:
        stamp = Decimal(word)
    except InvalidOperation:
        raise InputError(f"{where}: {word[:40]!r} is not a time stamp.") from None
    if not stamp.is_finite() or stamp.copy_abs() >= _MOST:
        raise InputError(f"{where}: {word[:40]} is not a finite time stamp.")
    return stamp


def _nearest(times: Int[np.ndarray, " n"], known: Int[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
    """The place in ``known``, ascending, that is nearest to each time; -1 where none is near."""
    if len(known) == 0:
        return np.full(len(times), -1)
    after = np.searchsorted(known, times).clip(0, len(known) - 1)
    before = np.maximum(after - 1, 0)
    first = np.abs(times - known[before]) <= np.abs(known[after] - times)
    best = np.where(first, before, after)
    near = np.abs(known[best] - times) <= MAX_APART_S * _US
    return np.where(near, best, -1)


def _nearest_rows(
    times: Int[np.ndarray, " n"], known: Int[np.ndarray, " m"], lost: Bool[np.ndarray, " m"]
) -> list[int | None]:
    """The pose nearest to each time, of two as near one that is not lost."""
    found, apart = np.full(len(times), -1), np.full(len(times), np.iinfo(np.int64).max)
    for kind in (~lost, lost):
        rows = np.flatnonzero(kind)
        rows = rows[np.argsort(known[rows], kind="stable")]
        near = _nearest(times, known[rows])
        if len(rows):
            distance = np.abs(known[rows[near]] - times)
            nearer = (near >= 0) & (distance < apart)
            found, apart = np.where(nearer, rows[near], found), np.where(nearer, distance, apart)
    return [None if row < 0 else row for row in found.tolist()]


def _share(times: Int[np.ndarray, " n"], known: Int[np.ndarray, " m"]) -> float:
    return float((_nearest(times, np.sort(known)) >= 0).mean())


def _fit(times: Int[np.ndarray, " n"], known: Int[np.ndarray, " m"]) -> bool:
    """Whether nearly all images have a pose, and not because all lies in one moment."""
    near = _nearest(times, np.sort(known))
    apart = len(np.unique(near[near >= 0])) >= _APART * min(len(times), len(known))
    lasting = int(np.ptp(times)) > _MOMENT_S * _US
    return float((near >= 0).mean()) >= _FITS and apart and lasting


def _fit_in_part(times: Int[np.ndarray, " n"], known: Int[np.ndarray, " m"]) -> bool:
    """Whether most images of the common time have a pose, or most of its poses an image.

    Tracking was lost for a while, or only key frames have a pose.
    """
    first, last = max(times.min(), known.min()), min(times.max(), known.max())
    whole = max(times.max(), known.max()) - min(times.min(), known.min())
    if last - first < max(_COMMON * whole, _MOMENT_S * _US):
        return False
    mine, theirs = (t[(t >= first) & (t <= last)] for t in (times, known))
    if not len(mine) or not len(theirs):
        return False
    near = _nearest(mine, np.sort(theirs))
    apart = len(np.unique(near[near >= 0])) >= _APART * min(len(mine), len(theirs))
    return apart and max(_share(mine, theirs), _share(theirs, mine)) >= _FEW


def _range(times: Int[np.ndarray, " n"]) -> str:
    first, last = (f"{Decimal(int(t)) / _US:.3f}" for t in (times.min(), times.max()))
    return f"from {first} to {last} s"
