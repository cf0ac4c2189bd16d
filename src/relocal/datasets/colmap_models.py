"""The models of a COLMAP project: its mapper leaves several where photos do not connect."""

from dataclasses import dataclass
from pathlib import Path

from relocal.errors import InputError
from relocal.notices import Notice
from relocal.scene.colmap import Model, read_colmap
from relocal.scene.order import natural_key

# Where models are, in the order of looking; of the first line that has one, the largest is taken.
_PLACES = (
    ("sparse", "sparse/*"),
    ("model", "models", "models/*"),
    (".",),
    ("*",),
    ("colmap/sparse", "colmap/sparse/*"),
    ("dense/sparse", "dense/*/sparse"),
)
_MOST_MODELS = 1000


@dataclass(frozen=True)
class Chosen:
    """The model that was taken."""

    folder: Path
    model: Model
    others: tuple[str, ...]
    """Images that only other models have."""
    notices: tuple[Notice, ...]
    """That there are others, and how large they are."""


def choose_model(path: Path) -> Chosen:
    """Reads the largest model of a project.

    Args:
        path: The project's folder, or a model's own, which is taken as it is.

    Raises:
        InputError: If there is no model, it is damaged, or one that cannot be read may be larger.
    """
    folders = _model_folders(path)
    if len(folders) == 1:
        return Chosen(folders[0], read_colmap(folders[0]), (), ())
    read: dict[Path, Model] = {}
    damaged: dict[Path, InputError] = {}
    for folder in folders:
        try:
            read[folder] = read_colmap(folder)
        except InputError as error:
            damaged[folder] = error
    if not read:
        raise next(iter(damaged.values()))
    largest = max(read, key=lambda folder: len(read[folder][0]))  # the first of equals
    for folder, error in damaged.items():
        if _weight(folder) > _weight(largest):
            raise InputError(
                f"{error} It may be the largest of {len(folders)} models; give the folder of the "
                f"one to take, such as {largest}."
            )
    names = set(read[largest][0])
    others = {name: None for model in read.values() for name in model[0] if name not in names}
    return Chosen(largest, read[largest], tuple(others), _told(path, largest, read, damaged))


def _model_folders(path: Path) -> list[Path]:
    for patterns in _PLACES:
        found = {folder for pattern in patterns for folder in _matching(path, pattern)}
        if found:
            order = sorted(found, key=lambda folder: natural_key(folder.as_posix() + "/"))
            return order[:_MOST_MODELS]
    places = ", ".join(p for patterns in _PLACES for p in patterns if p not in (".", "*"))
    raise InputError(
        f"{path}: no COLMAP model here (cameras.bin or cameras.txt, in the folder itself, in a "
        f"folder of it, or in {places})."
    )


def _matching(path: Path, pattern: str) -> list[Path]:
    folders = [path / pattern] if "*" not in pattern else list(path.glob(pattern))
    return [folder for folder in folders if _is_model(folder)]


def _is_model(folder: Path) -> bool:
    return any((folder / f"cameras.{kind}").is_file() for kind in ("bin", "txt"))


def _weight(folder: Path) -> int:
    """Bytes of a model's images, which tell how large it is if it cannot be read."""
    files = [folder / f"images.{kind}" for kind in ("bin", "txt")]
    return max((file.stat().st_size for file in files if file.is_file()), default=0)


def _told(
    path: Path, largest: Path, read: dict[Path, Model], damaged: dict[Path, InputError]
) -> tuple[Notice, ...]:
    sizes = {folder: len(model[0]) for folder, model in read.items()}
    smaller = ", ".join(f"{_short(path, f)} ({n})" for f, n in sizes.items() if f != largest)
    notices: list[Notice] = []
    if smaller:
        text = (
            f"{path}: holds {len(sizes)} models, each in a frame of its own. The largest is taken, "
            f"{_short(path, largest)} with {sizes[largest]} images; images of the others: "
            f"{smaller}. Each of them can be given as the folder, with --images."
        )
        notices.append(Notice("several-models", text))
    for folder, error in damaged.items():
        notices.append(
            Notice(
                "model-unread", f"{_short(path, folder)} is left aside, it cannot be read: {error}"
            )
        )
    return tuple(notices)


def _short(path: Path, folder: Path) -> str:
    return folder.relative_to(path).as_posix()
