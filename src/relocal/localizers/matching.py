"""Matches between the features of a photo and the points of a map."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relocal.camera import Camera
from relocal.localizers.feature_map import Described, FeatureMap
from relocal.pose import Pose, quaternion_conjugate, quaternion_rotate

Matches = Int[Tensor, "_ 2"]
"""Rows of features and of map points."""

ENOUGH = 100  # matches at which the search in the vocabulary ends
_CHUNK = 256
_WORDS = 2  # nearest words in which a feature is looked for
_IMAGES = 8  # training images whose points are looked for when their neighbours were found
_NEAR = 16  # training images whose points are expected near a pose
_STRONGEST = 512  # features that are looked for where a pose is only guessed


def search(map: FeatureMap, seen: Described, ratio: float, enough: int = ENOUGH) -> Matches:
    """Prioritized search, in the spirit of Active Search (Sattler, Leibe & Kobbelt 2017).

    Features are looked for among the points of their visual words, those of the smallest words
    first, until enough are found. Then the other way round: what the training images see that see
    most of these points is looked for among all features of the photo.

    Args:
        map: The map.
        seen: Features of the photo.
        ratio: A match must be this much nearer than the second nearest point.
        enough: How many matches of the first kind are enough.
    """
    first = _in_words(map, seen.descriptors, ratio, enough)
    if not len(first):
        return first
    points = _seen_together(map, first[:, 1])
    second = mutual(seen.descriptors, map.unit_descriptors[points], ratio)
    second = torch.stack([second[:, 0], points[second[:, 1]]], dim=1)
    return _one_each(torch.cat([second, first]))


def _in_words(
    map: FeatureMap, descriptors: Float[Tensor, "n D"], ratio: float, enough: int
) -> Matches:
    """Features matched within their visual words, the cheapest first."""
    words = (descriptors @ map.unit_words.T).topk(min(_WORDS, len(map.words)), dim=1).indices
    cost = map.word_size[words].sum(1)
    found: list[Matches] = []
    total = 0
    for chunk in cost.argsort().split(_CHUNK):
        found.append(_in_their_words(map, descriptors, words, chunk, ratio))
        total += len(found[-1])
        if total >= enough:
            break
    return torch.cat(found) if found else torch.zeros(0, 2, dtype=torch.long)


def _in_their_words(
    map: FeatureMap,
    descriptors: Float[Tensor, "n D"],
    words: Int[Tensor, "n k"],
    chunk: Int[Tensor, " c"],
    ratio: float,
) -> Matches:
    best = torch.full((len(descriptors), 2), -1.0)
    point = torch.zeros(len(descriptors), dtype=torch.long)
    rows = chunk.repeat_interleave(words.shape[1])
    word = words[chunk].flatten()
    order = word.argsort()
    values, counts = word[order].unique_consecutive(return_counts=True)
    for w, members in zip(values.tolist(), rows[order].split(counts.tolist()), strict=True):
        end = int(map.word_end[w])
        start = end - int(map.word_size[w])
        if start == end:
            continue
        alike = descriptors[members] @ map.unit_descriptors[start:end].T
        top = alike.topk(min(2, end - start), dim=1)
        point[members] = torch.where(
            top.values[:, 0] > best[members, 0], start + top.indices[:, 0], point[members]
        )
        best[members] = torch.cat([best[members], top.values], 1).topk(2, dim=1).values
    kept = chunk[_clear(best[chunk], ratio)]
    return torch.stack([kept, point[kept]], dim=1)


def _clear(best: Float[Tensor, "n 2"], ratio: float) -> Bool[Tensor, " n"]:
    """Lowe's ratio test on the cosines of the nearest and second nearest."""
    near, second = (2 - 2 * best).clamp(min=0).unbind(1)
    return near < ratio**2 * second


def _seen_together(map: FeatureMap, points: Int[Tensor, " m"]) -> Int[Tensor, " k"]:
    """What the training images see that see most of some points."""
    mine = torch.isin(map.point_of, points)
    votes = torch.bincount(map.seen_by[mine].long(), minlength=len(map.training_images))
    images = votes.topk(min(_IMAGES, len(votes))).indices.tolist()
    return torch.cat([map.points_of_image[i] for i in images if votes[i] > 0]).unique()


def mutual(
    descriptors: Float[Tensor, "n D"],
    points: Float[Tensor, "k D"],
    ratio: float,
    allowed: Bool[Tensor, "n k"] | None = None,
) -> Matches:
    """Features and points that are each other's nearest.

    Args:
        descriptors: Of features, of length one.
        points: Of points, of length one.
        ratio: A match must be this much nearer than the second nearest point.
        allowed: Pairs that may match; by default all.
    """
    if len(points) < 2 or len(descriptors) < 2:
        return torch.zeros(0, 2, dtype=torch.long)
    alike = descriptors @ points.T
    if allowed is not None:
        alike = alike.masked_fill(~allowed, -1.0)
    back = alike.argmax(0)
    best, forth = alike.max(1)
    rows = torch.arange(len(descriptors))
    alike[rows, forth] = -1.0
    clear = _clear(torch.stack([best, alike.amax(1)], dim=1), ratio)  # faster than topk
    kept = (back[forth] == rows) & clear & (best > 0)
    return torch.stack([rows[kept], forth[kept]], dim=1)


def _one_each(matches: Matches) -> Matches:
    """Of matches of one feature, or of one point, the first."""
    for column in (0, 1):
        values, inverse = matches[:, column].unique(return_inverse=True)
        first = torch.full((len(values),), len(matches)).scatter_reduce(
            0, inverse, torch.arange(len(matches)), "amin"
        )
        matches = matches[first.sort().values]
    return matches


def expected(
    map: FeatureMap, pose: Pose, camera: Camera, margin_px: float
) -> tuple[Int[Tensor, " k"], Float[Tensor, "k 2"]]:
    """Points that a camera at a pose should see, and where.

    What the training images nearest to the pose see is what is not hidden from it.

    Args:
        map: The map.
        pose: ``world_from_cam``, batch shape ().
        camera: The camera.
        margin_px: How far outside the image a point may be.
    """
    reach = torch.cat([map.points_of_image[i] for i in _near_images(map, pose)]).unique()
    # The difference first: far from the world's origin a turn of the points would lose digits.
    local = quaternion_rotate(quaternion_conjugate(pose.quaternion), map.xyz[reach] - pose.position)
    pixels, _ = camera.project(local)
    size = pixels.new_tensor([camera.width, camera.height])
    inside = ((pixels > -margin_px) & (pixels < size + margin_px)).all(1) & (local[:, 2] > 0)
    return reach[inside], pixels[inside].float()


def _near_images(map: FeatureMap, pose: Pose) -> list[int]:
    """Training images taken near a pose: a radian weighs as much as the median distance."""
    distance = (map.poses.position - pose.position).norm(dim=1)
    turned = (map.poses.look_direction @ pose.look_direction).clamp(-1, 1).arccos()
    apart = distance + distance.median() * turned
    return apart.topk(min(_NEAR, len(apart)), largest=False).indices.tolist()


def match_about(
    map: FeatureMap, seen: Described, pose: Pose, camera: Camera, radius_px: float, ratio: float
) -> Matches:
    """Matches of a photo's strongest features with points that a guessed pose puts about there.

    Args:
        map: The map.
        seen: Features of the photo.
        pose: Where the camera may be, ``world_from_cam``, batch shape ().
        camera: The camera.
        radius_px: How far from where the pose puts it a point may be seen.
        ratio: A match must be this much nearer than the second nearest point in reach.
    """
    points, pixels = expected(map, pose, camera, radius_px)
    seen = seen.strongest(_STRONGEST)
    about = torch.cdist(seen.xy, pixels) < radius_px
    found = mutual(seen.descriptors, map.unit_descriptors[points], ratio, about)
    return torch.stack([found[:, 0], points[found[:, 1]]], dim=1)


def match_near(
    map: FeatureMap,
    seen: Described,
    pose: Pose,
    camera: Camera,
    radius_px: float,
    ratio: float,
) -> Matches:
    """Matches of features with the points that a pose puts near them.

    Only pairs of a feature and a point that are so near are looked at: made for a few pixels.

    Args:
        map: The map.
        seen: Features of the photo.
        pose: Where the camera about is, ``world_from_cam``, batch shape ().
        camera: The camera.
        radius_px: How far from where the pose puts it a point may be seen.
        ratio: A match must be this much nearer than the second nearest point in reach.
    """
    points, pixels = expected(map, pose, camera, radius_px)
    feature, point = pairs_within(seen.xy, pixels, radius_px).unbind(1)
    alike = (seen.descriptors[feature] * map.unit_descriptors[points[point]]).sum(1)
    # By feature, the most alike first.
    order = alike.argsort(descending=True, stable=True)
    order = order[feature[order].argsort(stable=True)]
    feature, point, alike = feature[order], point[order], alike[order]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = feature[1:] != feature[:-1]
    second = torch.full_like(alike, -1.0)
    second[:-1] = torch.where(first[1:], -1.0, alike[1:])
    back = torch.full((len(points),), -1.0).scatter_reduce(0, point, alike, "amax")
    kept = first & (alike >= back[point]) & (alike > 0)
    kept &= _clear(torch.stack([alike, second], dim=1), ratio)
    return torch.stack([feature[kept], points[point[kept]]], dim=1)


def pairs_within(
    one: Float[Tensor, "n 2"], other: Float[Tensor, "k 2"], radius: float
) -> Int[Tensor, "pairs 2"]:
    """Rows of two sets of pixels that are less than a radius apart."""
    order = other[:, 1].argsort()
    height = other[order, 1].contiguous()
    low = torch.searchsorted(height, (one[:, 1] - radius).contiguous())
    count = torch.searchsorted(height, (one[:, 1] + radius).contiguous()) - low
    mine = torch.repeat_interleave(torch.arange(len(one)), count)
    along = torch.arange(len(mine)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    theirs = order[low[mine] + along]
    near = (one[mine] - other[theirs]).square().sum(1) < radius**2
    return torch.stack([mine[near], theirs[near]], dim=1)
