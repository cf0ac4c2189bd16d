"""Folds and blocks: every block of a scene is tested once, and is the unit of what is concluded."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from relocal.errors import InputError
from relocal.scene import Scene, apply_split, load_scene
from relocal.scene.colmap import read_colmap, write_colmap
from relocal.sfm import TriangulateConfig, triangulated
from relocal.training.data import split_validation

_RULE = re.compile(r"(?P<rule>.+) fold (?P<fold>\d+)")
_BLOCKS = re.compile(r"blocks:(\d+)/(\d+)/\d+")

OWN = -1
"""The fold that the scene was imported with."""


@dataclass(frozen=True)
class Fold:
    """A scene's folder, and which of its splits is meant."""

    folder: Path
    number: int = OWN
    points: Path | None = None
    """COLMAP model with the map points of this fold's training images."""


def folds_of(folder: Path, wanted: str) -> list[Fold]:
    """The folds of a scene.

    Args:
        folder: The scene.
        wanted: ``own`` (as it was imported), ``all``, or numbers such as ``0,3``. A scene whose
            split has no folds, as recordings apart, has one.

    Raises:
        InputError: If there is no such fold.
    """
    scene = load_scene(folder)
    match = _RULE.fullmatch(str(scene.provenance.get("split", "")))
    if match is None and wanted not in ("own", "all"):
        raise InputError(
            f"--folds {wanted}: the split of {scene.name} has no folds; give own, or import it "
            "with --split blocks:40/5/5."
        )
    if match is None or wanted == "own":
        return [Fold(folder)]
    if blocks := _BLOCKS.fullmatch(match["rule"]):
        count = int(blocks[2])
    else:
        count = len({scene.sequence(i) for i in range(len(scene))})
    if wanted == "all":
        return [Fold(folder, i) for i in range(count)]
    words = [word.strip() for word in wanted.split(",")]
    if bad := [word for word in words if not (word.isdecimal() and int(word) < count)]:
        raise InputError(
            f"--folds {wanted}: {scene.name} has the folds 0 to {count - 1}, "
            f"not {bad[0] or 'nothing'}; or give own or all."
        )
    return [Fold(folder, n) for n in dict.fromkeys(map(int, words))]


@lru_cache(maxsize=8)
def fold_scene(fold: Fold) -> Scene:
    """The scene under the split of a fold.

    Its own map points come from the training images that it was imported with, some of which
    another fold tests: they stay out of other folds, which have points of their own or none.
    """
    own = load_scene(fold.folder)
    if fold.number == OWN:
        return own
    match = _RULE.fullmatch(str(own.provenance["split"]))
    assert match is not None  # folds_of made the fold from it
    scene = apply_split(own, match["rule"], fold.number)
    if fold.points is not None:
        return replace(scene, points=read_colmap(fold.points)[-1])
    return scene if scene.splits == own.splits else replace(scene, points=None)


def with_points(
    fold: Fold,
    work: Path,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> Fold:
    """The fold with map points of its own training images, where the scene has map points.

    Args:
        fold: The fold.
        work: Folder where points are kept.
        progress: Called with steps done, steps in all, and what is being done.
    """
    own, scene = load_scene(fold.folder), fold_scene(fold)
    if own.points is None or scene.points is not None:
        return fold
    # Of these training images and poses, whatever other scene of this name there was.
    train = scene.indices("train")
    names = [scene.images[i] for i in train.tolist()]
    about = json.dumps([names, scene.poses[train].matrix().tolist()]).encode()
    digest = hashlib.sha256(about).hexdigest()[:16]
    folder = work / "points" / f"{own.name}-fold-{fold.number}-{digest}"
    if not folder.is_dir():
        scene = triangulated(scene, TriangulateConfig(), own.cache_folder(), progress)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".partial") as partial:
            made = Path(partial) / "model"
            made.mkdir()
            write_colmap(scene, made)
            made.rename(folder)
    return replace(fold, points=folder)


def asked_images(scene: Scene, final: bool) -> Int[Tensor, " n"]:
    """The images that methods are asked about: validation blocks, or with ``final`` the test."""
    if final:
        return scene.indices("test")
    return split_validation(scene, scene.indices("train"), True)[1]


def training_images(scene: Scene, final: bool) -> Int[Tensor, " n"]:
    """The images that networks learn from, when those of ``asked_images`` are asked."""
    return split_validation(scene, scene.indices("train"), not final)[0]
