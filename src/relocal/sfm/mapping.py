"""Poses from photos alone: features, pairs of photos, matches, and COLMAP's mapping.

Every stage keeps what it made in a work folder and goes on with it; what was made of other photos
or with other options stands under another name.
"""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.backbones import BackboneConfig, build_backbone, describe
from relocal.camera import CAMERA_MODELS, Camera
from relocal.errors import InputError
from relocal.images import decode, resize
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.colmap import read_colmap
from relocal.sfm.database import (
    Matches,
    Progress,
    begin_database,
    copy_matches,
    database_name,
    digest,
    find_features,
    image_keys,
    match_pairs,
    numbered,
)
from relocal.sfm.label_config import EXHAUSTIVE_UP_TO, LabelConfig
from relocal.sfm.sources import Photo

LEAST_IMAGES = 3
_FOCAL_GUESS = 1.2  # of the longer side, as COLMAP's own
# Frames ahead that a frame of a video is matched with.
_NEXT = (*range(1, 7), 8, 11, 16, 23, 32)
_ALIKE = 20  # most similar photos that each is matched with
_NEAR = 32  # frames of a video nearer than this are no closed loop
_DESCRIPTOR_PX = (192, 256)
_BATCH = 32
_SNAPSHOTS, _LEAST_SNAPSHOT = 20, 10  # of a mapping, and photos between two of them
_MANY = 300  # photos beyond which bundle adjustments of everything are fewer and smaller
_GROWN = 1.4  # times as many photos or points as at the last one; COLMAP's own for videos
_CONVERGED = 1e-6  # relative change of the cost; COLMAP goes on for all its iterations


@dataclass(frozen=True)
class Model:
    """One connected part of the photos, in a frame and scale of its own."""

    photos: Int[np.ndarray, " n"]
    """Indices of the photos that it has poses of."""
    scene: Scene
    """Cameras, poses and points; image ``i`` is photo ``photos[i]``."""
    error_px: float
    """Mean reprojection error."""
    track: float
    """Mean number of photos that see a point."""


def link_photos(photos: Sequence[Photo], work: Path) -> Path:
    """A folder where each photo lies under its name."""
    root = work / "photos"
    for photo in photos:
        link, file = root / photo.name, photo.file.resolve()
        if not (link.is_symlink() and link.readlink() == file):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(file)
    return root


def unposed_scene(photos: Sequence[Photo], model: str, work: Path) -> tuple[Scene, set[int]]:
    """A scene of photos without poses, and the indices of its cameras whose focal length is known.

    Frames of a video share a camera, as do photos of one size and one EXIF focal length.
    """
    keys = [(p.recording if p.from_video else "", p.size, p.focal_px) for p in photos]
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    scene = Scene(
        name=work.name,
        unit="unit",
        image_root=link_photos(photos, work),
        images=tuple(photo.name for photo in photos),
        cameras=tuple(first_camera(model, size, focal) for _, size, focal in index),
        camera_index=torch.tensor([index[key] for key in keys]),
        poses=Pose.identity(len(photos)),
    )
    return scene, {i for (_, _, focal), i in index.items() if focal is not None}


def first_camera(model: str, size: tuple[int, int], focal_px: float | None) -> Camera:
    """What a camera is taken for before it is fitted."""
    focal = focal_px or _FOCAL_GUESS * max(size)
    values = {"f": focal, "fx": focal, "fy": focal, "cx": size[0] / 2, "cy": size[1] / 2}
    params = [values.get(name, 0.0) for name in CAMERA_MODELS[model]]
    return Camera(model, *size, torch.tensor(params, dtype=torch.float64))


def describe_photos(
    photos: Sequence[Photo], work: Path, progress: Progress
) -> Float[Tensor, "n D"]:
    """Unit descriptors by which photos of the same thing are found; kept in the work folder."""
    kept = work / f"descriptors-{digest([(*photo.stamp, photo.name) for photo in photos])}.npy"
    if kept.is_file():
        return torch.from_numpy(np.load(kept))
    backbone = build_backbone(BackboneConfig()).eval()
    parts: list[Tensor] = []
    for start in range(0, len(photos), _BATCH):
        batch = [_small(photo) for photo in photos[start : start + _BATCH]]
        with torch.inference_mode():
            parts.append(describe(backbone(torch.stack(batch).float())))
        progress(start + len(batch), len(photos), "describing photos")
    found = torch.cat(parts)
    with tempfile.TemporaryDirectory(dir=work, suffix=".partial") as temporary:
        partial = Path(temporary) / kept.name
        np.save(partial, found.numpy())
        partial.replace(kept)
    return found


def _small(photo: Photo) -> Tensor:
    height, width = _DESCRIPTOR_PX if photo.size[0] >= photo.size[1] else _DESCRIPTOR_PX[::-1]
    # One shape for all, so that they are a batch: portrait photos lie down.
    image = resize(decode(photo.file, (width, height)), width, height)
    return image if photo.size[0] >= photo.size[1] else image.rot90(1, (1, 2))


def choose_pairs(
    photos: Sequence[Photo], descriptors: Float[Tensor, "n D"] | None
) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of photos that are matched, each once, the smaller index first.

    Args:
        photos: All of them.
        descriptors: Of every photo: those are matched that follow each other in a recording, and
            those that look alike. None matches every pair.
    """
    count = len(photos)
    if descriptors is None:
        return np.stack(np.triu_indices(count, 1), axis=1).astype(np.int64)
    recording = np.unique([photo.recording for photo in photos], return_inverse=True)[1]
    found: set[tuple[int, int]] = set()
    for ahead in _NEXT:
        i = np.arange(max(0, count - ahead))
        together = recording[i] == recording[i + ahead]
        found |= {(k, k + ahead) for k in i[together].tolist()}
    apart = (torch.arange(count)[:, None] - torch.arange(count)).abs()
    same = torch.from_numpy(recording[:, None] == recording)
    video = torch.tensor([photo.from_video for photo in photos])
    alike = descriptors @ descriptors.T
    # What follows each other is alike, too: the best of the rest close loops.
    alike[(apart == 0) | (same & video[:, None] & (apart < _NEAR))] = -torch.inf
    values, best = alike.topk(min(_ALIKE, count), dim=1)
    rows = torch.arange(count)[:, None].expand_as(best)
    both = torch.stack([rows, best], dim=-1)[torch.isfinite(values)].sort(dim=1).values
    found |= {(a, b) for a, b in both.tolist()}
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Mapped:
    """What became of photos."""

    models: list[Model]
    """Largest first; none where no photos fit together."""
    features: Int[np.ndarray, " n"]
    """Features of each photo."""
    matches: Int[np.ndarray, " n"]
    """Verified matches of each photo with the one that fits it best."""


def map_photos(
    photos: Sequence[Photo], work: Path, config: LabelConfig, progress: Progress
) -> Mapped:
    """Finds the poses of photos; a call that was stopped goes on where it stopped.

    Args:
        photos: What to place.
        work: Where features, matches and models are kept.
        config: Every option.
        progress: Called with steps done, steps in all, and what is being done.

    Raises:
        InputError: If the disk is too full, or COLMAP fails.
    """
    import pycolmap

    # Nothing: it tells of every image, and what is wrong is said by an error.
    pycolmap.logging.minloglevel = 3
    scene, known = unposed_scene(photos, config.camera_model, work)
    whole, database, pairs = match_photos(scene, photos, known, work, config, progress)
    made = work / f"models-{digest([database.name, pairs.tolist(), config.mapper])}"
    with tempfile.TemporaryDirectory(dir=work, suffix=".partial") as temporary:
        own = Path(temporary) / "own.db"
        matches = copy_matches(whole, database, pairs, own, known)
        if not made.is_dir():
            partial = Path(temporary) / "models"
            partial.mkdir()
            snapshots = made.with_name(made.name.replace("models", "snapshots"))
            _run_mapper(own, whole, partial, snapshots, config, progress)
            partial.replace(made)
            shutil.rmtree(snapshots, ignore_errors=True)
    models = [read_model(folder) for folder in sorted(made.iterdir())]
    return Mapped(
        sorted(models, key=lambda model: -len(model.photos)),
        *count_matches(database, matches, len(photos)),
    )


def match_photos(
    scene: Scene,
    photos: Sequence[Photo],
    known: set[int],
    work: Path,
    config: LabelConfig,
    progress: Progress,
) -> tuple[Scene, Path, Int[np.ndarray, "pairs 2"]]:
    """Finds and matches the features of photos; what is there already is kept.

    Args:
        scene: The photos with their cameras; poses do not matter.
        photos: The same.
        known: Indices of the cameras whose focal length is known.
        work: Where features and matches are kept.
        config: Every option.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        The scene under names that are numbers, the database, and the pairs that are matched.

    Raises:
        InputError: If the disk is too full.
    """
    database = work / database_name(scene, config.features)
    whole = numbered(scene, torch.arange(len(photos)), work)
    begin_database(whole, database, known, image_keys(scene, config.features))
    find_features(whole, database, config.features, progress)
    few = config.pairing == "auto" and len(photos) <= EXHAUSTIVE_UP_TO
    every = few or config.pairing == "exhaustive"
    described = None if every else describe_photos(photos, work, progress)
    pairs = choose_pairs(photos, described)
    match_pairs(whole, database, pairs, config.features, progress)
    return whole, database, pairs


def count_matches(
    database: Path, matches: Matches, photos: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """How many features each photo has, and how many matches with the one that fits it best."""
    import pycolmap

    with pycolmap.Database.open(database) as content:
        features = [content.num_keypoints_for_image(i + 1) for i in range(photos)]
    best = np.zeros(photos, dtype=np.int64)
    for pair, rows in matches.items():
        for i in pair:
            best[i] = max(best[i], len(rows))
    return np.array(features), best


def _run_mapper(
    database: Path,
    scene: Scene,
    out: Path,
    snapshots: Path,
    config: LabelConfig,
    progress: Progress,
) -> None:
    """Places photos; what is placed is written now and then, and a stopped call goes on from it."""
    import pycolmap

    placed = 0

    def placing() -> None:
        nonlocal placed
        placed += 1
        progress(min(placed, len(scene)), len(scene), "placing photos")

    progress(0, len(scene), "placing photos")
    if config.mapper == "global":
        options = pycolmap.GlobalPipelineOptions()
        options.random_seed = 0
        options.min_model_size = LEAST_IMAGES
        pycolmap.global_mapping(database, scene.image_root, out, options)
        return
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = 0
    options.min_model_size = LEAST_IMAGES
    if len(scene) > _MANY:
        options.ba_global_frames_ratio = options.ba_global_points_ratio = _GROWN
        # Those points are adjusted that cover all photos; the others follow, the poses held.
        options.mapper.ba_global_ignore_redundant_points3D = True
        options.ba_global_function_tolerance = _CONVERGED
    snapshots.mkdir(exist_ok=True)
    begun = _largest_model(snapshots)
    options.snapshot_path = snapshots
    options.snapshot_frames_freq = max(_LEAST_SNAPSHOT, len(scene) // _SNAPSHOTS)
    with tempfile.TemporaryDirectory(dir=out.parent) as own:
        models = pycolmap.incremental_mapping(
            database,
            scene.image_root,
            own,
            options,
            input_path=begun or "",
            next_image_callback=placing,
        )
    # It writes one model in another way when it goes on with another.
    for number, model in models.items():
        (out / str(number)).mkdir()
        model.write(out / str(number))


def _largest_model(snapshots: Path) -> Path | None:
    """The snapshot with the most photos; one that a killed process left half-written is none."""
    sizes: dict[Path, int] = {}
    for folder in snapshots.iterdir():
        with suppress(InputError):
            sizes[folder] = len(read_colmap(folder)[0])
    return max(sizes, key=lambda folder: sizes[folder], default=None)


def read_model(folder: Path) -> Model:
    """A model of numbered images that COLMAP wrote."""
    import pycolmap

    names, cameras, camera_index, poses, points = read_colmap(folder)
    model = pycolmap.Reconstruction(folder)
    scene = Scene(
        name=folder.name,
        unit="unit",
        image_root=folder,
        images=names,
        cameras=cameras,
        camera_index=camera_index,
        poses=poses,
        points=points,
    )
    return Model(
        np.array([int(Path(name).stem) for name in names]),
        scene,
        float(model.compute_mean_reprojection_error()),
        float(model.compute_mean_track_length()),
    )
