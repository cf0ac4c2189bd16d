"""Hybrid: the regressor says where to look in the map, and features found there give the pose."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import Source, camera_of_photo
from relocal.localizers.feature_map import FeatureMap, extract
from relocal.localizers.map_files import load_map
from relocal.localizers.matching import match_about, search
from relocal.localizers.regressor import Regressor
from relocal.localizers.structure import RATIO, estimate, pose_of
from relocal.training import Run
from relocal.types import Estimate

REACH = 0.2  # of the photo's width: how far from where the regressor puts it a point is looked for


class Hybrid:
    """Localizes photos with a regressor and a map of the same place.

    Points that the regressor's pose puts into view are looked for near where it puts them, which
    saves the search in the whole map. Where too few are found the whole map is searched
    (``structure``), and where that fails the regressor's own pose is the answer (its ``method``
    says so).

    Args:
        run: The run, or its folder.
        map: The map, or its folder.

    Raises:
        InputError: If one cannot be opened, or they were made of different poses.
    """

    method = "hybrid"

    def __init__(self, run: Run | Path | str, map: FeatureMap | Path | str) -> None:
        self.regressor = Regressor(run)
        self.run = self.regressor.run
        self.map = map if isinstance(map, FeatureMap) else load_map(map)
        self.calibration = self.map.calibration
        self._pool = ThreadPoolExecutor(1)
        if (self.run.scene, self.run.unit) != (self.map.scene, self.map.unit):
            raise InputError(
                f"{self.run.folder}: a run of the scene {self.run.scene!r} ({self.run.unit}) does "
                f"not go with a map of {self.map.scene!r} ({self.map.unit})."
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
        warnings: list[str] = []
        if camera is None:
            camera, warning = camera_of_photo(source, self.map.photo_camera)
            warnings += [] if warning is None else [warning]
        # Both at once: neither keeps two cores busy by itself.
        asked = self._pool.submit(self.regressor.localize, source, camera)
        camera, keypoints = extract(source, camera, self.map.config, self.map.photo_camera)
        guess = asked.result()
        seen = self.map.described(keypoints)
        about = match_about(self.map, seen, guess.pose, camera, REACH * camera.width, RATIO)
        method, found = self.method, pose_of(self.map, seen, about, camera)
        if found is None:
            matches = search(self.map, seen, RATIO)
            method, found = "structure", pose_of(self.map, seen, matches, camera)
        if found is None:
            spent = 1000 * (time.perf_counter() - start)
            return replace(guess, time_ms=spent, warnings=tuple(warnings))
        return estimate(self.map, seen, found, camera, method, start, warnings)
