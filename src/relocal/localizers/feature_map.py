"""FeatureMap: points of a place with the descriptors by which photos find them, and its folder.

``map.json`` (what it is made of, and how), ``map.safetensors`` (points, descriptors, visual words,
who sees what).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.features import Keypoints, extractor, grey, restored, signed_steps
from relocal.images import Source, decode, fit_camera, resize, upright_size
from relocal.localizers.calibration import Calibration
from relocal.pose import Pose
from relocal.scene import Scene, load_scene
from relocal.sfm.database import numbered, place_of
from relocal.sfm.pairs import TriangulateConfig, pose_pairs
from relocal.sfm.tracks import Tracks, check_keypoints, match_known_poses, tracks_from_poses

Progress = Callable[[int, int, str], None]

POINTS_A_WORD = 64
MOST_IMAGES = 2**15 - 1  # their numbers are kept in 16 bits
LEAST_POINTS = 12  # fewer never give an answer
_TRAINED_ON = 100_000  # descriptors that the visual words are made of, at most
_ROUNDS = 10
_EPIPOLAR_PX = 3.0


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """How a map is made of training images and their poses."""

    features: str = "sift"
    """Kind of local features: sift, xfeat (a network)."""
    limit: int = 2048
    """Most features an image."""
    scale: float = 1.0
    """Size at which photos are looked at, as a share of that of the scene's photos."""
    neighbours: int = 24
    """Images that each image is matched with."""
    turn_deg: float = 60.0
    """Images whose look directions differ by more are not matched."""
    ratio: float = 0.9
    """A match must be this much nearer than the second nearest."""
    error_px: float = 2.0
    """Largest reprojection error of an observation that is kept, in a photo as it is looked at."""
    dimensions: int = 64
    """Numbers that are kept of a descriptor: its principal directions in the map."""

    def __post_init__(self) -> None:
        extractor(self.features)
        if self.limit < 100:
            raise InputError(f"--limit: must be at least 100, not {self.limit}.")
        if not 0.1 <= self.scale <= 2:
            raise InputError(f"--scale: must be in [0.1, 2], not {self.scale}.")
        if self.dimensions < 8:
            raise InputError(f"--dimensions: must be at least 8, not {self.dimensions}.")
        if not 0 < self.ratio <= 1:
            raise InputError(f"--ratio: must be in (0, 1], not {self.ratio}.")
        self.triangulation()  # checks the others

    def triangulation(self) -> TriangulateConfig:
        """The same options in the words of ``triangulate``."""
        return TriangulateConfig(
            neighbours=self.neighbours,
            turn_deg=self.turn_deg,
            features=self.limit,
            error_px=self.error_px,
        )


@dataclass(frozen=True)
class FeatureMap:
    """Points of a place, sorted by visual word, with their descriptors."""

    config: MapConfig
    scene: str
    """Name of the scene."""
    unit: str
    """Unit of its positions."""
    photo_camera: Camera
    """The camera of the scene's photos, taken for a photo whose own is not known."""
    training_images: tuple[str, ...]
    """Names of the images that it was made of."""
    anchors: Mapping[str, Sequence[float]]
    """Poses of some of them, as ``Scene.anchors`` gives: another ground truth has others."""
    origin: Float[Tensor, "3"]
    """In the world, float64: where poses and points lie about it is kept in single precision."""
    poses: Pose
    """Of the training images, (M,), float64."""
    xyz: Float[Tensor, "P 3"]
    """Positions in the world, float64."""
    rgb: UInt8[Tensor, "P 3"]
    """Colours."""
    descriptors: Int8[Tensor, "P d"]
    """Mean descriptors of the points, in steps."""
    words: Int8[Tensor, "W d"]
    """Visual words, in steps."""
    word_size: Int[Tensor, " W"]
    """How many points belong to each word: the first ones to the first."""
    basis: Float[Tensor, "D d"]
    """Principal directions of the features' descriptors: what points and words are written in."""
    track: Int[Tensor, " P"]
    """How many images see each point."""
    seen_by: Int[Tensor, " n"]
    """The images that see the first point, then those that see the second, ..."""
    calibration: Calibration | None = None
    """What its stated spreads have to be multiplied by, where that is known."""

    def __len__(self) -> int:
        """How many points there are."""
        return len(self.xyz)

    def described(self, keypoints: Keypoints) -> "Described":
        """A photo's features in the words of the map."""
        if keypoints.descriptors.shape[1] != len(self.basis):
            raise InputError(
                f"the map's descriptors are not {self.config.features} features'; its files do not "
                "belong together."
            )
        values = restored(keypoints.descriptors) @ self.basis
        return Described(keypoints.xy, normalize(values, dim=1))

    @cached_property
    def unit_descriptors(self) -> Float[Tensor, "P d"]:
        """Descriptors of length one."""
        return normalize(self.descriptors.float(), dim=1)

    @cached_property
    def unit_words(self) -> Float[Tensor, "W d"]:
        """Visual words of length one."""
        return normalize(self.words.float(), dim=1)

    @cached_property
    def word_end(self) -> Int[Tensor, " W"]:
        """Where the points of each word end."""
        return self.word_size.long().cumsum(0)

    @cached_property
    def point_of(self) -> Int[Tensor, " n"]:
        """For each entry of ``seen_by``, the point."""
        return torch.repeat_interleave(torch.arange(len(self)), self.track.long())

    @cached_property
    def points_of_image(self) -> list[Int[Tensor, " k"]]:
        """The points that each training image sees."""
        order = torch.argsort(self.seen_by.long(), stable=True)
        counts = torch.bincount(self.seen_by.long(), minlength=len(self.training_images))
        return list(self.point_of[order].split(counts.tolist()))


@dataclass(frozen=True)
class Described:
    """A photo's features, with descriptors as those of a map's points are."""

    xy: Float[Tensor, "n 2"]
    """Pixels in the photo as it is looked at, the strongest features first."""
    descriptors: Float[Tensor, "n d"]
    """Of length one."""

    def __len__(self) -> int:
        """How many features there are."""
        return len(self.xy)

    def strongest(self, count: int) -> "Described":
        """The first of them."""
        return Described(self.xy[:count], self.descriptors[:count])


def extract(
    source: Source, camera: Camera, config: MapConfig, photo_camera: Camera
) -> tuple[Camera, Keypoints]:
    """The features of a photo as it is looked at: at a scale of the scene's photos.

    Args:
        source: A file, or the bytes of one.
        camera: Its camera, at any resolution.
        config: Kind and number of features, and the scale.
        photo_camera: That of the scene's photos: a photo with a longer focal length, in pixels, is
            looked at in a size in which it shows things as large as these do.

    Returns:
        The camera of the photo as it is looked at, and the features in its pixels.

    Raises:
        InputError: If the photo cannot be read or does not fit the camera.
    """
    width, height = upright_size(source)
    name = "photo" if isinstance(source, bytes) else str(source)
    camera = seen_camera(fit_camera(camera, width, height, name), config, photo_camera)
    return camera, extractor(config.features)(grey(_looked_at(source, camera)), config.limit)


def _looked_at(source: Source, camera: Camera) -> UInt8[Tensor, "3 h w"]:
    image = decode(source, (camera.width, camera.height))
    same = (image.shape[2], image.shape[1]) == (camera.width, camera.height)
    return image if same else resize(image, camera.width, camera.height)


def seen_camera(camera: Camera, config: MapConfig, photo_camera: Camera) -> Camera:
    """The camera of a photo as it is looked at."""
    scale = config.scale * min(1.0, float((photo_camera.focal / camera.focal).min()))
    return camera.resized(round(camera.width * scale), round(camera.height * scale))


def build_map(
    scene: Scene | Path | str,
    config: MapConfig | None = None,
    progress: Progress = lambda done, total, text: None,
) -> FeatureMap:
    """Makes a map of a scene's training images, with their poses as they are.

    Args:
        scene: A scene with a ``train`` split, or its folder.
        config: Every option.
        progress: Called with steps done, steps in all, and what is being done.

    Raises:
        InputError: If there are too few training images, nothing matches, or the poses contradict
            what matches.
    """
    config = config or MapConfig()
    scene = scene if isinstance(scene, Scene) else load_scene(scene)
    train = scene.indices("train")
    if len(train) > MOST_IMAGES:
        raise InputError(f"{scene.name}: a map holds {MOST_IMAGES} training images at most.")
    if len(train) < 3:
        raise InputError(f"{scene.name}: a map needs 3 training images or more.")
    pairs = pose_pairs(scene.poses[train], config.triangulation())
    keypoints, colours = _keypoints(scene, train.tolist(), config, progress)
    work = scene.cache_folder() / "map"
    work.mkdir(parents=True, exist_ok=True)
    part = _numbered(scene, train, config, work)
    check_keypoints(place_of(scene), part, keypoints, pairs)
    matches = match_known_poses(
        part, keypoints, pairs, ratio=config.ratio, error_px=_EPIPOLAR_PX, progress=progress
    )
    progress(0, 1, "triangulating")
    tracks = tracks_from_poses(part, keypoints, matches, config.error_px, work)
    if len(tracks.xyz) < LEAST_POINTS:
        raise InputError(
            f"{scene.name}: only {len(tracks.xyz)} map points could be triangulated, too few to "
            "find a photo in; are its poses and cameras right, and do its photos show texture?"
        )
    return _sorted_by_word(scene, train, config, tracks, keypoints, colours)


def _numbered(scene: Scene, train: Int[Tensor, " n"], config: MapConfig, work: Path) -> Scene:
    """The training images as they are looked at, under names that are numbers."""
    usual = scene.usual_camera(train)
    part = replace(
        scene,
        images=tuple(scene.images[i] for i in train.tolist()),
        cameras=tuple(seen_camera(camera, config, usual) for camera in scene.cameras),
        camera_index=scene.camera_index[train],
        poses=scene.poses[train],
        splits={},
        points=None,
    )
    return numbered(part, torch.arange(0), work)


def _keypoints(
    scene: Scene, rows: list[int], config: MapConfig, progress: Progress
) -> tuple[list[Keypoints], list[UInt8[Tensor, "_ 3"]]]:
    """The features of images, and the colours that they have there."""
    usual = scene.usual_camera(torch.tensor(rows))

    def one(i: int) -> tuple[Keypoints, Tensor]:
        image = _looked_at(scene.path(i), seen_camera(scene.camera(i), config, usual))
        found = extractor(config.features)(grey(image), config.limit)
        x, y = found.xy.long().unbind(1)  # the pixel's own corner is what floor gives
        return found, image[:, y.clamp(max=image.shape[1] - 1), x.clamp(max=image.shape[2] - 1)].T

    keypoints: list[Keypoints] = []
    colours: list[Tensor] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for found, rgb in pool.map(one, rows):
            keypoints.append(found)
            colours.append(rgb)
            progress(len(keypoints), len(rows), "finding features")
    return keypoints, colours


def _sorted_by_word(
    scene: Scene,
    train: Int[Tensor, " n"],
    config: MapConfig,
    tracks: Tracks,
    keypoints: Sequence[Keypoints],
    colours: Sequence[UInt8[Tensor, "_ 3"]],
) -> FeatureMap:
    point = torch.from_numpy(tracks.point)
    start = torch.tensor([0, *(len(k) for k in keypoints)]).cumsum(0)
    rows = start[torch.from_numpy(tracks.image)] + torch.from_numpy(tracks.keypoint)
    seen = restored(torch.cat([k.descriptors for k in keypoints])[rows])
    rgb = torch.cat(list(colours))[rows].float()
    origin, poses, count = scene.origin, scene.poses[train], len(tracks.xyz)
    mean = torch.zeros(count, seen.shape[1]).index_add(0, point, seen)
    basis = principal_directions(mean, config.dimensions)
    mean = normalize(mean @ basis, dim=1)
    words = visual_words(mean)
    word = (mean @ words.T).argmax(1)
    order = word.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(count)
    by_point = place[point].argsort(stable=True)
    return FeatureMap(
        config=config,
        scene=scene.name,
        unit=scene.unit,
        photo_camera=scene.usual_camera(train),
        training_images=tuple(scene.images[i] for i in train.tolist()),
        anchors=scene.anchors([scene.images[i] for i in train.tolist()]),
        origin=origin,
        poses=Pose(as_kept(poses.position, origin), poses.quaternion.float().double()),
        xyz=as_kept(torch.from_numpy(tracks.xyz)[order], origin),
        rgb=_mean_of(rgb, point, count)[order].round().to(torch.uint8),
        descriptors=signed_steps(mean[order]),
        words=signed_steps(words),
        basis=basis,
        word_size=torch.bincount(word, minlength=len(words)).to(torch.int32),
        track=torch.bincount(place[point], minlength=count).to(torch.int16),
        seen_by=torch.from_numpy(tracks.image)[by_point].to(torch.int32),
    )


def as_kept(xyz: Float[Tensor, "n 3"], origin: Float[Tensor, "3"]) -> Float[Tensor, "n 3"]:
    """Positions in the world, float64, as a map's files keep them: single precision about it."""
    return origin + (xyz - origin).float().double()


def _mean_of(
    values: Float[Tensor, "n k"], point: Int[Tensor, " n"], count: int
) -> Float[Tensor, "P k"]:
    """The mean over the observations of each point."""
    total = torch.zeros(count, values.shape[1]).index_add(0, point, values)
    return total / torch.bincount(point, minlength=count)[:, None]


def principal_directions(descriptors: Float[Tensor, "P D"], count: int) -> Float[Tensor, "D d"]:
    """The directions that keep most of descriptors, so that products between them stay."""
    values, directions = torch.linalg.eigh(descriptors.T @ descriptors)
    return directions[:, values.argsort(descending=True)[:count]].contiguous()


def visual_words(descriptors: Float[Tensor, "P D"]) -> Float[Tensor, "W D"]:
    """Words of a visual vocabulary: k-means on descriptors, one word for every 64 points."""
    import cv2

    count = max(1, len(descriptors) // POINTS_A_WORD)
    step = max(1, len(descriptors) // _TRAINED_ON)
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, _ROUNDS, 0.0)
    sample = np.ascontiguousarray(descriptors[::step].numpy())
    _, _, centres = cv2.kmeans(
        sample, count, np.empty(0, np.int32), criteria, 1, cv2.KMEANS_RANDOM_CENTERS
    )
    return normalize(torch.from_numpy(centres), dim=1)
