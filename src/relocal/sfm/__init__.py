"""Structure from Motion: poses of photos and videos, and map points for poses that are known.

COLMAP does the work, through pycolmap: SIFT features, matches between images that look at the same
things, and mapping, or triangulation with the poses held fixed. Of a scene with a split only
training images are triangulated, so nothing of the test images reaches a model through the map.
"""

from relocal.sfm.adding import add_photos
from relocal.sfm.label_config import LabelConfig
from relocal.sfm.labelling import Labelling, label
from relocal.sfm.pairs import TriangulateConfig, pose_pairs
from relocal.sfm.triangulation import MIN_POINTS_SEEN, triangulate, triangulated

__all__ = [
    "MIN_POINTS_SEEN",
    "LabelConfig",
    "Labelling",
    "TriangulateConfig",
    "add_photos",
    "label",
    "pose_pairs",
    "triangulate",
    "triangulated",
]
