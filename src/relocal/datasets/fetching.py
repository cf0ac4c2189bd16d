"""One file from the web: resumed after an interruption, checked, and there only when it is whole.

Beside ``heads.zip`` stands ``heads.zip.json``: what the server said of the file, by which a later
attempt knows whether it is still the same, and the sha256 that it had, which every later use and
every later download is held to.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)
from zipfile import is_zipfile

from relocal import __version__
from relocal.errors import InputError
from relocal.scene.files import read_json, write_json

ATTEMPTS, BACKOFF_S, MAX_WAIT_S, TIMEOUT_S = 5, 1.0, 60.0, 30.0
MAX_BYTES = 32 * 2**30
"""Most that is taken of a file whose size is not known."""
_CHUNK, _MB = 2**20, 10**6
_PASSING = {408, 429, 500, 502, 503, 504}

Progress = Callable[[int, int, str], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web, and how to know it again."""

    url: str
    size: int | None = None
    """Bytes, where somebody recorded them."""
    sha256: str | None = None
    """Its checksum, where somebody recorded it."""

    @property
    def name(self) -> str:
        """Its name on disk."""
        return PurePosixPath(urlsplit(self.url).path).name


class _PassingFaultError(Exception):
    """A fault that may be gone at the next attempt."""

    def __init__(self, reason: str, wait_s: float = 0.0, answered: bool = True) -> None:
        super().__init__(reason)
        self.wait_s, self.answered = wait_s, answered


def fetch(
    remote: RemoteFile,
    path: Path,
    progress: Progress = lambda done, total, text: None,
    say: Say = lambda text: None,
) -> Path:
    """Makes sure that a file is there and is the right one; downloads it where it is missing.

    Args:
        remote: The file.
        path: Where it is, or is to be. A file that was put there by hand is taken as it is, if
            it is the right one.
        progress: Called with megabytes done, megabytes in all, and what is being done.
        say: Called with what the user should know.

    Returns:
        ``path``.

    Raises:
        InputError: If the server cannot be reached, refuses, or sends another file than expected.
            What is there of a file that breaks off is kept for the next attempt; a wrong file is
            removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = path.with_name(f"{path.name}.json")
    partial = path.with_name(f"{path.name}.partial")
    if path.is_file():
        digest = sha256_of(path, progress)
        if fault := _fault(remote, path, digest, notes):
            raise InputError(f"{path}: {fault} Remove it, and give the same command again.")
        partial.unlink(missing_ok=True)
    else:
        _download(remote, path, partial, notes, progress)
        digest = sha256_of(partial, progress)
        if fault := _fault(remote, partial, digest, notes):
            partial.unlink()
            raise _refusal(remote, path, f"what was sent {fault} It was removed")
        partial.replace(path)
    _record(remote, path, digest, notes, say)
    return path


def sha256_of(path: Path, progress: Progress = lambda done, total, text: None) -> str:
    """The checksum of a file, in hexadecimal."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done // _MB, total // _MB, f"checking {path.name}, MB")
    return digest.hexdigest()


def _fault(remote: RemoteFile, path: Path, digest: str, notes: Path) -> str:
    """What is wrong with a file, as the rest of a sentence; nothing when it is the right one."""
    if remote.size not in (None, _size(path)):
        return (
            f"has {_size(path)} bytes instead of {remote.size}: it was cut short on the way, or is "
            "another file."
        )
    recorded = _read(notes).get("sha256")
    expected = remote.sha256 or recorded
    if expected is not None and digest != expected:
        source = "expected" if remote.sha256 else f"recorded in {notes} at the first download"
        return (
            f"has sha256 {digest}, not {expected}, which is {source}: it was damaged on the way, "
            "or its publisher has changed it."
        )
    if ".zip" in path.suffixes and not is_zipfile(path):
        return "is no whole zip file."
    return ""


def _record(remote: RemoteFile, path: Path, digest: str, notes: Path, say: Say) -> None:
    known = _read(notes)
    if known.get("sha256") == digest:
        return
    today = datetime.now(UTC).date().isoformat()
    write_json(notes, {**known, "url": remote.url, "sha256": digest, "recorded": today})
    if remote.sha256 is None:
        say(
            f"{path.name}: its publisher gives no checksum, so nobody can say that it is the right "
            f"file. Its sha256 {digest} is recorded in {notes} and verified from now on."
        )


def _read(notes: Path) -> dict[str, Any]:
    """What is known of a file; notes that are damaged are none."""
    try:
        known = read_json(notes)
    except InputError:
        return {}
    return known if isinstance(known, dict) else {}


def _refusal(remote: RemoteFile, path: Path, reason: str) -> InputError:
    return InputError(
        f"{remote.url}: {reason}. If you can fetch the file in another way, put it at {path} and "
        "give the same command again; it goes on from there."
    )


def _download(
    remote: RemoteFile, path: Path, partial: Path, notes: Path, progress: Progress
) -> None:
    """Attempts until the file is whole, or until ``ATTEMPTS`` in a row have brought nothing new."""
    failures, most, answered = 0, _size(partial), False
    while True:
        try:
            return _attempt(remote, path, partial, notes, progress)
        except _PassingFaultError as fault:
            answered = answered or fault.answered
            failures = 0 if _size(partial) > most else failures + 1
            most = max(most, _size(partial))
            # A server that has not answered at all is out of reach, which waiting seldom mends.
            if not answered or failures == ATTEMPTS:
                kept = f" (the {most // _MB} MB that are there are kept)" if most else ""
                raise _refusal(remote, path, f"{fault}{kept}") from fault
            wait_s = min(max(fault.wait_s, BACKOFF_S * 2**failures), MAX_WAIT_S)
            progress(most // _MB, (remote.size or 0) // _MB, f"{fault}; waiting")
            time.sleep(wait_s)


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def _attempt(
    remote: RemoteFile, path: Path, partial: Path, notes: Path, progress: Progress
) -> None:
    """One request, for the whole file or for what is missing of it."""
    known, have = _read(notes), _size(partial)
    # An equal length is no sign that the rest belongs to the same file.
    signs = [remote.sha256, *(known.get(key) for key in ("sha256", "etag", "modified"))]
    if have and (known.get("url") != remote.url or not any(signs)):
        partial.unlink()
        have = 0
    if have and have == known.get("total"):
        return
    with _answer(remote, path, partial, have, known) as response:
        etag, modified = response.headers["ETag"], response.headers["Last-Modified"]
        start, total = _range(response)
        seen = {"etag": etag, "modified": modified, "total": total}
        # An answer to a request for a part may leave signs out, but not give others.
        other = any(seen[key] and known.get(key) not in (None, seen[key]) for key in seen)
        if start and (start != have or other):
            partial.unlink(missing_ok=True)
            raise _PassingFaultError("the file has changed meanwhile; it is fetched anew")
        _check_promise(remote, path, response, total)
        if not start:
            partial.unlink(missing_ok=True)
            write_json(notes, {**known, "url": remote.url, **seen})
        limit, most = remote.size or MAX_BYTES, total or remote.size or 0
        with partial.open("ab") as file:
            while chunk := _next_chunk(response):
                start += len(chunk)
                if start > limit:
                    file.close()
                    partial.unlink()
                    raise _refusal(remote, path, f"more than {limit} bytes were sent")
                file.write(chunk)
                progress(start // _MB, most // _MB, f"downloading {path.name}, MB")
    if total is not None and start < total:
        raise _PassingFaultError("the connection broke off")


def _answer(
    remote: RemoteFile, path: Path, partial: Path, have: int, known: dict[str, Any]
) -> HTTPResponse:
    """The server's answer to a request for the bytes from ``have`` on."""
    headers = {"User-Agent": f"relocal/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        etag = known.get("etag")
        # A weak tag may stand for other bytes, so RFC 9110 does not allow it here.
        if condition := etag if etag and not etag.startswith("W/") else known.get("modified"):
            headers["If-Range"] = condition
    try:
        _check_web(remote.url, remote.url)
        response: HTTPResponse = _opener().open(
            Request(remote.url, headers=headers), timeout=TIMEOUT_S
        )
    except HTTPError as error:
        with error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code == 416:
                partial.unlink(missing_ok=True)
                raise _PassingFaultError(reason) from None
            if error.code in _PASSING:
                after = error.headers.get("Retry-After", "")
                wait_s = float(after) if after.isdecimal() else 0.0
                raise _PassingFaultError(reason, wait_s) from None
            raise _refusal(remote, path, reason) from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _PassingFaultError(f"cannot be reached ({reason})", answered=False) from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise _refusal(remote, path, f"leads to an address that is none ({error})") from error
    return response


def _range(response: HTTPResponse) -> tuple[int, int | None]:
    """The first byte that an answer brings, and how many the whole file has, where it is said."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers["Content-Range"] or "")
        if found is None:
            return -1, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers["Content-Length"] or ""
    return 0, int(length) if length.isdecimal() else None


def _check_promise(
    remote: RemoteFile, path: Path, response: HTTPResponse, total: int | None
) -> None:
    """Refuses what cannot be the file before any of it is read."""
    kind = response.headers.get_content_type()
    encoding = response.headers.get("Content-Encoding", "identity")
    if response.status not in (200, 206):
        raise _refusal(remote, path, f"the server answers {response.status}")
    if path.suffix not in (".html", ".htm") and kind == "text/html":
        raise _refusal(remote, path, "the server answers with a web page instead of the file")
    if encoding.lower() != "identity":
        raise _refusal(remote, path, f"the server sends the file packed ({encoding}), unasked")
    if remote.size is not None and total not in (None, remote.size):
        raise _refusal(
            remote,
            path,
            f"the server announces {total} bytes instead of {remote.size}: its publisher has "
            "changed it",
        )
    if total is not None and total > MAX_BYTES:
        raise _refusal(remote, path, f"{total} bytes are too many")


def _next_chunk(response: HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _PassingFaultError(f"the connection broke off ({error})") from None


class _WebRedirects(HTTPRedirectHandler):
    """Follows redirects to the web only, and none from https to http."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        _check_web(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_web(url: str, origin: str) -> None:
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https") or (scheme == "http" and origin.startswith("https:")):
        raise InputError(f"{origin}: leads to {url}, which is not followed.")


def _opener() -> OpenerDirector:
    """Opens http and https; the usual opener would also open files and FTP."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        _WebRedirects(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
