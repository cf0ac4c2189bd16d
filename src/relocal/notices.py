"""Notices: what a user should know about an answer or a scene, as data.

A notice has a code, by which a program can act, and a text for people.
"""

from dataclasses import dataclass
from typing import Any

from relocal.errors import InputError

NOTICES: dict[str, str] = {
    "other": "A notice of another version of this program.",
    # What a reader found.
    "scene-already": "What was imported is a scene already.",
    "several-models": "The source holds several models of the place; one of them was taken.",
    "model-unread": "Another model beside the one that was taken cannot be read.",
    "photos-smaller": "The photos are smaller than their cameras, which were scaled to them.",
    "paths-elsewhere": "Photos are named by paths of another computer; the folder has them.",
    "validation-is-test": "The source's list of validation images is the test split.",
    "lists-leave-out": "Images that the source's own lists leave out of training and of test.",
    "stamps-scaled": "Time stamps are not in seconds; their unit was recognised.",
    "clocks-apart": "Few images have a pose near in time.",
    "camera-assumed": "No file says the camera of the photos; a usual one was assumed.",
}
"""Every code, with what it means in a line."""


@dataclass(frozen=True)
class Notice:
    """A warning with a code.

    Raises:
        InputError: If the code is no key of ``NOTICES``.
    """

    code: str
    """A key of ``NOTICES``."""
    text: str
    """What is the matter and what to do, for people."""

    def __post_init__(self) -> None:
        if self.code not in NOTICES:
            raise InputError(f"notice: there is no code {self.code!r}; add it to NOTICES.")

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {"code": self.code, "text": self.text}
