"""The page: a report as one HTML file that asks for nothing else.

Every text that comes from data goes through ``escape``, and the page's own policy lets no script
run but the one whose hash it states.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path, PurePosixPath
from string import Template

from relocal.evaluation import ORACLE, Report
from relocal.report.figures import (
    BASELINE,
    BASELINE_STYLES,
    PREDICTED,
    TRAINING,
    TRUE,
    Quantity,
    colours,
)
from relocal.report.making import facts, options, provenance, unit_name
from relocal.report.panels import curves_panel, distance_panel, outside, view_panel
from relocal.report.photos import Photos, Thumbnail, telling
from relocal.report.tables import LEGEND, numbers

NO_ANSWER = "no answer"
_QUANTITIES: tuple[Quantity, Quantity] = ("position", "rotation")


def report_to_html(report: Report, photos: Photos) -> str:
    """The report as a page for a browser: numbers, figures, a row an image, how it was made.

    Args:
        report: The report.
        photos: What may be shown of the photos.
    """
    page, style, script = (
        Path(__file__).with_name(name).read_text("utf-8")
        for name in ("page.html", "page.css", "page.js")
    )
    sections = (
        _results(report),
        _curves(report),
        _distances(report),
        _views(report),
        _photos(report, photos),
        _images(report),
        _making(report),
    )
    return Template(page).substitute(
        title=escape(f"{report.scene}: {len(report.images)} {report.split} images"),
        about=escape(
            f"Regime: {report.regime}. Training split: {len(report.training)} images. "
            f"Positions in {unit_name(report)}."
        ),
        sections="\n".join(sections),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


# --- sections ----------------------------------------------------------------------------------


def _results(report: Report) -> str:
    head, *rows = numbers(report)
    remarks = "".join(f"<li>{escape(remark)}</li>\n" for remark in report.remarks())
    return _section(
        "Results",
        f'<ul class="remarks">\n{remarks}</ul>' if remarks else "",
        _table(f"Errors of every method on the same {len(report.images)} images", head, rows),
        f'<p class="note">{_marked(LEGEND)}</p>',
    )


def _curves(report: Report) -> str:
    colour_of = colours(report)
    keys = (
        _key(name, f"border-top:3px {style or 'solid'} {colour_of.get(name, BASELINE)}")
        for name in report.methods
        for style in [BASELINE_STYLES.get(name)]
    )
    return _section(
        "Cumulative errors",
        "<p>The share of images at or below each error. A photo without an answer is never "
        "reached.</p>",
        _keys(keys),
        _panels(
            (curves_panel(report, quantity), f"{quantity.capitalize()} error")
            for quantity in _QUANTITIES
        ),
    )


def _distances(report: Report) -> str:
    names = report.localizers()
    if not names:
        return ""
    keys = (_key(name, _disc(colour)) for name, colour in colours(report).items())
    return _section(
        "Errors far from the training poses",
        "<p>Each point is a photo, the line a running median. The dotted line is the oracle "
        "nearest pose: below it, an answer is nearer to the truth than any such neighbour. "
        "Triangles at the upper edge are errors above it; crosses there have no answer.</p>",
        _keys(keys),
        _panels(
            (distance_panel(report, quantity), f"{quantity.capitalize()} error")
            for quantity in _QUANTITIES
        ),
    )


def _views(report: Report) -> str:
    keys = [_key("training", _disc(TRAINING)), _key("true", _disc(TRUE))]
    parts: list[str] = []
    for method in report.localizers() or [None]:
        named = [] if method is None else [_key(f"predicted: {method}", _disc(PREDICTED))]
        parts.append(_keys([*keys, *named]))
        panels = ((False, "From above"), (True, "From the side"))
        parts.append(_panels((view_panel(report, method, side), text) for side, text in panels))
        if method is not None and (count := outside(report, method)):
            answers = "1 answer lies" if count == 1 else f"{count} answers lie"
            parts.append(f'<p class="note">{answers} outside the pictures.</p>')
    return _section(
        "Positions and look directions",
        "<p>Short strokes point where a camera looks. A thin line joins a true position to the "
        "predicted one.</p>",
        *parts,
    )


def _photos(report: Report, photos: Photos) -> str:
    parts = [f'<p class="note">{escape(photos.note)}</p>' if photos.note else ""]
    for method in report.localizers():
        for what, chosen in zip(("Median", "Worst"), telling(report, method), strict=True):
            if chosen:
                items = "\n".join(_photo(report, photos, method, i) for i in chosen)
                parts.append(f"<h3>{what} photos of {escape(method)}</h3>")
                parts.append(f'<ul class="photos">\n{items}\n</ul>')
    return _section("Median and worst photos", *parts) if len(parts) > 1 else ""


def _photo(report: Report, photos: Photos, method: str, index: int) -> str:
    name, errors = report.images[index], report.methods[method].errors
    position, rotation = float(errors.position[index]), float(errors.rotation_deg[index])
    answered = math.isfinite(position)
    error = f"{position:.3f} {report.unit}, {rotation:.2f}°" if answered else NO_ANSWER
    picture = _picture(name, photos.thumbnails[index]) if photos.thumbnails else ""
    return f"<li>{picture}<span>{escape(name)}</span> <span>{escape(error)}</span></li>"


def _picture(name: str, small: Thumbnail | None) -> str:
    if small is None:
        return "<em>This file cannot be read.</em> "
    size = f'width="{small.width_px}" height="{small.height_px}"'
    return f'<img alt="Photo {escape(name)}" {size} src="{small.address()}">'


def _images(report: Report) -> str:
    head = ["image", "sequence", f"nearest training pose, {report.unit}"]
    for name in report.localizers():
        head += [f"{name}: position, {report.unit}", f"{name}: rotation, °"]
    buttons = (
        f'<th scope="col" aria-sort="none"><button type="button">{escape(text)}</button></th>'
        for text in head
    )
    rows = (_image(report, i) for i in range(len(report.images)))
    table = _grid("Every image; press a header to sort", "".join(buttons), rows, "images")
    return _section("Image by image", table)


def _image(report: Report, index: int) -> str:
    name = report.images[index]
    folder = str(PurePosixPath(name).parent)
    cells = [_number(float(report.methods[ORACLE].errors.position[index]), 3)]
    for method in report.localizers():
        errors = report.methods[method].errors
        cells.append(_number(float(errors.position[index]), 3))
        cells.append(_number(float(errors.rotation_deg[index]), 2))
    sequence = "" if folder == "." else folder
    return f'<th scope="row">{escape(name)}</th><td>{escape(sequence)}</td>{"".join(cells)}'


def _number(value: float, digits: int) -> str:
    """A cell that sorts by its full value; an empty value stands last."""
    if not math.isfinite(value):
        return f'<td class="none" data-value="">{NO_ANSWER}</td>'
    return f'<td data-value="{value!r}">{value:.{digits}f}</td>'


def _making(report: Report) -> str:
    listed = "\n".join(
        f"<dt>{escape(term)}</dt><dd>{_marked(text)}</dd>" for term, text in facts(report)
    )
    tables = [
        _table(caption, head, rows, "text")
        for caption, (head, *rows) in (
            ("Options of the runs", options(report)),
            ("Provenance of the scene", provenance(report)),
        )
        if rows
    ]
    return _section("How it was made", f"<dl>\n{listed}\n</dl>", *tables)


# --- parts -------------------------------------------------------------------------------------


def _section(title: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{title}</h2>", *filter(None, parts), "</section>"])


def _marked(text: str) -> str:
    """Escaped text, in which Markdown's emphasis and code are HTML's."""
    text = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", escape(text))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def _table(caption: str, head: list[str], rows: Iterable[list[str]], kind: str = "") -> str:
    """A table, each row named by its first cell."""
    names = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = (
        f'<th scope="row">{escape(name)}</th>' + "".join(f"<td>{escape(c)}</td>" for c in cells)
        for name, *cells in rows
    )
    return _grid(caption, names, lines, kind)


def _grid(caption: str, head: str, rows: Iterable[str], kind: str) -> str:
    """A table that scrolls in its own frame, by keyboard too."""
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(caption)}">\n'
        f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _panels(panels: Iterable[tuple[str, str]]) -> str:
    figures = (
        f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"
        for svg, caption in panels
    )
    return '<div class="panels">\n' + "\n".join(figures) + "\n</div>"


def _keys(keys: Iterable[str]) -> str:
    return f'<p class="key">{" ".join(keys)}</p>'


def _key(name: str, style: str) -> str:
    return f'<span><i style="{style}"></i>{escape(name)}</span>'


def _disc(colour: str) -> str:
    return f"height:.7em;width:.7em;border-radius:50%;background:{colour}"
