"""A small web server on this machine that can be told to misbehave, and a dataset to serve."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image


class WebServer:
    """Serves ``files`` by path; each request takes the next of ``faults``, if there is one.

    A fault is ``("cut", n)``: break off after n bytes; ``("status", n)``; ``("to", url)``: a
    redirect; ``("length", n)``: announce n bytes; ``("type", text)``: another content type;
    ``("encoding", text)``: a content encoding; ``("unsigned", n)``: as cut, without a tag;
    ``("plain", 0)``: know no ranges, tags or lengths; ``("lie", 0)``: send another part than was
    asked for.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.faults: list[tuple[str, int | str]] = []
        self.asked: list[tuple[str, str | None]] = []
        """Path and Range of every request."""

    def url(self, path: str) -> str:
        return self.address + path

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked, condition = request.headers.get("Range"), request.headers.get("If-Range")
        self.asked.append((request.path, asked))
        fault, value = self.faults.pop(0) if self.faults else ("", 0)
        body = self.files.get(request.path)
        if fault == "status" or body is None:
            request.send_error(int(value) or 404)
            return
        headers = {"Content-Type": str(value) if fault == "type" else "application/zip"}
        if fault == "to":
            self.send(request, 302, {"Location": str(value)}, b"")
            return
        if fault == "plain":
            self.send(request, 200, headers, body)
            return
        tag = f'"{hashlib.sha1(body).hexdigest()}"'
        headers |= {"ETag": tag, "Content-Length": str(value if fault == "length" else len(body))}
        if fault == "unsigned":
            del headers["ETag"]
        if fault == "encoding":
            headers["Content-Encoding"] = str(value)
        status = 200
        if asked is not None and condition in (None, tag):
            start = int(asked.removeprefix("bytes=").removesuffix("-")) + (fault == "lie")
            if start >= len(body):
                request.send_error(416)
                return
            status, part = 206, body[start:]
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            headers["Content-Length"] = str(len(part))
            body = part
        self.send(
            request, status, headers, body[: int(value)] if fault in ("cut", "unsigned") else body
        )

    def send(
        self, request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body)


@contextmanager
def serving() -> Generator[WebServer]:
    """The server, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that hangs up

    server = Server(("127.0.0.1", 0), Handler)
    web = WebServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def seven_scenes_zip(train: int = 3, test: int = 2, folder: bool = True) -> bytes:
    """A scene as 7-Scenes is published: zips of two sequences in a zip.

    Args:
        train: Frames of sequence 1.
        test: Frames of sequence 2.
        folder: Whether the frames lie in a folder of their sequence inside its zip.
    """
    draw, inside = np.random.default_rng(0), dict[str, bytes]()
    for sequence, count in ((1, train), (2, test)):
        frames: dict[str, bytes] = {f"seq-{sequence:02d}/Thumbs.db": b"junk"} if folder else {}
        for i in range(count):
            stem = f"seq-{sequence:02d}/" * folder + f"frame-{i:06d}"
            pose = np.eye(4)
            pose[:3, 3] = draw.normal(size=3)
            frames[f"{stem}.color.png"] = png(draw.integers(0, 256, (48, 64, 3), np.uint8))
            frames[f"{stem}.depth.png"] = png(np.full((48, 64), 1000 + i, np.uint16))
            frames[f"{stem}.pose.txt"] = "\n".join(" ".join(map(str, r)) for r in pose).encode()
        inside[f"heads/seq-{sequence:02d}.zip"] = zipped(frames)
    splits = {"heads/TrainSplit.txt": b"sequence1\r\n", "heads/TestSplit.txt": b"sequence2\r\n"}
    return zipped({"heads/heads.png": b"preview", **inside, **splits})


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def names(folder: Path) -> set[str]:
    """All that a folder holds."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*")}
