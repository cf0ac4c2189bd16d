"""Retrieval: the poses of the training images that look most alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.backbones import Backbone, BackboneConfig, build_backbone, describe
from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import Source, build_cache, training_camera, view_of_photo
from relocal.pose import Pose, in_hemisphere
from relocal.scene import Scene, load_scene
from relocal.training.run import channels_last
from relocal.types import Estimate

Progress = Callable[[int, int, str], None]

EXACT_UP_TO = 50_000
"""Training images that are compared one by one; more are searched by FAISS."""
NEIGHBOURS = 5
_SOFTNESS = 0.02  # difference of cosines at which a neighbour weighs 1/e of the nearest
_BACKBONE = BackboneConfig()  # its ImageNet weights come with the installation
_SHORT_SIDE_PX = 192
_BATCH = 32
_PROBED = 32  # lists of FAISS's inverted file that are searched


def view_camera(scene: Scene, indices: Int[Tensor, " n"]) -> Camera:
    """The camera that images are resampled to before they are described."""
    return training_camera(scene.usual_camera(indices), _SHORT_SIDE_PX)


def describe_images(
    scene: Scene, indices: Int[Tensor, " n"], progress: Progress
) -> Float[Tensor, "n D"]:
    """Unit descriptors of images: the ImageNet backbone's map pooled on a 3 x 4 grid."""
    rows = indices.tolist()
    images = build_cache(
        [scene.path(i) for i in rows],
        [scene.camera(i) for i in rows],
        view_camera(scene, indices),
        scene.cache_folder(),
        lambda done, total: progress(done, total, "reading images"),
    )
    backbone = _backbone()
    parts: list[Tensor] = []
    for batch in images.split(_BATCH):
        parts.append(_describe(backbone, batch))
        progress(sum(len(part) for part in parts), len(images), "describing images")
    return torch.cat(parts)


def _backbone() -> Backbone:
    return channels_last(build_backbone(_BACKBONE).eval())


def _describe(backbone: Backbone, images: Tensor) -> Tensor:
    with torch.inference_mode():
        view = images.float().contiguous(memory_format=torch.channels_last)
        return describe(backbone(view))


@dataclass(frozen=True)
class ImageIndex:
    """The training images of a scene, and what they look like."""

    scene: str
    """Name of the scene."""
    unit: str
    """Unit of its positions."""
    training_images: tuple[str, ...]
    """Their names."""
    anchors: Mapping[str, Sequence[float]]
    """Poses of some of them, as ``Scene.anchors`` gives: another ground truth has others."""
    poses: Pose
    """Their poses, (M,), float64."""
    photo_camera: Camera
    """Their usual camera, taken for a photo whose own is not known."""
    view: Camera
    """The camera that photos are resampled to."""
    descriptors: Float[Tensor, "M D"]
    """What they look like, unit vectors."""


def index_images(scene: Scene, progress: Progress = lambda done, total, text: None) -> ImageIndex:
    """Describes the training images of a scene.

    Args:
        scene: A scene with a ``train`` split.
        progress: Called with images done, images in all, and what is being done.
    """
    train = scene.indices("train")
    names = tuple(scene.images[i] for i in train.tolist())
    return ImageIndex(
        scene=scene.name,
        unit=scene.unit,
        training_images=names,
        anchors=scene.anchors(names),
        poses=scene.poses[train],
        photo_camera=scene.usual_camera(train),
        view=view_camera(scene, train),
        descriptors=describe_images(scene, train, progress),
    )


class Retrieval:
    """Answers with the poses of the training images that look most like the photo.

    With one neighbour it is the pose of the most similar image; with more, a mean in which similar
    ones weigh more.

    Args:
        index: Training images, or a scene or its folder.
        neighbours: How many images.

    Raises:
        InputError: If the scene cannot be opened, or there are too many images for this
            installation.
    """

    method = "retrieval"

    def __init__(
        self, index: ImageIndex | Scene | Path | str, neighbours: int = NEIGHBOURS
    ) -> None:
        if neighbours < 1:
            raise InputError(f"--neighbours: must be at least 1, not {neighbours}.")
        if not isinstance(index, ImageIndex):
            index = index_images(index if isinstance(index, Scene) else load_scene(index))
        self.index = index
        self.neighbours = min(neighbours, len(index.training_images))
        self.backbone = _backbone()
        self.search = nearest_by_cosine(index.descriptors)

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate:
        """Says where the photos stood that look like this one.

        Args:
            image: A file, or the bytes of one.
            camera: Its camera. Without it the focal length comes from EXIF, and failing that from
                the scene, with a warning in the estimate.

        Raises:
            InputError: If the photo cannot be read or does not fit the camera.
        """
        start = time.perf_counter()
        source = Path(image) if isinstance(image, str) else image
        view, warnings = view_of_photo(source, camera, self.index.photo_camera, self.index.view)
        alike, rows = self.search(_describe(self.backbone, view[None]), self.neighbours)
        return Estimate(
            pose=blended(self.index.poses[rows[0]], alike[0].double()),
            unit=self.index.unit,
            method=self.method,
            time_ms=1000 * (time.perf_counter() - start),
            warnings=warnings,
        )


def blended(poses: Pose, alike: Float[Tensor, " k"]) -> Pose:
    """The mean of poses, the most similar first, in which similar ones weigh more.

    Args:
        poses: Poses, (k,), ``world_from_cam``.
        alike: How similar the image of each is, a cosine.
    """
    weights = ((alike - alike.max()) / _SOFTNESS).softmax(0)
    nearest = poses.position[0]  # differences from it keep their digits
    position = nearest + (weights[:, None] * (poses.position - nearest)).sum(0)
    aligned = in_hemisphere(poses.quaternion, poses.quaternion[0])
    quaternion = (weights[:, None] * aligned).sum(0)
    return Pose.from_quaternion(position, quaternion).canonical()


Search = Callable[[Float[Tensor, "n D"], int], tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]]
"""Unit descriptors and a count -> the cosines and rows of the most similar ones."""


def nearest_by_cosine(descriptors: Float[Tensor, "M D"], exact_up_to: int = EXACT_UP_TO) -> Search:
    """A search for the most similar of unit descriptors: exact for few, by FAISS for many.

    Args:
        descriptors: What is searched.
        exact_up_to: How many are few.

    Raises:
        InputError: If there are many, and FAISS is not installed.
    """
    if len(descriptors) > exact_up_to:
        return _by_faiss(descriptors)

    def search(queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        best = (queries @ descriptors.T).topk(count, dim=1)
        return best.values, best.indices

    return search


def _by_faiss(descriptors: Tensor) -> Search:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            f"retrieval among {len(descriptors)} images needs FAISS: pip install 'relocal[faiss]'."
        ) from error
    module: Any = faiss
    count, size = descriptors.shape
    lists = max(1, round(4 * count**0.5))
    # An inverted file whose entries are a byte a number: a quarter of the memory.
    index = module.index_factory(size, f"IVF{lists},SQ8", module.METRIC_INNER_PRODUCT)
    values = np.ascontiguousarray(descriptors.numpy())
    index.train(values)
    index.add(values)
    index.nprobe = min(_PROBED, lists)

    def search(queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        alike, rows = index.search(np.ascontiguousarray(queries.numpy()), count)
        return torch.from_numpy(alike), torch.from_numpy(rows)

    return search
