"""What others bring: a file or module that is imported before the options are read."""

from pathlib import Path

import pytest

from relocal import cli, plugins
from relocal.errors import InputError
from relocal.losses import LOSSES, Position
from relocal.plugins import import_modules
from relocal.pose import ROTATIONS

FILE = """\
import relocal
from relocal.losses import Position

relocal.LOSSES["mine"] = Position
relocal.ROTATIONS["mine"] = relocal.ROTATIONS["6d"]
with open("count.txt", "a") as file:
    file.write("x")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_IMPORTED", set())
    # Set and taken away again, so that the tables are as before when the test is over.
    for table in (LOSSES, ROTATIONS):
        monkeypatch.setitem(table, "mine", None)
        del table["mine"]
    Path("mine.py").write_text(FILE)
    return "mine.py"


def test_file_is_run_once_and_adds_its_names(mine: str) -> None:
    import_modules([mine, mine])
    import_modules([mine])
    assert LOSSES["mine"] is Position
    assert Path("count.txt").read_text() == "x"


def test_module_is_imported(mine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    import_modules(["mine"])
    assert LOSSES["mine"] is Position


@pytest.mark.parametrize("name", ["nowhere.py", "no_such_module"])
def test_what_is_not_there_is_refused_by_name(mine: str, name: str) -> None:
    with pytest.raises(InputError, match=f"--import {name}"):
        import_modules([name])


@pytest.mark.parametrize("form", [("--import", "mine.py"), ("--import=mine.py",)])
def test_names_are_known_before_the_options_are_read(mine: str, form: tuple[str, ...]) -> None:
    options = ("--loss", "mine", "--model.rotation", "mine")
    verb = cli.parse(["train", "scene", "--out", "run", *options, *form])
    assert isinstance(verb, cli.Train)
    assert verb.modules == ("mine.py",)
    assert verb.config.model.rotation == "mine"


def test_names_are_listed_in_the_help(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(["train", "--import", mine, "--help"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*LOSSES, *ROTATIONS, "frozen_stem", "twin:frustum"))
    assert "mine" in listed
