"""Camera models in COLMAP's files: read as COLMAP writes them, or refused by name."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from relocal.camera import CAMERA_MODELS, COLMAP_NUMBERS
from relocal.errors import InputError
from relocal.scene.colmap import read_colmap


@pytest.mark.parametrize("kind", ["binary", "text"])
@pytest.mark.parametrize("name", [n for n in COLMAP_NUMBERS if n not in CAMERA_MODELS])
def test_unsupported_camera_model_is_refused_by_name(name: str, kind: str, tmp_path: Path) -> None:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera.create_from_model_name(1, name, 30.0, 40, 30)
    model.add_camera_with_trivial_rig(camera)
    getattr(model, f"write_{kind}")(str(tmp_path))
    with pytest.raises(InputError, match=rf"{name} is not supported; .*first"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("kind", ["binary", "text"])
@pytest.mark.parametrize("name", CAMERA_MODELS)
def test_every_camera_model_is_read_as_colmap_writes_it(
    name: str, kind: str, tmp_path: Path
) -> None:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera.create_from_model_name(1, name, 30.0, 40, 30)
    camera.params = [v + 0.001 * i for i, v in enumerate(camera.params)]
    model.add_camera_with_trivial_rig(camera)
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.zeros(3))
    image = pycolmap.Image(name="1.png", keypoints=np.zeros((0, 2)), camera_id=1, image_id=1)
    model.add_image_with_trivial_frame(image, pose)
    getattr(model, f"write_{kind}")(str(tmp_path))
    _, (found,), *_ = read_colmap(tmp_path)
    assert (found.model, found.width, found.height) == (name, 40, 30)
    assert found.params.tolist() == pytest.approx(camera.params.tolist(), abs=1e-12)
