"""One file from the web: resumed, checked, refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from web_server import WebServer, names

from relocal.datasets import fetching
from relocal.datasets.fetching import RemoteFile, fetch
from relocal.errors import InputError

BODY = bytes(range(256)) * 12_000  # more than two chunks


@pytest.fixture
def path(web: WebServer, tmp_path: Path) -> Path:
    web.files["/data.bin"] = BODY
    return tmp_path / "downloads" / "data.bin"


def data(web: WebServer, **known: Any) -> RemoteFile:
    return RemoteFile(web.url("/data.bin"), **known)


def test_file_is_fetched_once_and_its_checksum_recorded(web: WebServer, path: Path) -> None:
    said: list[str] = []
    assert fetch(data(web), path, say=said.append).read_bytes() == BODY
    digest = hashlib.sha256(BODY).hexdigest()
    assert json.loads((path.parent / "data.bin.json").read_text())["sha256"] == digest
    assert "gives no checksum" in said[0]
    assert digest in said[0]
    fetch(data(web), path, say=said.append)
    assert len(web.asked) == len(said) == 1
    assert names(path.parent) == {"data.bin", "data.bin.json"}


def test_broken_connection_is_resumed_by_range(web: WebServer, path: Path) -> None:
    web.faults = [("cut", 2_000_000), ("cut", 500_000), ("status", 503)]
    fetch(data(web, size=len(BODY), sha256=hashlib.sha256(BODY).hexdigest()), path)
    assert path.read_bytes() == BODY
    ranges = [asked for _, asked in web.asked]
    assert ranges == [None, "bytes=2000000-", "bytes=2500000-", "bytes=2500000-"]


def test_interrupted_download_goes_on_in_another_process(
    web: WebServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    web.faults = [("cut", 1_500_000), ("status", 503)]
    with pytest.raises(InputError, match=r"503.*the 1 MB that are there are kept"):
        fetch(data(web), path)
    assert not path.exists()
    assert (path.parent / "data.bin.partial").stat().st_size == 1_500_000
    fetch(data(web), path)
    assert path.read_bytes() == BODY
    assert web.asked[-1][1] == "bytes=1500000-"
    assert names(path.parent) == {"data.bin", "data.bin.json"}


@pytest.mark.parametrize("other", [BODY[::-1], b"short"])
def test_file_that_changed_meanwhile_starts_anew(
    web: WebServer, path: Path, other: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    web.faults = [("cut", 1_500_000), ("status", 503)]
    with pytest.raises(InputError):
        fetch(data(web), path)
    web.files["/data.bin"] = other
    assert fetch(data(web), path).read_bytes() == other


@pytest.mark.parametrize("fault", ["lie", "plain"])
def test_server_that_does_not_keep_to_ranges_is_survived(
    web: WebServer, path: Path, fault: str
) -> None:
    web.faults = [("cut", 1_500_000), (fault, 0)]
    assert fetch(data(web), path).read_bytes() == BODY


@pytest.mark.parametrize("checked", [True, False])
def test_part_without_a_sign_is_only_trusted_if_a_checksum_will_tell(
    web: WebServer, path: Path, checked: bool
) -> None:
    web.faults = [("unsigned", 1_500_000)]
    known = {"sha256": hashlib.sha256(BODY).hexdigest()} if checked else {}
    assert fetch(data(web, **known), path).read_bytes() == BODY
    assert [asked for _, asked in web.asked] == [None, "bytes=1500000-" if checked else None]


def test_part_that_nothing_is_known_of_starts_anew(web: WebServer, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("data.bin.partial").write_bytes(b"of another file")
    assert fetch(data(web), path).read_bytes() == BODY
    assert web.asked == [("/data.bin", None)]


def test_whole_part_needs_no_request(web: WebServer, path: Path) -> None:
    fetch(data(web), path)
    path.rename(path.with_name("data.bin.partial"))
    fetch(data(web), path)
    assert len(web.asked) == 1


def test_attempts_are_bounded(web: WebServer, path: Path) -> None:
    web.faults = [("status", 503)] * 20
    with pytest.raises(InputError, match="503"):
        fetch(data(web), path)
    assert len(web.asked) == fetching.ATTEMPTS


@pytest.mark.parametrize(
    ("fault", "known", "words"),
    [
        (("status", 404), {}, "404"),
        (("type", "text/html; charset=utf-8"), {}, "web page"),
        (("length", 10), {"size": len(BODY)}, "changed"),
        (("", 0), {"size": 1000}, "announces"),
        (("plain", 0), {"size": 1000}, "more than 1000 bytes"),
        (("plain", 0), {"size": len(BODY) + 1}, "instead of"),
        (("encoding", "gzip"), {}, "packed"),
        (("", 0), {"sha256": "0" * 64}, "sha256"),
        (("to", "file:///etc/passwd"), {}, "not allowed"),
        (("to", "ftp://127.0.0.1/x"), {}, "not followed"),
        (("to", "http://[::1/x"), {}, "address that is none"),
    ],
)
def test_wrong_answers_are_refused_and_leave_no_file(
    web: WebServer, path: Path, fault: tuple[str, Any], known: Any, words: str
) -> None:
    web.files["/x.zip"] = BODY
    path = path.with_name("x.zip")
    web.faults = [fault]
    with pytest.raises(InputError, match=words):
        fetch(RemoteFile(web.url("/x.zip"), **known), path)
    assert len(web.asked) == 1
    assert names(path.parent) <= {"x.zip.json"}


def test_what_is_no_zip_is_refused(web: WebServer, path: Path) -> None:
    web.files["/x.zip"] = b"<html>please log in</html>"
    with pytest.raises(InputError, match="no whole zip"):
        fetch(RemoteFile(web.url("/x.zip")), path.with_name("x.zip"))
    assert names(path.parent) <= {"x.zip.json"}


def test_web_page_instead_of_a_text_is_refused(web: WebServer, path: Path) -> None:
    web.files["/poses.txt"] = b"<html>please log in</html>"
    web.faults = [("type", "text/html")]
    with pytest.raises(InputError, match="web page"):
        fetch(RemoteFile(web.url("/poses.txt")), path.with_name("poses.txt"))
    assert names(path.parent) == set()


def test_redirect_on_the_web_is_followed(web: WebServer, path: Path) -> None:
    web.faults = [("cut", 1_500_000), ("to", web.url("/moved")), ("", 0)]
    web.files["/moved"] = BODY
    assert fetch(data(web), path).read_bytes() == BODY
    assert web.asked[-1] == ("/moved", "bytes=1500000-")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_only_the_web_is_opened(url: str, path: Path) -> None:
    with pytest.raises(InputError, match="not followed"):
        fetch(RemoteFile(url), path)


def test_checksum_recorded_once_holds_for_later_downloads(web: WebServer, path: Path) -> None:
    fetch(data(web), path)
    path.unlink()
    web.files["/data.bin"] = BODY[::-1]
    with pytest.raises(InputError, match="at the first download"):
        fetch(data(web), path)
    assert names(path.parent) == {"data.bin.json"}


def test_file_put_there_by_hand_is_taken_if_it_is_the_right_one(web: WebServer, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(BODY)
    known = data(web, sha256=hashlib.sha256(BODY).hexdigest())
    assert fetch(known, path) == path
    path.write_bytes(b"another")
    with pytest.raises(InputError, match="Remove it"):
        fetch(known, path)
    assert path.read_bytes() == b"another"
    with pytest.raises(InputError, match="has 7 bytes instead of 8"):
        fetch(data(web, size=8), path)
    assert web.asked == []
