"""Splits: rules that say which images train and which test.

A split is a rule, so that anyone can make it again; a file is only a rule's output.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from relocal.errors import InputError
from relocal.scene.files import read_json
from relocal.scene.scene import Scene, some

_BLOCKS = re.compile(r"blocks:(\d+)/(\d+)/(\d+)")
_LAST = re.compile(r"last:(\d+(?:\.\d+)?)%")
_BARE_LAST = re.compile(r"last:\d+(\.\d+)?")
_CUT_BLOCKS = re.compile(r"blocks:(\d+)(?:/(\d+))?/?")
OF_OWN_LISTS = ("validation-is-test", "lists-leave-out")
"""Codes of notices about what a source's own lists make train and test."""
FORMS = "official, sequence, blocks:40/5/5, last:25% or a JSON file with train and test lists"
LAST_GAP = 5
_SIZE, _EVERY, _GAP = 40, 5, 5
_BLOCKS_A_SEQUENCE = 1_000_000

Parts = tuple[list[str], list[str]]
Splits = dict[str, tuple[str, ...]]


def apply_split(scene: Scene, rule: str, fold: int | None = None) -> Scene:
    """Splits a scene by a rule.

    Args:
        scene: The scene; image names in the order of recording.
        rule: ``official`` (what the reader found), ``sequence`` (one recording is test),
            ``blocks:SIZE/EVERY/GAP``, ``last:25%``, or a JSON file with two lists of names.
        fold: Which block of ``EVERY`` or which sequence is test, from 0; by default the last.

    Returns:
        The scene with splits ``train`` and ``test``; the rule stands in its provenance.

    Raises:
        InputError: If the rule is not known or leaves no image for training or for testing; a
            file may have an empty list of test images.
    """
    if match := _BLOCKS.fullmatch(rule):
        size, every, gap = map(int, match.groups())
        fold = every - 1 if fold is None else fold
        splits = _per_sequence(
            scene, partial(block_split, size=size, every=every, gap=gap, fold=fold)
        )
    elif rule == "sequence":
        fold = len(_sequences(scene)) - 1 if fold is None else fold
        splits = sequence_split(scene, fold)
    elif fold is not None:
        raise InputError(f"--fold {fold}: --split {rule} has no folds; blocks and sequence have.")
    else:
        splits = _without_folds(scene, rule)
    # A list of test images may be empty; a rule that leaves none was meant otherwise.
    for part in ("train",) if Path(rule).is_file() else ("train", "test"):
        if not splits.get(part):
            raise InputError(f"--split {rule}: leaves no images for {part}{_remedy(scene, rule)}.")
    if rule != "official" and scene.account is not None:
        # What the source's own lists said is no longer so.
        kept = tuple(n for n in scene.account.notices if n.code not in OF_OWN_LISTS)
        scene = replace(scene, account=replace(scene.account, notices=kept))
    label = Path(rule).name if Path(rule).is_file() else rule
    return scene.with_splits(splits, label if fold is None else f"{label} fold {fold}")


def fitting_blocks(scene: Scene, every: int = _EVERY, gap: int = _GAP) -> str:
    """A rule of blocks that has at least two test blocks in the longest recording, where it can."""
    longest = _longest(scene)
    every = max(2, min(every, longest))
    size = max(1, min(_SIZE, longest // (2 * every)))
    return f"blocks:{size}/{every}/{min(gap, size // 4)}"


def _longest(scene: Scene) -> int:
    return max(len(names) for names in _sequences(scene).values())


def _remedy(scene: Scene, rule: str) -> str:
    """What to do when a rule leaves no images for a part."""
    if (match := _BLOCKS.fullmatch(rule)) is None:
        return f": take {fitting_blocks(scene)}" if _LAST.fullmatch(rule) else ""
    longest, size = _longest(scene), int(match[1])
    return (
        f": {longest} images are {-(-longest // size)} blocks of {size}. Take smaller blocks, "
        f"{fitting_blocks(scene, int(match[2]), int(match[3]))}, or another --fold"
    )


def _without_folds(scene: Scene, rule: str) -> Splits:
    if rule == "official":
        if not scene.splits:
            own = "sequence, " if len(_sequences(scene)) > 1 else ""
            raise InputError(
                "--split official: these files come without a split. Give a rule: "
                f"{own}{fitting_blocks(scene)}, last:25% or a JSON file with train and test lists."
            )
        return dict(scene.splits)
    if match := _LAST.fullmatch(rule):
        return _per_sequence(scene, partial(last_split, share=float(match[1]) / 100))
    if Path(rule).is_file():
        return _read_split_file(scene, Path(rule))
    raise InputError(f"--split {rule}: no such rule and no such file.{_meant(rule)} Use {FORMS}.")


def _meant(rule: str) -> str:
    """What is nearly a rule, made whole."""
    if _BARE_LAST.fullmatch(rule):
        return f" Did you mean {rule}%?"
    if match := _CUT_BLOCKS.fullmatch(rule):
        size, every = int(match[1]), match[2] or _EVERY
        return f" blocks needs three numbers: blocks:{size}/{every}/{min(_GAP, size // 4)}."
    return ""


def block_split(names: Sequence[str], size: int, every: int, gap: int, fold: int) -> Parts:
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


def last_split(names: Sequence[str], share: float) -> Parts:
    """The last share of a recording is test: extrapolation, since the camera moved on.

    The ``LAST_GAP`` images before it are left out, as at the border of a block.

    Raises:
        InputError: If the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"--split last:{100 * share:g}%: the share lies between 0 and 100 %.")
    cut = round(len(names) * (1 - share))
    return list(names[: max(0, cut - LAST_GAP)]), list(names[cut:])


def sequence_split(scene: Scene, fold: int) -> Splits:
    """One whole recording is test; the others train.

    Raises:
        InputError: If there is only one recording, or none of that number.
    """
    sequences = _sequences(scene)
    if len(sequences) < 2:
        raise InputError(
            f"--split sequence: there is only one sequence; use {fitting_blocks(scene)}."
        )
    if not 0 <= fold < len(sequences):
        raise InputError(
            f"--fold {fold}: there are {len(sequences)} sequences, 0 to {len(sequences) - 1}."
        )
    test = list(sequences.values())[fold]
    rest = set(scene.images) - set(test)
    return {"train": tuple(name for name in scene.images if name in rest), "test": tuple(test)}


def _sequences(scene: Scene) -> dict[str, list[str]]:
    """Image names of each recording, whether or not they stand together in the scene."""
    sequences: dict[str, list[str]] = {}
    for i, name in enumerate(scene.images):
        sequences.setdefault(scene.sequence(i), []).append(name)
    return sequences


def _per_sequence(scene: Scene, rule: Callable[[Sequence[str]], Parts]) -> Splits:
    """Applies a rule of one recording to each, so that no block spans two."""
    parts = [rule(names) for names in _sequences(scene).values()]
    return {
        "train": tuple(name for train, _ in parts for name in train),
        "test": tuple(name for _, test in parts for name in test),
    }


def _read_split_file(scene: Scene, path: Path) -> Splits:
    """Reads ``{"train": [...], "test": [...]}``; names may have another image suffix."""
    match read_json(path):
        case {"train": list(train), "test": list(test)}:
            lists = {"train": [*map(str, train)], "test": [*map(str, test)]}
        case _:
            raise InputError(f"--split {path}: this is not a JSON file with lists train and test.")
    names = {_stem(name): name for name in scene.images} | {name: name for name in scene.images}
    splits: Splits = {}
    for part, wanted in lists.items():
        found = [names.get(name) or names.get(_stem(name)) for name in wanted]
        strange = [name for name, there in zip(wanted, found, strict=True) if there is None]
        if strange:
            raise InputError(
                f"--split {path}: {len(strange)} images in {part} that the scene does not have: "
                f"{some(strange)}."
            )
        splits[part] = tuple(name for name in found if name is not None)
        if twice := [name for name, count in Counter(splits[part]).items() if count > 1]:
            raise InputError(f"--split {path}: images that {part} names twice: {some(twice)}.")
    if both := sorted(set(splits["train"]) & set(splits["test"])):
        raise InputError(
            f"--split {path}: {len(both)} images are in train and in test: {some(both)}."
        )
    return splits


def _stem(name: str) -> str:
    return re.sub(r"\.\w+$", "", name)


def block_numbers(scene: Scene, index: Int[Tensor, " n"]) -> Int[np.ndarray, " n"]:
    """The block that each image belongs to, ascending along each recording.

    Blocks are those of the split's rule; where it has none, stretches of 40 frames.
    """
    rule = _BLOCKS.search(str(scene.provenance.get("split", "")))
    size = int(rule[1]) if rule else _SIZE
    place: dict[str, int] = {}
    order: dict[str, int] = {}
    numbers = torch.zeros(len(scene), dtype=torch.long)
    for i in range(len(scene)):
        sequence = scene.sequence(i)
        order.setdefault(sequence, len(order))
        place[sequence] = place.get(sequence, -1) + 1
        numbers[i] = order[sequence] * _BLOCKS_A_SEQUENCE + place[sequence] // size
    return numbers[index].numpy()
