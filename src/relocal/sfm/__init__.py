"""Structure from Motion: map points for a scene whose poses are known.

COLMAP does the work, through pycolmap: SIFT features, matches between images that look at the same
things, and triangulation with the poses held fixed. Only training images take part, so nothing of
the test images reaches a model through the map.
"""

from relocal.sfm.pairs import TriangulateConfig, pose_pairs
from relocal.sfm.triangulation import MIN_POINTS_SEEN, triangulate, triangulated

__all__ = [
    "MIN_POINTS_SEEN",
    "TriangulateConfig",
    "pose_pairs",
    "triangulate",
    "triangulated",
]
