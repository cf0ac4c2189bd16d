"""Elements: the pieces of HTML that every page of results is made of.

Every text that comes from data goes through ``escape``, and the page's own policy lets no script
run but the one whose hash it states.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template


def fill_page(title: str, about: str, sections: Iterable[str]) -> str:
    """A page that asks for nothing else: title and first sentence as text, sections as HTML."""
    page, style, script = (
        Path(__file__).with_name(name).read_text("utf-8")
        for name in ("page.html", "page.css", "page.js")
    )
    return Template(page).substitute(
        title=escape(title),
        about=escape(about),
        sections="\n".join(sections),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def section(title: str, *parts: str) -> str:
    """A part of the page; parts without content are left out."""
    return "\n".join(["<section>", f"<h2>{title}</h2>", *filter(None, parts), "</section>"])


def marked(text: str) -> str:
    """Escaped text, in which Markdown's emphasis and code are HTML's."""
    text = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", escape(text))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def definitions(facts: Iterable[tuple[str, str]]) -> str:
    """A list of terms and what is said of each, in Markdown."""
    listed = "\n".join(f"<dt>{escape(term)}</dt><dd>{marked(text)}</dd>" for term, text in facts)
    return f"<dl>\n{listed}\n</dl>"


def table(caption: str, head: list[str], rows: Iterable[list[str]], kind: str = "") -> str:
    """A table, each row named by its first cell."""
    names = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = (
        f'<th scope="row">{escape(name)}</th>' + "".join(f"<td>{escape(c)}</td>" for c in cells)
        for name, *cells in rows
    )
    return grid(caption, names, lines, kind)


def grid(caption: str, head: str, rows: Iterable[str], kind: str) -> str:
    """A table that scrolls in its own frame, by keyboard too."""
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(caption)}">\n'
        f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def button_heads(names: Iterable[str]) -> str:
    """The headers of a table that sorts by the column whose header is pressed."""
    return "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(name)}</button></th>'
        for name in names
    )


def panel_row(panels: Iterable[tuple[str, str]]) -> str:
    """Pictures beside each other: the HTML of each, and its caption."""
    figures = (
        f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"
        for svg, caption in panels
    )
    return '<div class="panels">\n' + "\n".join(figures) + "\n</div>"


def legend(keys: Iterable[str]) -> str:
    """What the colours of the pictures below mean."""
    return f'<p class="key">{" ".join(keys)}</p>'


def legend_key(name: str, style: str) -> str:
    """A sign in a style of CSS, and what it stands for."""
    return f'<span><i style="{style}"></i>{escape(name)}</span>'


def disc(colour: str) -> str:
    """The style of a dot."""
    return f"height:.7em;width:.7em;border-radius:50%;background:{colour}"
