"""What is to be labelled: photos in folders and frames of videos, each source a recording.

A photo that cannot be read is left out with its reason; nothing is made up for it.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps

from relocal.errors import InputError
from relocal.images import decode, exif_focal_px, exif_orientation, open_photo, upright_size
from relocal.scene.files import is_scene, read_json, write_json
from relocal.scene.order import natural_key
from relocal.scene.scene import some
from relocal.sfm.database import Progress, digest
from relocal.sfm.frames import (
    FrameLooks,
    choose_frames,
    frame_name,
    greys,
    look_at,
    stated_length,
    write_frames,
)
from relocal.sfm.label_config import ALL_UP_TO, LOCK, WORK, LabelConfig

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mpg", ".mpeg", ".mts")
UNREAD = (".heic", ".heif", ".avif", ".dng", ".cr2", ".nef", ".arw")
_FRAMES = "frames"
_DENSE = 0.5  # of the motion between two frames that are taken: less is a video
_MOST_OF = 0.95  # of the frames that a file says it has: it may count one that cannot be decoded


@dataclass(frozen=True)
class Photo:
    """A photo or a frame that is to be labelled."""

    name: str
    """Its name in the scene: the recording's folder and the file."""
    file: Path
    """Where its upright pixels are."""
    size: tuple[int, int]
    """Width and height of the upright pixels."""
    focal_px: float | None
    """Focal length that EXIF says."""
    from_video: bool
    source: Path
    """The file that it came from."""
    stamp: tuple[int, int]
    """Size and time of that file when it was read: another stamp is another photo."""

    def source_stamp(self) -> tuple[int, int] | None:
        """Size and time of the file that it came from as they are now; None if it is gone."""
        return stamp_of(self.source) if self.source.is_file() else None

    @property
    def recording(self) -> str:
        """The folder of its name."""
        return self.name.rpartition("/")[0]


def stamp_of(file: Path) -> tuple[int, int]:
    """Size and time of a file."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class Gathered:
    """What is to be labelled."""

    photos: list[Photo]
    """In the order of the sources and of their names."""
    left: dict[str, str]
    """By name, the reason why others cannot be."""
    passed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By recording, the names of frames that show what their neighbours do."""

    @property
    def passed_over(self) -> int:
        """How many frames show what their neighbours do."""
        return sum(map(len, self.passed.values()))

    def __add__(self, other: "Gathered") -> "Gathered":
        return Gathered(
            self.photos + other.photos,
            self.left | other.left,
            {**self.passed, **other.passed},
        )


def gather(
    sources: Sequence[Path], work: Path, config: LabelConfig, progress: Progress
) -> Gathered:
    """Photos of folders and frames of videos.

    A folder of more than ``ALL_UP_TO`` photos of one size that hardly move from one to the
    next is the frames of a video, and is treated as one.

    Args:
        sources: Folders of photos, whose subfolders are recordings too, and videos.
        work: Where frames and turned photos are kept from call to call.
        config: Which frames of a video are taken.
        progress: Called with steps done, steps in all, and what is being done.

    Raises:
        InputError: If a source is neither, or cannot be read at all, or two have one name.
    """
    names = [_recording_name(source) for source in sources]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"SRC: {some(twice)} stands there twice; rename one.")
    found = Gathered([], {})
    for source, name in zip(sources, names, strict=True):
        if source.is_dir():
            every = _folder(source, name, work, progress)
            for _, recording in groupby(every.photos, lambda photo: photo.recording):
                found += _thinned(list(recording), work, config, progress)
            found += Gathered([], every.left)
        else:
            found += _video(source, name, work, config, progress)
    return found


def _recording_name(source: Path) -> str:
    if source.is_dir():
        return source.resolve().name
    if not source.exists():
        raise InputError(f"{source}: there is no such folder or video.")
    if source.suffix.lower() in PHOTOS:
        raise InputError(f"{source}: is one photo; give the folder of the photos.")
    if source.suffix.lower() not in VIDEOS:
        raise InputError(
            f"{source}: is neither a folder of photos nor a video ({', '.join(VIDEOS)})."
        )
    return source.stem


def _folder(source: Path, name: str, work: Path, progress: Progress) -> Gathered:
    if is_scene(source):
        raise InputError(f"{source}: is a scene already; its photos are in {source / 'images'}.")
    there = list(source.rglob("*"))
    # Scenes made of the photos may lie among them, and so may what was made on the way.
    made = {folder for folder in there if is_scene(folder) or _is_labelling_folder(folder)}
    every = [
        file for file in there if not file.name.startswith(".") and made.isdisjoint(file.parents)
    ]
    found = (file for file in every if file.suffix.lower() in PHOTOS and file.is_file())
    # Recordings one after the other, also where one holds another.
    files = sorted(found, key=lambda file: natural_key(file.relative_to(source).as_posix()))
    if not files:
        others = [f"{file.name} {why}" for file in sorted(every) if (why := _why_not(file))]
        more = f" {some(others, 3)}." if others else ""
        raise InputError(f"{source}: holds no photo ({', '.join(PHOTOS)}).{more}")

    def look(file: Path) -> Photo | str:
        try:
            return _photo(file, f"{name}/{file.relative_to(source).as_posix()}", work)
        except InputError as error:
            return str(error)

    photos: list[Photo] = []
    left = {
        f"{name}/{file.relative_to(source).as_posix()}": why
        for file in every
        if (why := _why_not(file)) is not None
    }
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, (file, seen) in enumerate(zip(files, pool.map(look, files), strict=True), 1):
            if isinstance(seen, Photo):
                photos.append(seen)
            else:
                left[f"{name}/{file.relative_to(source).as_posix()}"] = seen
            progress(done, len(files), f"reading {source.name}")
    return Gathered(photos, left)


def _is_labelling_folder(folder: Path) -> bool:
    """Whether a folder is what was made on the way to a scene."""
    return folder.name.endswith(WORK) and (folder / LOCK).is_file()


def _why_not(file: Path) -> str | None:
    """Why a file that somebody would take for a source is none; None of photos, and of the rest."""
    kind = file.suffix.lower()
    if kind in UNREAD:
        return f"is {kind[1:].upper()}, which is not read: make it a JPEG"
    if kind in VIDEOS:
        return "is a video in a folder: give it as a source of its own"
    if kind in PHOTOS and file.is_symlink() and not file.exists():
        return "is a link to a file that is gone"
    return None


def _thinned(photos: list[Photo], work: Path, config: LabelConfig, progress: Progress) -> Gathered:
    """A folder's photos; if they are the frames of a video, those worth labelling."""
    if len(photos) <= ALL_UP_TO or len({photo.size for photo in photos}) > 1:
        return Gathered(photos, {})
    name = photos[0].recording
    kept = work / _FRAMES / f"{digest([photo.stamp for photo in photos])}.json"
    looks = _kept_looks(kept, lambda: look_at(map(_grey, photos), len(photos), name, progress))
    if np.median(looks.motion) > _DENSE * config.step:
        return Gathered(photos, {})
    chosen = choose_frames(looks, config.step, config.frames)
    frames = [replace(photos[i], from_video=True) for i in chosen]
    taken = set(chosen)
    passed = tuple(photo.name for i, photo in enumerate(photos) if i not in taken)
    return Gathered(frames, {}, {name: passed})


def _grey(photo: Photo) -> UInt8[np.ndarray, "h w"]:
    return decode(photo.file).float().mean(0).to(torch.uint8).numpy()


def _photo(file: Path, name: str, work: Path) -> Photo:
    stamp = stamp_of(file)
    with open_photo(file) as image:
        turned = exif_orientation(image, str(file)) != 1
    decode(file)  # one that is cut short is found now
    size, focal, upright = upright_size(file), exif_focal_px(file), file
    if turned:
        upright = work / "upright" / _key(stamp) / name
        if not upright.is_file():
            upright.parent.mkdir(parents=True, exist_ok=True)
            with open_photo(file) as image:
                partial = upright.with_name(f".{upright.name}")
                turned_image = ImageOps.exif_transpose(image)
                exif = turned_image.getexif()  # place and lens stay; the turn is taken out
                turned_image.save(partial, format=image.format, quality=95, exif=exif)
            partial.replace(upright)
    return Photo(name, upright, size, focal, False, file, stamp)


def _key(stamp: tuple[int, int]) -> str:
    """Tells a file from another that takes its place."""
    return f"{stamp[0]:x}-{stamp[1]:x}"


def _video(
    source: Path, name: str, work: Path, config: LabelConfig, progress: Progress
) -> Gathered:
    stamp, (stated, rate) = stamp_of(source), stated_length(source)
    folder = work / _FRAMES / _key(stamp) / name
    looks = _kept_looks(
        folder.with_name(f"{name}.json"),
        lambda: look_at(greys(source), stated, source.name, progress),
    )
    count, most = len(looks.motion), config.frames
    if config.rate is not None:
        if rate <= 0:
            raise InputError(f"--rate: {source} does not say how many frames a second it has.")
        most = min(most, math.ceil(config.rate * count / rate))
        if most < 2:
            raise InputError(f"--rate {config.rate}: leaves one frame of {source}; take more.")
    chosen = choose_frames(looks, config.step, most)
    if len(chosen) < 2:
        raise InputError(
            f"{source}: the picture hardly moves in its {count} frames; a place is learned from a "
            "camera that walks."
        )
    names = write_frames(source, chosen, folder, progress)
    with Image.open(folder / names[0]) as image:
        size = image.size
    photos = [Photo(f"{name}/{n}", folder / n, size, None, True, source, stamp) for n in names]
    cut = f"ends after {count} of its {stated} frames: it is cut short"
    left = {source.name: cut} if count < _MOST_OF * stated else {}
    taken = set(chosen)
    passed = tuple(f"{name}/{frame_name(i)}" for i in range(count) if i not in taken)
    return Gathered(photos, left, {name: passed})


def _kept_looks(kept: Path, make: Callable[[], FrameLooks]) -> FrameLooks:
    """The looks of a recording's frames, kept from call to call."""
    if not kept.is_file():
        looks = make()
        kept.parent.mkdir(parents=True, exist_ok=True)
        rows = {"sharpness": looks.sharpness.tolist(), "motion": looks.motion.tolist()}
        write_json(kept, {**rows, "stated": looks.stated})
    content = read_json(kept)
    sharpness, motion = (np.array(content[key]) for key in ("sharpness", "motion"))
    return FrameLooks(sharpness, motion, content["stated"])
