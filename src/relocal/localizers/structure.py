"""Structure: features of the photo are found in a map, and the pose follows from them (PnP)."""

import time
from pathlib import Path

import torch

from relocal.camera import Camera
from relocal.features import Keypoints
from relocal.images import Source, camera_of_photo
from relocal.localizers.feature_map import FeatureMap, extract
from relocal.localizers.matching import Matches, match_near, search
from relocal.pose import Pose
from relocal.sfm.absolute_pose import refine_pose, solve_pose
from relocal.types import Estimate

RATIO = 0.8
NEAR_RATIO = 0.9
RANSAC_PX, NEAR_PX = 8.0, (10.0, 4.0)
LEAST_INLIERS = 12


class Structure:
    """Localizes photos in a map of features.

    Args:
        map: The map.
    """

    method = "structure"

    def __init__(self, map: FeatureMap) -> None:
        self.map = map

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate | None:
        """Says where a photo was taken, or None when too few of its features are found.

        Args:
            image: A file, or the bytes of one.
            camera: Its camera. Without it the focal length comes from EXIF, and failing that from
                the scene, with a warning in the estimate.
        """
        start = time.perf_counter()
        source = Path(image) if isinstance(image, str) else image
        warning = None
        if camera is None:
            camera, warning = camera_of_photo(source, self.map.photo_camera)
        keypoints, _ = extract(source, camera, self.map.config, self.map.photo_camera)
        matches = search(self.map, keypoints, RATIO)
        found = pose_of(self.map, keypoints, matches, camera)
        if found is None:
            return None
        pose, inliers = found
        return Estimate(
            pose=pose,
            unit=self.map.unit,
            method=self.method,
            time_ms=1000 * (time.perf_counter() - start),
            inliers=inliers,
            warnings=() if warning is None else (warning,),
        )


def pose_of(
    map: FeatureMap, keypoints: Keypoints, matches: Matches, camera: Camera
) -> tuple[Pose, int] | None:
    """The pose that matches agree on, refined with all that the map expects to be seen there."""
    points = map.xyz[matches[:, 1]].double().numpy()
    pixels = keypoints.xy[matches[:, 0]].double().numpy()
    solved = solve_pose(points, pixels, camera, RANSAC_PX)
    if solved is None or solved.inliers.sum() < LEAST_INLIERS:
        return None
    pose, matches = solved.pose, matches[torch.from_numpy(solved.inliers)]
    for radius in NEAR_PX:
        near = match_near(map, keypoints, pose, camera, radius, NEAR_RATIO)
        better = refine_pose(
            pose,
            map.xyz[near[:, 1]].double().numpy(),
            keypoints.xy[near[:, 0]].double().numpy(),
            camera,
        )
        if better is not None:
            pose, matches = better, near
    return pose, len(matches)
