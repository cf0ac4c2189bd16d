"""Readers: one a source of posed images, each ``read_<source>(path, ...) -> Scene``."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from relocal.datasets.cambridge import read_cambridge
from relocal.datasets.colmap import read_colmap_model
from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.datasets.published import read_published
from relocal.datasets.seven_scenes import read_seven_scenes
from relocal.datasets.synthetic import read_synthetic
from relocal.datasets.tum import read_tum
from relocal.errors import InputError, unknown
from relocal.scene import Scene, apply_split, save_scene
from relocal.scene.account import LOST, Account, Tally
from relocal.scene.doubts import scene_doubts
from relocal.scene.files import check_new
from relocal.scene.upright import Exif

Progress = Callable[[int, int, str], None]


def import_scene(
    reader: str,
    path: Path | str,
    out: Path | str,
    *,
    labels: Path | str | None = None,
    images: Path | str | None = None,
    split: str | None = None,
    fold: int | None = None,
    unit: str | None = None,
    exif: Exif | None = None,
    allow_missing: bool = False,
    progress: Progress = lambda done, total, text: None,
) -> Scene:
    """Reads posed images of any known source and saves them as a scene.

    Args:
        reader: A key of ``DATASETS``.
        path: What the reader reads.
        out: The scene's folder, to be made.
        labels: Poses from a file instead of the dataset's own, for readers that take it.
        images: Folder of the images, for readers that take it.
        split: A rule as ``relocal.scene.apply_split`` takes it. By default the dataset's own
            split; where there is none, all images are for training.
        fold: Which block or sequence is test.
        unit: ``"m"`` where the format does not say that its poses are metric.
        exif: Whether labels of photos that EXIF turns are of the ``stored`` or the ``upright``
            pixels, where the size of their camera does not tell.
        allow_missing: Takes a recording of which more than half the frames lost track.
        progress: Called with images done, images in all, and what is being done.

    Returns:
        The scene as it stands on disk; its ``account`` says what became of all that was listed.

    Raises:
        InputError: If the source cannot be read, or more than half of its frames lost track, or an
            option does not belong to it. Nothing is left behind then.
    """
    if reader not in DATASETS:
        raise unknown("READER", reader, DATASETS)
    read, out = DATASETS[reader], Path(out)
    check_new(out)
    folders = {"labels": labels, "images": images}
    paths = {key: None if value is None else Path(value) for key, value in folders.items()}
    scene = read(Path(path), **_options(reader, read, progress, exif, **paths, unit=unit))
    scene = _accounted(scene)
    if not allow_missing and scene.folder is None:  # a saved scene was asked when it was made
        _check_lost(path, scene)
    scene = _split(path, scene, split, fold)
    return save_scene(
        _doubted(scene), out, lambda done, total: progress(done, total, "checking images"), exif
    )


def _doubted(scene: Scene) -> Scene:
    """The scene with what can hardly be true of it in its account."""
    assert scene.account is not None  # every scene has one by now
    return replace(scene, account=scene.account.with_notices(*scene_doubts(scene)))


def _accounted(scene: Scene) -> Scene:
    """The scene with an account; a reader that keeps none accounts for what it returns."""
    if scene.account is not None:
        return scene
    points = None if scene.points is None else len(scene.points.xyz)
    return replace(
        scene,
        account=Account(
            images=Tally.of(len(scene), len(scene), {}),
            points=None if points is None else Tally.of(points, points, {}),
        ),
    )


def _check_lost(path: Path | str, scene: Scene) -> None:
    images = None if scene.account is None else scene.account.images
    lost = 0 if images is None else images.left.get(LOST, 0)
    if images is not None and lost > images.read:
        raise InputError(
            f"{path}: {lost} of {lost + images.read} images have no pose, their frames are lost "
            f"({', '.join(images.examples[LOST][:3])}, ...). If the rest is worth it, "
            "--allow-missing imports it."
        )


def _split(path: Path | str, scene: Scene, split: str | None, fold: int | None) -> Scene:
    """The scene under a rule, or as its source splits it; all train where neither says anything."""
    if split is not None:
        return apply_split(scene, split, fold)
    if fold is not None:
        raise InputError("--fold: needs a --split that has folds.")
    if scene.splits and "split" in scene.provenance:  # a scene's own, made by a rule
        return scene
    if scene.splits.get("train") and not scene.splits.get("test"):
        return scene.with_splits({**scene.splits, "test": ()}, "official, without test images")
    if scene.splits:
        if not scene.splits.get("train"):
            raise InputError(
                f"{path}: its own lists leave no images for train; give a rule with --split."
            )
        return apply_split(scene, "official")
    return scene.with_splits({"train": scene.images, "test": ()}, "none: all are training")


def _options(
    reader: str,
    read: Callable[..., Scene],
    progress: Progress,
    exif: Exif | None,
    **options: Any,
) -> dict[str, Any]:
    """The options that were given, if the reader takes them."""
    taken = inspect.signature(read).parameters
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in taken:
            raise InputError(f"--{key}: the reader {reader} takes no such option.")
    if "exif" in taken:  # saving asks for it whatever the reader
        given["exif"] = exif
    if "progress" in taken:

        def rendering(done: int, total: int) -> None:
            progress(done, total, "rendering")

        given["progress"] = rendering
    return given


DATASETS: dict[str, Callable[..., Scene]] = {
    "7scenes": read_seven_scenes,
    "cambridge": read_cambridge,
    "colmap": read_colmap_model,
    "nerfstudio": read_nerfstudio,
    "published": read_published,
    "synthetic": read_synthetic,
    "tum": read_tum,
}
