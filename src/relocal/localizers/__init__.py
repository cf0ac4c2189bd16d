"""Localizers: ``localize(photo, camera=None) -> Estimate | None``, one file a way."""

from relocal.localizers.bayesian import Bayesian
from relocal.localizers.calibration import Calibration
from relocal.localizers.ensemble import Ensemble
from relocal.localizers.exported import Exported
from relocal.localizers.feature_map import FeatureMap, MapConfig, build_map
from relocal.localizers.held_out import calibrate
from relocal.localizers.hybrid import Hybrid
from relocal.localizers.map_files import load_map, save_map
from relocal.localizers.registry import LOCALIZERS, Localizer, open_localizer, open_localizers
from relocal.localizers.regressor import Regressor
from relocal.localizers.retrieval import ImageIndex, Retrieval, index_images
from relocal.localizers.structure import Structure

__all__ = [
    "LOCALIZERS",
    "Bayesian",
    "Calibration",
    "Ensemble",
    "Exported",
    "FeatureMap",
    "Hybrid",
    "ImageIndex",
    "Localizer",
    "MapConfig",
    "Regressor",
    "Retrieval",
    "Structure",
    "build_map",
    "calibrate",
    "index_images",
    "load_map",
    "open_localizer",
    "open_localizers",
    "save_map",
]
