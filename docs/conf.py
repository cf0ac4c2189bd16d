"""Sphinx: ``make docs`` builds the site from the pages as they stand in the repository.

The source folder is the repository itself, so that one link leads to the same page here and on a
code host; linked files that are no pages are copied into the site as downloads.
"""

import dataclasses
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import relocal

ROOT = Path(__file__).parents[1]

project = "relocal"
author = "the authors of relocal"
project_copyright = "the authors of relocal"
release = relocal.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "results/studies/*/study.md"]
# Other folders are not walked through: scenes and environments hold many files.
_FOLDERS = {p.name for p in ROOT.iterdir() if p.is_dir() and p.name[0] != "."} | {"build"}
exclude_patterns = [".*", *sorted(_FOLDERS - {"docs", "results"})]

myst_heading_anchors = 4  # the anchors that code hosts give headings
myst_enable_extensions = ["html_image"]

autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 90
# Types of other packages, and of inner modules, have no page here.
nitpick_ignore_regex = [("py:.*", r"(?!relocal\.\w+$).*")]

highlight_language = "text"
html_theme = "furo"
html_title = f"relocal {release}"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["site/site.css"]
html_css_files = ["site.css"]
html_extra_path = ["site/index.html"]  # leads from the site's address to its first page


def fields_are_arguments(
    _app: Sphinx, what: str, _name: str, obj: Any, *_: Any
) -> tuple[str, str] | None:
    """Leaves out what a dataclass is called with: its fields, which stand below with their text."""
    return ("", "") if what == "class" and dataclasses.is_dataclass(obj) else None


def keep_colons(
    _app: Sphinx, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Begins a field's text with an empty comment, lest napoleon take what it says for a type.

    That is how it reads words before a colon, in the first line.
    """
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", fields_are_arguments)
    app.connect("autodoc-process-docstring", keep_colons, priority=100)  # napoleon has 500
