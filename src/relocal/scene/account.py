"""Account: what became of everything that a source listed.

Nothing is left out in silence: what a source lists is read, or left aside for a reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from relocal.errors import InputError
from relocal.notices import Notice


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many of a kind of thing were listed, and what became of them.

    Raises:
        InputError: If what was read and what was left aside is not all that was listed.
    """

    listed: int
    """How many the source lists."""
    read: int
    """How many became part of the scene."""
    left: Mapping[str, int] = field(default_factory=dict)
    """How many were left aside, by reason."""
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A few names of those left aside, by reason."""

    def __post_init__(self) -> None:
        if self.listed != self.read + sum(self.left.values()):
            raise InputError(
                f"account: {self.listed} listed, but {self.read} read and "
                f"{sum(self.left.values())} left aside."
            )


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of everything that a source listed, and what is doubtful about it."""

    images: Tally
    points: Tally | None = None
    """Map points; None where the source has none."""
    notices: tuple[Notice, ...] = ()
    """What the user should know about the scene."""

    def with_notices(self, *notices: Notice) -> "Account":
        """The same account with more notices."""
        return replace(self, notices=(*self.notices, *notices))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {
            "images": _tally_to_json(self.images),
            "points": None if self.points is None else _tally_to_json(self.points),
            "notices": [notice.to_json() for notice in self.notices],
        }


def _tally_to_json(tally: Tally) -> dict[str, Any]:
    return {
        "listed": tally.listed,
        "read": tally.read,
        "left": dict(tally.left),
        "examples": {reason: list(names) for reason, names in tally.examples.items()},
    }
