"""Splits: rules that say which images train and which test.

A split is a rule, so that anyone can make it again; a file is only a rule's output.
"""

import json
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from relocal.errors import InputError
from relocal.scene.scene import Scene, some

_BLOCKS = re.compile(r"blocks:(\d+)/(\d+)/(\d+)")
_LAST = re.compile(r"last:(\d+(?:\.\d+)?)%")
FORMS = "official, sequence, blocks:40/5/5, last:25% or a JSON file with train and test lists"

Splits = dict[str, tuple[str, ...]]


def apply_split(scene: Scene, rule: str, fold: int | None = None) -> Scene:
    """Splits a scene by a rule.

    Args:
        scene: The scene; image names in the order of recording.
        rule: ``official`` (what the reader found), ``sequence`` (one recording is test),
            ``blocks:SIZE/EVERY/GAP``, ``last:25%``, or a JSON file with two lists of names.
        fold: Which block of ``EVERY`` or which sequence is test, from 0; by default the last.

    Raises:
        InputError: If the rule is not known or leaves no image for training or for testing.
    """
    if rule == "official":
        splits = dict(scene.splits)
        if not splits:
            raise InputError(
                "--split official: these files come without a split. Give a rule: "
                f"{FORMS.removeprefix('official, ')}."
            )
        return scene.with_splits(splits, rule)
    if match := _BLOCKS.fullmatch(rule):
        size, every, gap = map(int, match.groups())
        fold = every - 1 if fold is None else fold
        splits = _per_sequence(scene, lambda names: block_split(names, size, every, gap, fold))
    elif match := _LAST.fullmatch(rule):
        share = float(match[1]) / 100
        splits = _per_sequence(scene, lambda names: last_split(names, share))
    elif rule == "sequence":
        splits = sequence_split(scene, fold)
    elif Path(rule).is_file():
        splits = _read_split_file(scene, Path(rule))
    else:
        raise InputError(f"--split {rule}: no such rule and no such file. Use {FORMS}.")
    for part in ("train", "test"):
        if not splits.get(part):
            raise InputError(f"--split {rule}: leaves no images for {part}.")
    suffix = "" if fold is None else f" fold {fold}"
    return scene.with_splits(splits, (Path(rule).name if Path(rule).is_file() else rule) + suffix)


def block_split(
    names: Sequence[str], size: int, every: int, gap: int, fold: int
) -> tuple[list[str], list[str]]:
    """Cuts a recording into blocks, every ``every``-th of which is test.

    Args:
        names: Image names in the order of recording.
        size: Images in a block.
        every: Of so many consecutive blocks one is test.
        gap: Images left out of training on each side of a test block, since neighbouring frames
            of a video are nearly the same picture.
        fold: Which one is test, from 0 to ``every`` - 1.

    Returns:
        Names for training and names for testing.

    Raises:
        InputError: If the numbers make no sense.
    """
    if size < 1 or every < 2:
        raise InputError("--split blocks: a block needs an image, and two or more blocks a turn.")
    if not 0 <= fold < every:
        raise InputError(f"--fold {fold}: with one block of {every}, folds are 0 to {every - 1}.")
    is_test = [(i // size) % every == fold for i in range(len(names))]
    train = [
        name for i, name in enumerate(names) if not any(is_test[max(0, i - gap) : i + gap + 1])
    ]
    return train, [name for name, test in zip(names, is_test, strict=True) if test]


def last_split(names: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """The last share of a recording is test: extrapolation, since the camera moved on."""
    cut = round(len(names) * (1 - share))
    return list(names[:cut]), list(names[cut:])


def sequence_split(scene: Scene, fold: int | None) -> Splits:
    """One whole recording is test, by default the last; the others train."""
    sequences = list(dict.fromkeys(scene.sequence(i) for i in range(len(scene))))
    if len(sequences) < 2:
        raise InputError("--split sequence: there is only one sequence; use blocks:40/5/5.")
    fold = len(sequences) - 1 if fold is None else fold
    if not 0 <= fold < len(sequences):
        raise InputError(
            f"--fold {fold}: there are {len(sequences)} sequences, 0 to {len(sequences) - 1}."
        )
    test = [scene.sequence(i) == sequences[fold] for i in range(len(scene))]
    return {
        "train": tuple(n for n, t in zip(scene.images, test, strict=True) if not t),
        "test": tuple(n for n, t in zip(scene.images, test, strict=True) if t),
    }


def _per_sequence(scene: Scene, rule) -> Splits:  # type: ignore[no-untyped-def]
    """Applies a rule of one recording to each, so that no block spans two."""
    train: list[str] = []
    test: list[str] = []
    for _, group in groupby(range(len(scene)), key=scene.sequence):
        part = rule([scene.images[i] for i in group])
        train += part[0]
        test += part[1]
    return {"train": tuple(train), "test": tuple(test)}


def _read_split_file(scene: Scene, path: Path) -> Splits:
    """Reads ``{"train": [...], "test": [...]}``; names may have another image suffix."""
    try:
        content = json.loads(path.read_text())
        lists = {part: [str(name) for name in content[part]] for part in ("train", "test")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--split {path}: this is not a JSON file with lists train and test ({error!r})."
        ) from error
    by_stem = {str(Path(name).with_suffix("")): name for name in scene.images}
    splits: Splits = {}
    for part, names in lists.items():
        strange = [name for name in names if str(Path(name).with_suffix("")) not in by_stem]
        if strange:
            raise InputError(
                f"--split {path}: {len(strange)} images in {part} that the scene does not have: "
                f"{some(strange)}."
            )
        splits[part] = tuple(by_stem[str(Path(name).with_suffix(""))] for name in names)
    return splits
