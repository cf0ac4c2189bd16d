"""Reports: tables and figures of an evaluation, the files that hold them, and answers as lines."""

from relocal.report.figures import CURVES, TOP_VIEW, draw_curves, draw_top_view
from relocal.report.files import REPORT_JSON, load_report, save_report
from relocal.report.labels import draw_labels, labels_to_markdown, save_labels, scale_text
from relocal.report.lines import (
    Answer,
    Format,
    answer_texts,
    estimate_line,
    estimate_to_json,
    pose_to_json,
)
from relocal.report.making import unit_name
from relocal.report.page import report_to_html
from relocal.report.photos import Photos, choose_photos
from relocal.report.reconstruction import draw_reconstruction
from relocal.report.ros import estimate_to_ros
from relocal.report.study_files import save_study
from relocal.report.study_tables import study_table
from relocal.report.surfaces import loss_surfaces
from relocal.report.tables import (
    plain_table,
    report_to_json,
    report_to_markdown,
    table,
)

__all__ = [
    "CURVES",
    "REPORT_JSON",
    "TOP_VIEW",
    "Answer",
    "Format",
    "Photos",
    "answer_texts",
    "choose_photos",
    "draw_curves",
    "draw_labels",
    "draw_reconstruction",
    "draw_top_view",
    "estimate_line",
    "estimate_to_json",
    "estimate_to_ros",
    "labels_to_markdown",
    "load_report",
    "loss_surfaces",
    "plain_table",
    "pose_to_json",
    "report_to_html",
    "report_to_json",
    "report_to_markdown",
    "save_labels",
    "save_report",
    "save_study",
    "scale_text",
    "study_table",
    "table",
    "unit_name",
]
