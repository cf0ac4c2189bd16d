"""A published scene: the scene itself with a card, a table of its poses and checksums of it all."""

import hashlib
import re
from pathlib import Path, PurePosixPath

from relocal.errors import InputError
from relocal.scene import Scene, load_scene
from relocal.scene.scene import some

CHECKSUMS = "checksums.sha256"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_SCENE = ("scene.json", "sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin")


def read_published(path: Path) -> Scene:
    """Reads what ``relocal publish`` wrote, once every file is found to be as it was published.

    Args:
        path: The folder.

    Raises:
        InputError: If it has no checksums, or a file is missing, changed or not among them.
    """
    listed = read_checksums(path / CHECKSUMS)
    missing = [name for name in listed if not (path / name).is_file()]
    if missing:
        raise InputError(f"{path}: {len(missing)} files are missing: {some(missing)}.")
    changed = [name for name, wanted in listed.items() if sha256(path / name) != wanted]
    if changed:
        raise InputError(
            f"{path}: {len(changed)} files are not as they were published: {some(changed)}. Get "
            "them again."
        )
    scene = load_scene(path)
    unknown = [n for n in (*_SCENE, *(f"images/{i}" for i in scene.images)) if n not in listed]
    if unknown:
        raise InputError(f"{path / CHECKSUMS}: says nothing of {some(unknown)}.")
    return scene


def read_checksums(file: Path) -> dict[str, str]:
    """SHA-256 by file, from lines as ``sha256sum`` writes them.

    Raises:
        InputError: If there is no such file, or a line is none.
    """
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; was {file.parent} made by publish?")
    found: dict[str, str] = {}
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is no list of checksums.") from error
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        name = PurePosixPath(match[2]) if match else None
        if match is None or name is None or name.is_absolute() or ".." in name.parts:
            raise InputError(f"{file}:{number}: is no line of checksums: {line!r}.")
        found[str(name)] = match[1]
    return found


def sha256(file: Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
