"""The feature cache: what is frozen looks at each photo once.

Of a frozen stem the map is kept, and windows are cropped from it. A window of the map is not quite
the map of the window: near its border the convolutions have seen what lies outside. So a run that
was trained this way is asked this way, too: the stem sees the whole training camera, and the window
is cut from its map.

Of a backbone that is frozen whole, the pooled maps of a few views of each photo are kept, each with
the turn of its virtual camera.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import BFloat16, Float, UInt8
from torch import Generator, Tensor

from relocal.backbones import STEM_STRIDE, Backbone
from relocal.camera import Camera
from relocal.images import new_cache
from relocal.training.config import ViewConfig
from relocal.training.views import central_view, draw_turns, jittered, turned_view

_BATCH = 32
_VIEW_SEED = 0  # the views that are kept do not depend on a run's seed

Progress = Callable[[int, int], None]


def build_feature_cache(
    backbone: Backbone,
    images: UInt8[Tensor, "N 3 H W"],
    name: str,
    folder: Path,
    progress: Progress = lambda done, total: None,
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
    path = folder / f"{name}-{_digest(backbone.stem_state())}.npy"

    def look(rows: slice) -> Tensor:
        view = images[rows].float().contiguous(memory_format=torch.channels_last)
        return backbone.stem(view).permute(0, 2, 3, 1)

    return _kept(path, len(images), look, progress).permute(0, 3, 1, 2)


def build_view_cache(
    backbone: Backbone,
    pool: Callable[[Tensor], Tensor],
    images: UInt8[Tensor, "N 3 H W"],
    cameras: tuple[Camera, Camera],
    config: ViewConfig,
    name: str,
    folder: Path,
    progress: Progress = lambda done, total: None,
) -> tuple[BFloat16[Tensor, "N K C r c"], Float[Tensor, "N K 3"]]:
    """What a head sees of K views of each image, in a memory-mapped file, or that file again.

    Args:
        backbone: The backbone.
        pool: What the head makes of its map.
        images: Images of the training camera.
        cameras: The training camera, and its window that the network sees.
        config: How many views, and what is varied between them.
        name: What identifies the images: the name of their own cache.
        folder: Where caches are kept.
        progress: Called with the number of images done and of all.

    Returns:
        The pooled maps, and the rotation vector, old_from_new, of each view's virtual camera. The
        first view has neither turn nor jitter.
    """
    backbone = backbone.eval()
    kept = config.kept if config.augment == "virtual" else 1
    generator = torch.Generator().manual_seed(_VIEW_SEED)
    turns = draw_turns(len(images) * kept, config, generator).view(-1, kept, 3)
    turns[:, 0] = 0
    about = [asdict(config), cameras[1].to_json(), list(pool(torch.zeros(1, 1, 9, 9)).shape)]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    path = folder / f"{name}-{_digest(backbone.state_dict())}-{digest}.npy"

    def look(rows: slice) -> Tensor:
        batch = images[rows]
        views = [central_view(batch, cameras[1])]
        for k in range(1, kept):
            view = turned_view(batch, turns[rows, k], *cameras)
            # Seeded by the place, so that a photo's views are the same whatever came before.
            place = torch.Generator().manual_seed(k * len(images) + rows.start)
            views.append(jittered(view, config.jitter, place) if config.jitter else view)
        return torch.stack([pool(backbone(view)) for view in views], dim=1)

    return _kept(path, len(images), look, progress), turns


def _kept(
    path: Path, count: int, look: Callable[[slice], Tensor], progress: Progress
) -> BFloat16[Tensor, "N ..."]:
    """Rows that ``look`` computes, kept as bfloat16 in a file; that file where it is there.

    They are computed in float32, as for an answer.
    """
    if not path.exists():
        with torch.no_grad():
            shape = (count, *look(slice(0, 1)).shape[1:])
        with new_cache(path, 2 * int(np.prod(shape))) as partial:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint16, shape=shape)
            for start in range(0, count, _BATCH):
                rows = slice(start, min(start + _BATCH, count))
                with torch.no_grad():
                    values = look(rows).to(torch.bfloat16).contiguous()
                array[rows] = values.view(torch.uint16).numpy()
                progress(rows.stop, count)
            array.flush()
    mapped = np.load(path, mmap_mode="c", allow_pickle=False)
    return torch.from_numpy(mapped).view(torch.bfloat16)


def _digest(state: Mapping[str, Tensor]) -> str:
    """What features depend on beside the images: the layers and their weights."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def cells_corner(camera: Camera, window: Camera) -> tuple[int, int]:
    """Column and row of the first of the stem's cells of ``camera`` that ``window`` sees."""
    corner = ((camera.principal_point - window.principal_point) / STEM_STRIDE).round().int()
    left, top = corner.tolist()
    return left, top


def central_cells(
    maps: Float[Tensor, "B c h w"], corner: tuple[int, int], window: Camera
) -> Float[Tensor, "B c y x"]:
    """The part of the stem's maps that ``window`` sees; ``corner`` as ``cells_corner`` gives it."""
    left, top = corner
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
