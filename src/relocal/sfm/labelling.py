"""From photos and videos to a posed scene, and an account of how good its labels are."""

import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from relocal.datasets.pose_lines import read_label_file
from relocal.errors import InputError
from relocal.notices import Notice
from relocal.pose import Pose
from relocal.scene import Scene, apply_split, save_scene
from relocal.scene.files import check_new, is_scene, write_json
from relocal.scene.scene import some
from relocal.sfm.accounts import label_account
from relocal.sfm.alignment import (
    ASK,
    DOUBTFUL,
    DOUBTFUL_DEG,
    check_scale,
    moved,
    residuals_beyond,
    residuals_text,
    scaled,
    upright,
)
from relocal.sfm.database import Progress
from relocal.sfm.gps import UNCERTAIN, scaled_by_gps
from relocal.sfm.label_config import LOCK, WORK, LabelConfig
from relocal.sfm.mapping import LEAST_IMAGES, Mapped, Model, map_photos, unposed_scene
from relocal.sfm.sources import Photo, gather

LABELS = "label.json"
"""File of a scene with what is known of its labels."""
FEW_FEATURES, FEW_MATCHES = 100, 30
WEAK_SHARE, WEAK_ERROR_PX, WEAK_TRACK, WEAK_IMAGES, WEAK_POINTS = 0.8, 1.5, 3.0, 20, 50


@dataclass(frozen=True)
class Labelling:
    """A labelled scene, and what is known of its labels."""

    scene: Scene
    """As it stands on disk."""
    about: Mapping[str, Any]
    """What ``label.json`` holds: counts, errors, the photos that were left out with reasons."""
    warnings: tuple[Notice, ...]
    """Why the labels may be too weak to train on."""


def label(
    sources: Sequence[Path | str],
    out: Path | str,
    config: LabelConfig | None = None,
    *,
    scale: str | None = None,
    split: str | None = None,
    fold: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Labelling:
    """Finds where photos and frames of videos were taken, by Structure from Motion.

    Features, matches and models are kept in ``OUT.label`` beside the scene: a call that was stopped
    goes on where it stopped, and another with other options takes from it what is the same. It may
    be removed when the scene is made.

    Args:
        sources: Folders of photos and videos; each, and each folder in a folder, is a recording.
        out: The scene to make.
        config: Every option.
        scale: ``A,B=1.5`` (metres between the cameras of two images), ``gps`` (the photos' EXIF),
            or a file of known poses, lines ``name qw qx qy qz tx ty tz f``, ``cam_from_world``,
            whose frame the scene takes. Without it the unit is ``"unit"``.
        split: A rule as ``relocal.scene.apply_split`` takes it; by default all images train.
        fold: Which block or sequence is test.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        The scene in the largest connected part of the photos, z up and its origin in the middle.

    Raises:
        InputError: If nothing can be labelled, a photo changes meanwhile, or the disk is too full.
            No scene is made then.
    """
    out, config = Path(out), config or LabelConfig()
    check_new(out)
    if around := [folder for folder in out.resolve().parents if is_scene(folder)]:
        raise InputError(f"--out {out}: lies in the scene {around[0]}; give a folder outside it.")
    if fold is not None and split is None:
        raise InputError("--fold: needs a --split that has folds.")
    known = {} if scale is None else _known_poses(scale)
    with labelling_folder(out) as work:
        found = gather([Path(source) for source in sources], work, config, progress)
        photos, left = found.photos, dict(found.left)
        if len(photos) < LEAST_IMAGES:
            raise InputError(
                f"SRC: {len(photos)} photos that can be read; {LEAST_IMAGES} are needed, and "
                f"dozens for labels to train on.{listed(left)}"
            )
        # What cannot be is said before the long work.
        files = {photo.name: photo.file for photo in photos}
        poses = _by_image(files, known)
        how = "poses" if known else scale
        if how is not None:
            check_scale(how, files, poses)
        if split is not None:
            apply_split(unposed_scene(photos, config.camera_model, work)[0], split, fold)
        mapped = map_photos(photos, work, config, progress)
    if not mapped.models:
        raise InputError(_why_nothing(mapped))
    scene = _posed(photos, mapped.models[0], work, out.name)
    scene = moved(scene, upright(scene))
    fit: dict[str, Any] = {}
    if how is not None:
        scene, fit = scaled_by_gps(scene) if how == "gps" else scaled(scene, how, poses)
    about = account(scene, photos, mapped, left | left_out(photos, mapped), config, fit)
    about["not_read"] = len(left)
    about["frames_passed_over"] = passed_over = found.passed_over
    about["passed_over"] = {name: len(frames) for name, frames in found.passed.items()}
    scene = replace(
        scene,
        provenance=with_account(scene.provenance, about),
        account=label_account(len(scene), about["left_out"], about["photos"], passed_over),
    )
    if split is None:
        scene = scene.with_splits({"train": scene.images, "test": ()}, "none: all are training")
    else:
        scene = apply_split(scene, split, fold)
    check_unchanged(photos)
    scene = save_scene(
        scene,
        out,
        lambda done, total: progress(done, total, "saving images"),
        link=False,  # the photos are the user's, who may change them
    )
    write_json(out / LABELS, about)
    return Labelling(scene, about, doubts(about))


@contextmanager
def labelling_folder(scene: Path) -> Generator[Path]:
    """The folder of what is made on the way to a scene, while no other process uses it.

    Raises:
        InputError: If one does, or COLMAP fails meanwhile.
    """
    work = scene.resolve().with_name(scene.resolve().name + WORK)
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / LOCK, timeout=0):
            for partial in work.glob("*.partial"):  # of a killed process
                shutil.rmtree(partial)
            yield work
    except Timeout as error:
        raise InputError(f"{work}: another relocal label is at work here.") from error
    except InputError:
        if [file.name for file in work.iterdir()] == [LOCK]:
            shutil.rmtree(work)  # refused before anything was made
        raise
    except RuntimeError as error:  # all that pycolmap raises
        raise InputError(f"COLMAP failed ({error}); if it does so again, remove {work}.") from error


def _known_poses(scale: str) -> dict[str, Pose]:
    """Poses of a file, by image name without its suffix; none where ``scale`` is no file."""
    if scale == "gps" or "=" in scale:
        return {}
    rows = read_label_file(Path(scale), "--scale")
    if not rows:
        raise InputError(f"--scale {scale}: holds no pose.")
    values = torch.tensor(list(rows.values()), dtype=torch.float64)
    poses = Pose.from_colmap(values[:, :4], values[:, 4:7])
    return {name: poses[i] for i, name in enumerate(rows)}


def _by_image(names: Iterable[str], known: Mapping[str, Pose]) -> dict[str, Pose]:
    stems = {name: str(Path(name).with_suffix("")) for name in names}
    return {name: known[stem] for name, stem in stems.items() if stem in known}


def _posed(photos: Sequence[Photo], model: Model, work: Path, name: str) -> Scene:
    """The largest model as a scene of the photos under their own names, in their order."""
    import pycolmap

    order = model.photos.argsort()
    rows = model.photos[order]
    scene, points = model.scene, model.scene.points
    if points is not None:
        points = points.seen_by(order.tolist())  # numbered anew in that order
    index = torch.from_numpy(order)
    return Scene(
        name=name,
        unit="unit",
        image_root=work / "photos",
        images=tuple(photos[i].name for i in rows.tolist()),
        cameras=scene.cameras,
        camera_index=scene.camera_index[index],
        poses=scene.poses[index].canonical(),
        points=points,
        provenance={
            "reader": "label",
            "labels": f"SfM by {pycolmap.COLMAP_version}",
            "intrinsics": "fitted",
        },
    )


def _why_nothing(mapped: Mapped) -> str:
    """Why no two photos fit."""
    counts = int(np.median(mapped.features)), int(np.median(mapped.matches))
    if counts[0] < FEW_FEATURES:
        why = "they are blurred, or show too little texture"
    elif counts[1] < FEW_MATCHES:
        why = "they do not overlap"
    else:
        why = "they match, but seem taken from one place: without a step aside nothing has a depth"
    return (
        f"SRC: no photos could be placed: {why} (medians: {counts[0]} features a photo, "
        f"{counts[1]} matches with the photo that fits best)."
    )


def left_out(photos: Sequence[Photo], mapped: Mapped) -> dict[str, str]:
    """Why photos are not in the largest model, by name."""
    placed = set(mapped.models[0].photos.tolist())
    parts = {int(i): k for k, model in enumerate(mapped.models) for i in model.photos}
    reasons: dict[str, str] = {}
    for i, photo in enumerate(photos):
        if i in placed:
            continue
        features, matches = int(mapped.features[i]), int(mapped.matches[i])
        if i in parts:
            size = len(mapped.models[parts[i]].photos)
            reasons[photo.name] = f"belongs to another part, of {size} photos"
        elif features < FEW_FEATURES:
            reasons[photo.name] = f"has {features} features: blurred, or without texture"
        elif matches < FEW_MATCHES:
            reasons[photo.name] = f"has {matches} matches at most: overlaps too little"
        else:
            reasons[photo.name] = f"has {matches} matches at most, which fit no place"
    return reasons


def account(
    scene: Scene,
    photos: Sequence[Photo],
    mapped: Mapped,
    left: Mapping[str, str],
    config: LabelConfig,
    fit: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``label.json`` holds: counts, errors, cameras, scale, the photos left out, options."""
    points, model = scene.points, mapped.models[0]
    # COLMAP may place photos in a small model and then in the largest, too.
    others = [np.setdiff1d(other.photos, model.photos) for other in mapped.models[1:]]
    seen = (
        np.zeros(len(scene))
        if points is None
        else np.bincount(points.image_index, minlength=len(scene))
    )
    return {
        "photos": len(photos) + sum(name not in {p.name for p in photos} for name in left),
        "placed": len(scene),
        "other_parts": [len(other) for other in others if len(other)],
        "points": 0 if points is None else len(points.xyz),
        "mean_reprojection_error_px": round(model.error_px, 4),
        "mean_track_length": round(model.track, 3),
        "points_an_image": {"least": int(seen.min()), "median": float(np.median(seen))},
        "cameras": [camera.to_json() for camera in scene.cameras],
        "scale": dict(fit),
        "left_out": dict(left),
        **asdict(config),
    }


def with_account(provenance: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """A scene's provenance with what is known of its labels."""
    # A report shows a provenance whole; hundreds of names belong into label.json alone.
    short = {key: value for key, value in about.items() if key != "passed_over"}
    return {**provenance, "label": {**short, "left_out": len(about["left_out"])}}


def doubts(about: Mapping[str, Any]) -> tuple[Notice, ...]:
    """Why the labels may be too weak to train on."""
    found: list[tuple[str, str]] = []
    share = about["placed"] / about["photos"]
    if share < WEAK_SHARE:
        found.append(("few-placed", f"only {100 * share:.0f} % of the photos were placed."))
    if about["other_parts"]:
        sizes = some([str(size) for size in about["other_parts"]])
        text = (
            f"the photos fall into parts that do not connect; the others have {sizes} photos. Are "
            "they of another place, or is a passage missing?"
        )
        found.append(("parts-apart", text))
    if about["placed"] < WEAK_IMAGES:
        found.append(("few-photos", f"{about['placed']} photos are few to train on."))
    if about["mean_reprojection_error_px"] > WEAK_ERROR_PX:
        text = "the reprojection error is large: is the lens model right (--camera-model)?"
        found.append(("large-residuals", text))
    if about["mean_track_length"] < WEAK_TRACK:
        text = "points are seen by few photos each: take photos that overlap more."
        found.append(("short-tracks", text))
    if about["points_an_image"]["median"] < WEAK_POINTS:
        text = "photos see few map points: more light, more texture, less blur."
        found.append(("few-points", text))
    return (*(Notice(code, text) for code, text in found), *scale_doubts(about["scale"]))


def scale_doubts(fit: Mapping[str, Any]) -> list[Notice]:
    """What is doubtful about a scale that GPS or known poses gave."""
    if fit.get("by") == "poses" and "spread_m" in fit:
        if not residuals_beyond(fit, DOUBTFUL, DOUBTFUL_DEG):
            return []
        text = f"the poses of --scale fit those of the photos badly: {residuals_text(fit)}. {ASK}"
        return [Notice("scale-residuals", text)]
    if "sigma_m" not in fit or fit["sigma_m"] <= UNCERTAIN * fit["spread_m"]:
        return []
    errors = (
        f"GPS errs by {fit['sigma_m']:.2g} m where the photos spread over {fit['spread_m']:.2g} m"
    )
    if fit["hopeless"]:
        text = (
            f"{errors}: that tells no scale, so the scene has none; give the distance of two "
            "cameras (--scale A,B=1.5)."
        )
        return [Notice("scale-not-told", text)]
    text = (
        f"{errors}: the scale is uncertain by {100 * fit['relative_error']:.2g} % (standard error, "
        "if the errors of different photos have nothing in common; of one walk they have)."
    )
    return [Notice("scale-uncertain", text)]


def check_unchanged(photos: Sequence[Photo]) -> None:
    """Refuses photos whose files are others than those that were labelled.

    Raises:
        InputError: If a file changed or is gone.
    """
    changed = [photo.name for photo in photos if photo.source_stamp() != photo.stamp]
    if changed:
        raise InputError(
            f"SRC: {len(changed)} files changed while they were labelled: {some(changed)}; run it "
            "again when nothing writes there any more."
        )


def listed(left: Mapping[str, str]) -> str:
    """The end of a message that says why photos could not be read, if there are any."""
    said = [why if Path(name).name in why else f"{name} {why}" for name, why in left.items()]
    return f" Not read: {some(said, 3)}" if left else ""
