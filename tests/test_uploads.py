"""A real server and clients that mean no good, or hang up: it refuses, lives on and stays small."""

import io
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="serving is an extra: pip install 'relocal[serve]'")

import httpx
from serving import served

from relocal.localizers import Regressor
from relocal.scene import Scene
from relocal.server.app import create_app
from relocal.server.config import ServeConfig
from relocal.server.places import open_places
from relocal.types import Estimate

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def site(tiny_run: Path) -> Iterator[str]:
    with served(create_app(open_places([tiny_run]), ServeConfig(waiting=8))) as address:
        yield address


def encoded(form: str, size: tuple[int, int] = (160, 120)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, "grey").save(content, form)
    return content.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 30,000 x 30,000 pixels."""
    small = encoded("PNG", (64, 64))
    width = (30_000).to_bytes(4, "big")
    header = b"IHDR" + width + width + small[24:29]
    return small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]


def resident_mb() -> float:
    """How much memory this process, and the server in it, holds."""
    told = Path("/proc/self/status")
    if not told.is_file():
        pytest.skip("no /proc here: memory is not measured")
    found = re.search(r"VmRSS:\s+(\d+) kB", told.read_text("utf-8"))
    assert found is not None
    return int(found[1]) / 1024


SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
BAD: dict[str, tuple[bytes, str, tuple[int, ...], str]] = {
    "nothing": (b"", "image/jpeg", (400,), "empty"),
    "fifty megabytes": (b"\xff\xd8" * 25_000_000, "image/jpeg", (413,), "larger"),
    "a bomb": (bomb(), "image/png", (422,), "megapixels"),
    "a GIF": (encoded("GIF"), "image/jpeg", (415,), "no photo"),
    "an SVG": (SVG, "image/png", (415,), "no photo"),
    "half a JPEG": (encoded("JPEG", (640, 480))[:2000], "image/jpeg", (422,), "damaged"),
    "a header without end": (
        b"\xff\xd8" + b"\xff\xe9\x00\x02" * 4_000_000 + encoded("JPEG")[2:],
        "image/jpeg",
        (422,),
        "too many parts",
    ),
    "a photo that is called text": (encoded("JPEG"), "text/plain", (415,), "Content-Type"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_bad_is_refused_with_a_reason(site: str, what: str) -> None:
    content, kind, statuses, reason = BAD[what]
    try:
        answer = httpx.post(
            f"{site}/v1/localize", content=content, headers={"Content-Type": kind}, timeout=60
        )
    except (httpx.WriteError, httpx.ReadError):  # refused before all was sent
        assert what == "fifty megabytes"
    else:
        assert answer.status_code in statuses
        assert reason in answer.json()["detail"]
    assert httpx.get(f"{site}/readyz").status_code == 200


def test_no_path_of_a_form_is_used(site: str, tiny_scene: Scene, tmp_path: Path) -> None:
    photo = tiny_scene.path(0).read_bytes()
    for name in ("../../../etc/passwd", str(tmp_path / "written.jpg"), "a\x00b.jpg", "a" * 5000):
        answer = httpx.post(f"{site}/v1/localize", files={"photo": (name, photo)}, timeout=60)
        assert answer.status_code in (200, 400)
        assert "passwd" not in answer.text
    assert list(tmp_path.iterdir()) == []


def raw(site: str) -> socket.socket:
    place = urlsplit(site)
    assert place.hostname is not None
    assert place.port is not None
    return socket.create_connection((place.hostname, place.port), timeout=10)


def head(length: int, kind: str = "image/jpeg") -> bytes:
    lines = ("POST /v1/localize HTTP/1.1", "Host: x", f"Content-Type: {kind}")
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def test_who_hangs_up_half_way_leaves_nothing(site: str, tiny_scene: Scene) -> None:
    photo = tiny_scene.path(0).read_bytes()
    httpx.post(f"{site}/v1/localize", content=photo, headers=JPEG, timeout=60)
    before = resident_mb()
    for i in range(40):
        with raw(site) as connection:
            if i % 2:
                connection.sendall(head(19_000_000) + b"x" * 1_000_000)  # of 19 it promised
            else:
                connection.sendall(head(len(photo)) + photo)  # and goes before the answer
    waited_until(lambda: "relocal_waiting" in (text := metrics(site)) and " 0.0" in text)
    answer = httpx.post(f"{site}/v1/localize", content=photo, headers=JPEG, timeout=60)
    assert answer.status_code == 200
    assert resident_mb() - before < 60


class Slow(Regressor):
    """A regressor that answers when it is told to."""

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.asked, self.go = 0, threading.Event()

    def answer(self, views: torch.Tensor) -> list[Estimate]:
        self.asked += len(views)
        assert self.go.wait(30)
        return super().answer(views)


def form(route: str, photo: bytes) -> bytes:
    """A whole request, with the photo as a part of a form."""
    request = httpx.Request("POST", f"http://x{route}", files={"photo": photo})
    lines = (f"{name}: {value}" for name, value in request.headers.items())
    return "\r\n".join([f"POST {route} HTTP/1.1", *lines, "", ""]).encode() + request.read()


@pytest.mark.parametrize("route", ["/v1/localize", "/v1/localize/batch"])
def test_who_hung_up_is_not_asked_about(route: str, tiny_run: Path, tiny_scene: Scene) -> None:
    photo, slow = tiny_scene.path(0).read_bytes(), Slow(tiny_run)
    (name, place), *_ = open_places([tiny_run]).items()
    slow.go.set()  # for the photo that warms up
    with served(create_app({name: replace(place, localizer=slow)}, ServeConfig())) as address:
        slow.go.clear()
        connections = []
        for count in range(6):
            connections.append(raw(address))
            connections[-1].sendall(form(route, photo))
            if count == 0:  # is being asked about while the others wait
                waited_until(lambda: slow.asked == 2)
        waited_until(lambda: "} 5.0" in metrics(address))
        for connection in connections[1:]:
            connection.close()
        waited_until(lambda: 'status="400"} 5.0' in httpx.get(f"{address}/metrics").text)
        slow.go.set()
        assert b"200 OK" in connections[0].recv(100)
        connections[0].close()
        waited_until(lambda: "} 0.0" in metrics(address))
        answer = httpx.post(f"{address}/v1/localize", content=photo, headers=JPEG, timeout=60)
    assert answer.status_code == 200
    assert slow.asked == 3  # to warm up, the first, and the one after


def test_what_is_large_and_many_does_not_grow(site: str) -> None:
    large = b"\xff\xd8\xff" + b"x" * 15_000_000  # small enough to be read, and no photo
    httpx.post(f"{site}/v1/localize", content=large, headers=JPEG, timeout=60)
    before = resident_mb()
    for _ in range(10):
        answer = httpx.post(f"{site}/v1/localize", content=large, headers=JPEG, timeout=60)
        assert answer.status_code == 422
    assert resident_mb() - before < 60


def test_who_waits_when_it_ends_is_answered(tiny_run: Path, tiny_scene: Scene) -> None:
    photo = tiny_scene.path(0).read_bytes()
    found: list[int] = []

    def ask(address: str) -> None:
        answer = httpx.post(f"{address}/v1/localize", content=photo, headers=JPEG, timeout=60)
        found.append(answer.status_code)

    with served(create_app(open_places([tiny_run]), ServeConfig(batch=1))) as address:
        asking = [threading.Thread(target=ask, args=(address,)) for _ in range(12)]
        for thread in asking:
            thread.start()
        waited_until(lambda: " 0.0" not in metrics(address) or found)
    for thread in asking:
        thread.join()
    assert found == [200] * 12


def metrics(site: str) -> str:
    lines = httpx.get(f"{site}/metrics").text.splitlines()
    return "\n".join(line for line in lines if line.startswith("relocal_waiting{"))


def waited_until(what: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)
