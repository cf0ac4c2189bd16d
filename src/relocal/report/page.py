"""The page: a report as one HTML file that asks for nothing else."""

import math
from html import escape
from pathlib import PurePosixPath

from relocal.evaluation import ORACLE, Report
from relocal.report.corruptions import ABOUT, corruption_rows, corruptions_panel
from relocal.report.elements import (
    button_heads,
    definitions,
    disc,
    fill_page,
    grid,
    legend,
    legend_key,
    marked,
    panel_row,
    section,
    table,
)
from relocal.report.figures import (
    BASELINE,
    BASELINE_STYLES,
    PREDICTED,
    TRAINING,
    TRUE,
    Quantity,
    colours,
    length_text,
)
from relocal.report.making import facts, options, provenance
from relocal.report.panels import curves_panel, distance_panel, outside, view_panel
from relocal.report.photos import Photos, Thumbnail, telling
from relocal.report.tables import legend as legend_text
from relocal.report.tables import numbers, training_text
from relocal.report.uncertainty import ABOUT as SURE
from relocal.report.uncertainty import (
    CURVES_ABOUT,
    REJECTED_ABOUT,
    coverage_rows,
    rejection_rows,
    reliability_panel,
    risk_panel,
    stated,
)

NO_ANSWER = "no answer"
_QUANTITIES: tuple[Quantity, Quantity] = ("position", "rotation")


def report_to_html(report: Report, photos: Photos) -> str:
    """The report as a page for a browser: numbers, figures, a row an image, how it was made.

    Args:
        report: The report.
        photos: What may be shown of the photos.
    """
    sections = (
        _results(report),
        _curves(report),
        _distances(report),
        _views(report),
        _uncertainty(report),
        _rejections(report),
        _corruptions(report),
        _photos(report, photos),
        _images(report),
        _making(report),
    )
    title = f"{report.scene}: {len(report.images)} {report.split} images"
    return fill_page(title, training_text(report), sections)


# --- sections ----------------------------------------------------------------------------------


def _results(report: Report) -> str:
    head, *rows = numbers(report)
    remarks = "".join(f"<li>{escape(remark)}</li>\n" for remark in report.remarks())
    return section(
        "Results",
        f'<ul class="remarks">\n{remarks}</ul>' if remarks else "",
        table(f"Errors of every method on the same {len(report.images)} images", head, rows),
        f'<p class="note">{marked(legend_text(report))}</p>',
    )


def _curves(report: Report) -> str:
    colour_of = colours(report)
    keys = (
        legend_key(name, f"border-top:3px {style or 'solid'} {colour_of.get(name, BASELINE)}")
        for name in report.methods
        for style in [BASELINE_STYLES.get(name)]
    )
    return section(
        "Cumulative errors",
        "<p>The share of images at or below each error. A photo without an answer is never "
        "reached.</p>",
        legend(keys),
        panel_row(
            (curves_panel(report, quantity), f"{quantity.capitalize()} error")
            for quantity in _QUANTITIES
        ),
    )


def _distances(report: Report) -> str:
    if not report.localizers() or ORACLE not in report.methods:
        return ""
    keys = (legend_key(name, disc(colour)) for name, colour in colours(report).items())
    return section(
        "Errors far from the training poses",
        "<p>Each point is a photo, the line a running median. The dotted line is the oracle "
        "nearest pose: below it, an answer is nearer to the truth than any such neighbour. "
        "Triangles at the upper edge are errors above it; crosses there have no answer.</p>",
        legend(keys),
        panel_row(
            (distance_panel(report, quantity), f"{quantity.capitalize()} error")
            for quantity in _QUANTITIES
        ),
    )


def _views(report: Report) -> str:
    training = [legend_key("training", disc(TRAINING))] if len(report.training) else []
    keys = [*training, legend_key("true", disc(TRUE))]
    parts: list[str] = []
    for method in report.localizers() or [None]:
        named = [] if method is None else [legend_key(f"predicted: {method}", disc(PREDICTED))]
        parts.append(legend([*keys, *named]))
        panels = ((False, "From above"), (True, "From the side"))
        parts.append(panel_row((view_panel(report, method, side), text) for side, text in panels))
        if method is not None and (count := outside(report, method)):
            answers = "1 answer lies" if count == 1 else f"{count} answers lie"
            parts.append(f'<p class="note">{answers} outside the pictures.</p>')
    return section(
        "Positions and look directions",
        "<p>Short strokes point where a camera looks. A thin line joins a true position to the "
        "predicted one.</p>",
        *parts,
    )


def _uncertainty(report: Report) -> str:
    names = stated(report)
    if not names:
        return ""
    head, *rows = coverage_rows(report)
    keys = [legend_key(n, f"border-top:3px solid {colours(report)[n]}") for n in names]
    return section(
        "How sure they are",
        f'<p class="note">{marked(SURE)}</p>',
        table("Coverage of the stated regions", head, rows),
        f'<p class="note">{marked(CURVES_ABOUT)}</p>',
        legend(keys),
        panel_row(
            (reliability_panel(report, quantity), f"Reliability of {quantity} spreads")
            for quantity in _QUANTITIES
        ),
        panel_row(
            (risk_panel(report, quantity), f"{quantity.capitalize()} error of the surest answers")
            for quantity in _QUANTITIES
        ),
    )


def _rejections(report: Report) -> str:
    if not report.rejections:
        return ""
    head, *rows = rejection_rows(report)
    return section(
        "Photos of other places",
        f'<p class="note">{marked(REJECTED_ABOUT)}</p>',
        table("What would be refused", head, rows),
    )


def _corruptions(report: Report) -> str:
    if not report.corruptions:
        return ""
    keys = [legend_key(name, f"border-top:3px solid {c}") for name, c in colours(report).items()]
    return section(
        "Under corruptions",
        f'<p class="note">{marked(ABOUT)}</p>',
        legend(keys),
        panel_row(
            (corruptions_panel(report, quantity), f"Median {quantity} error against severity")
            for quantity in _QUANTITIES
        ),
        *(
            table(f"Medians of {name}, {report.unit} / °, by severity", head, rows)
            for name in report.corruptions
            for head, *rows in [corruption_rows(report, name)]
        ),
    )


def _photos(report: Report, photos: Photos) -> str:
    parts = [f'<p class="note">{escape(photos.note)}</p>' if photos.note else ""]
    for method in report.localizers():
        for what, chosen in zip(("Median", "Worst"), telling(report, method), strict=True):
            if chosen:
                items = "\n".join(_photo(report, photos, method, i) for i in chosen)
                parts.append(f"<h3>{what} photos of {escape(method)}</h3>")
                parts.append(f'<ul class="photos">\n{items}\n</ul>')
    return section("Median and worst photos", *parts) if len(parts) > 1 else ""


def _photo(report: Report, photos: Photos, method: str, index: int) -> str:
    name, errors = report.images[index], report.methods[method].errors
    position, rotation = float(errors.position[index]), float(errors.rotation_deg[index])
    answered = math.isfinite(position)
    error = f"{length_text(position)} {report.unit}, {rotation:.2f}°" if answered else NO_ANSWER
    picture = _picture(name, photos.thumbnails[index]) if photos.thumbnails else ""
    return f"<li>{picture}<span>{escape(name)}</span> <span>{escape(error)}</span></li>"


def _picture(name: str, small: Thumbnail | None) -> str:
    if small is None:
        return "<em>This file cannot be read.</em> "
    size = f'width="{small.width_px}" height="{small.height_px}"'
    return f'<img alt="Photo {escape(name)}" {size} src="{small.address()}">'


def _images(report: Report) -> str:
    nearest = [f"nearest training pose, {report.unit}"] if ORACLE in report.methods else []
    head = ["image", "sequence", *nearest]
    for name in report.localizers():
        head += [f"{name}: position, {report.unit}", f"{name}: rotation, °"]
    rows = (_image(report, i) for i in range(len(report.images)))
    caption = "Every image; press a header to sort"
    return section("Image by image", grid(caption, button_heads(head), rows, "images"))


def _image(report: Report, index: int) -> str:
    name = report.images[index]
    folder = str(PurePosixPath(name).parent)
    oracle = report.methods.get(ORACLE)
    cells = [] if oracle is None else [_number(float(oracle.errors.position[index]), 3)]
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
    tables = [
        table(caption, head, rows, "text")
        for caption, (head, *rows) in (
            ("Options of the runs", options(report)),
            ("Provenance of the scene", provenance(report)),
        )
        if rows
    ]
    return section("How it was made", definitions(facts(report)), *tables)
