"""Notices: warnings as data, with codes that are documented."""

import re
from pathlib import Path

import pytest

import relocal
from relocal.errors import InputError
from relocal.notices import NOTICES, Notice

ROOT = Path(__file__).parents[1]
SOURCE = "\n".join(file.read_text("utf-8") for file in (ROOT / "src").rglob("*.py"))


def test_a_notice_is_data_and_reads_as_its_text() -> None:
    notice = relocal.Notice("network-alone", "too little was found.")
    assert str(notice) == "too little was found."
    assert notice.to_json() == {"code": "network-alone", "text": "too little was found."}


def test_a_code_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="NOTICES"):
        Notice("no-such-code", "text")


def test_the_conventions_list_every_code_and_no_other() -> None:
    page = (ROOT / "docs" / "conventions.md").read_text("utf-8")
    table = page.split("\n## Warnings\n")[1].split("\n## ")[0]
    assert dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", table, re.M)) == NOTICES


@pytest.mark.parametrize("code", NOTICES)
def test_a_code_is_a_few_words_and_something_tells_it(code: str) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
    assert SOURCE.count(f'"{code}"') > 1  # in the table, and where it is told
