"""The image cache: what training and evaluation read, decoded and resampled once."""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from torch import Tensor

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images.photos import load_view

_VERSION = 3
_PARTIAL, _LOCK = ".partial", ".lock"
_SETTLED_S = 5.0
"""Age from which a lock that nobody holds was left by a killed process."""
_LOG = logging.getLogger(__name__)


def build_cache(
    files: Sequence[Path],
    cameras: Sequence[Camera],
    target: Camera,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> UInt8[Tensor, "N 3 h w"]:
    """Decodes and resamples every image once into a memory-mapped file, or reuses that file.

    The file's name has a digest of what is in it (names of the images, cameras, target) and one
    of the images as they were (sizes, times). A changed image makes another file in place of the
    old one, which is told as a warning.

    Args:
        files: The images.
        cameras: One camera an image.
        target: The training camera that all are resampled to.
        folder: Where the cache is kept.
        progress: Called with the number of images done and of all.

    Returns:
        A uint8 tensor over the mapped file, channels last in memory.

    Raises:
        InputError: If an image is missing or damaged, or the disk is too full.
    """
    shape = (len(files), target.height, target.width, 3)
    content, state = _digests(files, cameras, target, folder)
    path = folder / f"{content}-{state}.npy"
    if not path.exists():
        stale = [p for p in folder.glob(f"{content}-*.npy") if f"-{state}" not in p.stem]
        if stale:
            _LOG.warning(
                "%s: made of other images than those that are there now (changed, or copied); "
                "they are read again.",
                folder,
            )
        with new_cache(path, math.prod(shape)) as partial:
            _fill_cache(partial, shape, files, cameras, target, progress)
        for old in stale:
            with suppress(OSError):  # another process was faster
                old.unlink()
    # Copy on write: torch wants a writable array, and nothing may reach the file.
    mapped = np.load(path, mmap_mode="c", allow_pickle=False)
    return torch.from_numpy(mapped).permute(0, 3, 1, 2)


def cache_name(
    files: Sequence[Path], cameras: Sequence[Camera], target: Camera, folder: Path
) -> str:
    """The name that identifies an image cache, its suffix left out.

    Caches made from it begin with the same name, and go with it when an image changes.
    """
    return "-".join(_digests(files, cameras, target, folder))


@contextmanager
def new_cache(path: Path, size: int) -> Generator[Path]:
    """A file to write that becomes ``path`` when it is whole.

    What killed processes left in the same folder is removed first.

    Args:
        path: The cache file.
        size: Bytes that it needs.

    Raises:
        InputError: If they are not free.
    """
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    check_space(folder, size)
    aside = Path(tempfile.mkdtemp(dir=folder, suffix=_PARTIAL))
    try:
        # The lock tells a file that is being written from one that a killed process left.
        with FileLock(aside / _LOCK):
            yield aside / path.name
            (aside / path.name).replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes what killed processes left; what is locked, or may be in a moment, stays."""
    for aside in folder.glob(f"*{_PARTIAL}"):
        lock = aside / _LOCK
        with suppress(OSError):  # of a lock that is held, too
            if time.time() - lock.stat().st_mtime > _SETTLED_S:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(aside)


def check_space(folder: Path, needed: int) -> None:
    """Refuses to begin a file of so many bytes where they are not free.

    Raises:
        InputError: If they are not.
    """
    # A mapped file on a full disk kills the process instead of raising.
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: the cache needs {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free."
        )


def _fill_cache(
    path: Path,
    shape: tuple[int, int, int, int],
    files: Sequence[Path],
    cameras: Sequence[Camera],
    target: Camera,
    progress: Callable[[int, int], None],
) -> None:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # or others take the room meanwhile
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def fill(i: int) -> None:
        array[i] = load_view(files[i], cameras[i], target).permute(1, 2, 0).numpy()

    # Decoding leaves Python, so threads run side by side.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for done, _ in enumerate(pool.map(fill, range(len(files))), start=1):
                progress(done, len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    array.flush()


def _digests(
    files: Sequence[Path], cameras: Sequence[Camera], target: Camera, folder: Path
) -> tuple[str, str]:
    """What a cache holds, and the state of the images that it was made of."""
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise InputError(f"{error.filename}: the image is not there ({error.strerror}).") from error
    # Relative, so that the cache of a scene that moves stays its cache.
    names = [os.path.relpath(file, folder) for file in files]
    rows = [(name, camera.to_json()) for name, camera in zip(names, cameras, strict=True)]
    state = [(stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats]
    return _digest([_VERSION, target.to_json(), rows]), _digest(state)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
