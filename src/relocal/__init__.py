"""relocal: where is the camera, and where is it looking? From one RGB photo.

Names are imported when they are first used, so that ``import relocal`` is quick.
"""

# pyright: reportUnusedImport=false

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relocal.backbones import BACKBONES, BackboneConfig
    from relocal.camera import Camera
    from relocal.corruptions import CORRUPTIONS
    from relocal.datasets import DATASETS, import_scene
    from relocal.datasets.downloads import DOWNLOADS, get_scene
    from relocal.datasets.room.config import RoomConfig
    from relocal.datasets.synthetic import render_room
    from relocal.datasets.writing import WRITERS, export_scene
    from relocal.demonstration import DEMO_CONFIG, demo
    from relocal.errors import InputError
    from relocal.evaluation import Report, evaluate, evaluate_estimates
    from relocal.exporting import ExportConfig, export
    from relocal.features import FEATURES
    from relocal.localizers import (
        LOCALIZERS,
        Bayesian,
        Calibration,
        Ensemble,
        Exported,
        FeatureMap,
        Hybrid,
        Localizer,
        MapConfig,
        Regressor,
        Retrieval,
        Structure,
        build_map,
        calibrate,
        load_map,
        open_localizers,
        save_map,
    )
    from relocal.localizers.doubt import doubt
    from relocal.localizers.sequence import Measured, PoseFilter
    from relocal.losses import COUPLED, LOSSES, LossConfig, loss_text, parse_loss
    from relocal.models import MODELS, PoseNetConfig
    from relocal.notices import NOTICES, Notice
    from relocal.paper import repeat_paper
    from relocal.pose import ROTATIONS, Pose
    from relocal.publishing import LICENCES, PublishConfig, publish
    from relocal.report import (
        estimate_to_ros,
        load_report,
        plain_table,
        save_labels,
        save_report,
        save_study,
        study_table,
    )
    from relocal.scene import Account, Scene, check, load_scene, save_scene
    from relocal.session import Alignment, align
    from relocal.sfm import (
        LabelConfig,
        Labelling,
        TriangulateConfig,
        add_photos,
        label,
        triangulate,
    )
    from relocal.studies import (
        StudyConfig,
        comparisons,
        load_study,
        pooled_twins,
        study,
    )
    from relocal.training import PRESETS, Run, TrainConfig, ViewConfig, load_run, train
    from relocal.types import Estimate, Prediction, Target
    from relocal.viewer import Gathered, gather, view

__version__ = "0.1.0"

_HOME = {
    "backbones": ("BACKBONES", "BackboneConfig"),
    "camera": ("Camera",),
    "corruptions": ("CORRUPTIONS",),
    "datasets": ("DATASETS", "import_scene"),
    "datasets.downloads": ("DOWNLOADS", "get_scene"),
    "datasets.room.config": ("RoomConfig",),
    "datasets.synthetic": ("render_room",),
    "datasets.writing": ("WRITERS", "export_scene"),
    "demonstration": ("DEMO_CONFIG", "demo"),
    "errors": ("InputError",),
    "exporting": ("ExportConfig", "export"),
    "evaluation": ("Report", "evaluate", "evaluate_estimates"),
    "features": ("FEATURES",),
    "localizers": (
        *("LOCALIZERS", "Bayesian", "Ensemble", "FeatureMap", "Hybrid", "Localizer", "MapConfig"),
        "Regressor",
        *("Calibration", "Exported", "Retrieval", "Structure"),
        *("build_map", "calibrate", "load_map", "open_localizers", "save_map"),
    ),
    "localizers.doubt": ("doubt",),
    "localizers.sequence": ("Measured", "PoseFilter"),
    "losses": ("COUPLED", "LOSSES", "LossConfig", "loss_text", "parse_loss"),
    "models": ("MODELS", "PoseNetConfig"),
    "notices": ("NOTICES", "Notice"),
    "paper": ("repeat_paper",),
    "pose": ("ROTATIONS", "Pose"),
    "publishing": ("LICENCES", "PublishConfig", "publish"),
    "report": (
        *("estimate_to_ros", "load_report", "plain_table"),
        *("save_labels", "save_report", "save_study", "study_table"),
    ),
    "scene": ("Account", "Scene", "check", "load_scene", "save_scene"),
    "session": ("Alignment", "align"),
    "sfm": (
        *("LabelConfig", "Labelling", "TriangulateConfig"),
        *("add_photos", "label", "triangulate"),
    ),
    "studies": ("StudyConfig", "comparisons", "load_study", "pooled_twins", "study"),
    "training": ("PRESETS", "Run", "TrainConfig", "ViewConfig", "load_run", "train"),
    "types": ("Estimate", "Prediction", "Target"),
    "viewer": ("Gathered", "gather", "view"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [*_MODULE_OF, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
