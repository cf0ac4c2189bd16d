"""Structure from Motion: map points for a scene whose poses are known.

COLMAP does the work, through pycolmap: SIFT features, matches between images that look at the same
things, and triangulation with the poses held fixed. Only training images take part, so nothing of
the test images reaches a model through the map.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from relocal.errors import InputError
from relocal.pose import Pose
from relocal.scene import Points, Scene, load_scene
from relocal.scene.colmap import read_colmap, write_colmap
from relocal.scene.files import save_points

Progress = Callable[[int, int, str], None]

_IMAGES_A_STEP, _PAIRS_A_STEP = 16, 400
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
    progress: Progress = lambda done, total, text: None,
) -> Scene:
    """Gives a saved scene map points, from its training images and their poses.

    Features and matches are kept in the scene's cache while they are made: an interrupted run goes
    on where it stopped.

    Args:
        scene: A saved scene with a ``train`` split, or its folder.
        config: Every option.
        replace_points: Throw away the map points that the scene has.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        The scene as it stands on disk; ``provenance["points"]`` says how many points there are and
        how good they are.

    Raises:
        InputError: If the scene has points already, too few training images, or nothing matches.
    """
    import pycolmap

    # Errors only: it tells of every image else, and warns of its own defaults at every step.
    pycolmap.logging.minloglevel = 2
    config = config or TriangulateConfig()
    scene = scene if isinstance(scene, Scene) else load_scene(scene)
    if scene.folder is None:
        raise InputError(f"{scene.name}: save the scene first; its map points are kept there.")
    if scene.points is not None and not replace_points:
        raise InputError(
            f"{scene.folder}: has {len(scene.points.xyz)} map points already; --replace makes new "
            "ones."
        )
    train = scene.indices("train")
    if len(train) < 3:
        raise InputError(f"{scene.folder}: map points need 3 training images or more.")
    part = _subset(scene, train)
    work = scene.cache_folder() / f"sfm-{_key(part, config)}"
    part, database = _numbered(part, work / "images"), work / "database.db"
    _begin(part, database)
    _extract(part, database, config, progress)
    _match(part, database, pose_pairs(part.poses, config), work, progress)
    progress(0, 1, "triangulating")
    points, about = _triangulate(part, database, config)
    points = replace(points, image_index=train.numpy()[points.image_index])
    provenance = {**scene.provenance, "points": {**about, **asdict(config)}}
    return save_points(scene, points, provenance)


def _subset(scene: Scene, index: Int[Tensor, " n"]) -> Scene:
    return replace(
        scene,
        images=tuple(scene.images[i] for i in index.tolist()),
        camera_index=scene.camera_index[index],
        poses=scene.poses[index],
        points=None,
        splits={},
    )


def _key(scene: Scene, config: TriangulateConfig) -> str:
    """A digest of all that features and matches depend on."""
    stats = [scene.path(i).stat() for i in range(len(scene))]
    rows = [
        (name, stat.st_size, stat.st_mtime_ns, scene.camera(i).to_json())
        for i, (name, stat) in enumerate(zip(scene.images, stats, strict=True))
    ]
    poses = [scene.poses.position.tolist(), scene.poses.quaternion.tolist()]
    text = json.dumps([rows, poses, config.features])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _numbered(scene: Scene, folder: Path) -> Scene:
    """The same images under links named by their number: COLMAP's lists split names at spaces."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"{i:06d}{Path(name).suffix}" for i, name in enumerate(scene.images))
    for i, name in enumerate(names):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(scene.path(i).resolve())
    return replace(scene, image_root=folder, images=names)


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


def _extract(scene: Scene, database: Path, config: TriangulateConfig, progress: Progress) -> None:
    import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.sift.max_num_features = config.features
    # Images that have their features already are skipped by COLMAP, step by step.
    for done in range(0, len(scene), _IMAGES_A_STEP):
        progress(done, len(scene), "finding features")
        pycolmap.extract_features(
            database,
            scene.image_root,
            image_names=list(scene.images[done : done + _IMAGES_A_STEP]),
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )


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
    work: Path,
    progress: Progress,
) -> None:
    import pycolmap

    if len(pairs) == 0:
        raise InputError(f"{scene.folder}: no two training images look the same way; --turn-deg.")
    options = pycolmap.ImportedPairingOptions()
    options.match_list_path = work / "pairs.txt"
    for done in range(0, len(pairs), _PAIRS_A_STEP):
        progress(done, len(pairs), "matching")
        rows = pairs[done : done + _PAIRS_A_STEP]
        lines = [f"{scene.images[a]} {scene.images[b]}\n" for a, b in rows.tolist()]
        options.match_list_path.write_text("".join(lines), "utf-8")
        verification = pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = 0
        pycolmap.match_image_pairs(
            database,
            pairing_options=options,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )


def _triangulate(
    scene: Scene, database: Path, config: TriangulateConfig
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
        model = pycolmap.triangulate_points(
            pycolmap.Reconstruction(known), database, scene.image_root, made, options=options
        )
        if not model.num_points3D():
            raise InputError(
                f"{scene.folder}: no map point could be triangulated; are its poses and cameras "
                "right, and do its photos show texture?"
            )
        model.write(made)
        names, *_, points = read_colmap(made)
        about = {
            "count": int(model.num_points3D()),
            "images": len(scene),
            "mean_track_length": round(float(model.compute_mean_track_length()), 3),
            "mean_reprojection_error_px": round(float(model.compute_mean_reprojection_error()), 4),
        }
    assert points is not None  # read back from what was just written
    number = np.array([int(Path(name).stem) for name in names])
    return replace(points, image_index=number[points.image_index]), about
