"""Options of ``relocal publish``, and the licences that it knows."""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from relocal.datasets.downloads import Licence
from relocal.errors import InputError, unknown

_CC = "https://creativecommons.org/licenses"

LICENCES: dict[str, Licence] = {
    "CC0-1.0": Licence(
        name="Creative Commons Zero 1.0 Universal",
        url="https://creativecommons.org/publicdomain/zero/1.0/",
        summary="Any use, and nobody need be named.",
    ),
    "CC-BY-4.0": Licence(
        name="Creative Commons Attribution 4.0 International",
        url=f"{_CC}/by/4.0/",
        summary="Any use by those who name the authors.",
    ),
    "CC-BY-SA-4.0": Licence(
        name="Creative Commons Attribution-ShareAlike 4.0 International",
        url=f"{_CC}/by-sa/4.0/",
        summary="Any use by those who name the authors and share what they make of it alike.",
    ),
    "CC-BY-NC-4.0": Licence(
        name="Creative Commons Attribution-NonCommercial 4.0 International",
        url=f"{_CC}/by-nc/4.0/",
        summary="Any use that is not commercial by those who name the authors.",
    ),
    "CC-BY-NC-SA-4.0": Licence(
        name="Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International",
        url=f"{_CC}/by-nc-sa/4.0/",
        summary="Any use that is not commercial by those who name the authors and share alike.",
    ),
    "ODbL-1.0": Licence(
        name="Open Data Commons Open Database License v1.0",
        url="https://opendatacommons.org/licenses/odbl/1-0/",
        summary="Any use by those who name the authors and share changes of the data alike.",
    ),
}
"""By their SPDX names."""


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """What a published scene says of itself."""

    license: str
    """CC0-1.0, CC-BY-4.0, CC-BY-SA-4.0, CC-BY-NC-4.0, CC-BY-NC-SA-4.0, ODbL-1.0, or the file of
    another licence's text."""
    author: tuple[str, ...]
    """Who made it; several in a row."""
    title: str | None = None
    """What it is called; the scene's name if not given."""
    description: str | None = None
    """What place it shows, and how it was recorded, in a few sentences."""
    url: str | None = None
    """Where it will be found."""
    version: str = "1.0.0"
    """Its version, three numbers: the first changes when results are no longer comparable."""
    date: str | None = None
    """The day of publication, as 2026-01-31; today if not given."""
    keep_metadata: bool = False
    """Publish what photo files say of time, place and camera; it is taken out otherwise."""

    def __post_init__(self) -> None:
        if self.license not in LICENCES and not Path(self.license).is_file():
            raise unknown("--license", self.license, LICENCES)
        if not self.author or not all(name.strip() for name in self.author):
            raise InputError("--author: names nobody.")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise InputError(f"--version: is three numbers, as 1.0.0, not {self.version}.")
        if self.url is not None and not re.match(r"https?://\S+$", self.url):
            raise InputError(f"--url: is an address that begins with https://, not {self.url}.")
        try:
            date.fromisoformat(self.date or "2026-01-31")
        except ValueError:
            raise InputError(f"--date: is a day, as 2026-01-31, not {self.date}.") from None

    @property
    def licence(self) -> Licence | None:
        """The licence, if it is one of ``LICENCES``."""
        return LICENCES.get(self.license)

    @property
    def day(self) -> str:
        """The day of publication."""
        return (date.fromisoformat(self.date) if self.date else date.today()).isoformat()
