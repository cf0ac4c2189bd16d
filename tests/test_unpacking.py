"""Zip files from strangers."""

import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from web_server import names, seven_scenes_zip, zipped

from relocal.datasets import unpacking
from relocal.datasets.unpacking import unpack
from relocal.errors import InputError


def packed(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "data.zip"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("folder", [True, False])
def test_zips_within_a_zip_are_unpacked_into_their_own_folders(
    tmp_path: Path, folder: bool
) -> None:
    out = unpack(packed(tmp_path, seven_scenes_zip(1, 1, folder)), tmp_path / "out")
    frames = {
        f"heads/{seq}/frame-000000.{kind}"
        for seq in ("seq-01", "seq-02")
        for kind in ("color.png", "depth.png", "pose.txt")
    }
    assert {name for name in names(out) if "frame" in name} == frames
    assert not [name for name in names(out) if name.endswith((".zip", ".db"))]


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("innocent")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["../out.txt"], "leads out"),
        (["a/../../out.txt"], "leads out"),
        (["/etc/out.txt"], "leads out"),
        (["..\\out.txt"], "leads out"),
        (["C:\\out.txt"], "leads out"),
        ([link()], "link"),
        (["a", "a/b"], "in one place"),
        (["a\\b", "a/b"], "in one place"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_entries_that_escape_are_refused_and_nothing_is_left(
    tmp_path: Path, entries: list[Any], words: str, nested: bool
) -> None:
    content = zipped(dict.fromkeys(["first.txt", *entries], b"x"))
    file = packed(tmp_path, zipped({"inner.zip": content}) if nested else content)
    with pytest.raises(InputError, match=words):
        unpack(file, tmp_path / "out")
    assert names(tmp_path) == {"data.zip"}


@pytest.mark.parametrize("nested", [False, True])
def test_bombs_are_refused_before_they_grow(
    tmp_path: Path, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "data.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**25))
    if nested:
        bomb.write_bytes(zipped({"inner.zip": bomb.read_bytes()}))
    with pytest.raises(InputError, match="bytes are allowed"):
        unpack(bomb, tmp_path / "out")
    monkeypatch.setattr(unpacking, "MAX_FILES", 3)
    many = packed(tmp_path, zipped({str(i): b"" for i in range(4)}))
    with pytest.raises(InputError, match="4 files"):
        unpack(many, tmp_path / "out")
    assert names(tmp_path) == {"data.zip"}


def test_damaged_zip_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": b"x" * 1000, "b": b"y" * 1000}))
    content[1100] ^= 1
    with pytest.raises(InputError, match="damaged"):
        unpack(packed(tmp_path, bytes(content)), tmp_path / "out")
    with pytest.raises(InputError, match="damaged"):
        unpack(packed(tmp_path, bytes(content[:500])), tmp_path / "out")
    assert names(tmp_path) == {"data.zip"}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_told_of_whatever_packed_the_zip(tmp_path: Path, method: int) -> None:
    file = tmp_path / "data.zip"
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a", bytes(range(256)) * 20)
    whole = file.read_bytes()
    for at in range(40, len(whole) - 100, 7):  # within the packed bytes
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(InputError, match=r"data\.zip.*damaged.*same command again"):
            unpack(file, tmp_path / "out")
    assert names(tmp_path) == {"data.zip"}


def test_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    content = zipped({"é.txt": b"x"}).replace("é".encode(), b"\xff\xfe")
    with pytest.raises(InputError, match=r"data\.zip: this zip file is damaged"):
        unpack(packed(tmp_path, content), tmp_path / "out")


def test_interrupted_unpacking_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if "seq-02" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(packed(tmp_path, seven_scenes_zip()), tmp_path / "out", stop)
    assert names(tmp_path) == {"data.zip"}
