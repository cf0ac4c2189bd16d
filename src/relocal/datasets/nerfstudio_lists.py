"""The lists of training, validation and test images in nerfstudio's files."""

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relocal.errors import InputError
from relocal.notices import Notice
from relocal.scene.scene import some

PARTS = ("train", "val", "test")

Lists = Mapping[str, Sequence[str]]
"""Names by part, those that the file has."""


def lists_of(file: Path, content: Mapping[str, Any]) -> Lists:
    """The lists that a file has; empty ones say nothing.

    Raises:
        InputError: If one is no list.
    """
    lists = {part: content.get(f"{part}_filenames") for part in PARTS}
    lists = {part: names for part, names in lists.items() if names}
    for part, names in lists.items():
        if not isinstance(names, list):
            raise InputError(
                f"{file}: {part}_filenames is no list; train_filenames, val_filenames and "
                "test_filenames must be lists."
            )
    return {part: [str(name) for name in names] for part, names in lists.items()}


def split_of(
    lists: Lists,
    frames: Sequence[tuple[str, str | None]],
    photos: Mapping[str, str | None],
    where: str,
    called: str = "{}_filenames",
) -> tuple[dict[str, list[int]], tuple[Notice, ...]]:
    """The split that a file's lists make.

    Args:
        lists: Its lists, any of them.
        frames: The frames' names in the file, and where their photos are, None if nowhere.
        photos: The same for the names in the lists.
        where: The file.
        called: What it calls the list of a part.

    Returns:
        Frames by split, and what the user should know of it. Nothing where there are no lists.

    Raises:
        InputError: If a list names what is no frame or an image twice, or an image that trains
            stands in another list, too. Those of validation and test may be the same.
    """
    if not lists:
        return {}, ()
    parts = _numbered(lists, frames, photos, where, called)
    notices: list[Notice] = []
    test = parts.get("test")
    if test is None and "val" in parts:
        test = parts["val"]
        text = (
            f"{where}: lists {len(test)} validation images and no test images; these are the test "
            "split."
        )
        notices.append(Notice("validation-is-test", text))
    elif aside := set(parts.get("val", ())) - set(test or ()):
        text = (
            f"{where}: {len(aside)} images are its validation images, which are neither in train "
            "nor in test here."
        )
        notices.append(Notice("lists-leave-out", text))
    rest = sorted(set(range(len(frames))) - {i for members in parts.values() for i in members})
    train = parts.get("train")
    if rest:
        text = f"{where}: {len(rest)} images are in none of its lists; "
        text += "they train." if train is None else "they are neither in train nor in test."
        notices.append(Notice("lists-leave-out", text))
    return {"train": rest if train is None else train, "test": test or []}, tuple(notices)


def _numbered(
    lists: Lists,
    frames: Sequence[tuple[str, str | None]],
    photos: Mapping[str, str | None],
    where: str,
    called: str,
) -> dict[str, list[int]]:
    """The lists with the frames' numbers in place of names."""
    index = {_plain(listed): i for i, (listed, _) in enumerate(frames)}
    index |= {found: i for i, (_, found) in enumerate(frames) if found is not None}
    numbered: dict[str, list[int]] = {}
    for part, names in lists.items():
        own = [index.get(photos[name] or _plain(name)) for name in names]
        if strange := [name for name, i in zip(names, own, strict=True) if i is None]:
            raise InputError(
                f"{where}: {called.format(part)} has {len(strange)} images that are no frames: "
                f"{some(strange)}."
            )
        seen = dict.fromkeys(numbered.get("train", ()), "train")
        for name, i in zip(names, own, strict=True):
            if i in seen:
                raise InputError(
                    f"{where}: {name} stands in {called.format(seen[i])} and again in "
                    f"{called.format(part)}."
                )
            seen[i or 0] = part
        numbered[part] = [i for i in own if i is not None]
    return numbered


def _plain(name: str) -> str:
    """A name as other ways to write it come out, too."""
    return posixpath.normpath(name.replace("\\", "/"))
