"""Places: the scenes that a server answers for, each with what localizes in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.evaluation.evaluating import sources_of
from relocal.localizers import FeatureMap, Localizer, open_localizer, open_localizers

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

    def to_json(self) -> dict[str, Any]:
        """What a program that draws the place needs."""
        source = sources_of(self.localizer)[0]
        return {
            "name": self.name,
            "unit": self.unit,
            "method": self.localizer.method,
            "camera": self.camera.to_json(),
            "training_images": len(source.training_images),
            "points": [] if self.map is None else _points(self.map),
            "training_positions": [] if self.map is None else self.map.poses.position.tolist(),
        }


def _points(map: FeatureMap) -> list[list[float]]:
    """x, y, z, r, g, b of map points, at most ``MOST_POINTS`` of them."""
    rows = torch.linspace(0, len(map) - 1, min(len(map), MOST_POINTS)).long()
    values = torch.cat([map.xyz[rows], map.rgb[rows].float()], dim=1)
    return [[round(v, 4) for v in row] for row in values.tolist()]


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
