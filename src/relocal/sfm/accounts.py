"""What became of the photos and frames that were to be labelled, as a scene's account."""

import re
from collections.abc import Mapping
from typing import Any

from relocal.scene import Scene
from relocal.scene.account import EXAMPLES, Account, Tally
from relocal.sfm.sources import Gathered

PASSED_OVER = "shows what its neighbours do"
_NUMBERS = re.compile(r"has \d+ (features: |matches at most(: |, which ))|, of \d+ photos$")


def label_account(placed: int, left: Mapping[str, str], listed: int, passed_over: int) -> Account:
    """The account of a labelled scene.

    Args:
        placed: How many photos and frames have a pose.
        left: Why others have none, by name.
        listed: How many there were, without the frames that were passed over.
        passed_over: Frames of recordings that show what their neighbours do.

    Raises:
        InputError: If the numbers contradict each other.
    """
    return Account(images=_tally(placed, left, listed, passed_over))


def added_account(
    before: Account | None,
    old: Mapping[str, str],
    placed: int,
    left: Mapping[str, str],
    passed_over: int,
    again: set[str],
    counted: int = 0,
) -> Account | None:
    """The account of a scene that photos were added to; None where it had none.

    Args:
        before: The account of the scene as it was.
        old: Why photos had been left out of it, by name.
        placed: How many new photos have a pose.
        left: Why the other new ones have none, by name.
        passed_over: Frames among them that show what their neighbours do.
        again: Names of all the new ones.
        counted: Frames of the same recordings that were passed over before, and counted then.
    """
    if before is None:
        return None
    more = _tally(placed, left, placed + len(left), passed_over)
    then = {name: _reason(name, why) for name, why in old.items() if name in again}
    return Account(
        images=before.images.with_more(more, then, {PASSED_OVER: counted}), notices=before.notices
    )


def passed_over(
    found: Gathered, scene: Scene, old: Mapping[str, Any]
) -> tuple[dict[str, int], int]:
    """How many frames of recordings are passed over, those that were added to a scene again once.

    Args:
        found: What is added.
        scene: The scene as it was.
        old: What its ``labels.json`` says, nothing where it was not labelled.

    Returns:
        By recording, the frames that are neither in the scene nor left out of it for a reason, and
        how many of these recordings were counted before.
    """
    known = {*scene.images, *old.get("left_out", {})}
    now = {
        recording: sum(name not in known for name in names)
        for recording, names in found.passed.items()
    }
    before = old.get("passed_over")
    if before is None and "frames_passed_over" in old:  # without a count for each recording
        had = {scene.sequence(i) for i in range(len(scene))}
        before = {recording: count for recording, count in now.items() if recording in had}
    return now, sum((before or {}).get(recording, 0) for recording in now)


def _tally(placed: int, left: Mapping[str, str], listed: int, passed_over: int) -> Tally:
    names: dict[str, list[str]] = {}
    for name, why in left.items():
        names.setdefault(_reason(name, why), []).append(name)
    counts = {reason: len(group) for reason, group in names.items()}
    return Tally(
        listed=listed + passed_over,
        read=placed,
        left={**counts, **({PASSED_OVER: passed_over} if passed_over else {})},
        examples={reason: tuple(group[:EXAMPLES]) for reason, group in names.items()},
    )


def _reason(name: str, why: str) -> str:
    """A reason without what it says of one photo alone: its file, and its counts."""
    place, colon, rest = why.partition(": ")
    if colon and place.endswith(name.rpartition("/")[2]):
        why = rest
    return _NUMBERS.sub("", why).removesuffix(".")
