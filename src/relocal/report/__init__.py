"""Reports: tables and figures of an evaluation, the files that hold them, and answers as lines."""

from relocal.report.figures import CURVES, TOP_VIEW, draw_curves, draw_top_view
from relocal.report.files import save_report
from relocal.report.lines import Format, estimate_line, estimate_to_json, pose_to_json
from relocal.report.tables import (
    plain_table,
    report_to_json,
    report_to_markdown,
    table,
    unit_name,
)

__all__ = [
    "CURVES",
    "TOP_VIEW",
    "Format",
    "draw_curves",
    "draw_top_view",
    "estimate_line",
    "estimate_to_json",
    "plain_table",
    "pose_to_json",
    "report_to_json",
    "report_to_markdown",
    "save_report",
    "table",
    "unit_name",
]
