"""The one exception for input that cannot be used, and how near names are offered."""

import difflib
from collections.abc import Iterable

_SHOWN = 40


class InputError(Exception):
    """Input from outside (a file, an option, a value) that cannot be used.

    The message names the file or option, says what is wrong and what to do. The command line
    prints it without a traceback and exits with code 2. It is no ``ValueError``: those stand for
    mistakes of the program, and what reads options or files catches them for its own use.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Builds the error for a name that is in no table, offering the nearest right ones.

    Args:
        kind: What the name stands for, as the user writes it, such as ``--loss``.
        name: The name that was given.
        known: The names that exist.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return InputError(
        f"{kind}: there is no {name!r}. {hint}Known: {', '.join(known[:_SHOWN])}{more}."
    )
