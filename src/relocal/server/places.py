"""Places: the scenes that a server answers for, each with what localizes in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.evaluation.evaluating import sources_of
from relocal.localizers import FeatureMap, Localizer, open_localizer, open_localizers
from relocal.pose import Pose
from relocal.viewer.place import Points

MOST_POINTS = 20_000


@dataclass(frozen=True)
class Place:
    """A scene by name, and what localizes photos of it."""

    name: str
    unit: str
    localizer: Localizer
    map: FeatureMap | None = None
    """Its map points, where there is a map."""

    @property
    def camera(self) -> Camera:
        """The camera of the scene's photos."""
        return sources_of(self.localizer)[0].photo_camera

    @property
    def recorded(self) -> Pose:
        """Where it was recorded: all training images of a map, some of those of a run."""
        if self.map is not None:
            return self.map.poses
        anchors = list(sources_of(self.localizer)[0].anchors.values())
        values = torch.tensor(anchors, dtype=torch.float64)
        return Pose(values[:, :3], values[:, 3:])

    @property
    def points(self) -> Points:
        """Map points and their colours, where there is a map; at most ``MOST_POINTS``."""
        if self.map is None:
            return None
        rows = torch.linspace(0, len(self.map) - 1, min(len(self.map), MOST_POINTS)).long()
        return self.map.xyz[rows].double().numpy(), self.map.rgb[rows].numpy()

    def to_json(self) -> dict[str, Any]:
        """What a program that draws the place needs."""
        source, points = sources_of(self.localizer)[0], self.points
        return {
            "name": self.name,
            "unit": self.unit,
            "method": self.localizer.method,
            "camera": self.camera.to_json(),
            "training_images": len(source.training_images),
            "points": [] if points is None else _rows(*points),
            "training_positions": self.recorded.position.tolist(),
        }


def _rows(xyz: Float[np.ndarray, "P 3"], rgb: UInt8[np.ndarray, "P 3"]) -> list[list[float | int]]:
    """Points and colours, to a tenth of a thousandth of the unit, or finer in a small world."""
    extent = float(np.ptp(xyz, axis=0).max()) if len(xyz) else 0.0
    small = -math.floor(math.log10(extent)) if extent > 0 else 0
    return np.hstack([xyz.round(4 + max(small, 0)), rgb]).tolist()


def open_places(folders: Sequence[Path], localizer: str | None = None) -> dict[str, Place]:
    """Opens runs, exported networks and maps, those of one scene as one place.

    Args:
        folders: The folders.
        localizer: The way to localize, for all places; by default hybrid where a scene has a
            network and a map, else what its folder is by itself.

    Raises:
        InputError: If one cannot be opened, or nothing says how to use several of a scene.
    """
    by_scene: dict[str, list[Path]] = {}
    maps: dict[str, FeatureMap] = {}
    units: dict[str, str] = {}
    for folder in folders:
        opened = open_localizer(folder)
        source = sources_of(opened)[0]
        by_scene.setdefault(source.scene, []).append(Path(folder))
        units[source.scene] = source.unit
        if isinstance(source, FeatureMap):
            maps[source.scene] = source
    places: dict[str, Place] = {}
    for name, mine in by_scene.items():
        both = len(mine) == 2 and name in maps
        kind = localizer or ("hybrid" if both else None)
        found = open_localizers(mine, [] if kind is None else [kind])
        if len(found) != 1:
            raise InputError(
                f"{name}: {len(mine)} folders are of this scene; say with --localizer what to make "
                "of them (ensemble, hybrid), or give one."
            )
        places[name] = Place(name, units[name], next(iter(found.values())), maps.get(name))
    return places
