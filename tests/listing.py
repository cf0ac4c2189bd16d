"""Small sources for every reader, in which frames are read or left aside as a test says."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from relocal.datasets import import_scene
from relocal.publishing import PublishConfig, publish
from relocal.scene.account import LOST, NO_FILE, NO_POSE, OTHER_MODEL

READ = "read"
SIZE = (32, 24)
NONES = (
    *("nan", "-inf", "-1.#IND", "1.#QNAN", "nan(ind)", "inf", "-nan", "0", "1.#INF00"),
    *("-1.#IND00e+000", "3.4028235e38", "1e308"),
)
"""How recordings write a number of a pose that is none."""


@dataclass
class Source:
    """What a reader is given, and what it must say of it."""

    path: Path
    names: list[str]
    """For each frame, what the account or the scene calls it."""
    options: dict[str, Any] = field(default_factory=dict)


def photo(file: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """A photo of noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    Image.fromarray(draw.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(file)
    return file


def pose(k: int) -> np.ndarray:
    """world_from_cam of a camera that walks along x and turns about y."""
    half = 0.1 * k
    c, s = np.cos(2 * half), np.sin(2 * half)
    matrix = np.eye(4)
    matrix[:3] = [[c, 0, s, 0.3 * k], [0, 1, 0, 0.1 * k], [-s, 0, c, 1.0]]
    return matrix


def quaternion(k: int) -> list[float]:
    """The turn of ``pose``, w first, from camera to world."""
    return [np.cos(0.1 * k), 0.0, np.sin(0.1 * k), 0.0]


def cam_from_world(k: int) -> list[float]:
    """Quaternion and translation, as COLMAP has them."""
    w, _, y, _ = quaternion(k)
    return [w, 0.0, -y, 0.0, *(-pose(k)[:3, :3].T @ pose(k)[:3, 3]).tolist()]


def words(values: Sequence[Any]) -> str:
    return " ".join(str(v) for v in values)


def none(k: int, count: int) -> list[str]:
    """Numbers of a pose that is none, each time in other words."""
    return [NONES[k % len(NONES)]] * count


def seven_scenes(root: Path, fates: Sequence[str]) -> Source:
    names: list[str] = []
    for k, fate in enumerate(fates):
        name = f"seq-01/frame-{k:06d}.color.png"
        file = photo(root / name).with_name(f"frame-{k:06d}.pose.txt")
        rows = [none(k, 4)] * 4 if fate == LOST else pose(k).tolist()
        if fate != NO_POSE:
            file.write_text("".join(f"{words(row)}\n" for row in rows))
        names.append(name)
    return Source(root, names)


def seven_scenes_labels(root: Path, fates: Sequence[str]) -> Source:
    names: list[str] = []
    lines: list[str] = []
    for k, fate in enumerate(fates):
        stem = f"seq-01/frame-{k:06d}.color"
        if fate != NO_FILE:
            photo(root / f"{stem}.png")
        values = none(k, 7) if fate == LOST else cam_from_world(k)
        if fate != NO_POSE:
            lines.append(f"{stem}.png {words(values)} 525\n")
        names.append(stem if fate == NO_FILE else f"{stem}.png")
    (root / "labels.txt").write_text("".join(lines))
    return Source(root, names, {"labels": root / "labels.txt"})


def cambridge(root: Path, fates: Sequence[str]) -> Source:
    names = [f"seq1/{k}.png" for k in range(len(fates))]
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for k, (name, fate) in enumerate(zip(names, fates, strict=True)):
        if fate != NO_FILE:
            photo(root / name)
        values = [*pose(k)[:3, 3], *cam_from_world(k)[:4]]
        row = words([name, *(none(k, 7) if fate == LOST else values)])
        lists["test" if k % 3 == 0 else "train"].append(row)
    for part, rows in lists.items():
        (root / f"dataset_{part}.txt").write_text("a title\n\n" + "\n".join(rows) + "\n")
    return Source(root, names)


def colmap(root: Path, fates: Sequence[str]) -> Source:
    names = [f"{k}.png" for k in range(len(fates))]
    for number, part in enumerate(([OTHER_MODEL], [READ, NO_FILE, LOST])):
        rows: list[str] = []
        for k, fate in enumerate(fates):
            if fate in part:
                values = none(k, 4) + none(k, 3) if fate == LOST else cam_from_world(k)
                rows.append(f"{k + 1} {words(values)} 1 {names[k]}\n3 4 {k + 1}\n")
        if rows:
            model = root / f"sparse/{number}"
            model.mkdir(parents=True)
            (model / "cameras.txt").write_text(f"1 PINHOLE {words(SIZE)} 30 30 16 12\n")
            (model / "images.txt").write_text("".join(rows))
            # A point an image, and one that no image sees.
            points = [f"{k + 1} {k} 0 5 9 9 9 1\n" for k in range(len(fates) + 1)]
            (model / "points3D.txt").write_text("".join(points))
    for name, fate in zip(names, fates, strict=True):
        if fate != NO_FILE:
            photo(root / "images" / name)
    return Source(root, names)


def frame(name: str, k: int, fate: str) -> dict[str, Any]:
    matrix = pose(k) @ np.diag([1.0, -1, -1, 1])
    if fate == LOST:
        matrix = np.full((4, 4), (np.nan, np.inf, -np.inf, 0.0, 1e308)[k % 5])
    return {"file_path": name, "transform_matrix": matrix.tolist()}


def nerfstudio(root: Path, fates: Sequence[str]) -> Source:
    names = [f"images/{k}.png" for k in range(len(fates))]
    frames = [frame(n, k, fate) for k, (n, fate) in enumerate(zip(names, fates, strict=True))]
    for name, fate in zip(names, fates, strict=True):
        if fate != NO_FILE:
            photo(root / name)
    (root / "transforms.json").write_text(json.dumps({"fl_x": 30.0, "frames": frames}))
    return Source(root, names)


def blender(root: Path, fates: Sequence[str]) -> Source:
    names: list[str] = []
    frames: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for k, fate in enumerate(fates):
        part = ("train", "train", "val", "test")[k % 4]
        listed = f"./{part}/r_{k}"
        frames[part].append(frame(listed, k, fate))
        if fate != NO_FILE:
            photo(root / f"{part}/r_{k}.png")
        names.append(f"{part}/r_{k}.png" if fate == READ else listed)
    for part, listing in frames.items():
        content = {"camera_angle_x": 0.7, "frames": listing}
        (root / f"transforms_{part}.json").write_text(json.dumps(content))
    return Source(root, names)


def tum(root: Path, fates: Sequence[str]) -> Source:
    names = [f"rgb/{k}.png" for k in range(len(fates))]
    listing = [f"{k}.5 {name}" for k, name in enumerate(names)]
    poses: list[str] = []
    for k, fate in enumerate(fates):
        w, x, y, z = quaternion(k)
        values = none(k, 7) if fate == LOST else [*pose(k)[:3, 3], x, y, z, w]
        if fate != NO_POSE:
            poses.append(words([f"{k}.51", *values]))
        if fate != NO_FILE:
            photo(root / names[k])
    (root / "rgb.txt").write_text("\n".join(listing))
    (root / "groundtruth.txt").write_text("\n".join(poses))
    (root / "cameras.txt").write_text(f"1 PINHOLE {words(SIZE)} 30 30 16 12\n")
    return Source(root, names)


def published(root: Path, fates: Sequence[str]) -> Source:
    source = nerfstudio(root / "source", fates)
    import_scene("nerfstudio", source.path, root / "scene", allow_missing=True)
    config = PublishConfig(license="CC-BY-4.0", author=("Ada Doe",))
    return Source(publish(root / "scene", root / "published", config), source.names)


Build = Callable[[Path, Sequence[str]], Source]
BUILDERS: dict[str, dict[Build, tuple[str, ...]]] = {
    "7scenes": {
        seven_scenes: (READ, NO_POSE, LOST),
        seven_scenes_labels: (READ, NO_POSE, LOST, NO_FILE),
    },
    "cambridge": {cambridge: (READ, NO_FILE, LOST)},
    "colmap": {colmap: (READ, NO_FILE, LOST, OTHER_MODEL)},
    "nerfstudio": {nerfstudio: (READ, NO_FILE, LOST), blender: (READ, NO_FILE, LOST)},
    "published": {published: (READ, NO_FILE, LOST)},
    "tum": {tum: (READ, NO_FILE, LOST, NO_POSE)},
}
"""By reader the sources that are made for it, and the fates that frames can have in them."""


def reader_of(build: Build) -> str:
    """The key of ``DATASETS`` that a source is made for."""
    return next(reader for reader, built in BUILDERS.items() if build in built)
