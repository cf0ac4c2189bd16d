"""The feature cache: a frozen stem looks at each photo once, and windows are cropped from its map.

A window of the map is not quite the map of the window: near its border the convolutions have seen
what lies outside. So a run that was trained this way is asked this way, too: the stem sees the
whole training camera, and the window is cut from its map.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import BFloat16, Float, UInt8
from torch import Generator, Tensor

from relocal.backbones import STEM_STRIDE, Backbone
from relocal.camera import Camera
from relocal.images import new_cache

_BATCH = 32


def build_feature_cache(
    backbone: Backbone,
    images: UInt8[Tensor, "N 3 H W"],
    name: str,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BFloat16[Tensor, "N c h w"]:
    """The stem's maps of cached images, in a memory-mapped file, or that file again.

    Args:
        backbone: A backbone with a stem.
        images: Images of the training camera.
        name: What identifies them: the name of their own cache.
        folder: Where caches are kept.
        progress: Called with the number of images done and of all.

    Returns:
        The maps, channels last in memory.

    Raises:
        InputError: If the backbone has no stem, or the disk is too full.
    """
    backbone = backbone.eval()
    first = _stem_maps(backbone, images[:1])
    shape = (len(images), first.shape[2], first.shape[3], first.shape[1])
    path = folder / f"{name}-{_stem_digest(backbone)}.npy"
    if not path.exists():
        with new_cache(path, 2 * int(np.prod(shape))) as partial:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint16, shape=shape)
            for start in range(0, len(images), _BATCH):
                maps = _stem_maps(backbone, images[start : start + _BATCH])
                bits = maps.permute(0, 2, 3, 1).contiguous().view(torch.uint16)
                array[start : start + _BATCH] = bits.numpy()
                progress(min(start + _BATCH, len(images)), len(images))
            array.flush()
    mapped = np.load(path, mmap_mode="c", allow_pickle=False)
    return torch.from_numpy(mapped).view(torch.bfloat16).permute(0, 3, 1, 2)


def _stem_maps(backbone: Backbone, images: Tensor) -> Tensor:
    """Maps in bfloat16, as the cache keeps them, computed in float32, as for an answer."""
    view = images.float().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return backbone.stem(view).to(torch.bfloat16)


def _stem_digest(backbone: Backbone) -> str:
    """What the maps depend on beside the images: the layers of the stem and their weights."""
    digest = hashlib.sha256()
    for name, value in backbone.stem_state().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def central_cells(
    maps: Float[Tensor, "B c h w"], camera: Camera, window: Camera
) -> Float[Tensor, "B c y x"]:
    """The part of the stem's maps of ``camera`` that ``window`` sees."""
    corner = ((camera.principal_point - window.principal_point) / STEM_STRIDE).round().int()
    left, top = corner.tolist()
    height, width = window.height // STEM_STRIDE, window.width // STEM_STRIDE
    return maps[..., top : top + height, left : left + width].float()


def random_cells(
    maps: Float[Tensor, "B c h w"], camera: Camera, window: Camera, generator: Generator
) -> tuple[Float[Tensor, "B c y x"], Camera]:
    """A random window of each map, and the cameras (B,) that see it."""
    height, width = window.height // STEM_STRIDE, window.width // STEM_STRIDE
    room = (maps.shape[3] - width, maps.shape[2] - height)
    left, top = (
        torch.randint(0, side + 1, (len(maps),), generator=generator).to(maps.device)
        for side in room
    )
    rows = top[:, None] + torch.arange(height, device=maps.device)
    columns = left[:, None] + torch.arange(width, device=maps.device)
    each = torch.arange(len(maps), device=maps.device)[:, None, None]
    cells = maps.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    cameras = camera.to(maps.device).cropped(
        STEM_STRIDE * left, STEM_STRIDE * top, window.width, window.height
    )
    return cells.permute(0, 3, 1, 2).float(), cameras
