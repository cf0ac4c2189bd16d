"""COLMAP models, binary or text, beside a folder of images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from relocal.datasets.colmap_models import Chosen, choose_model
from relocal.datasets.photos import find_photos, has_photo, none_left
from relocal.datasets.smaller import SMALLER_FOLDERS, scaled_to_photos
from relocal.errors import InputError, unknown
from relocal.images import is_there
from relocal.notices import Notice
from relocal.scene import Points, Scene
from relocal.scene.account import LOST, NO_FILE, NO_TRACK, OTHER_MODEL, UNSEEN, Account, Tally
from relocal.scene.lost import LARGEST
from relocal.scene.order import natural_key
from relocal.scene.scene import UNITS, some

_IMAGE_FOLDERS = ("images", ".")


def read_colmap_model(path: Path, images: Path | None = None, unit: str = "unit") -> Scene:
    """Reads a project folder: a model in ``sparse/0``, ``sparse`` or the folder itself, and images.

    Of several models (``sparse/0``, ``sparse/1``, ...) the largest is taken. Images are put in the
    natural order of their names. Those that do not exist, whose pose is none, or that only other
    models have are left out; the account counts them. Map points are kept; those that no image is
    left to see are dropped with it.

    Photos may be smaller than the model's cameras by a whole number, as those of ``images_2``,
    ``images_4`` or ``images_8``, which are looked for where there is no ``images``; the cameras are
    scaled.

    Args:
        path: The folder, or the model's own folder.
        images: Where the images are; by default ``images`` beside the model, or the folder itself.
        unit: ``"m"`` if the model's scale is metric, which COLMAP does not say.

    Raises:
        InputError: If there is no whole model, a camera is not supported, or no image exists.
    """
    if unit not in UNITS:
        raise unknown("--unit", unit, UNITS)
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    chosen = choose_model(path)
    listed, cameras, camera_index, poses, points = chosen.model
    root = images if images is not None else _image_root(path, chosen.folder, listed)
    found = find_photos(root, listed, str(chosen.folder))
    finite = (torch.cat([poses.position, poses.quaternion], dim=1).abs() < LARGEST).all(dim=1)
    own = {i: name for i, name in enumerate(found.names) if name is not None}
    kept = sorted((i for i in own if finite[i]), key=lambda i: natural_key(own[i]))
    left = {
        NO_FILE: [listed[i] for i in range(len(listed)) if i not in own],
        LOST: [listed[i] for i in own if not finite[i]],
        OTHER_MODEL: list(chosen.others),
    }
    left = {why: sorted(names, key=natural_key) for why, names in left.items()}
    if not own:
        raise _no_image(root, listed)
    if not kept:
        raise none_left(chosen.folder, len(listed) + len(chosen.others), left)
    rows = torch.tensor(kept)
    scene = Scene(
        name=path.resolve().name,
        unit=unit,
        image_root=root,
        images=tuple(own[i] for i in kept),
        cameras=cameras,
        camera_index=camera_index[rows],
        poses=poses[rows].canonical(),
        points=None if points is None else points.seen_by(kept),
        provenance={
            "reader": "colmap",
            "labels": "COLMAP model",
            "intrinsics": "COLMAP model",
            "listed_images": len(listed),
            "missing_images": left[NO_FILE],
        },
    )
    scene, smaller = scaled_to_photos(scene)
    account = Account(
        images=Tally.of(_listed(chosen), len(kept), left),
        points=None if points is None else _point_tally(points, scene.points),
        notices=(*_is_scene(path), *chosen.notices, *found.notices, *smaller),
    )
    return replace(scene, account=account)


def _listed(chosen: Chosen) -> int:
    return len({*chosen.model[0], *chosen.others})


def _is_scene(path: Path) -> tuple[Notice, ...]:
    if not (path / "scene.json").is_file():
        return ()
    text = (
        f"{path} is a scene already and can be used as it is. The unit and the splits in its "
        "scene.json are not read now; give them with --unit and --split."
    )
    return (Notice("scene-already", text),)


def _no_image(root: Path, listed: Sequence[str]) -> InputError:
    above = any(is_there(root.parent / name) for name in listed)
    hint = f" They are in its parent: --images {root.parent}." if above else ""
    return InputError(
        f"{root}: none of the model's {len(listed)} images is here: {some(list(listed))}.{hint}"
    )


def _image_root(path: Path, model: Path, listed: Sequence[str]) -> Path:
    """The first likely folder that has one of the images."""
    # What lies beside an inner model was made with it: dense/0 has photos without distortion.
    inner = [model.parent] if path in model.parent.parents else []
    tried = [base / "images" for base in inner]
    tried += [base / folder for base in (path, model.parent, model) for folder in _IMAGE_FOLDERS]
    tried += [model.parent.parent / "images"]
    bases = (*inner, path, model.parent, model.parent.parent)
    tried += [base / folder for base in bases for folder in SMALLER_FOLDERS]
    for root in tried:
        if root.is_dir() and has_photo(root, listed, str(model)):
            return root
    folders = ", ".join(f"{folder}/" for folder in ("images", *SMALLER_FOLDERS))
    raise InputError(
        f"{path}: none of the model's {len(listed)} images ({some(list(listed), 2)}) is in one of "
        f"{folders} beside it; give their folder with --images."
    )


def _point_tally(points: Points, kept: Points | None) -> Tally:
    """What became of map points; those that no image sees have no track."""
    listed, read = len(points.xyz), 0 if kept is None else len(kept.xyz)
    seen = len(np.unique(points.point_index))
    left = {NO_TRACK: listed - seen, UNSEEN: seen - read}
    return Tally(listed=listed, read=read, left={why: n for why, n in left.items() if n})
