"""What a killed process leaves in a cache is swept, and what is being written is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from relocal.images import new_cache

CODE = """
import pathlib, sys, time
from relocal.images import new_cache
with new_cache(pathlib.Path(sys.argv[1]), 1) as file:
    file.write_bytes(b"half")
    print("there", flush=True)
    time.sleep(600)
"""


def write(path: Path, content: bytes) -> None:
    with new_cache(path, len(content)) as file:
        file.write_bytes(content)


def make_old(aside: Path) -> None:
    minute_ago = time.time() - 60
    os.utime(aside / ".lock", (minute_ago, minute_ago))


def test_what_a_killed_process_left_is_swept_and_the_living_keep_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(folder / "a.npy")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "there\n"
        (left,) = folder.iterdir()
        make_old(left)
        write(folder / "b.npy", b"whole")
        assert (left / "a.npy").is_file()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    make_old(left)
    assert (left / "a.npy").is_file()
    write(folder / "a.npy", b"whole")
    assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "b.npy"]
    assert (folder / "a.npy").read_bytes() == b"whole"


def test_two_writers_of_one_file_leave_one(tmp_path: Path) -> None:
    with new_cache(tmp_path / "a.npy", 1) as first:
        first.write_bytes(b"first")
        write(tmp_path / "a.npy", b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert (tmp_path / "a.npy").read_bytes() == b"first"
