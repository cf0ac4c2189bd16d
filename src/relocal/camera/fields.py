"""Fields of a calibration: numbers under one of several names, or a message that names the file.

Names are alternatives, written ``"camera_matrix|K|k"``.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from relocal.errors import InputError


def mapping(value: Any) -> dict[str, Any]:
    """A mapping as it is; an empty one for what is none."""
    return dict(value) if isinstance(value, Mapping) else {}


def get(content: dict[str, Any], names: str, default: Any = None) -> Any:
    """The value under the first of several names that is there."""
    return next((content[name] for name in names.split("|") if name in content), default)


def fold(name: Any) -> str:
    """A key as it is compared: ``distCoeffs``, ``dist_coeffs`` and ``Dist-Coeffs`` are one."""
    return re.sub(r"[_\-\s]", "", str(name)).lower()


def renamed(content: dict[str, Any], aliases: dict[str, str], where: str) -> dict[str, Any]:
    """The values of a mapping under our names for its keys; keys of no known name stay aside.

    Args:
        content: What was read.
        aliases: For each of our names those it may have, written ``"K|camera_matrix"``.
        where: The file or option, for messages.

    Raises:
        InputError: If two keys of one meaning have different values.
    """
    found: dict[str, Any] = {}
    for name, others in aliases.items():
        known = {fold(other) for other in others.split("|")}
        keys = [key for key in content if fold(key) in known]
        if any(content[key] != content[keys[0]] for key in keys[1:]):
            raise InputError(f"{where}: {' and '.join(map(str, keys))} differ; keep one of them.")
        if keys:
            found[name] = content[keys[0]]
    return found


def number(
    content: dict[str, Any], names: str, where: str, default: int | float | None = None
) -> float:
    """A finite number.

    Raises:
        InputError: If it is none; ``where`` names the file.
    """
    value = get(content, names, default)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number beyond floats
        pass
    shown = repr(value)[:40]
    raise InputError(f"{where} has {names.split('|')[0]} = {shown}, which is not a finite number.")


def size(content: dict[str, Any], names: tuple[str, str], where: str) -> tuple[int, int]:
    """Width and height in pixels."""
    sides = [number(content, name, where) for name in names]
    if any(side < 1 or not side.is_integer() for side in sides):
        raise InputError(f"{where} has {sides[0]:g} x {sides[1]:g} pixels.")
    return int(sides[0]), int(sides[1])


def numbers(
    content: dict[str, Any], names: str, where: str, default: list[float] | None = None
) -> list[float]:
    """A list of numbers, or a matrix: rows of them, or a mapping with its data."""
    value = get(content, names, default)
    value = value.get("data") if isinstance(value, Mapping) else value
    if not isinstance(value, list):
        raise InputError(f"{where}: {names.split('|')[0]} must be a list of numbers.")
    flat = [v for row in value for v in (row if isinstance(row, list) else [row])]
    name = names.split("|")[0]
    return [number({name: v}, name, where) for v in flat]
