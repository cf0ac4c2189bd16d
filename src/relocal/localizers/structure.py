"""Structure: features of the photo are found in a map, and the pose follows from them (PnP)."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from relocal.camera import Camera
from relocal.images import Source, camera_of_photo
from relocal.localizers.feature_map import LEAST_POINTS, Described, FeatureMap, extract
from relocal.localizers.map_files import load_map
from relocal.localizers.matching import Matches, match_near, search
from relocal.notices import Notice
from relocal.pose import Pose
from relocal.sfm.absolute_pose import (
    fitted_bend,
    fitted_focal,
    pose_sigmas,
    refine_pose,
    solve_pose,
)
from relocal.types import Estimate

RATIO = 0.8
"""How much nearer than the second nearest a match must be."""
RANSAC_PX, NEAR_PX = 8.0, 6.0
"""Errors that are allowed while a pose is found, and then while it is refined, in a photo as it is
looked at."""
LEAST_INLIERS = LEAST_POINTS
_ENOUGH_TO_DOUBT, _DOUBT_BY, _OFF_FOCAL = 50, 200, 0.03
_BENT_PX, _EXPLAINED = 3.0, 0.3  # of good photos at most 0.1, of a phone's wide lens untold 0.6
_OTHER_LENS = 1.4  # ratio of focal lengths


class Structure:
    """Localizes photos in a map of features.

    Args:
        map: The map, or its folder.

    Raises:
        InputError: If the map cannot be opened.
    """

    method = "structure"

    def __init__(self, map: FeatureMap | Path | str) -> None:
        self.map = map if isinstance(map, FeatureMap) else load_map(map)
        self.calibration = self.map.calibration

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate | None:
        """Says where a photo was taken, or None when too few of its features are found.

        Args:
            image: A file, or the bytes of one.
            camera: Its camera. Without it the focal length comes from EXIF, and failing that from
                the scene, with a warning in the estimate.

        Raises:
            InputError: If the photo cannot be read or does not fit the camera.
        """
        start = time.perf_counter()
        source = Path(image) if isinstance(image, str) else image
        known = camera_of_photo(source, self.map.photo_camera, camera)
        camera, keypoints = extract(source, known.camera, self.map.config, self.map.photo_camera)
        seen = self.map.described(keypoints)
        matches = search(self.map, seen, RATIO)
        found = pose_of(self.map, seen, matches, camera)
        if found is None:
            return None
        return estimate(self.map, seen, found, camera, self.method, start, known.notices)


def estimate(
    map: FeatureMap,
    seen: Described,
    found: tuple[Pose, Matches],
    camera: Camera,
    method: str,
    start: float,
    warnings: Sequence[Notice],
) -> Estimate:
    """The answer of a method that matches features.

    Args:
        map: The map.
        seen: Features of the photo.
        found: The pose, and the matches that support it.
        camera: The photo's camera.
        method: Which method found it.
        start: When it began, in seconds of ``perf_counter``.
        warnings: What the user should know.
    """
    pose, matches = found
    told = {warning.code for warning in warnings}
    doubt = None
    if "other-lens" not in told:  # so far from the map's that the photo is seen too small to doubt
        if (
            "exif-focal-contradicts" not in told
        ):  # a wrong focal length looks like a lens that bends
            doubt = _unusual(map.photo_camera, camera) or _bent(map, seen, pose, matches, camera)
        doubt = doubt or _doubt(map, seen, pose, matches, camera)
    sigmas = pose_sigmas(pose, *_arrays(map, seen, matches), camera)
    answer = Estimate(
        pose=pose,
        unit=map.unit,
        method=method,
        time_ms=1000 * (time.perf_counter() - start),
        sigma_m=None if sigmas is None else sigmas[0],
        sigma_deg=None if sigmas is None else sigmas[1],
        inliers=len(matches),
        warnings=(*warnings, *([] if doubt is None else [doubt])),
    )
    return answer if map.calibration is None else map.calibration.of(answer)


def pose_of(
    map: FeatureMap, seen: Described, matches: Matches, camera: Camera
) -> tuple[Pose, Matches] | None:
    """The pose that matches agree on, refined with all that the map expects to be seen there.

    Returns:
        The pose, and the matches that support it; None where too few agree on any.
    """
    solved = solve_pose(*_arrays(map, seen, matches), camera, RANSAC_PX)
    if solved is None or solved.inliers.sum() < LEAST_INLIERS:
        return None
    pose, matches = solved.pose, matches[torch.from_numpy(solved.inliers)]
    near = match_near(map, seen, pose, camera, NEAR_PX, RATIO)
    better = refine_pose(pose, *_arrays(map, seen, near), camera)
    if better is not None:
        pose, matches = better, near
    return (pose, matches) if len(matches) >= LEAST_INLIERS else None


def _arrays(
    map: FeatureMap, seen: Described, matches: Matches
) -> tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "m 2"]]:
    """Points in the world and where the photo sees them."""
    points, pixels = map.xyz[matches[:, 1]], seen.xy[matches[:, 0]]
    return points.numpy(), pixels.double().numpy()


def _unusual(known: Camera, camera: Camera) -> Notice | None:
    """A lens so far from those of the map that its photo is looked at too small to doubt it."""
    its, usual = (float(one.focal.mean()) / max(one.width, one.height) for one in (camera, known))
    ratio = its / usual
    if 1 / _OTHER_LENS < ratio < _OTHER_LENS:
        return None
    text = (
        f"its camera has {ratio:.1f} times the focal length of those that the map was made with; "
        "if that is wrong the pose is, too (--camera)."
    )
    return Notice("other-lens", text)


def _doubt(
    map: FeatureMap, seen: Described, pose: Pose, matches: Matches, camera: Camera
) -> Notice | None:
    """What the residuals say against the camera, if they do."""
    if len(matches) < _ENOUGH_TO_DOUBT:
        return None
    step = -(-len(matches) // _DOUBT_BY)  # some of them say it as well as all
    ratio = fitted_focal(pose, *_arrays(map, seen, matches[::step]), camera)
    if abs(ratio - 1) <= _OFF_FOCAL:
        return None
    longer = f"{100 * abs(ratio - 1):.0f} % {'longer' if ratio > 1 else 'shorter'}"
    text = (
        f"a focal length {longer} than its camera's fits what the photo shows better; if the "
        "camera is wrong the pose is, too (--camera)."
    )
    return Notice("focal-doubtful", text)


def _bent(
    map: FeatureMap, seen: Described, pose: Pose, matches: Matches, camera: Camera
) -> Notice | None:
    """What the residuals say for a distortion that the camera does not have, if they do."""
    if len(matches) < _ENOUGH_TO_DOUBT or camera.has_distortion:
        return None
    step = -(-len(matches) // _DOUBT_BY)
    bend_px, explained = fitted_bend(pose, *_arrays(map, seen, matches[::step]), camera)
    if bend_px < _BENT_PX or explained < _EXPLAINED:
        return None
    text = (
        f"a lens that bends the picture by {bend_px:.0f} px fits what the photo shows better than "
        "its camera, which has no distortion; if the photo was not undistorted the pose is wrong "
        "(--camera)."
    )
    return Notice("distortion-doubtful", text)
