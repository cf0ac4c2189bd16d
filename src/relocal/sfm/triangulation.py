"""Map points from matches and known poses, and whether the poses can be right."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from relocal.errors import InputError
from relocal.local_frame import LocalFrame
from relocal.scene import Points, Scene, load_scene
from relocal.scene.colmap import read_colmap, write_colmap
from relocal.scene.files import save_points
from relocal.sfm.consistency import Rays, check_matches
from relocal.sfm.database import (
    Matches,
    Progress,
    begin_database,
    copy_matches,
    database_name,
    find_features,
    match_pairs,
    numbered,
    place_of,
    sweep,
    work_folder,
)
from relocal.sfm.pairs import TriangulateConfig, pose_pairs

MIN_POINTS_SEEN = 10
_CHECKED_PAIRS = 200


def triangulate(
    scene: Scene | Path | str,
    config: TriangulateConfig | None = None,
    *,
    replace_points: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Scene:
    """Gives a saved scene map points, from its training images and their poses.

    Args:
        scene: A saved scene with a ``train`` split, or its folder.
        config: Every option.
        replace_points: Throw away the map points that the scene has.
        cache: Where features and matches are kept; in the scene's cache if not given.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        The scene as it stands on disk; ``provenance["points"]`` says how many points there are and
        how good they are.

    Raises:
        InputError: If the scene has points already, or ``triangulated`` refuses it. Points that it
            has stay then.
    """
    scene = scene if isinstance(scene, Scene) else load_scene(scene)
    if scene.folder is None:
        raise InputError(f"{scene.name}: save the scene first; its map points are kept there.")
    if scene.points is not None and not replace_points:
        raise InputError(
            f"{scene.folder}: has {len(scene.points.xyz)} map points already; --replace makes new "
            "ones."
        )
    made = triangulated(
        scene, config or TriangulateConfig(), cache or scene.cache_folder(), progress
    )
    assert made.points is not None  # or it had been refused
    return save_points(scene, made.points, made.provenance)


def triangulated(
    scene: Scene,
    config: TriangulateConfig,
    cache: Path,
    progress: Progress = lambda done, total, text: None,
) -> Scene:
    """The scene with map points from its training images and their poses; it need not be saved.

    Features of an image and matches of a pair are kept in the cache for every split and every pose
    of the scene: a call makes those that it lacks, and an interrupted one goes on where it stopped.
    The points are made of what the training images and their pairs say alone, whatever else the
    cache holds.

    All cores work. An image of 640 x 480 pixels costs a core some 0.3 s; a pair whose images have
    500 features 0.01 s, and more with their product; an image has ``neighbours`` / 2 pairs or more.
    The cache grows by 0.15 MB for 1000 features.

    Args:
        scene: A scene with a ``train`` split.
        config: Every option.
        cache: The folder of the features and matches; several scenes may share one.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        The scene with points, and with what is known of them in ``provenance["points"]``.

    Raises:
        InputError: If there are too few training images, nothing matches, the poses contradict the
            matches, the disk is too full, or another process is at the same scene.
    """
    import pycolmap

    # Errors only: it tells of every image else, and warns of its own defaults at every step.
    pycolmap.logging.minloglevel = 2
    train = scene.indices("train")
    if len(train) < 3:
        raise InputError(f"{place_of(scene)}: map points need 3 training images or more.")
    pairs = pose_pairs(scene.poses[train], config)
    if len(pairs) == 0:
        raise InputError(
            f"{place_of(scene)}: no two training images look the same way; --turn-deg."
        )
    with work_folder(scene, cache) as work:
        database = work / database_name(scene, config.features)
        whole = numbered(scene, train, work)
        part = _subset(whole, train)
        begin_database(whole, database)
        find_features(part, database, config.features, progress)
        match_pairs(part, database, pairs, config.features, progress)
        progress(0, 1, "triangulating")
        points, about = _triangulate(part, database, pairs, config)
        sweep(work, database)
    _check_poses(place_of(scene), about)
    points = replace(points, image_index=train.numpy()[points.image_index])
    provenance = {**scene.provenance, "points": {**about, **asdict(config)}}
    return replace(scene, points=points, provenance=provenance)


def _subset(scene: Scene, index: Int[Tensor, " n"]) -> Scene:
    return replace(
        scene,
        images=tuple(scene.images[i] for i in index.tolist()),
        camera_index=scene.camera_index[index],
        poses=scene.poses[index],
    )


def _triangulate(
    scene: Scene, database: Path, pairs: Int[np.ndarray, "pairs 2"], config: TriangulateConfig
) -> tuple[Points, dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=database.parent) as temporary:
        own, made = Path(temporary) / "own.db", Path(temporary) / "made"
        made.mkdir()
        matches = copy_matches(scene, database, pairs, own)
        fit = check_matches(place_of(scene), scene.poses, _rays(scene, own, matches))
        frame = LocalFrame.about(scene.poses.position)
        model = points_from_poses(scene, frame, own, made, config.error_px)
        if not model.num_points3D():
            raise InputError(
                f"{place_of(scene)}: no map point could be triangulated; are its poses and cameras "
                "right, and do its photos show texture?"
            )
        names, *_, points = read_colmap(made)
    assert points is not None  # read back from what was just written
    xyz = frame.world_points(torch.from_numpy(points.xyz)).numpy()
    row = {name: i for i, name in enumerate(scene.images)}
    index = np.array([row[name] for name in names])[points.image_index]
    seen = np.bincount(index, minlength=len(scene))
    about = {
        "count": int(model.num_points3D()),
        "images": len(scene),
        "images_that_see_points": int((seen >= MIN_POINTS_SEEN).sum()),
        "matches_that_fit": None if fit is None else round(fit, 4),
        "matches_kept": round(_share_kept(model, matches), 4),
        "mean_track_length": round(float(model.compute_mean_track_length()), 3),
        "mean_reprojection_error_px": round(float(model.compute_mean_reprojection_error()), 4),
    }
    return replace(points, xyz=xyz, image_index=index), about


def _rays(scene: Scene, own: Path, matches: Matches) -> Iterator[tuple[int, int, Rays, Rays]]:
    """What some verified pairs of images both see, as directions in their cameras' frames."""
    import pycolmap

    step = max(1, len(matches) // _CHECKED_PAIRS)
    with pycolmap.Database.open(own) as content:
        for a, b in list(matches)[::step]:
            pixels = (
                torch.from_numpy(content.read_keypoints(i + 1)[matches[a, b][:, end], :2])
                for end, i in enumerate((a, b))
            )
            one, other = (
                scene.camera(i).unproject(x.double()) for i, x in zip((a, b), pixels, strict=True)
            )
            yield a, b, one, other


def points_from_poses(
    scene: Scene, frame: LocalFrame, own: Path, made: Path, error_px: float
) -> Any:
    """Writes a COLMAP model of numbered images, their poses as they are, and returns it.

    Args:
        scene: The images with their poses; the first of those in the database.
        frame: The frame of the model: COLMAP's tolerances are in units of length, and it loses
            digits far from an origin.
        own: The database with their matches.
        made: The folder to write into.
        error_px: Largest reprojection error of an observation that is kept.
    """
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = 0
    options.mapper.filter_max_reproj_error = error_px
    options.triangulation.complete_max_reproj_error = error_px
    options.triangulation.merge_max_reproj_error = error_px
    with tempfile.TemporaryDirectory(dir=own.parent) as known:
        write_colmap(replace(scene, poses=frame.poses(scene.poses)), Path(known))
        model = pycolmap.triangulate_points(
            pycolmap.Reconstruction(known), own, scene.image_root, made, options=options
        )
    model.write(made)
    return model


def _share_kept(model: Any, matches: Matches) -> float:
    """The share of verified matches whose two ends see the same map point."""
    points: dict[int, Int[np.ndarray, " k"]] = {}
    for image_id, image in model.images.items():
        points[image_id - 1] = np.full(image.num_points2D(), -1)
        seen = [point.point3D_id for point in image.get_observation_points2D()]
        points[image_id - 1][image.get_observation_point2D_idxs()] = seen
    kept = total = 0
    for (a, b), rows in matches.items():
        one, other = points[a][rows[:, 0]], points[b][rows[:, 1]]
        kept += int(((one == other) & (one >= 0)).sum())
        total += len(rows)
    return kept / max(total, 1)


def _check_poses(place: Path | str, about: Mapping[str, Any]) -> None:
    """Refuses points that few images see.

    Raises:
        InputError: If the poses can hardly be those of the photos.
    """
    seeing, images, kept = (about[k] for k in ("images_that_see_points", "images", "matches_kept"))
    if 2 * seeing < images:
        raise InputError(
            f"{place}: only {seeing} of {images} training images see {MIN_POINTS_SEEN} map points "
            f"or more, and {100 * kept:.1f} % of the verified matches see one. The poses or "
            "cameras are probably wrong (inverted, in other axes, of other photos, another focal "
            "length)."
        )
