"""More photos for a scene that has its poses: they are placed among them, and these stay."""

import filecmp
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from relocal.errors import InputError
from relocal.images import exif_focal_px
from relocal.local_frame import LocalFrame
from relocal.pose import Pose
from relocal.scene import Scene, apply_split, load_scene
from relocal.scene.files import extend_scene, read_json, unfinished, write_json
from relocal.scene.scene import some
from relocal.sfm.accounts import added_account, passed_over
from relocal.sfm.database import Progress, copy_matches
from relocal.sfm.label_config import EXHAUSTIVE_UP_TO, LabelConfig
from relocal.sfm.labelling import (
    LABELS,
    Labelling,
    account,
    check_unchanged,
    doubts,
    labelling_folder,
    left_out,
    listed,
    with_account,
)
from relocal.sfm.mapping import (
    Mapped,
    Model,
    count_matches,
    first_camera,
    link_photos,
    match_photos,
    read_model,
)
from relocal.sfm.pairs import TriangulateConfig
from relocal.sfm.sources import Photo, gather, stamp_of
from relocal.sfm.triangulation import points_from_poses


def add_photos(
    sources: Sequence[Path | str],
    scene: Path | str,
    config: LabelConfig | None = None,
    *,
    split: str | None = None,
    fold: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Labelling:
    """Places more photos in a scene, labelled or imported; its poses and cameras stay as they are.

    Map points are made anew, from what the old photos and those that were placed see. Features and
    matches are kept in ``SCENE.label``, and taken from there where the scene was labelled there.

    Args:
        sources: Folders of photos and videos; photos that the scene has already are passed over.
        scene: The scene's folder.
        config: Every option; one mapper places the photos, whatever ``mapper`` says.
        split: A rule for all images, as ``relocal.scene.apply_split`` takes it; by default the new
            ones train and the others stay where they are.
        fold: Which block or sequence is test.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        The scene as it stands on disk.

    Raises:
        InputError: If no photo is new, one is another photo under a name that the scene has, none
            can be placed, or the disk is too full. The scene stays as it was then.
    """
    config = config or LabelConfig()
    if fold is not None and split is None:
        raise InputError("--fold: needs a --split that has folds.")
    load_scene(scene)  # refused before a folder is made beside it
    with labelling_folder(Path(scene)) as work:
        before, old = _as_it_was(Path(scene)), _old_account(Path(scene))
        found = gather([Path(source) for source in sources], work, config, progress)
        new = _new_photos(before, found.photos)
        if not new:
            raise InputError(
                f"SRC: {len(found.photos)} photos that can be read, and {scene} has all of them."
                f"{listed(found.left)}"
            )
        photos = [*_photos_of(before), *new]
        every = _with_new(before, photos, link_photos(photos, work), config.camera_model)
        if split is not None:
            apply_split(every, split, fold)  # what cannot be is said before the long work
        mapped = _place(before, every, photos, work, config, progress)
    model = mapped.models[0]
    placed = np.sort(model.photos[model.photos >= len(before)])
    reasons = left_out(photos, mapped)
    if not len(placed):
        why = [f"{photo.name} {reasons[photo.name]}" for photo in new]
        raise InputError(f"SRC: none of {len(new)} new photos could be placed: {some(why, 3)}.")
    made = _extended(before, every, model, placed)
    if split is not None:
        made = apply_split(made, split, fold)
    check_unchanged(new)
    left = {**old.get("left_out", {}), **found.left, **reasons}
    left = {name: why for name, why in left.items() if name not in made.images}
    about = account(made, photos, mapped, left, config, old.get("scale", {}))
    about["not_read"] = len(found.left)
    passed, counted = passed_over(found, before, old)
    about["passed_over"] = {**old.get("passed_over", {}), **passed}
    passed_now = sum(passed.values())
    about["frames_passed_over"] = old.get("frames_passed_over", 0) + passed_now - counted
    names = {photo.name for photo in new} | found.left.keys()
    account_now = added_account(
        before.account,
        old.get("left_out", {}),
        len(placed),
        {name: why for name, why in left.items() if name in names},
        passed_now,
        names,
        counted,
    )
    made = extend_scene(
        replace(made, provenance=with_account(made.provenance, about), account=account_now),
        {photos[i].name: photos[i].file for i in placed.tolist()},
    )
    write_json(Path(scene) / LABELS, about)
    return Labelling(made, about, doubts(about))


def _as_it_was(folder: Path) -> Scene:
    """The scene without the photos of a call that was killed while it wrote them."""
    scene = load_scene(folder)
    begun = set(unfinished(folder))
    rows = torch.tensor([i for i, name in enumerate(scene.images) if name not in begun])
    index = scene.camera_index[rows]
    return replace(
        scene,
        images=tuple(scene.images[i] for i in rows.tolist()),
        cameras=scene.cameras[: 1 + int(index.max())],
        camera_index=index,
        poses=scene.poses[rows],
        points=None,  # made anew
    )


def _old_account(folder: Path) -> dict[str, Any]:
    """What is known of the labels that stand, if relocal made them."""
    file = folder / LABELS
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{file}: is not what label writes; remove it.")
    return content


def _new_photos(scene: Scene, photos: Sequence[Photo]) -> list[Photo]:
    row = {name: i for i, name in enumerate(scene.images)}
    other = [
        photo.name
        for photo in photos
        if photo.name in row
        and not filecmp.cmp(photo.file, scene.path(row[photo.name]), shallow=False)
    ]
    if other:
        raise InputError(
            f"SRC: {len(other)} are other photos than those that the scene has under their names: "
            f"{some(other)}. Put them into a folder of another name."
        )
    return [photo for photo in photos if photo.name not in row]


def _photos_of(scene: Scene) -> list[Photo]:
    """The images that a scene has."""
    sizes = Counter(scene.sequence(i) for i in range(len(scene)))
    found: list[Photo] = []
    for i, name in enumerate(scene.images):
        file, camera = scene.path(i), scene.camera(i)
        video = sizes[scene.sequence(i)] > EXHAUSTIVE_UP_TO
        size = camera.width, camera.height
        found.append(Photo(name, file, size, exif_focal_px(file), video, file, stamp_of(file)))
    return found


def _with_new(scene: Scene, photos: Sequence[Photo], root: Path, model: str) -> Scene:
    """The scene with more photos, their poses still unknown.

    A new photo of a recording that the scene has was taken by its camera, if the recording has one
    for that size and EXIF focal length; the others have cameras of their own, one for a recording,
    size and EXIF focal length.
    """
    cameras, index = list(scene.cameras), scene.camera_index.tolist()
    taken: dict[Any, set[int]] = {}
    for photo, c in zip(photos, index, strict=False):
        taken.setdefault((photo.recording, photo.size, photo.focal_px), set()).add(c)
    own = {key: min(cs) for key, cs in taken.items() if len(cs) == 1}
    number: dict[Any, int] = {}
    for photo in photos[len(scene) :]:
        if (same := (photo.recording, photo.size, photo.focal_px)) in own:
            index.append(own[same])
            continue
        key = (photo.recording if photo.from_video else "", photo.size, photo.focal_px)
        if key not in number:
            number[key] = len(cameras)
            cameras.append(first_camera(model, photo.size, photo.focal_px))
        index.append(number[key])
    return replace(
        scene,
        image_root=root,
        images=tuple(photo.name for photo in photos),
        cameras=tuple(cameras),
        camera_index=torch.tensor(index),
        poses=_joined(scene.poses, Pose.identity(len(photos) - len(scene))),
        points=None,
    )


def _joined(one: Pose, other: Pose) -> Pose:
    return Pose(
        torch.cat([one.position, other.position.double()]),
        torch.cat([one.quaternion, other.quaternion.double()]),
    )


def _place(
    scene: Scene,
    every: Scene,
    photos: Sequence[Photo],
    work: Path,
    config: LabelConfig,
    progress: Progress,
) -> Mapped:
    """Map points of the scene's poses, and new photos placed among them.

    Args:
        scene: The scene as it was.
        every: The same with the new photos behind, their poses unknown.
        photos: All of them.
        work: Where features and matches are kept.
        config: Every option.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        What became of the photos.
    """
    import pycolmap

    pycolmap.logging.minloglevel = 3
    focal = {int(every.camera_index[i]) for i, p in enumerate(photos) if p.focal_px is not None}
    old = set(range(len(scene.cameras)))
    whole, database, pairs = match_photos(every, photos, old | focal, work, config, progress)
    with tempfile.TemporaryDirectory(dir=work, suffix=".partial") as temporary:
        own, known, made = (Path(temporary) / name for name in ("own.db", "known", "made"))
        known.mkdir()
        made.mkdir()
        matches = copy_matches(whole, database, pairs, own, old | focal)
        progress(0, len(photos) - len(scene), "triangulating")
        posed = replace(
            whole,
            images=whole.images[: len(scene)],
            camera_index=whole.camera_index[: len(scene)],
            poses=scene.poses,
        )
        frame = LocalFrame.about(scene.poses.position)
        points_from_poses(posed, frame, own, known, TriangulateConfig().error_px)
        options = pycolmap.IncrementalPipelineOptions()
        options.random_seed = 0
        options.multiple_models = False
        options.fix_existing_frames = True
        options.constant_cameras = {i + 1 for i in old}
        done = 0

        def placing() -> None:
            nonlocal done
            done += 1
            progress(done, len(photos) - len(scene), "placing photos")

        models = pycolmap.incremental_mapping(
            own,
            whole.image_root,
            Path(temporary) / "out",
            options,
            input_path=known,
            next_image_callback=placing,
        )
        models[0].write(made)
        model = _in_world(read_model(made), frame)
    return Mapped([model], *count_matches(database, matches, len(photos)))


def _in_world(model: Model, frame: LocalFrame) -> Model:
    scene, points = model.scene, model.scene.points
    if points is not None:
        points = replace(points, xyz=frame.world_points(torch.from_numpy(points.xyz)).numpy())
    poses = frame.world_poses(scene.poses)
    return replace(model, scene=replace(scene, poses=poses, points=points))


def _extended(scene: Scene, every: Scene, model: Model, placed: Int[np.ndarray, " n"]) -> Scene:
    """The scene with the new photos that were placed, and with the map points of all."""
    row = {int(photo): row for row, photo in enumerate(model.photos)}
    rows = torch.tensor([row[i] for i in placed.tolist()])
    theirs = every.camera_index[torch.from_numpy(placed)].tolist()
    fresh = {c: r for c, r in zip(theirs, rows.tolist(), strict=True) if c >= len(scene.cameras)}
    number = {c: len(scene.cameras) + k for k, c in enumerate(fresh)}
    names = tuple(every.images[i] for i in placed.tolist())
    points = model.scene.points
    if points is not None:
        place = np.full(len(every), -1)
        place[: len(scene)] = np.arange(len(scene))
        place[placed] = len(scene) + np.arange(len(placed))
        points = replace(points, image_index=place[model.photos[points.image_index]])
    # What was said of the old photos is not said of the new ones.
    about = {k: v for k, v in scene.provenance.items() if k not in ("points", "photos")}
    labels = f"{about.get('labels', 'not said')}; {len(names)} added by SfM"
    rule = f"{about.get('split', 'none')}, and {len(names)} more in train"
    return replace(
        scene,
        images=(*scene.images, *names),
        cameras=(*scene.cameras, *(model.scene.camera(r) for r in fresh.values())),
        camera_index=torch.cat(
            [scene.camera_index, torch.tensor([number.get(c, c) for c in theirs])]
        ),
        poses=_joined(scene.poses, model.scene.poses[rows].canonical()),
        points=points,
        splits={**scene.splits, "train": (*scene.splits.get("train", ()), *names)},
        provenance={**about, "labels": labels, "split": rule},
    )
