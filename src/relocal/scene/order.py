"""The order of recording: names with their numbers counted, 2 before 10."""

import re
from unicodedata import decimal

_NUMBER = re.compile(r"(\d+)")

Words = tuple[str | tuple[int, str], ...]


def natural_key(name: str) -> tuple[tuple[bool, Words, str], ...]:
    """What names of photos are sorted by, in every reader and in ``label``.

    Paths are compared part by part: the folders of a folder come before its photos, so that a
    recording stays in one piece. Numbers are compared by what they count, the rest letter by letter
    whatever its case. Parts that differ in zeros or in case alone come in the order of their
    characters, so no two names are equal.

    Args:
        name: A name, with ``/`` between its folders.
    """
    *folders, file = name.split("/")
    return *((False, _words(folder), folder) for folder in folders), (True, _words(file), file)


def _words(text: str) -> Words:
    """Words and numbers in turn, a word first."""
    pieces = enumerate(_NUMBER.split(text))
    return tuple(_count(piece) if i % 2 else piece.casefold() for i, piece in pieces)


def _count(digits: str) -> tuple[int, str]:
    """How many digits a number has and which: compared like the number, whatever its length."""
    plain = digits if digits.isascii() else "".join(str(decimal(digit)) for digit in digits)
    stripped = plain.lstrip("0")
    return len(stripped), stripped
