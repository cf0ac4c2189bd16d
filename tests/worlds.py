"""Worlds of other origins and units, in which the same things are to come out."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from relocal.sfm.alignment import Similarity


def world(scale: float, shift: tuple[float, float, float], turned: int | None = None) -> Similarity:
    """One, turned at random where a seed is given."""
    matrix = (
        Rotation.identity()
        if turned is None
        else Rotation.random(rng=np.random.default_rng(turned))
    )
    rotation = torch.from_numpy(matrix.as_matrix().copy())
    return Similarity(scale, rotation, torch.tensor(shift, dtype=torch.float64))


HERE = world(1.0, (0.0, 0.0, 0.0))
UTM = world(1.0, (389212.4, 5819731.8, 54.1))
WORLDS = {
    "shifted": world(1.0, (1e7, -1e7, 1e7)),
    "turned": world(1.0, (0.0, 0.0, 0.0), 3),
    "small": world(1e-3, (0.0, 0.0, 0.0)),
    "large": world(1e3, (0.0, 0.0, 0.0)),
    "utm": UTM,
    "ecef in millimetres": world(1e3, (3_780_000_500.0, 900_000_250.0, 5_030_000_750.0), 5),
    "utm in kilometres": world(1e-3, (389.2124, 5819.7318, 0.0541), 7),
}
every_world = pytest.mark.parametrize("name", WORLDS)
