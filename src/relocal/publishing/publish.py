"""A scene made ready to be given to others: photos, poses, a card, licence and checksums."""

import csv
import io
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from relocal.datasets.published import CHECKSUMS, sha256
from relocal.errors import InputError
from relocal.images import decode
from relocal.images.metadata import without_metadata
from relocal.publishing.card import CARD, PICTURE, card, citation, describe
from relocal.publishing.config import PublishConfig
from relocal.publishing.croissant import COLUMNS, IMAGES, TABLE, croissant
from relocal.publishing.private import without_local_paths
from relocal.report import draw_labels
from relocal.scene import Scene, load_scene
from relocal.scene.files import (
    link_file,
    new_folder,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from relocal.scene.scene import some

MODEL, SCENE, LICENSE, METADATA = Path("sparse/0"), "scene.json", "LICENSE", "croissant.json"
_PLACE = "origin_lat_lon_alt"
Progress = Callable[[int, int, str], None]


def publish(
    scene: Path | str,
    out: Path | str,
    config: PublishConfig,
    progress: Progress = lambda done, total, text: None,
) -> Path:
    """Writes a folder that can be put on any server, and that is a scene itself.

    It holds the scene as it is, but for the paths of this computer that notices and lists of
    missing photos name, ``README.md`` (the dataset's card, with the header that the Hugging
    Face Hub reads), ``LICENSE``, ``metadata.csv`` (split, pose and camera of each photo),
    ``splits/``, ``croissant.json``, and ``checksums.sha256`` of all of them. ``relocal import
    published`` checks these and makes the same scene again.

    Args:
        scene: The scene's folder.
        out: The folder to make; photos become hard links where they stay as they are.
        config: What it says of itself.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        The folder.

    Raises:
        InputError: If ``out`` exists, or a photo's file says something that cannot be taken out.
    """
    source, folder = load_scene(scene), Path(scene)
    source = replace(source, provenance=without_local_paths(source.provenance))
    if Path(out).resolve().is_relative_to(folder.resolve()):
        raise InputError(f"--out {out}: lies in the scene itself; give a folder outside of it.")
    if strange := [name for name in source.images if not name.isprintable()]:
        raise InputError(f"{scene}: checksums cannot name {some([repr(n) for n in strange])}.")
    with new_folder(Path(out)) as made:
        _write_photos(source, made / IMAGES, config.keep_metadata, progress)
        shutil.copytree(folder / MODEL, made / MODEL)
        about = read_json(folder / SCENE)
        about = about if config.keep_metadata else _without(about, _PLACE)
        private = {key: about[key] for key in ("account", "provenance") if key in about}
        write_json(made / SCENE, {**about, **without_local_paths(private)})
        write_text(made / TABLE, _table(source))
        for split, names in source.splits.items():
            (made / "splits").mkdir(exist_ok=True)
            write_text(made / "splits" / f"{split}.txt", "".join(f"{name}\n" for name in names))
        write_text(made / LICENSE, _license(config))
        draw_labels(source, made / PICTURE)
        title = " ".join((config.title or source.name).split())
        description = config.description or describe(source)
        words = {
            "title": title,
            "description": description,
            "citation": citation(title, config),
        }
        write_text(made / CARD, card(source, config, words))
        metadata = croissant(words, config, sha256(made / TABLE), source.images)
        write_json(made / METADATA, metadata)
        write_text(made / CHECKSUMS, _checksums(made, progress))
    return Path(out)


def _write_photos(scene: Scene, folder: Path, keep: bool, progress: Progress) -> None:
    def place(index: int) -> None:
        file, target = scene.path(index), folder / scene.images[index]
        target.parent.mkdir(parents=True, exist_ok=True)
        decode(file)  # one that is damaged is found now
        content = file.read_bytes()
        bare = content if keep else without_metadata(content, scene.images[index])
        if bare == content:
            link_file(file, target)
        else:
            write_bytes(target, bare)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, _ in enumerate(pool.map(place, range(len(scene))), start=1):
            progress(done, len(scene), "writing photos")


def _without(value: Any, key: str) -> Any:
    """JSON without a key, wherever it stands."""
    if isinstance(value, Mapping):
        return {k: _without(v, key) for k, v in value.items() if k != key}
    return value


def _table(scene: Scene) -> str:
    """Split, pose and camera of each photo, all digits."""
    split_of = {name: split for split, names in scene.splits.items() for name in names}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for i, name in enumerate(scene.images):
        camera = scene.camera(i)
        rows.writerow(
            [
                f"{IMAGES}/{name}",
                split_of.get(name, "none"),
                scene.sequence(i),
                *scene.poses.position[i].tolist(),
                *scene.poses.quaternion[i].tolist(),
                camera.model,
                camera.width,
                camera.height,
                " ".join(map(str, camera.params.tolist())),
            ]
        )
    return text.getvalue()


def _license(config: PublishConfig) -> str:
    if config.licence is None:
        try:
            return Path(config.license).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"--license {config.license}: is no text.") from error
    return (
        f"SPDX-License-Identifier: {config.license}\n\n"
        f"Copyright {config.day[:4]} {', '.join(config.author)}\n\n"
        f"This dataset is licensed under {config.licence.name}.\n{config.licence.summary}\n"
        f"Its text, which alone counts: {config.licence.url}\n"
    )


def _checksums(folder: Path, progress: Progress) -> str:
    """SHA-256 of every file, as ``sha256sum -c`` reads them."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    files = [name for name in files if (folder / name).is_file() and name != ".lock"]
    lines: list[str] = []
    for done, name in enumerate(files, start=1):
        lines.append(f"{sha256(folder / name)}  {name}\n")
        progress(done, len(files), "adding checksums")
    return "".join(lines)
