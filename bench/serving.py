"""A server under many clients at once, in micro-batches and one photo after the other.

    python bench/serving.py SCENE RUN [RUN ...] [--clients 32] [--seconds 60] [--out FILE]

Every client sends a photo, waits for the answer, compares it with the library's, and sends the
next. Each way is measured on a server of its own, one after the other, for each RUN (a run, a map
or an exported network). The clients run beside the server on the same cores.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import relocal
from relocal.localizers import open_localizer
from relocal.metrics import pose_errors
from relocal.pose import Pose
from relocal.scene.files import write_json
from relocal.training.run import environment

PHOTOS = 64
SAME = (1e-3, 0.05)  # position and degrees: what rounding in a batch does is a thousandth of it
WARM_S = 5.0
WAYS = {"batches of 8": 8, "one by one": 1}


@dataclass
class Seen:
    """What the clients saw of a server."""

    times_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0
    memory_mb: list[float] = field(default_factory=list)


@contextmanager
def serving(folder: Path, batch: int) -> Generator[tuple[int, int]]:
    """Serves on a free port; gives the port and the server's process number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(folder), "--port", str(port), "--batch", str(batch)]
    server = subprocess.Popen([sys.executable, "-m", "relocal", *words], stdout=subprocess.DEVNULL)
    try:
        while True:
            assert server.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        yield port, server.pid
    finally:
        server.terminate()  # what waits is answered, and then it ends by that signal
        assert server.wait(60) == -signal.SIGTERM, "the server did not end gracefully"


async def client(
    number: int,
    port: int,
    photos: Sequence[bytes],
    truth: Sequence[Pose | None],
    seen: Seen,
    end: float,
) -> None:
    """Asks one photo after the other over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = number * 7
    while (start := time.monotonic()) < end:
        i = asked % len(photos)
        asked += 1
        head = (
            "POST /v1/localize HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            f"Content-Length: {len(photos[i])}\r\n\r\n"
        )
        writer.write(head.encode() + photos[i])
        try:
            status, body = await answer_of(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            seen.lost += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        seen.statuses[status] += 1
        if start > end - SECONDS + WARM_S:
            seen.times_ms.append(1000 * (time.monotonic() - start))
        if status == 200 and not same(json.loads(body), truth[i]):
            seen.wrong += 1
    writer.close()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of a response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    found = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
    assert found is not None
    return int(head.split(" ", 2)[1]), await reader.readexactly(int(found[1]))


def same(said: dict[str, Any], wanted: Pose | None) -> bool:
    """Whether an answer is the library's."""
    if wanted is None or not said["located"]:
        return wanted is None and not said["located"]
    pose = Pose(
        *(torch.tensor(said[key], dtype=torch.float64) for key in ("position", "quaternion"))
    )
    errors = pose_errors(
        [pose], Pose(wanted.position[None].double(), wanted.quaternion[None].double())
    )
    return bool(errors.position[0] < SAME[0] and errors.rotation_deg[0] < SAME[1])


async def watch(pid: int, seen: Seen, end: float) -> None:
    """Notes once a second how much memory the server holds."""
    await asyncio.sleep(WARM_S)
    while time.monotonic() < end:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        seen.memory_mb.append(int(found[1]) / 1024)
        await asyncio.sleep(1)


async def crowd(port: int, pid: int, clients: int, photos: Any, truth: Any) -> Seen:
    """Many clients at once."""
    seen, end = Seen(), time.monotonic() + SECONDS
    tasks = [client(n, port, photos, truth, seen, end) for n in range(clients)]
    await asyncio.gather(watch(pid, seen, end), *tasks)
    return seen


def numbers(seen: Seen) -> dict[str, Any]:
    """What is told of a server."""
    p50, p95, p99 = np.percentile(seen.times_ms, (50, 95, 99)).tolist()
    third = max(1, len(seen.memory_mb) // 3)
    first, last = (
        float(np.median(part)) for part in (seen.memory_mb[:third], seen.memory_mb[-third:])
    )
    return {
        "answers": sum(seen.statuses.values()),
        "statuses": {str(status): count for status, count in seen.statuses.items()},
        "wrong": seen.wrong,
        "lost": seen.lost,
        "per_second": len(seen.times_ms) / (SECONDS - WARM_S),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "memory_mb": [first, last],
    }


def main() -> None:
    """Measures each run both ways and prints a row each."""
    global SECONDS
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    SECONDS = options.seconds
    scene = relocal.load_scene(options.scene)
    rows = scene.indices("test").tolist()[:: max(1, len(scene.indices("test")) // PHOTOS)]
    photos = [scene.path(i).read_bytes() for i in rows]
    found: dict[str, Any] = {}
    for run in options.runs:
        localizer = open_localizer(run)
        truth = [None if (e := localizer.localize(photo)) is None else e.pose for photo in photos]
        for way, batch in WAYS.items():
            with serving(run, batch) as (port, pid):
                seen = asyncio.run(crowd(port, pid, options.clients, photos, truth))
            found[f"{run.name}, {way}"] = one = numbers(seen)
            times = ", ".join(f"{p} {one[f'{p}_ms']:.0f}" for p in ("p50", "p95", "p99"))
            print(
                f"{run.name}, {way}: {one['per_second']:.1f} photos/s; {times} ms; "
                f"{one['answers']} answers {one['statuses']}, {one['wrong']} wrong, "
                f"{one['lost']} lost; memory {one['memory_mb'][0]:.0f} to "
                f"{one['memory_mb'][1]:.0f} MB",
                flush=True,
            )
    about = {"clients": options.clients, "seconds": SECONDS, "photos": len(photos)}
    content = {"made_by": environment(), "cores": os.cpu_count(), **about, "servers": found}
    if options.out is not None:
        write_json(options.out, content)


SECONDS = 60.0

if __name__ == "__main__":
    main()
