"""Notices: what a user should know about an answer or a scene, as data.

A notice has a code, by which a program can act, and a text for people.
"""

from dataclasses import dataclass
from typing import Any

from relocal.errors import InputError

NOTICES: dict[str, str] = {
    "distortion-doubtful": "A distortion that the camera does not have fits what the photo shows.",
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
