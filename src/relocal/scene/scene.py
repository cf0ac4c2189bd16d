"""Scene: what is known of a place, in memory."""

import getpass
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Literal
from unicodedata import normalize

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.pose import Pose, rotation_angle
from relocal.scene.account import Account
from relocal.scene.lost import LARGEST

UNITS = ("m", "unit")
MIN_DEPTH_OBSERVATIONS = 10
MAX_ANCHORS, ANCHOR_TOLERANCE = 16, 1e-6
_MAX_NORM_ERROR = 1e-3
_DOUBLE = 1e-13  # of a coordinate: what turning it to and fro in double precision takes from it


@dataclass(frozen=True)
class Points:
    """Map points and which images see them where."""

    xyz: Float[np.ndarray, "P 3"]
    """Positions in the world."""
    rgb: UInt8[np.ndarray, "P 3"]
    """Colours."""
    image_index: Int[np.ndarray, " M"]
    """For each observation, the index of the image that sees a point."""
    point_index: Int[np.ndarray, " M"]
    """For each observation, the index of the point."""
    xy: Float[np.ndarray, "M 2"]
    """For each observation, the pixel."""

    def seen_by(self, images: Sequence[int]) -> "Points | None":
        """What some images see of them, the images numbered anew in their order; None if nothing.

        Points that none of these images sees are dropped.
        """
        number = np.full(1 + max(max(images, default=0), int(self.image_index.max(initial=0))), -1)
        number[list(images)] = np.arange(len(images))
        kept = number[self.image_index] >= 0
        seen, point_index = np.unique(self.point_index[kept], return_inverse=True)
        if len(seen) == 0:
            return None
        image_index = number[self.image_index[kept]]
        return Points(self.xyz[seen], self.rgb[seen], image_index, point_index, self.xy[kept])


@dataclass(frozen=True)
class Scene:
    """Images of one place with their cameras and poses.

    Raises:
        InputError: If the parts contradict each other: a name twice or outside the folder, a
            split that names an unknown image or has one image twice, a pose that is not finite.
    """

    name: str
    unit: Literal["m", "unit"]
    """``"m"`` when the scale is known, else ``"unit"``."""
    image_root: Path
    """The folder that image names are relative to."""
    images: tuple[str, ...]
    """Image names, in the order of recording; the folder of a name is its sequence."""
    cameras: tuple[Camera, ...]
    camera_index: Int[Tensor, " N"]
    """For each image, the index of its camera."""
    poses: Pose
    """Poses ``world_from_cam`` of shape (N,), float64."""
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Image names by split; ``train`` and ``test``. An image may be in neither."""
    points: Points | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """How the poses were made: reader, labels, intrinsics, split rule, versions."""
    folder: Path | None = None
    """Where the scene is saved, None while it is only in memory."""
    account: Account | None = None
    """What became of everything that its source listed; None where that is not known."""

    def __post_init__(self) -> None:
        count = len(self.images)
        if count == 0:
            raise InputError(f"scene {self.name}: there are no images.")
        if self.poses.shape != (count,) or self.camera_index.shape != (count,):
            raise InputError(f"scene {self.name}: {count} images need as many poses and cameras.")
        self._check_names()
        self._check_poses()
        self._check_splits()

    def _check_names(self) -> None:
        repeated = [name for name, times in Counter(self.images).items() if times > 1]
        if repeated:
            raise InputError(f"scene {self.name}: {len(repeated)} names twice: {some(repeated)}.")
        # On many disks these are one file: a scene that is copied there would mix its poses up.
        alike: dict[str, list[str]] = {}
        for name in self.images:
            alike.setdefault(normalize("NFC", name).casefold(), []).append(name)
        twins = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
        if twins:
            raise InputError(
                f"scene {self.name}: names that many disks take for one (they differ in case, or "
                f"in how an accent is written): {some(twins)}; rename one of each."
            )
        outside = [name for name in self.images if not _is_inside(PurePath(name))]
        if outside:
            raise InputError(
                f"scene {self.name}: images must lie in the scene's folder, not at {some(outside)}."
            )

    def _check_poses(self) -> None:
        finite = (self.poses.position.abs() < LARGEST).all(-1)
        finite &= torch.isfinite(self.poses.quaternion).all(-1)
        if not bool(finite.all()):
            bad = [self.images[i] for i in (~finite).nonzero()[:, 0].tolist()]
            raise InputError(
                f"scene {self.name}: poses that are not finite numbers, of {some(bad)}; they are "
                f"below {LARGEST:g}."
            )
        off = (self.poses.quaternion.norm(dim=-1) - 1).abs() > _MAX_NORM_ERROR
        if bool(off.any()):
            bad = [self.images[i] for i in off.nonzero()[:, 0].tolist()]
            raise InputError(f"scene {self.name}: rotations that are none, of {some(bad)}.")

    def _check_splits(self) -> None:
        known = set(self.images)
        for split, names in self.splits.items():
            if not re.fullmatch(r"[\w-]+", split):
                raise InputError(
                    f"scene {self.name}: a split is named by letters and digits, not {split!r}."
                )
            strange = [name for name in names if name not in known]
            if strange:
                raise InputError(
                    f"scene {self.name}: split {split!r} names images that the scene does not "
                    f"have: {some(strange)}."
                )
            if len(set(names)) < len(names):
                twice = [name for name, times in Counter(names).items() if times > 1]
                raise InputError(f"scene {self.name}: split {split!r} has twice: {some(twice)}.")
        both = set(self.splits.get("train", ())) & set(self.splits.get("test", ()))
        if both:
            raise InputError(
                f"scene {self.name}: {len(both)} images are in train and in test: "
                f"{some(sorted(both))}."
            )

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.image_root / self.images[index]

    def camera(self, index: int) -> Camera:
        """The camera of an image."""
        return self.cameras[int(self.camera_index[index])]

    def indices(self, split: str) -> Int[Tensor, " n"]:
        """Indices of a split's images, in the scene's order.

        Raises:
            InputError: If the scene has no such split or it is empty.
        """
        names = set(self.splits.get(split, ()))
        if not names:
            raise InputError(
                f"scene {self.name}: there are no {split!r} images; import it again with --split."
            )
        return torch.tensor([i for i, name in enumerate(self.images) if name in names])

    def usual_camera(self, index: Int[Tensor, " n"]) -> Camera:
        """The camera that most of some images were taken with."""
        return self.cameras[int(self.camera_index[index].mode().values)]

    def sequence(self, index: int) -> str:
        """The recording an image belongs to: the folder of its name."""
        return str(Path(self.images[index]).parent)

    def anchors(self, names: Sequence[str]) -> dict[str, list[float]]:
        """Poses of a few of the images by name, which tell one ground truth from another.

        Returns:
            At most ``MAX_ANCHORS`` of the names, evenly spaced, each with x, y, z of its centre and
            w, x, y, z of its quaternion.
        """
        index = {name: i for i, name in enumerate(self.images)}
        chosen = list(names)[:: max(1, -(-len(names) // MAX_ANCHORS))]
        poses = self.poses[torch.tensor([index[name] for name in chosen])]
        values = torch.cat([poses.position, poses.quaternion], dim=1)
        return dict(zip(chosen, values.tolist(), strict=True))

    def has_anchors(self, anchors: Mapping[str, Sequence[float]]) -> bool:
        """Whether these images are here with the same poses, to a millionth of their spread."""
        index = {name: i for i, name in enumerate(self.images)}
        if not anchors or not anchors.keys() <= index.keys():
            return False
        mine = self.poses[torch.tensor([index[name] for name in anchors])]
        return same_poses(mine, list(anchors.values()), ANCHOR_TOLERANCE)

    def cache_folder(self) -> Path:
        """Where images made from this scene are kept: in its folder if that can be written to."""
        if self.folder is not None and os.access(self.folder, os.W_OK):
            return self.folder / "cache"
        # A folder for each user, because what another user left there is not to be trusted.
        user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
        digest = hashlib.sha256(str(self.image_root.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"relocal-{user}" / digest

    @cached_property
    def origin(self) -> Float[Tensor, "3"]:
        """The middle of the training cameras, float64: what arithmetic is relative to.

        Coordinates of a map of the Earth have seven digits before the point, more than single
        precision keeps.
        """
        train = set(self.splits.get("train", ()))
        rows = [i for i, name in enumerate(self.images) if name in train]
        centres = self.poses.position[rows] if rows else self.poses.position
        return centres.double().mean(0)

    def extent(self) -> float:
        """Diagonal of the box around the camera centres, in the scene's unit."""
        centres = self.poses.position
        return float((centres.amax(0) - centres.amin(0)).norm())

    def depth_range(self) -> Float[Tensor, "3"] | None:
        """Near, median and far z-depth of the map points as the training cameras see them.

        Near and far are the 5th and 95th percentile. None when the scene has no map points.
        """
        return self._depth_range

    @cached_property
    def _depth_range(self) -> Float[Tensor, "3"] | None:
        """Studies ask for it at every training, and there are millions of observations."""
        if self.points is None:
            return None
        train = self.indices("train").numpy()
        seen = np.isin(self.points.image_index, train)
        if int(seen.sum()) < MIN_DEPTH_OBSERVATIONS:
            return None
        image = torch.from_numpy(self.points.image_index[seen]).long()
        xyz = torch.from_numpy(self.points.xyz[self.points.point_index[seen]])
        depth = self.poses.inverse()[image].apply(xyz)[:, 2]
        return torch.quantile(
            depth[:: max(1, len(depth) // 10**6)], depth.new_tensor([0.05, 0.5, 0.95])
        )

    def with_splits(self, splits: Mapping[str, tuple[str, ...]], rule: str) -> "Scene":
        """The same scene under other splits; the rule is written into the provenance."""
        return replace(self, splits=dict(splits), provenance={**self.provenance, "split": rule})


def _is_inside(path: PurePath) -> bool:
    return not path.is_absolute() and ".." not in path.parts


def some(names: list[str], limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def same_poses(
    poses: Pose, rows: Sequence[Sequence[float]], tolerance: float, rounded: float = 0.0
) -> bool:
    """Whether poses are those of rows x, y, z, qw, qx, qy, qz, to a tolerance.

    Args:
        poses: Poses, (n,).
        rows: As many rows.
        tolerance: As a share of how far the positions are spread, whatever the world's origin and
            unit, and of a radian.
        rounded: How far positions may have been moved by the precision that they were kept in, in
            the scene's unit, where that was less than double.
    """
    if not rows:
        return True
    theirs = torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)
    mine = poses.to(torch.float64)
    moved = (mine.position - theirs[:, :3]).norm(dim=-1)
    turned = rotation_angle(mine.quaternion, theirs[:, 3:])
    spread = float((mine.position - mine.position.mean(0)).norm(dim=-1).max())
    double = _DOUBLE * float(mine.position.abs().max())
    return bool(((moved <= tolerance * spread + rounded + double) & (turned <= tolerance)).all())
