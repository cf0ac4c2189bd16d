"""Structure from Motion: map points for a scene whose poses are known.

COLMAP does the work, through pycolmap: SIFT features, matches between images that look at the same
things, and triangulation with the poses held fixed. Only training images take part, so nothing of
the test images reaches a model through the map.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Int
from torch import Tensor

from relocal.errors import InputError
from relocal.images import check_space
from relocal.pose import Pose
from relocal.scene import Points, Scene, load_scene
from relocal.scene.colmap import read_colmap, write_colmap
from relocal.scene.files import save_points

Progress = Callable[[int, int, str], None]

MIN_POINTS_SEEN, MIN_MATCHES_KEPT = 10, 0.05

_IMAGES_A_STEP, _PAIRS_A_STEP = 8, 400  # images a core
# A keypoint (24 bytes) and its descriptor, twice as many as asked for: one may have two directions.
_BYTES_A_FEATURE = 2 * (24 + 128)
_BYTES_A_MATCH = 2 * 8  # as found and as verified
_SPARE_BYTES = 32 * 2**20  # a database's log
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class TriangulateConfig:
    """How map points are made from known poses."""

    neighbours: int = 16
    """Images that each image is matched with: the nearest poses, and some farther ones."""
    turn_deg: float = 45.0
    """Images whose look directions differ by more are not matched."""
    features: int = 4096
    """Most SIFT features an image."""
    error_px: float = 2.0
    """Largest reprojection error of an observation that is kept."""

    def __post_init__(self) -> None:
        if self.neighbours < 2:
            raise InputError(f"--neighbours: must be at least 2, not {self.neighbours}.")
        if not 0 < self.turn_deg <= 180:
            raise InputError(f"--turn-deg: must be in (0, 180], not {self.turn_deg}.")
        if self.features < 100:
            raise InputError(f"--features: must be at least 100, not {self.features}.")
        if not 0 < self.error_px < float("inf"):
            raise InputError(f"--error-px: must be above 0, not {self.error_px}.")


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

    All cores work. An image of 640 x 480 pixels costs a core some 0.2 s, a pair some 0.05 s, and
    an image has ``neighbours`` / 2 pairs or more; the cache grows by up to 0.6 MB an image.

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
        raise InputError(f"{_place(scene)}: map points need 3 training images or more.")
    pairs = pose_pairs(scene.poses[train], config)
    if len(pairs) == 0:
        raise InputError(f"{_place(scene)}: no two training images look the same way; --turn-deg.")
    with _work_folder(scene, cache) as work:
        database = work / f"{_state(scene, config)}.db"
        whole = _numbered(scene, train, work / "images")
        part = _subset(whole, train)
        _begin(whole, database)
        _extract(part, database, config, progress)
        _match(part, database, pairs, config, progress)
        progress(0, 1, "triangulating")
        points, about = _triangulate(part, database, pairs, config)
        for stale in work.glob("*.db*"):  # of other photos, cameras or options
            if not stale.name.startswith(database.name):
                stale.unlink()
    _check_poses(_place(scene), about)
    points = replace(points, image_index=train.numpy()[points.image_index])
    provenance = {**scene.provenance, "points": {**about, **asdict(config)}}
    return replace(scene, points=points, provenance=provenance)


def _place(scene: Scene) -> Path | str:
    return scene.folder or scene.name


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@contextmanager
def _work_folder(scene: Scene, cache: Path) -> Generator[Path]:
    """The scene's own folder in a cache, while no other process uses it.

    Raises:
        InputError: If one does, or COLMAP fails meanwhile.
    """
    work = cache / f"sfm-{_digest([scene.name, scene.images])}"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / ".lock", timeout=0):
            yield work
    except Timeout as error:
        raise InputError(f"{_place(scene)}: another triangulate is at work here.") from error
    except RuntimeError as error:  # all that pycolmap raises
        raise InputError(
            f"{_place(scene)}: COLMAP failed ({error}); if it does so again, remove {work}."
        ) from error


def _state(scene: Scene, config: TriangulateConfig) -> str:
    """A digest of all that features and matches depend on; not the split, and not the poses."""
    stats = [scene.path(i).stat() for i in range(len(scene))]
    rows = [
        (stat.st_size, stat.st_mtime_ns, scene.camera(i).to_json()) for i, stat in enumerate(stats)
    ]
    return _digest([rows, config.features])


def _numbered(scene: Scene, index: Int[Tensor, " n"], folder: Path) -> Scene:
    """The scene under names that are numbers, with links to some of its images under these.

    COLMAP's lists split names at spaces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"{i:06d}{Path(name).suffix}" for i, name in enumerate(scene.images))
    for i in index.tolist():
        link, photo = folder / names[i], scene.path(i).resolve()
        if not (link.is_symlink() and link.readlink() == photo):  # or the scene was moved
            link.unlink(missing_ok=True)
            link.symlink_to(photo)
    return replace(scene, image_root=folder, images=names, splits={}, points=None)


def _subset(scene: Scene, index: Int[Tensor, " n"]) -> Scene:
    return replace(
        scene,
        images=tuple(scene.images[i] for i in index.tolist()),
        camera_index=scene.camera_index[index],
        poses=scene.poses[index],
    )


def _begin(scene: Scene, database: Path) -> None:
    """Writes cameras and images into a new database, which appears when it is whole."""
    import pycolmap

    if database.exists():
        return
    with tempfile.TemporaryDirectory(dir=database.parent) as temporary:
        write_colmap(scene, Path(temporary))
        model = pycolmap.Reconstruction(temporary)
        partial = Path(temporary) / database.name
        with pycolmap.Database.open(partial) as content:
            for camera in model.cameras.values():
                content.write_camera(camera, use_camera_id=True)
            for rig in model.rigs.values():
                content.write_rig(rig, use_rig_id=True)
            for frame in model.frames.values():
                content.write_frame(frame, use_frame_id=True)
            for image in model.images.values():
                content.write_image(image, use_image_id=True)
        partial.replace(database)


def _image_ids(scene: Scene) -> list[int]:
    """The ids of numbered images in the database of all."""
    return [int(Path(name).stem) + 1 for name in scene.images]


def _extract(scene: Scene, database: Path, config: TriangulateConfig, progress: Progress) -> None:
    import pycolmap

    with pycolmap.Database.open(database) as content:
        left = [
            name
            for name, i in zip(scene.images, _image_ids(scene), strict=True)
            if not (content.exists_keypoints(i) and content.exists_descriptors(i))
        ]
    options = pycolmap.FeatureExtractionOptions()
    options.sift.max_num_features = config.features
    step = _IMAGES_A_STEP * (os.cpu_count() or 1)
    for done in range(0, len(left), step):
        progress(len(scene) - len(left) + done, len(scene), "finding features")
        _check_space(database, (len(left) - done) * config.features * _BYTES_A_FEATURE)
        pycolmap.extract_features(
            database,
            scene.image_root,
            image_names=left[done : done + step],
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )


def _check_space(database: Path, needed: int) -> None:
    # COLMAP writes in threads of its own: a full disk ends the process there, without a word.
    check_space(database.parent, needed + _SPARE_BYTES)


def pose_pairs(poses: Pose, config: TriangulateConfig) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of images that should see the same things, nearest poses first.

    The distance of two poses is that of their centres, with one radian between their look
    directions weighing as much as the median distance of two cameras. Of the poses in reach each
    image takes half of its neighbours from the very nearest, and the others at growing steps,
    because neighbouring frames of a video hardly differ in position, and points need a baseline.

    Returns:
        Each pair once, the smaller index first.
    """
    position, look = poses.position.double(), poses.look_direction.double()
    count = len(poses)
    scale = float(torch.cdist(position[:_BLOCK], position).median())
    ranks = _ranks(config.neighbours)
    found: set[tuple[int, int]] = set()
    for start in range(0, count, _BLOCK):
        rows = slice(start, start + _BLOCK)
        angle = (look[rows] @ look.T).clamp(-1, 1).arccos()
        distance = torch.cdist(position[rows], position) + scale * angle
        distance[angle > torch.deg2rad(torch.tensor(config.turn_deg))] = torch.inf
        near, order = distance.sort(dim=1)
        for i, (values, others) in enumerate(zip(near, order, strict=True), start=start):
            reach = others[torch.isfinite(values)].tolist()
            reach.remove(i)
            found |= {(min(i, reach[r]), max(i, reach[r])) for r in ranks if r < len(reach)}
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


def _ranks(neighbours: int) -> list[int]:
    """Half of them 0, 1, 2, ...; then steps that grow by a fourth."""
    ranks, step = list(range(neighbours // 2)), 1.0
    while len(ranks) < neighbours:
        step *= 1.25
        ranks.append(ranks[-1] + max(1, round(step)))
    return ranks


def _match(
    scene: Scene,
    database: Path,
    pairs: Int[np.ndarray, "pairs 2"],
    config: TriangulateConfig,
    progress: Progress,
) -> None:
    import pycolmap

    ids = _image_ids(scene)
    with pycolmap.Database.open(database) as content:
        left = [
            f"{scene.images[a]} {scene.images[b]}\n"
            for a, b in pairs.tolist()
            if not content.exists_two_view_geometry(ids[a], ids[b])
        ]
    options = pycolmap.ImportedPairingOptions()
    options.match_list_path = database.with_name("pairs.txt")
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    for done in range(0, len(left), _PAIRS_A_STEP):
        progress(len(pairs) - len(left) + done, len(pairs), "matching")
        _check_space(database, (len(left) - done) * config.features * _BYTES_A_MATCH)
        options.match_list_path.write_text("".join(left[done : done + _PAIRS_A_STEP]), "utf-8")
        pycolmap.match_image_pairs(
            database,
            pairing_options=options,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )


def _triangulate(
    scene: Scene, database: Path, pairs: Int[np.ndarray, "pairs 2"], config: TriangulateConfig
) -> tuple[Points, dict[str, Any]]:
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = 0
    options.mapper.filter_max_reproj_error = config.error_px
    options.triangulation.complete_max_reproj_error = config.error_px
    options.triangulation.merge_max_reproj_error = config.error_px
    with tempfile.TemporaryDirectory(dir=database.parent) as temporary:
        known, made = Path(temporary) / "known", Path(temporary) / "made"
        known.mkdir()
        made.mkdir()
        write_colmap(scene, known)
        own = Path(temporary) / "own.db"
        _check_space(database, 2 * len(scene) * config.features * _BYTES_A_FEATURE // 4)
        matches = _copy(scene, database, pairs, own)
        model = pycolmap.triangulate_points(
            pycolmap.Reconstruction(known), own, scene.image_root, made, options=options
        )
        if not model.num_points3D():
            raise InputError(
                f"{_place(scene)}: no map point could be triangulated; are its poses and cameras "
                "right, and do its photos show texture?"
            )
        model.write(made)
        names, *_, points = read_colmap(made)
    assert points is not None  # read back from what was just written
    row = {name: i for i, name in enumerate(scene.images)}
    index = np.array([row[name] for name in names])[points.image_index]
    seen = np.bincount(index, minlength=len(scene))
    about = {
        "count": int(model.num_points3D()),
        "images": len(scene),
        "images_that_see_points": int((seen >= MIN_POINTS_SEEN).sum()),
        "matches_kept": round(_share_kept(model, matches), 4),
        "mean_track_length": round(float(model.compute_mean_track_length()), 3),
        "mean_reprojection_error_px": round(float(model.compute_mean_reprojection_error()), 4),
    }
    return replace(points, image_index=index), about


Matches = dict[tuple[int, int], Int[np.ndarray, "m 2"]]
"""Verified matches by pair of images: the rows of the keypoints in each."""


def _copy(scene: Scene, database: Path, pairs: Int[np.ndarray, "pairs 2"], own: Path) -> Matches:
    """Copies what some images and some of their pairs say into a database of their own.

    COLMAP triangulates with every match that it finds, and those of other images and pairs, from
    another split or another ``neighbours``, have no say here.
    """
    import pycolmap

    _begin(scene, own)
    ids, matches = _image_ids(scene), Matches()
    with pycolmap.Database.open(database) as every, pycolmap.Database.open(own) as mine:
        for i, image_id in enumerate(ids):
            mine.write_keypoints(i + 1, every.read_keypoints(image_id))
        for a, b in pairs.tolist():
            geometry = every.read_two_view_geometry(ids[a], ids[b])
            mine.write_two_view_geometry(a + 1, b + 1, geometry)
            matches[a, b] = geometry.inlier_matches
    return matches


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
    """Refuses points that few images see, or few matches agree with.

    Raises:
        InputError: If the poses can hardly be those of the photos.
    """
    seeing, images, kept = (about[k] for k in ("images_that_see_points", "images", "matches_kept"))
    if 2 * seeing < images or kept < MIN_MATCHES_KEPT:
        raise InputError(
            f"{place}: only {seeing} of {images} training images see {MIN_POINTS_SEEN} map points "
            f"or more, and {100 * kept:.1f} % of the verified matches fit the poses. The poses or "
            "cameras are probably wrong (inverted, in other axes, of other photos, another focal "
            "length)."
        )
