"""What others add to the tables: their files and modules, imported before the names are read."""

import importlib
import runpy
from collections.abc import Iterable

from relocal.errors import InputError

_IMPORTED: set[str] = set()


def import_modules(modules: Iterable[str]) -> None:
    """Runs files, or imports modules, that add losses and the like to the tables; each once.

    Raises:
        InputError: If one cannot be found.
    """
    for name in modules:
        if name in _IMPORTED:
            continue
        _IMPORTED.add(name)
        try:
            if name.endswith(".py"):
                runpy.run_path(name)
            else:
                importlib.import_module(name)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            raise InputError(f"--import {name}: {error}.") from error
