"""Public datasets: where they are, under which licence, and the way from there to a scene.

The addresses are those that the public projects of this field download from. Microsoft publishes no
checksums: the sizes and checksums of 7-Scenes are those that several such projects recorded of its
server, and that agree where more than one did. The pseudo ground truth is named by its commit, so
it cannot change. Of Cambridge Landmarks nobody recorded them.
"""

import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from relocal.datasets import import_scene
from relocal.datasets.fetching import RemoteFile, fetch
from relocal.datasets.seven_scenes import images_without_label
from relocal.datasets.unpacking import unpack
from relocal.errors import InputError, unknown
from relocal.scene import Scene
from relocal.scene.files import check_new

MAX_UNLABELLED = 0.05
"""Share of a split's images that a pseudo ground truth may leave out: SfM does not place all."""
Labels = Literal["slam", "sfm"]
Progress = Callable[[int, int, str], None]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Licence:
    """What a publisher allows."""

    name: str
    url: str
    summary: str
    """In one line."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """A scene of a public dataset."""

    reader: str
    """The key of ``DATASETS`` that reads it."""
    archive: RemoteFile
    """The zip that holds it."""
    marker: str
    """A file that stands in the scene's folder inside the archive."""
    licence: Licence
    citation: str
    """The paper to cite."""
    labels: Mapping[str, tuple[RemoteFile, ...]] = field(
        default_factory=dict[str, tuple[RemoteFile, ...]]
    )
    """Poses by name; no files stand for the poses in the archive."""

    def about(self) -> str:
        """What a user must know before the download, in a few lines."""
        return (
            f"From {self.archive.url} ({size_text(self.archive.size)}).\n"
            f"Licence: {self.licence.name}. {self.licence.summary}\n"
            f"Its text: {self.licence.url}\n"
            f"Cite: {self.citation}"
        )


def get_scene(
    name: str,
    out: Path | str,
    *,
    labels: Labels | None = None,
    accept_licence: bool = False,
    downloads: Path | str = "downloads",
    keep: bool = False,
    progress: Progress = lambda done, total, text: None,
    say: Say = lambda text: None,
) -> Scene:
    """Downloads a scene of a public dataset and imports it in its official split.

    What is there already is kept: an interrupted download goes on, and files that were put into
    the folder by hand are taken.

    Args:
        name: A key of ``DOWNLOADS``.
        out: The scene's folder, to be made.
        labels: For 7-Scenes: ``slam``, the dataset's own poses of the depth camera, which is the
            default; or ``sfm``, the pseudo ground truth of the colour camera (Brachmann et al.
            2021).
        accept_licence: Whether the user accepts the dataset's licence.
        downloads: Folder for what is downloaded and unpacked.
        keep: Keep the archive when it is unpacked.
        progress: Called with parts done, parts in all, and what is being done.
        say: Called with what the user should know.

    Returns:
        The scene as it stands on disk.

    Raises:
        InputError: If the licence is not accepted, a file cannot be fetched or is another than
            expected, or the dataset cannot be read. No scene is left behind then.
    """
    download, out, folder = known_download(name, labels), Path(out), Path(downloads) / name
    with _nothing_left(out, folder):
        check_new(out)
        if not accept_licence:
            raise InputError(
                f"{name}\n{download.about()}\n"
                "Nothing is downloaded before you accept the licence: add --accept-licence."
            )
        with _locked(folder), all_missing_named([name], labels, downloads):
            source = _unpacked(download, folder, keep, progress, say)
            files = download.labels.get(labels or "", ())
            poses = _poses(files, folder, labels or "", progress, say) if files else None
            if poses is not None:
                _check_labels(source, poses)
        return import_scene(download.reader, source, out, labels=poses, progress=progress)


def known_download(name: str, labels: Labels | None = None) -> Download:
    """The download of a name.

    Raises:
        InputError: If there is none, or it has no such labels.
    """
    if name not in DOWNLOADS:
        raise unknown("NAME", name, DOWNLOADS)
    download = DOWNLOADS[name]
    if labels is not None and labels not in download.labels:
        known = " or ".join(download.labels) or "none: there is one ground truth"
        raise InputError(f"--labels {labels}: for {name} there is {known}.")
    return download


@contextmanager
def all_missing_named(
    names: Iterable[str], labels: Labels | None = None, downloads: Path | str = "downloads"
) -> Generator[None]:
    """Has a refusal name every file that is still to be fetched, so that one way brings them all.

    Args:
        names: Keys of ``DOWNLOADS``.
        labels: As ``get_scene`` takes them.
        downloads: Folder for what is downloaded and unpacked.
    """
    try:
        yield
    except InputError as error:
        missing = _missing_files(names, labels, Path(downloads))
        if len(missing) < 2:
            raise
        listed = "\n".join(f"  {file}  from  {remote.url}" for remote, file in missing)
        raise InputError(f"{error}\nAll files that are missing:\n{listed}") from error


def _missing_files(
    names: Iterable[str], labels: Labels | None, downloads: Path
) -> list[tuple[RemoteFile, Path]]:
    wanted: list[tuple[RemoteFile, Path]] = []
    for name in names:
        download, folder = DOWNLOADS[name], downloads / name
        if not folder.is_dir():
            wanted.append((download.archive, folder.parent / download.archive.name))
        for remote in download.labels.get(labels or "", ()):
            wanted.append((remote, folder.parent / (labels or "") / remote.name))
    return [(remote, file) for remote, file in wanted if not file.is_file()]


@contextmanager
def _nothing_left(out: Path, folder: Path) -> Generator[None]:
    """Takes away the lock and the empty folders that a refusal would leave."""
    lock = _lock(folder)
    own = not lock.exists()
    files = (out.resolve(), lock.resolve())
    made = [parent for file in files for parent in file.parents if not parent.exists()]
    try:
        yield
    except InputError:
        if own:
            lock.unlink(missing_ok=True)
        raise
    finally:
        for parent in made:
            with suppress(OSError):  # it holds something
                parent.rmdir()


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Keeps others from downloading the same meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(_lock(folder), timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"{folder}: another download is at work in this folder.") from error


def source_folder(name: str, downloads: Path | str = "downloads") -> Path:
    """The folder of a downloaded and unpacked dataset, as its reader wants it.

    Raises:
        InputError: If it is not there.
    """
    folder, marker = Path(downloads) / name, DOWNLOADS[name].marker
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for place in (folder, *inside):
        if (place / marker).is_file():
            return place
    raise InputError(f"{folder}: holds no {marker}, so it is not {name}; remove it.")


def _unpacked(download: Download, folder: Path, keep: bool, progress: Progress, say: Say) -> Path:
    """The dataset's own folder, downloaded and unpacked if it is not there."""
    name, downloads = f"{folder.parent.name}/{folder.name}", folder.parent.parent
    if folder.is_dir():
        return source_folder(name, downloads)
    # What a killed process could not take away.
    for left in folder.parent.glob(f".{folder.name}-*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    archive = fetch(download.archive, folder.parent / download.archive.name, progress, say)
    source = source_folder(name, unpack(archive, folder, progress).parents[1])
    if not keep:
        archive.unlink()
    return source


def _poses(
    files: tuple[RemoteFile, ...], folder: Path, labels: str, progress: Progress, say: Say
) -> Path:
    """One file with the poses of training and test images."""
    beside = folder.parent / labels
    parts = [fetch(remote, beside / remote.name, progress, say) for remote in files]
    whole = beside / f"{folder.name}_{labels}_poses.txt"
    partial = whole.with_name(f".{whole.name}.partial")
    partial.write_text(
        "".join(f"# {remote.url}\n" for remote in files)
        + "".join(part.read_text("utf-8") for part in parts),
        "utf-8",
    )
    partial.replace(whole)
    return whole


def _check_labels(source: Path, poses: Path) -> None:
    """Refuses poses that leave out more of a split than SfM would."""
    for split, (bare, every) in images_without_label(source, poses).items():
        if bare > MAX_UNLABELLED * every:
            raise InputError(
                f"{poses}: {bare} of {every} {split} images have no label in it, so it was cut "
                f"short. Remove {poses.parent}, and give the same command again."
            )


def size_text(size: int | None) -> str:
    """A number of bytes for people."""
    if size is None:
        return "size not known"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def downloads_table() -> str:
    """The names, sizes and licences of all downloads, a line each."""
    rows = [
        (name, size_text(download.archive.size), ", ".join(download.labels), download.licence.name)
        for name, download in DOWNLOADS.items()
    ]
    rows = [("name", "download", "labels", "licence"), *rows]
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


_MSR_LA = Licence(
    name="Microsoft Research licence (MSR-LA), non-commercial",
    url="https://www.microsoft.com/en-us/research/wp-content/uploads/2016/02/7-scenes-msr-la-dataset-7-scenes.rtf",
    summary="For non-commercial use only, such as academic research, teaching and personal trial.",
)
_MICROSOFT = "https://download.microsoft.com/download/2/8/5/28564B23-0828-408F-8631-23B1EFF1DAC8"
_PSEUDO_TRUTH = (
    "https://raw.githubusercontent.com/tsattler/visloc_pseudo_gt_limitations/"
    "637e4d4443c9ce5e8c694d047114496dd006b1fa/pgt/sfm/7scenes"
)
_SEVEN_SCENES_CITATION = (
    "Shotton, Glocker, Zach, Izadi, Criminisi & Fitzgibbon, Scene Coordinate Regression Forests "
    "for Camera Relocalization in RGB-D Images, CVPR 2013; for --labels sfm also Brachmann, "
    "Humenberger, Rother & Sattler, On the Limits of Pseudo Ground Truth in Visual Camera "
    "Re-Localization, ICCV 2021."
)
_SEVEN_SCENES = {  # bytes and sha256
    "chess": (
        3079608937,
        "d00b5b8f904123ec136768ee0ebd8f72aebb5473630fb5d8ec352e70ae4859d0",
    ),
    "fire": (
        2301204154,
        "735d577f471a116b3f190f9bd79026b7fccfc6dee220473499bdb2b93efd1955",
    ),
    "heads": (
        956332240,
        "402f8760ba150100bda5360241b605383dc5f949c055863301bde1b45f6a7a5d",
    ),
    "office": (
        4707873861,
        "c2bd101aae86c926d43ed92e080140b2e32d54ce14a5ce289b9aeca3472e7744",
    ),
    "pumpkin": (
        2890874911,
        "53fd1cb4c2f50378abc112f48e8897138e2135f2848c8c2e094e8028af07a65f",
    ),
    "redkitchen": (
        6141181406,
        "55f6aeabfd8308fbe02a6f37d1dbdbc4c087c3c6c84cb5fae062a90c43ffcba6",
    ),
    "stairs": (
        1496412431,
        "3521a1a26acb98321918ec352f8b189d301c2e3cce2de1bf2eac424d003b3929",
    ),
}
_PSEUDO_TRUTH_FILES = {  # bytes, and sha256 where known
    "chess_train": (409429, "ea2e77dde507e7537190b337ffceca42a0cb0d3060eb0430e2ec369c4fb74b03"),
    "chess_test": (204242, "d74a7f9b665e3d9e434072712e1aef2087b9247650aecd1108f631ef4c784dc8"),
    "fire_train": (207816, None),
    "fire_test": (207805, None),
    "heads_train": (104625, None),
    "heads_test": (105520, None),
    "office_train": (625192, None),
    "office_test": (417372, None),
    "pumpkin_train": (420025, None),
    "pumpkin_test": (209588, None),
    "redkitchen_train": (
        734588,
        "29e3bbde7ec59a1962fbb57c903d0d5c90b3a4a554922a3faabae34c0a40ca59",
    ),
    "redkitchen_test": (525997, "1f85de67dc27c4f5e38334442756616d2c8ddc0d6363b55024063985a9446c2c"),
    "stairs_train": (207341, None),
    "stairs_test": (104624, None),
}
_CAMBRIDGE = {  # the archive's name, and its number in the university's repository
    "great_court": ("GreatCourt", 251291),
    "kings_college": ("KingsCollege", 251342),
    "old_hospital": ("OldHospital", 251340),
    "shop_facade": ("ShopFacade", 251336),
    "st_marys_church": ("StMarysChurch", 251294),
    "street": ("Street", 251292),
}


def _seven_scenes(scene: str) -> Download:
    size, sha256 = _SEVEN_SCENES[scene]
    poses = tuple(
        RemoteFile(f"{_PSEUDO_TRUTH}/{part}.txt", *_PSEUDO_TRUTH_FILES[part])
        for part in (f"{scene}_train", f"{scene}_test")
    )
    return Download(
        reader="7scenes",
        archive=RemoteFile(f"{_MICROSOFT}/{scene}.zip", size, sha256),
        marker="TrainSplit.txt",
        licence=_MSR_LA,
        citation=_SEVEN_SCENES_CITATION,
        labels={"slam": (), "sfm": poses},
    )


def _cambridge(archive: str, number: int) -> Download:
    page = f"https://www.repository.cam.ac.uk/handle/1810/{number}"
    return Download(
        reader="cambridge",
        archive=RemoteFile(
            f"https://www.repository.cam.ac.uk/bitstream/handle/1810/{number}/{archive}.zip"
        ),
        marker="dataset_train.txt",
        licence=Licence(
            name="as its page in the Cambridge repository states",
            url=page,
            summary="Read there what it allows; relocal does not know it.",
        ),
        citation="Kendall, Grimes & Cipolla, PoseNet: A Convolutional Network for Real-Time 6-DOF "
        "Camera Relocalization, ICCV 2015.",
    )


DOWNLOADS: dict[str, Download] = {
    **{f"7scenes/{scene}": _seven_scenes(scene) for scene in _SEVEN_SCENES},
    **{f"cambridge/{name}": _cambridge(*place) for name, place in _CAMBRIDGE.items()},
}
