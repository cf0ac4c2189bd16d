"""The loss study: the source paper's experiment with seeds, intervals and a validation split."""

from relocal.studies.config import StudyConfig
from relocal.studies.contrasts import Comparison, comparisons, pooled_twins
from relocal.studies.results import MethodErrors, SceneErrors, Study, load_study
from relocal.studies.running import study

__all__ = [
    "Comparison",
    "MethodErrors",
    "SceneErrors",
    "Study",
    "StudyConfig",
    "comparisons",
    "load_study",
    "pooled_twins",
    "study",
]
