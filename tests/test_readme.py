"""The examples of the README and of docs/ run, and print what they say.

A block of bash or Python after ``<!-- test -->`` is run, in order with the others of its page, in
a folder where a small ``room`` is rendered already. After ``<!-- file: NAME -->`` Python is kept in
a file of that name. After ``<!-- test: demo -->`` it is run as a reader would, from an empty
folder. A block after ``<!-- output -->`` is what it prints; numbers may be others by half.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import relocal
from relocal.datasets.room.config import RoomConfig
from relocal.datasets.synthetic import render_room

ROOT = Path(__file__).resolve().parents[1]
_FENCED = r"```(?P<{0}>\w*)\n(?P<{1}>.*?)^```\n"
_BLOCK = re.compile(
    r"^<!-- test(?:: (?P<label>\w+))? -->\n"
    + _FENCED.format("language", "code")
    + r"(?:\s*^<!-- output -->\n"
    + _FENCED.format("kind", "output")
    + ")?",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(
    r"^<!-- file: (?P<name>\w+\.py) -->\n```python\n(?P<code>.*?)^```\n", re.MULTILINE | re.DOTALL
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+|\.(?=[\s\]]))?(?:e-?\d+)?")  # NumPy writes 3.0 as "3."


class Block(NamedTuple):
    label: str
    language: str
    code: str
    output: str | None


def blocks(page: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(page):
        yield Block(found["label"] or "", found["language"], found["code"], found["output"])


def run(block: Block, names: dict[str, Any]) -> str:
    """Runs a block in the present folder; returns what it printed."""
    if block.language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, "README.md", "exec"), names)
        return printed.getvalue()
    assert block.language == "bash"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def alike(printed: str, written: str) -> bool:
    """Whether two texts have the same words, and numbers that differ by half at most.

    Times, a last column called ms, are those of another machine.
    """
    if re.search(r" ms$", written, re.MULTILINE):
        printed, written = (re.sub(r" [\d.]+$", " ms", t, flags=re.M) for t in (printed, written))
    words = [_NUMBER.sub("#", text).split() for text in (printed, written)]
    numbers = ([float(n) for n in _NUMBER.findall(text)] for text in (printed, written))
    return words[0] == words[1] and all(
        abs(a - b) <= 0.5 * max(abs(a), abs(b), 1e-3) for a, b in zip(*numbers, strict=True)
    )


def check(label: str, names: dict[str, Any], page: str = "README.md") -> None:
    text = (ROOT / page).read_text("utf-8")
    for found in _FILE.finditer(text):
        Path(found["name"]).write_text(found["code"], "utf-8")
    chosen = [b for b in blocks(text) if b.label == label]
    if not chosen:
        pytest.skip(f"{page} marks no block with {label or 'test'!r}")
    for block in chosen:
        printed = run(block, names)
        assert block.output is None or alike(printed, block.output), printed


@pytest.mark.docs
@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_page_runs(
    page: str, tiny_room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_room, tmp_path / "room")
    monkeypatch.chdir(tmp_path)
    check("", {}, page)


@pytest.mark.docs
@pytest.mark.slow
def test_demo_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check("demo", {})


PARTS = ("loss", "backbone", "dataset", "localizer")


@pytest.mark.docs
@pytest.mark.parametrize("page", [f"add-a-{part}" for part in PARTS])
def test_what_others_add_works(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[dict[str, Any]] = [relocal.LOSSES, relocal.BACKBONES, relocal.DATASETS]
    tables.append(relocal.LOCALIZERS)
    before = [dict(table) for table in tables]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Photos of the size that `relocal import synthetic` renders, only fewer.
    render_room(tmp_path / "room", RoomConfig(train_frames=24, test_frames=8))
    relocal.import_scene("synthetic", "room", "scene")
    try:
        check("", {}, f"docs/{page}.md")
    finally:
        for table, old in zip(tables, before, strict=True):
            table.clear()
            table.update(old)


def test_blocks_are_found_and_outputs_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (
        "```bash\nfalse\n```\n\n<!-- test -->\n```python\nx = 2\nprint('a', x)\n```\n\n"
        "<!-- output -->\n```text\na 2.5\n```\n\n<!-- test: demo -->\n```bash\necho b; pwd\n```\n"
    )
    first, second = blocks(page)
    assert (first.label, first.language, first.output) == ("", "python", "a 2.5\n")
    assert (second.label, second.language, second.output) == ("demo", "bash", None)
    assert run(first, {}) == "a 2\n"
    assert run(second, {}).split() == ["b", str(tmp_path)]
    assert alike("a 2\n", "a  2.5")
    assert alike("[3.   1.] m", "[2.9 1.1] m")
    assert not alike("a 2", "a 9")
    assert not alike("a 2", "b 2")
    assert not alike("a 2", "a")
    assert alike("x ms\na 1 9", "x ms\na 1 40.5")
    assert not alike("x ms\na 1 9", "x ms\na 3 9")
