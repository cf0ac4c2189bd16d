"""What a published scene does not say: where things lay on the computer that made it."""

import re
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from relocal.notices import NOTICES

_INSIDE = re.compile(r"""(?:^|[\s"'(=,;:])(?:/[^\s/]|~/|\.\.[/\\]|[A-Za-z]:[/\\]|\\\\\w)""")
"""How a path of a computer begins in a text."""


def without_local_paths(value: Any) -> Any:
    """JSON whose texts name nothing outside the dataset.

    A notice that names a path keeps its code, with the meaning of that in a line. Of other texts
    that are paths their last part stays; those that hold one among words say that it was taken out.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), str) and value.get("code") in NOTICES:
            local = _INSIDE.search(value["text"]) is not None
            return {**value, "text": NOTICES[value["code"]]} if local else value
        return {key: without_local_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_local_paths(one) for one in value]
    if not isinstance(value, str) or _INSIDE.search(value) is None:
        return value
    return PureWindowsPath(value).name if _INSIDE.match(value) else "not published"
