"""Evaluation: localizers, or other systems' estimates, against true poses -> Report."""

from relocal.evaluation.estimates import evaluate_estimates, read_estimates
from relocal.evaluation.evaluating import evaluate, regime_of
from relocal.evaluation.report import BASELINES, MEAN, ORACLE, RETRIEVAL, MethodResult, Report
from relocal.evaluation.untrained import baselines, describe_images, radian_weight

__all__ = [
    "BASELINES",
    "MEAN",
    "ORACLE",
    "RETRIEVAL",
    "MethodResult",
    "Report",
    "baselines",
    "describe_images",
    "evaluate",
    "evaluate_estimates",
    "radian_weight",
    "read_estimates",
    "regime_of",
]
