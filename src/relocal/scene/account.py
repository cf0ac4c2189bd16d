"""Account: what became of everything that a source listed.

Nothing is left out in silence: what a source lists is read, or left aside for a reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from relocal.errors import InputError
from relocal.notices import NOTICES, Notice

NO_FILE, NO_POSE, LOST = "no file", "no pose", "a lost frame"
OTHER_MODEL = "another model"
NO_TRACK, UNSEEN = "no track", "no image that was read sees it"
EXAMPLES = 10
"""So many names are kept of those that were left aside for a reason."""


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
        if min(self.listed, self.read, *self.left.values()) < 0:
            raise InputError("account: counts are not negative.")
        if self.listed != self.read + sum(self.left.values()):
            raise InputError(
                f"account: {self.listed} listed, but {self.read} read and "
                f"{sum(self.left.values())} left aside."
            )

    @staticmethod
    def of(listed: int, read: int, left: Mapping[str, Sequence[str]]) -> "Tally":
        """A tally of names.

        Args:
            listed: How many the source lists, counted where they are listed.
            read: How many became part of the scene.
            left: The names of the others, by reason; reasons without names are passed over.
        """
        named = {reason: names for reason, names in left.items() if names}
        return Tally(
            listed=listed,
            read=read,
            left={reason: len(names) for reason, names in named.items()},
            examples={reason: tuple(names[:EXAMPLES]) for reason, names in named.items()},
        )

    def with_more(
        self, more: "Tally", again: Mapping[str, str], counted: Mapping[str, int]
    ) -> "Tally":
        """The tally once more things were listed.

        Args:
            more: What became of these.
            again: Those of them that had been left aside before, each with the reason of then.
            counted: How many more of them had been left aside before, without a name.
        """
        left = Counter({**self.left})
        before = Counter(again.values()) + Counter({**counted})
        gone = {why: min(count, left[why]) for why, count in before.items()}
        left.subtract(gone)
        left.update(more.left)
        kept = {
            reason: tuple(name for name in names if name not in again)
            for reason, names in self.examples.items()
        }
        names = {reason: kept.get(reason, ()) + more.examples.get(reason, ()) for reason in left}
        return Tally(
            listed=self.listed + more.listed - sum(gone.values()),
            read=self.read + more.read,
            left={reason: count for reason, count in left.items() if count},
            examples={k: v[:EXAMPLES] for k, v in names.items() if v and left[k]},
        )


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of everything that a source listed, and what is doubtful about it."""

    images: Tally
    points: Tally | None = None
    """Map points; None where the source has none, or others took their place."""
    notices: tuple[Notice, ...] = ()
    """What the user should know about the scene."""

    def with_notices(self, *notices: Notice) -> "Account":
        """The same account with more notices; those that it has stand there once."""
        return replace(self, notices=tuple(dict.fromkeys((*self.notices, *notices))))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {
            "images": _tally_to_json(self.images),
            "points": None if self.points is None else _tally_to_json(self.points),
            "notices": [notice.to_json() for notice in self.notices],
        }

    @staticmethod
    def from_json(value: Any) -> "Account":
        """What ``to_json`` gave.

        A notice of a code that this version does not know keeps its text.

        Raises:
            InputError: If it is something else.
        """
        match value:
            case {"images": images, "points": points, "notices": list(notices), **_rest}:
                return Account(
                    images=_tally_from_json(images),
                    points=None if points is None else _tally_from_json(points),
                    notices=tuple(_notice_from_json(notice) for notice in notices),
                )
            case _:
                raise InputError("account: has images, points and notices.")


def read_account(file: str, value: Any) -> Account | None:
    """The account in a scene's file; None in those that were made before accounts were kept.

    Raises:
        InputError: If it is damaged.
    """
    try:
        return None if value is None else Account.from_json(value)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _tally_to_json(tally: Tally) -> dict[str, Any]:
    return {
        "listed": tally.listed,
        "read": tally.read,
        "left": dict(tally.left),
        "examples": {reason: list(names) for reason, names in tally.examples.items()},
    }


def _tally_from_json(value: Any) -> Tally:
    match value:
        case {"listed": listed, "read": read, "left": dict(left), "examples": dict(examples)} if (
            all(type(count) is int for count in (listed, read, *left.values()))
            and all(map(_is_names, examples.values()))
            and examples.keys() <= left.keys()
        ):
            names = {reason: tuple(few) for reason, few in examples.items()}
            return Tally(listed=listed, read=read, left=left, examples=names)
        case _:
            raise InputError("account: a tally is counts of listed, read and left, with examples.")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _notice_from_json(value: Any) -> Notice:
    match value:
        case {"code": str(code), "text": str(text)}:
            return Notice(code if code in NOTICES else "other", text)
        case _:
            raise InputError("account: a notice is a code and a text.")
