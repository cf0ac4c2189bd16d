"""Photos of wide lenses as a network sees them: by the pinhole camera of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from relocal.camera import Camera
from relocal.images import camera_of_photo, load_view, sampling_grid, training_camera

CAMERAS = {
    "fisheye": Camera("OPENCV_FISHEYE", 480, 360, (200, 200, 243, 177, 0.03, -0.01, 0.002, 0)),
    "beyond 180°": Camera("FISHEYE", 480, 360, (150, 150, 240, 180)),
    "k3": Camera("FULL_OPENCV", 480, 360, (300, 300, 243, 177, -0.28, 0.1, 0, 0, -0.012, 0, 0, 0)),
    "division": Camera("DIVISION", 480, 360, (260, 260, 240, 180, -0.2)),
}


def colours(rays: Tensor) -> Tensor:
    """A smooth world: three colours by direction."""
    x, y, z = (rays / rays.norm(dim=-1, keepdim=True)).unbind(-1)
    waves = [torch.sin(5 * x + 1), torch.sin(4 * y - 3 * x), torch.cos(6 * y * z)]
    return 127.5 + 100 * torch.stack(waves)


def pixel_centres(camera: Camera) -> Tensor:
    x, y = (torch.arange(side).double() + 0.5 for side in (camera.width, camera.height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def photographed(camera: Camera, file: Path) -> None:
    pixels = colours(camera.unproject(pixel_centres(camera))).nan_to_num(0).round()
    Image.fromarray(pixels.permute(1, 2, 0).numpy().astype(np.uint8)).save(file)


@pytest.mark.parametrize("name", CAMERAS)
def test_a_network_sees_what_its_pinhole_would_have_seen(name: str, tmp_path: Path) -> None:
    camera = CAMERAS[name]
    photographed(camera, tmp_path / "photo.png")
    target = training_camera(camera, 240)
    assert not target.has_distortion
    view = load_view(tmp_path / "photo.png", camera, target)
    expected = colours(target.unproject(pixel_centres(target)))
    _, shown = sampling_grid(camera, target)
    assert shown.float().mean() > 0.7
    off = (view - expected).abs()[:, shown]
    assert float(off.quantile(0.99)) < 3
    assert float(off.median()) < 1


def test_exif_does_not_make_a_fisheye_a_pinhole(tmp_path: Path) -> None:
    camera = CAMERAS["fisheye"]
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 15
    for size in ((480, 360), (240, 180)):
        Image.new("RGB", size).save(tmp_path / "photo.jpg", exif=exif)
        found = camera_of_photo(tmp_path / "photo.jpg", camera)
        assert (found.camera.model, found.camera.width) == ("OPENCV_FISHEYE", size[0])
        (notice,) = found.notices
        assert "fisheye" in notice.text
