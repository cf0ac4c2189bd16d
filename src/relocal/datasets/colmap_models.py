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
    (".",),  # a part of a model; a whole one is taken before all these
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
        path: The project's folder, or a model's own, which is taken as it is: hloc keeps smaller
            models inside of it.

    Raises:
        InputError: If there is no model, it is damaged, or one that cannot be read may be larger.
    """
    own = [path] if _is_whole(path) else []
    folders = [*own, *_model_folders(path, own)]
    if len(folders) == 1:
        return Chosen(folders[0], read_colmap(folders[0]), (), ())
    read = {path: read_colmap(path)} if own else dict[Path, Model]()
    damaged: dict[Path, InputError] = {}
    for folder in folders[len(own) :]:
        try:
            read[folder] = read_colmap(folder)
        except InputError as error:
            damaged[folder] = error
    if not read:
        raise next(iter(damaged.values()))
    # The first of equals; the folder's own, whatever its size.
    largest = path if own else max(read, key=lambda folder: len(read[folder][0]))
    for folder, error in () if own else damaged.items():
        if _weight(folder) > _weight(largest):
            raise InputError(
                f"{error} It may be the largest of {len(folders)} models; give the folder of the "
                f"one to take, such as {largest}."
            )
    names = set(read[largest][0])
    others = {name: None for model in read.values() for name in model[0] if name not in names}
    return Chosen(largest, read[largest], tuple(others), _told(path, largest, read, damaged))


def _model_folders(path: Path, own: list[Path]) -> list[Path]:
    """The models of a project, but for the folder's own where that is taken anyway."""
    for patterns in _PLACES:
        found = {folder for pattern in patterns for folder in _matching(path, pattern)}
        if found := found - {*own}:
            order = sorted(found, key=lambda folder: natural_key(folder.as_posix() + "/"))
            return order[:_MOST_MODELS]
    if own:
        return []
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


def _is_whole(folder: Path) -> bool:
    """Whether a folder has images and cameras; other recordings have a list of cameras, too."""
    return _is_model(folder) and _weight(folder) > 0


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
        taken = f"The largest is taken, {_short(path, largest)}"
        if largest == path:
            taken = "The folder's own is taken,"
        text = (
            f"{path}: holds {len(sizes)} models, each in a frame of its own. {taken} with "
            f"{sizes[largest]} images; images of the others: {smaller}. Each of them can be given "
            "as the folder, with --images."
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
