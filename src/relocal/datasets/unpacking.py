"""Zip files from strangers: nothing escapes the folder, nothing grows without bound."""

import errno
import shutil
import stat
import zlib
from collections.abc import Callable
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from relocal.errors import InputError
from relocal.scene.files import new_folder

MAX_FILES = 200_000
MAX_GROWTH = 20
"""Most bytes unpacked for a byte of the archive: photos hardly shrink in a zip."""
_ALWAYS_ALLOWED_BYTES = 2**24
_DAMAGE = (
    *(BadZipFile, zlib.error, LZMAError, UnicodeDecodeError),
    *(EOFError, NotImplementedError, RuntimeError),
)
_JUNK = {"Thumbs.db", ".DS_Store", "__MACOSX"}
"""What file managers add."""
_CHUNK = 2**20

Progress = Callable[[int, int, str], None]


def unpack(archive: Path, out: Path, progress: Progress = lambda done, total, text: None) -> Path:
    """Unpacks a zip and the zips that lie in it, one level deep.

    A zip inside is unpacked where it lies into a folder of its own name, which its entries may
    bring themselves: both kinds of ``seq-01.zip`` give ``seq-01/``. It is then gone.

    Args:
        archive: The zip file.
        out: The folder to make; it appears when all is unpacked.
        progress: Called with files done, files in all, and what is being done.

    Returns:
        ``out``.

    Raises:
        InputError: If the archive is damaged, has an entry that is a link or leads out of the
            folder, grows beyond the bounds, or the disk is too small. Nothing is left behind then.
    """
    allowed = MAX_GROWTH * archive.stat().st_size + _ALWAYS_ALLOWED_BYTES
    with new_folder(out) as folder:
        used = _extract(archive, folder, (0, 0), allowed, progress)
        for inner in sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".zip"):
            used = _extract(inner, inner.parent, used, allowed, progress)
            inner.unlink()
    return out


def _extract(
    archive: Path, folder: Path, used: tuple[int, int], allowed: int, progress: Progress
) -> tuple[int, int]:
    """Extracts one zip; takes and returns how many files and bytes are unpacked so far."""
    try:
        with ZipFile(archive) as zipped:
            every = [(entry, _inside(entry, archive)) for entry in zipped.infolist()]
            entries = [(e, p) for e, p in every if not e.is_dir() and not _JUNK & set(p.parts)]
            # No entry gives more bytes than it announces, for zipfile cuts it off.
            more = sum(entry.file_size for entry, _ in entries)
            files, size = used[0] + len(entries), used[1] + more
            _check_bounds(archive, folder, files, size, more, allowed)
            # An archive inside another lies in the folder that it is unpacked into.
            if archive.parent == folder and all(p.parts[0] != archive.stem for _, p in entries):
                folder = folder / archive.stem
            for done, (entry, path) in enumerate(entries, start=1):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
                progress(done, len(entries), f"unpacking {archive.name}")
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{archive.name}: two of its entries are in one place.") from error
    except OSError as error:
        # Damaged bzip2 has no number, a place outside the file EINVAL; others are the disk's.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(archive, error) from error
    return files, size


def _damaged(archive: Path, error: Exception) -> InputError:
    return InputError(
        f"{archive.name}: this zip file is damaged ({error}). Remove the download and give the "
        "same command again."
    )


def _inside(entry: ZipInfo, archive: Path) -> Path:
    """An entry's path, relative to the folder.

    Raises:
        InputError: If it leads out of the folder, or is something else than a file or a folder.
    """
    # Windows' rules are the stricter ones: both slashes part, and a drive is absolute.
    path = PureWindowsPath(entry.filename)
    if path.anchor or ".." in path.parts or not path.parts:
        raise InputError(f"{archive.name}: its entry {entry.filename!r} leads out of the folder.")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{archive.name}: its entry {entry.filename!r} is a link or a device.")
    return Path(*path.parts)


def _check_bounds(
    archive: Path, folder: Path, files: int, size: int, more: int, allowed: int
) -> None:
    if files > MAX_FILES or size > allowed:
        raise InputError(
            f"{archive.name}: would unpack to {files} files and {size} bytes, which no archive of "
            f"photos does (at most {MAX_FILES} files and {allowed} bytes are allowed)."
        )
    if more > shutil.disk_usage(folder).free:
        raise InputError(f"{archive.name}: unpacked it needs {more / 1e9:.1f} GB on the disk.")
