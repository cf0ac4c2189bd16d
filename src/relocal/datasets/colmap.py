"""COLMAP models, binary or text, beside a folder of images."""

import logging
from pathlib import Path

import torch

from relocal.errors import InputError, unknown
from relocal.images import is_there
from relocal.scene import Scene
from relocal.scene.colmap import read_colmap
from relocal.scene.scene import UNITS, some

_MODEL_FOLDERS = ("sparse/0", "sparse", "model", ".")
_IMAGE_FOLDERS = ("images", ".")
_LOG = logging.getLogger(__name__)


def read_colmap_model(path: Path, images: Path | None = None, unit: str = "unit") -> Scene:
    """Reads a project folder: a model in ``sparse/0``, ``sparse`` or the folder itself, and images.

    Images are put in the order of their names. Those of the model that do not exist are counted
    and named in the provenance, and left out. Map points are kept; those that no image is left to
    see are dropped with it.

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
    if (path / "scene.json").is_file():
        _LOG.warning(
            f"{path} is a scene already and can be used as it is. The unit and the splits in its "
            "scene.json are not read now; give them with --unit and --split."
        )
    model = _model_folder(path)
    names, cameras, camera_index, poses, points = read_colmap(model)
    root = images if images is not None else _image_root(path, model, names)
    order = sorted(range(len(names)), key=lambda i: names[i])
    there = {i for i in order if is_there(root / names[i])}
    present = [i for i in order if i in there]
    missing = [names[i] for i in order if i not in there]
    if not present:
        above = any(is_there(root.parent / name) for name in names)
        hint = f" They are in its parent: --images {root.parent}." if above else ""
        raise InputError(
            f"{root}: none of the model's {len(names)} images is here: {some(missing)}.{hint}"
        )
    rows = torch.tensor(present)
    return Scene(
        name=path.resolve().name,
        unit=unit,
        image_root=root,
        images=tuple(names[i] for i in present),
        cameras=cameras,
        camera_index=camera_index[rows],
        poses=poses[rows].canonical(),
        points=None if points is None else points.seen_by(present),
        provenance={
            "reader": "colmap",
            "labels": "COLMAP model",
            "intrinsics": "COLMAP model",
            "listed_images": len(names),
            "missing_images": missing,
        },
    )


def _model_folder(path: Path) -> Path:
    for folder in _MODEL_FOLDERS:
        if any((path / folder / f"cameras.{kind}").is_file() for kind in ("bin", "txt")):
            return path / folder
    raise InputError(
        f"{path}: no COLMAP model here (cameras.bin or cameras.txt, in the folder itself or in "
        f"{', '.join(_MODEL_FOLDERS[:-1])})."
    )


def _image_root(path: Path, model: Path, names: tuple[str, ...]) -> Path:
    """The first likely folder that has one of the images."""
    tried = [base / folder for base in (path, model.parent, model) for folder in _IMAGE_FOLDERS]
    tried += [model.parent.parent / "images"]
    for root in tried:
        if any(is_there(root / name) for name in names):
            return root
    raise InputError(
        f"{path}: none of the model's {len(names)} images ({some(list(names), 2)}) is in images/ "
        "beside it; give their folder with --images."
    )
