"""The photos that a source lists: where they are in its folder.

Lists come from other computers: with backslashes, with drives, with paths that begin at another
root. Such a photo is looked for in the folder by the end of its path; nothing outside is opened.
"""

import os
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from relocal.errors import InputError
from relocal.images import is_there
from relocal.notices import Notice
from relocal.scene.account import NO_FILE
from relocal.scene.scene import some

_MOST_PARTS = 32  # of a path that are looked at, from its end


@dataclass(frozen=True)
class Found:
    """Where listed photos are."""

    names: list[str | None]
    """For each, its path below the folder; None where it is not there."""
    notices: tuple[Notice, ...]
    """That some were named by paths of another computer."""


def find_photos(
    root: Path, listed: Sequence[str], where: str, suffixes: Sequence[str] = ("",)
) -> Found:
    """Looks for photos by the names that a file lists.

    A path of another computer (absolute, or with backslashes) is taken for the photo in the folder
    that the longest end of the path names.

    Args:
        root: The folder.
        listed: Names, relative to the folder or absolute.
        where: The file that lists them, for messages.
        suffixes: What a name may lack at its end; the first that is there counts.

    Raises:
        InputError: If a name leads out of the folder, or two would be one photo.
    """
    names: list[str | None] = []
    moved: list[int] = []
    for i, name in enumerate(listed):
        found = _as_listed(root, name, where, suffixes)
        if found is None and (found := _by_its_end(root, name, where, suffixes)) is not None:
            moved.append(i)
        names.append(found)
    gone = [name for name, found in zip(listed, names, strict=True) if found is None]
    if not moved and (outside := [name for name in gone if _leads_out(root, name)]):
        raise _outside(root, outside[0], where)
    count = Counter(names)
    for i in moved:
        if count[names[i]] > 1:
            twins = [listed[k] for k, name in enumerate(names) if name == names[i]]
            raise InputError(
                f"{where}: {twins[0]} and {twins[1]} would both be {names[i]}, which the end of "
                f"their paths names in {root}; give paths below that folder."
            )
    return Found(names, _told(len(listed), [names[i] or "" for i in moved]))


def has_photo(
    root: Path, listed: Sequence[str], where: str, suffixes: Sequence[str] = ("",)
) -> bool:
    """Whether a folder has one of the photos that ``find_photos`` would look for there."""
    return any(
        _as_listed(root, name, where, suffixes) or _by_its_end(root, name, where, suffixes)
        for name in listed
    )


def _as_listed(root: Path, name: str, where: str, suffixes: Sequence[str]) -> str | None:
    if _leads_out(root, name):
        if Path(name).is_absolute():
            return None
        raise _outside(root, name, where)
    relative = _relative(root, name)
    every = (relative + suffix for suffix in suffixes)
    return next((Path(n).as_posix() for n in every if is_there(root / n)), None)


def _by_its_end(root: Path, name: str, where: str, suffixes: Sequence[str]) -> str | None:
    path = PureWindowsPath(name)  # takes both kinds of slashes
    if not path.root and "\\" not in name:
        return None
    parts = PurePosixPath(posixpath.normpath("/".join(path.parts[bool(path.anchor) :]))).parts
    if not path.root and parts[:1] == ("..",):
        raise _outside(root, name, where)
    parts = tuple(part for part in parts if part != "..")[-_MOST_PARTS:]
    ends = [parts[k:] for k in range(len(parts))] if path.root else [parts]
    every = ("/".join(end) + suffix for end in ends for suffix in suffixes)
    return next((n for n in every if n and _is_file(root / n)), None)


def _relative(root: Path, name: str) -> str:
    root = root.absolute()
    return os.path.relpath(root / name, root)


def _leads_out(root: Path, name: str) -> bool:
    return Path(_relative(root, name)).parts[:1] == ("..",)


def _outside(root: Path, name: str, where: str) -> InputError:
    return InputError(f"{where}: {name} lies outside {root.absolute()}.")


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that no file can have
        return False


def _told(listed: int, moved: list[str]) -> tuple[Notice, ...]:
    if not moved:
        return ()
    text = (
        f"{len(moved)} of {listed} images are named by paths of another computer; they are taken "
        f"for the photos in the folder that the ends of these paths name ({some(moved, 2)})."
    )
    return (Notice("paths-elsewhere", text),)


def none_left(where: Path | str, listed: int, left: Mapping[str, Sequence[str]]) -> InputError:
    """What to say when no image can be read of all that a source lists."""
    if len(left.get(NO_FILE, ())) == listed:
        return InputError(f"{where}: none of its {listed} images exists: {some([*left[NO_FILE]])}.")
    why = [f"{len(names)} {why} ({some([*names], 3)})" for why, names in left.items() if names]
    return InputError(f"{where}: none of its {listed} images can be read: {', '.join(why)}.")
