"""Hybrid: the regressor says where to look in the map, and features found there give the pose."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import Source, camera_of_photo
from relocal.localizers.exported import open_regressor
from relocal.localizers.feature_map import Described, FeatureMap, extract
from relocal.localizers.map_files import load_map
from relocal.localizers.matching import Matches, match_about, search
from relocal.localizers.regressor import Regressor
from relocal.localizers.structure import RATIO, estimate, pose_of
from relocal.notices import Notice
from relocal.pose import Pose
from relocal.scene.scene import same_poses
from relocal.training import Run
from relocal.types import Estimate

SURE_INLIERS = 50  # with fewer, a wrong guess may have found what looks alike elsewhere
_SAME = 1e-5  # of how the images are spread, and of a radian
_SINGLE = 2.0**-23  # of a length: more than single precision takes from it
REACH = 0.2  # of the photo's width: how far from where the regressor puts it a point is looked for


class Hybrid:
    """Localizes photos with a regressor and a map of the same place.

    Points that the regressor's pose puts into view are looked for near where it puts them, which
    saves the search in the whole map. Where few are found the whole map is searched, too, and the
    pose with more inliers is the answer (``structure`` if it is that search's). Where both fail the
    regressor's own pose is (its ``method`` says so).

    Args:
        run: The run, what regresses its poses, or its folder or that of its exported network.
        map: The map, or its folder.

    Raises:
        InputError: If one cannot be opened, or they were made of different poses.
    """

    method = "hybrid"

    def __init__(self, run: Regressor | Run | Path | str, map: FeatureMap | Path | str) -> None:
        self.regressor = run if isinstance(run, Regressor) else open_regressor(run)
        self.run = self.regressor.run
        self.map = map if isinstance(map, FeatureMap) else load_map(map)
        self.calibration = self.map.calibration
        self._pool = _one_core()
        if (self.run.scene, self.run.unit) != (self.map.scene, self.map.unit):
            raise InputError(
                f"{self.run.folder}: a run of the scene {self.run.scene!r} ({self.run.unit}) does "
                f"not go with a map of {self.map.scene!r} ({self.map.unit})."
            )
        if not _same_truth(self.run, self.map):
            raise InputError(
                f"{self.run.folder}: the run and the map were made of other poses of "
                f"{self.map.scene!r}; two ground truths of one place are never mixed."
            )
        # A run that holds out validation blocks was made of fewer.
        one, other = set(self.run.training_images), set(self.map.training_images)
        if not (one <= other or other <= one):
            raise InputError(
                f"{self.run.folder}: the run and the map were made of different training images; "
                "make both of the same scene and split."
            )

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate:
        """Says where a photo was taken.

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
        # Both at once: neither keeps two cores busy by itself.
        asked = self._pool.submit(self.regressor.localize, source, camera)
        camera, keypoints = extract(source, known.camera, self.map.config, self.map.photo_camera)
        guess = asked.result()
        seen = self.map.described(keypoints)
        method, found = self._find(guess.pose, seen, camera)
        if found is None:
            spent = 1000 * (time.perf_counter() - start)
            text = "too little of it was found in the map: this is the network's answer alone."
            alone = Notice("network-alone", text)
            return replace(guess, time_ms=spent, warnings=(*known.notices, alone))
        return estimate(self.map, seen, found, camera, method, start, known.notices)

    def _find(
        self, guess: Pose, seen: Described, camera: Camera
    ) -> tuple[str, tuple[Pose, Matches] | None]:
        """The method that found a pose in the map, and the pose with what supports it."""
        about = match_about(self.map, seen, guess, camera, REACH * camera.width, RATIO)
        found = pose_of(self.map, seen, about, camera)
        if found is not None and len(found[1]) >= SURE_INLIERS:
            return self.method, found
        whole = pose_of(self.map, seen, search(self.map, seen, RATIO), camera)
        if whole is not None and (found is None or len(whole[1]) > len(found[1])):
            return "structure", whole
        return self.method, found


def _same_truth(run: Run, map: FeatureMap) -> bool:
    """Whether images whose poses both know have the same ones; True where they share none."""
    index = {name: i for i, name in enumerate(map.training_images)}
    shared = [name for name in run.anchors if name in index]
    mine = map.poses[torch.tensor([index[name] for name in shared], dtype=torch.long)]
    rounded = _SINGLE * float((map.poses.position - map.origin).abs().max())
    return same_poses(mine, [run.anchors[name] for name in shared], _SAME, rounded)


def _one_core() -> ThreadPoolExecutor:
    """A thread in which torch uses one core, and leaves the others to the search for features."""
    pool, usual = ThreadPoolExecutor(1), torch.get_num_threads()
    pool.submit(torch.get_num_threads).result()  # a thread that never asked is set at its first use
    pool.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(usual)  # that was said for all threads to come
    return pool
