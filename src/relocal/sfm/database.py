"""COLMAP's database of a scene: features of images and matches of pairs, made once.

It holds every image of the scene under its number, so that all splits of the scene share it.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Int, UInt
from torch import Tensor

from relocal.errors import InputError
from relocal.images import check_space
from relocal.scene import Scene
from relocal.scene.colmap import write_colmap
from relocal.scene.files import read_json, write_json

Progress = Callable[[int, int, str], None]

_LOCK, _IMAGES, _KEYS = ".lock", "images", ".keys.json"
_IMAGES_A_CORE, _PAIRS_A_STEP = 8, 400
# A keypoint (24 bytes) and its descriptor, twice as many as asked for: one may have two directions.
_BYTES_A_FEATURE = 2 * (24 + 128)
_BYTES_A_MATCH = 2 * 8  # as found and as verified
_SPARE_BYTES = 32 * 2**20  # the database's log, and what is written beside it


def digest(value: object) -> str:
    """A name for what a value says."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@contextmanager
def work_folder(scene: Scene, cache: Path) -> Generator[Path]:
    """The scene's own folder in a cache, while no other process uses it.

    Raises:
        InputError: If one does, or COLMAP fails meanwhile.
    """
    work = cache / f"sfm-{digest([scene.name, scene.images])}"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / _LOCK, timeout=0):
            yield work
    except Timeout as error:
        raise InputError(f"{place_of(scene)}: another triangulate is at work here.") from error
    except RuntimeError as error:  # all that pycolmap raises
        raise InputError(
            f"{place_of(scene)}: COLMAP failed ({error}); if it does so again, remove {work}."
        ) from error


def place_of(scene: Scene) -> Path | str:
    """What a message calls a scene."""
    return scene.folder or scene.name


def database_name(scene: Scene, features: int) -> str:
    """Tells all that features and matches depend on, which is neither the split nor the poses."""
    stats = [scene.path(i).stat() for i in range(len(scene))]
    rows = [
        (stat.st_size, stat.st_mtime_ns, scene.camera(i).to_json()) for i, stat in enumerate(stats)
    ]
    return f"{digest([rows, features])}.db"


def numbered(scene: Scene, index: Int[Tensor, " n"], work: Path) -> Scene:
    """The scene under names that are numbers, with links to some of its images under these.

    COLMAP's lists split names at spaces.
    """
    folder = work / _IMAGES
    folder.mkdir(exist_ok=True)
    names = tuple(f"{i:06d}{Path(name).suffix}" for i, name in enumerate(scene.images))
    for i in index.tolist():
        link, photo = folder / names[i], scene.path(i).resolve()
        if not (link.is_symlink() and link.readlink() == photo):  # or the scene was moved
            link.unlink(missing_ok=True)
            link.symlink_to(photo)
    return replace(scene, image_root=folder, images=names, splits={}, points=None)


def sweep(work: Path, database: Path) -> None:
    """Removes all but a database from a work folder: others, and what killed processes left."""
    for item in work.iterdir():
        if item.name in (_LOCK, _IMAGES) or item.name.startswith(database.name):
            continue
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def begin_database(
    scene: Scene,
    database: Path,
    known_focal: Collection[int] = (),
    keys: Sequence[str] | None = None,
) -> None:
    """Writes cameras and images into a new database, which appears when it is whole.

    Args:
        scene: Numbered images with their cameras.
        database: The file.
        known_focal: Indices of cameras whose focal length is more than a guess.
        keys: What tells an image and its features from all others. Features and matches of those
            that earlier databases of this folder hold under the same key are taken from there; a
            database with nothing more to give is removed.
    """
    import pycolmap

    if database.exists():
        return
    with tempfile.TemporaryDirectory(dir=database.parent, suffix=".partial") as temporary:
        write_colmap(scene, Path(temporary))
        model = pycolmap.Reconstruction(temporary)
        partial = Path(temporary) / database.name
        with pycolmap.Database.open(partial) as content:
            for camera in model.cameras.values():
                camera.has_prior_focal_length = camera.camera_id - 1 in known_focal
                content.write_camera(camera, use_camera_id=True)
            for rig in model.rigs.values():
                content.write_rig(rig, use_rig_id=True)
            for frame in model.frames.values():
                content.write_frame(frame, use_frame_id=True)
            for image in model.images.values():
                content.write_image(image, use_image_id=True)
        own = database.with_name(database.stem + _KEYS)
        older = [] if keys is None else [f for f in own.parent.glob(f"*{_KEYS}") if f != own]
        if keys is not None:
            for file in older:
                _inherit(partial, keys, file)
            write_json(own, list(keys))
        partial.replace(database)
    for file in older:
        if set(read_json(file)) <= set(keys or ()):
            _database_of(file).unlink(missing_ok=True)
            file.unlink()


def image_keys(scene: Scene, features: int) -> list[str]:
    """What tells each image, and the features that are looked for in it, from all others."""
    stats = [scene.path(i).stat() for i in range(len(scene))]
    rows = zip(scene.images, stats, strict=True)
    return [digest([name, stat.st_size, stat.st_mtime_ns, features]) for name, stat in rows]


def _database_of(keys: Path) -> Path:
    return keys.with_name(keys.name.removesuffix(_KEYS) + ".db")


def _inherit(database: Path, keys: Sequence[str], older: Path) -> None:
    """Copies features and matches of the same images from an earlier database."""
    import pycolmap

    source = _database_of(older)
    number = {key: i + 1 for i, key in enumerate(read_json(older))}
    mine = {number[key]: i + 1 for i, key in enumerate(keys) if key in number}
    if not source.is_file() or not mine:
        return
    _check_room(database, source.stat().st_size)
    with closing(sqlite3.connect(source)) as content:
        # pycolmap lists only pairs that match; that others do not is worth keeping as well.
        pairs = [pair for (pair,) in content.execute("SELECT pair_id FROM two_view_geometries")]
    with pycolmap.Database.open(source) as old, pycolmap.Database.open(database) as new:
        for theirs, own in mine.items():
            whole = old.exists_keypoints(theirs) and old.exists_descriptors(theirs)
            if whole and not new.exists_descriptors(own):
                new.write_keypoints(own, old.read_keypoints(theirs))
                new.write_descriptors(own, old.read_descriptors(theirs))
        for theirs in map(pycolmap.pair_id_to_image_pair, pairs):
            a, b = (mine.get(image) for image in theirs)
            if a is not None and b is not None and not new.exists_two_view_geometry(a, b):
                new.write_two_view_geometry(a, b, old.read_two_view_geometry(*theirs))


def _image_ids(scene: Scene) -> list[int]:
    """The ids of numbered images in the database of all."""
    return [int(Path(name).stem) + 1 for name in scene.images]


def find_features(scene: Scene, database: Path, features: int, progress: Progress) -> None:
    """Finds the features of numbered images that have none yet, at most ``features`` each.

    Raises:
        InputError: If the disk is too full.
    """
    import pycolmap

    with pycolmap.Database.open(database) as content:
        left = [
            name
            for name, i in zip(scene.images, _image_ids(scene), strict=True)
            if not (content.exists_keypoints(i) and content.exists_descriptors(i))
        ]
    options = pycolmap.FeatureExtractionOptions()
    options.sift.max_num_features = features
    step = _IMAGES_A_CORE * (os.cpu_count() or 1)
    for done in range(0, len(left), step):
        progress(len(scene) - len(left) + done, len(scene), "finding features")
        _check_room(database, (len(left) - done) * features * _BYTES_A_FEATURE)
        pycolmap.extract_features(
            database,
            scene.image_root,
            image_names=left[done : done + step],
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )


def match_pairs(
    scene: Scene,
    database: Path,
    pairs: Int[np.ndarray, "pairs 2"],
    features: int,
    progress: Progress,
) -> None:
    """Matches the features of pairs of numbered images that are not matched yet.

    Raises:
        InputError: If the disk is too full.
    """
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
        _check_room(database, (len(left) - done) * features * _BYTES_A_MATCH)
        options.match_list_path.write_text("".join(left[done : done + _PAIRS_A_STEP]), "utf-8")
        pycolmap.match_image_pairs(
            database,
            pairing_options=options,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )


def _check_room(database: Path, needed: int) -> None:
    # COLMAP writes in threads of its own: one that finds the disk full ends the whole process.
    check_space(database.parent, needed + _SPARE_BYTES)


Matches = dict[tuple[int, int], UInt[np.ndarray, "_ 2"]]
"""Verified matches by pair of images: the rows of the keypoints in each."""


def copy_matches(
    scene: Scene,
    database: Path,
    pairs: Int[np.ndarray, "pairs 2"],
    own: Path,
    known_focal: Collection[int] = (),
) -> Matches:
    """Copies some numbered images and pairs, numbered anew, into a database of their own.

    COLMAP triangulates with every match that it finds. Those of other images and pairs, from
    another split or another ``neighbours``, shall have no say.

    Returns:
        The matches that were copied.

    Raises:
        InputError: If the disk is too full.
    """
    import pycolmap

    _check_room(own, database.stat().st_size)
    begin_database(scene, own, known_focal)
    ids, matches = _image_ids(scene), Matches()
    with pycolmap.Database.open(database) as every, pycolmap.Database.open(own) as mine:
        for i, image_id in enumerate(ids):
            mine.write_keypoints(i + 1, every.read_keypoints(image_id))
        for a, b in pairs.tolist():
            geometry = every.read_two_view_geometry(ids[a], ids[b])
            mine.write_two_view_geometry(a + 1, b + 1, geometry)
            matches[a, b] = geometry.inlier_matches
    return matches
