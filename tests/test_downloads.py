"""The way from the name of a public dataset to a scene."""

import hashlib
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from web_server import WebServer, names, png, seven_scenes_zip, zipped

import relocal
from relocal import cli
from relocal.datasets import DATASETS, downloads, fetching
from relocal.datasets.downloads import DOWNLOADS, downloads_table
from relocal.datasets.fetching import RemoteFile
from relocal.datasets.seven_scenes import median_depth
from relocal.scene import load_scene

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Call:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([*arguments])
        assert isinstance(end.value.code, int)
        out, error = capsys.readouterr()
        return end.value.code, out, error

    return run


@pytest.fixture
def heads(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """7scenes/heads, small and from this machine."""
    content, known = seven_scenes_zip(), DOWNLOADS["7scenes/heads"]
    line = "seq-0{}/frame-00000{}.color.png 1 0 0 0 0.5 0 0 525.5\n"
    web.files["/heads.zip"] = content
    web.files["/heads_train.txt"] = "".join(line.format(1, i) for i in range(3)).encode()
    web.files["/heads_test.txt"] = "".join(line.format(2, i) for i in range(2)).encode()
    local = replace(
        known,
        archive=RemoteFile(web.url("/heads.zip"), len(content)),
        labels={
            "slam": (),
            "sfm": tuple(RemoteFile(web.url(f"/heads_{s}.txt")) for s in ("train", "test")),
        },
    )
    monkeypatch.setitem(DOWNLOADS, "7scenes/heads", local)
    return web


GET = ("get", "7scenes/heads", "--out", "scene", "--accept-licence")


def test_get_makes_a_scene_in_the_official_split(call: Call, heads: WebServer) -> None:
    code, out, error = call(*GET)
    assert code == 0
    assert "scene: 5 images (3 train, 2 test), metres" in out
    assert "Licence: Microsoft Research" in out
    assert "gives no checksum" in error
    scene = load_scene("scene")
    assert scene.name == "heads"
    assert set(scene.splits["test"]) == {f"seq-02/frame-00000{i}.color.png" for i in range(2)}
    assert names(Path("downloads")) >= {
        "7scenes/heads/heads/TrainSplit.txt",
        "7scenes/heads.zip.json",
    }
    assert not Path("downloads/7scenes/heads.zip").exists()
    source = Path("downloads/7scenes/heads/heads")
    assert median_depth(source, scene.splits["train"], every=1) == pytest.approx(1.001)
    # Another scene from the same files needs the poses only.
    asked = len(heads.asked)
    code, _, _ = call("get", "7scenes/heads", "--out", "sfm", "--labels", "sfm", GET[-1])
    assert code == 0
    assert [url for url, _ in heads.asked[asked:]] == ["/heads_train.txt", "/heads_test.txt"]
    sfm = load_scene("sfm")
    assert sfm.provenance["labels"] == "heads_sfm_poses.txt"
    assert [len(sfm.splits[split]) for split in ("train", "test")] == [3, 2]
    assert float(sfm.camera(0).params[0]) == pytest.approx(525.5 / 10)


def test_labels_may_leave_out_a_few_images_and_no_more(
    call: Call, heads: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = heads.files["/heads_test.txt"].splitlines(keepends=True)
    heads.files["/heads_test.txt"] = lines[0]
    code, _, error = call(*GET, "--labels", "sfm")
    assert code == 2
    assert "1 of 2 test images have no label" in error
    assert "Remove downloads/7scenes/sfm" in error
    assert not Path("scene").exists()
    monkeypatch.setattr(downloads, "MAX_UNLABELLED", 0.5)
    code, _, error = call(*GET, "--labels", "sfm")
    assert code == 0
    assert "1 of 5 listed images left out, no pose: seq-" in error


def test_cambridge_comes_in_its_official_split(
    call: Call, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "Visual Landmark Dataset V1\nImageFile, Camera\n\n"
    photo = png(np.zeros((36, 64, 3), np.uint8))
    inside = {f"KingsCollege/seq{i}/frame00001.png": photo for i in range(3)}
    for split, numbers in (("train", (0, 1)), ("test", (2,))):
        lines = [f"seq{i}/frame00001.png {i} 0 0 1 0 0 0\n" for i in numbers]
        inside[f"KingsCollege/dataset_{split}.txt"] = (head + "".join(lines)).encode()
    web.files["/KingsCollege.zip"] = zipped(inside)
    known = DOWNLOADS["cambridge/kings_college"]
    local = replace(known, archive=RemoteFile(web.url("/KingsCollege.zip")))
    monkeypatch.setitem(DOWNLOADS, "cambridge/kings_college", local)
    code, out, _ = call("get", "cambridge/kings_college", "--accept-licence")
    assert code == 0
    assert "scenes/cambridge/kings_college: 3 images (2 train, 1 test), metres" in out


def test_archive_is_kept_when_asked(heads: WebServer, tmp_path: Path) -> None:
    options: Any = {"accept_licence": True, "downloads": tmp_path / "data", "keep": True}
    relocal.get_scene("7scenes/heads", tmp_path / "scene", **options)
    assert (tmp_path / "data" / "7scenes" / "heads.zip").is_file()


def test_nothing_is_downloaded_before_the_licence_is_accepted(
    call: Call, heads: WebServer, tmp_path: Path
) -> None:
    code, out, error = call(*GET[:-1])
    assert (code, out) == (2, "")
    for word in ("non-commercial", "--accept-licence", "msr-la", "Shotton", heads.address):
        assert word in error
    assert heads.asked == []
    assert names(tmp_path) == set()


def test_without_network_the_message_says_what_to_do(
    call: Call, heads: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/heads.zip"
    known = DOWNLOADS["7scenes/heads"]
    monkeypatch.setitem(DOWNLOADS, "7scenes/heads", replace(known, archive=RemoteFile(url)))
    code, out, error = call(*GET)
    assert code == 2
    assert "cannot be reached" in error
    assert url in error
    assert "put it at downloads/7scenes/heads.zip" in error
    assert not Path("scene").exists()
    Path("downloads/7scenes").mkdir(parents=True)
    Path("downloads/7scenes/heads.zip").write_bytes(heads.files["/heads.zip"])
    code, out, _ = call(*GET)
    assert code == 0
    assert "5 images" in out
    assert heads.asked == []


def test_archive_of_something_else_leaves_no_scene(
    call: Call, heads: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = zipped({"other/readme.txt": b"hello"})
    heads.files["/heads.zip"] = other
    code, _, error = call(*GET)
    assert code == 2
    assert "announces" in error
    Path("downloads/7scenes").mkdir(parents=True)
    Path("downloads/7scenes/heads.zip").write_bytes(other)
    code, _, error = call(*GET)
    assert code == 2
    assert f"has {len(other)} bytes instead of" in error
    known = DOWNLOADS["7scenes/heads"]
    anything = replace(known, archive=replace(known.archive, size=None))
    monkeypatch.setitem(DOWNLOADS, "7scenes/heads", anything)
    code, _, error = call(*GET)
    assert code == 2
    assert "holds no TrainSplit.txt" in error
    assert not Path("scene").exists()


def test_senseless_requests_are_refused(call: Call, tmp_path: Path) -> None:
    for words, arguments in (
        ("Did you mean 7scenes/heads", ("7scenes/head",)),
        ("--labels", ("cambridge/kings_college", "--labels", "sfm")),
        ("--labels", ("7scenes/heads", "--labels", "icp")),
    ):
        code, _, error = call("get", *arguments, "--out", "scene", "--accept-licence")
        assert code == 2
        assert words in error
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "mine.txt").touch()
    code, _, error = call(*GET)
    assert code == 2
    assert "exists already" in error


def test_list_names_everything(call: Call) -> None:
    for arguments in (("get",), ("get", "--list")):
        code, out, _ = call(*arguments)
        assert code == 0
        assert out == downloads_table() + "\n"
    assert all(name in out for name in DOWNLOADS)
    assert re.search("7scenes/heads +956 MB +slam, sfm +Microsoft", out)
    assert re.search("cambridge/street +size not known", out)


@pytest.mark.parametrize("name", DOWNLOADS)
def test_entries_are_well_formed(name: str) -> None:
    known = DOWNLOADS[name]
    assert known.reader == name.partition("/")[0]
    assert known.reader in DATASETS
    for remote in (known.archive, *(file for files in known.labels.values() for file in files)):
        assert urlsplit(remote.url).scheme == "https"
        assert remote.sha256 is None or len(bytes.fromhex(remote.sha256)) == 32
        assert remote.size is None or remote.size < fetching.MAX_BYTES
    assert known.archive.name.endswith(".zip")
    assert "licence" in known.about().lower()


def test_recorded_pseudo_ground_truth_is_the_real_one(shared: Path) -> None:
    folder = shared / "data" / "visloc_pgt" / "pgt" / "sfm" / "7scenes"
    for scene in ("chess", "redkitchen"):
        for remote in DOWNLOADS[f"7scenes/{scene}"].labels["sfm"]:
            content = (folder / remote.name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (
                *(remote.size, remote.sha256),
            )
