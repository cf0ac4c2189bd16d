"""A photo's camera: given, of EXIF or the scene's, and what is doubtful about it."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import Source, camera_of_photo, training_camera, view_of_photo

LENS = Camera("OPENCV", 400, 300, torch.tensor([310.0, 305, 207, 146, 0.06, -0.08, 1e-3, -5e-4]))
_EXIF_IFD, _FOCAL_35MM, _DIAGONAL = 0x8769, 0xA405, 43.27


def taken(width: int, height: int, focal_35mm: object = None, orientation: int = 1) -> bytes:
    """A photo of these stored pixels, with what EXIF says."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if focal_35mm is not None:
        exif.get_ifd(_EXIF_IFD)[_FOCAL_35MM] = focal_35mm
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def codes(source: Source) -> list[str]:
    return [notice.code for notice in camera_of_photo(source, LENS).notices]


def test_camera_from_exif_comes_without_warning() -> None:
    raw = taken(60, 40, 28, orientation=6)
    known = camera_of_photo(raw, LENS)
    camera = known.camera
    assert known.notices == ()
    assert (camera.width, camera.height) == (40, 60)
    assert camera.focal.tolist() == pytest.approx([28 / 36 * 60] * 2, rel=1e-3)
    assert camera.principal_point.tolist() == [20, 30]


def test_unknown_focal_length_takes_the_scene_camera_and_warns(tmp_path: Path) -> None:
    file = tmp_path / "phone.jpg"
    file.write_bytes(taken(800, 600))
    known = camera_of_photo(file, LENS)
    assert known.camera.to_json() == LENS.resized(800, 600).to_json()
    (notice,) = known.notices
    assert notice.code == "focal-unknown"
    assert "--camera" in notice.text


def test_turned_camera_keeps_its_focal_length_along_the_longer_side() -> None:
    known = camera_of_photo(taken(300, 400), LENS)
    camera = known.camera
    assert (camera.width, camera.height) == (300, 400)
    assert camera.focal.tolist() == [307.5, 307.5]
    assert [notice.code for notice in known.notices] == ["shape-unknown"]


def test_a_camera_that_is_given_is_taken_whatever_exif_says() -> None:
    known = camera_of_photo(taken(400, 300, 90), LENS, LENS)
    assert (known.camera, known.said_by, known.notices) == (LENS, "the camera given", ())


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((400, 300, 308, 306, 200, 150), []),
        ((400, 300, 300, 300, 206, 145), []),
        ((400, 300, 308, 306, 0, 150), ["centre-far-off"]),
        ((400, 300, 308, 306, 150, 200), ["centre-exchanged"]),
        ((400, 300, 308, 306, 248, 150), ["camera-off-centre"]),
        ((400, 300, 550, 32, 200, 150), ["focals-apart"]),
        ((400, 300, 500, 500, 200, 150), ["other-lens"]),
        ((400, 300, 15, 15, 200, 150), ["field-of-view", "other-lens"]),
        ((800, 600, 616, 612, 400, 300), ["camera-scaled"]),
    ],
)
def test_an_unlikely_camera_is_told_by_whatever_localizes(
    numbers: tuple[float, ...], expected: list[str]
) -> None:
    width, height, *rest = numbers
    given = Camera.pinhole(int(width), int(height), *map(float, rest))
    known = camera_of_photo(taken(400, 300), LENS, given)
    assert [notice.code for notice in known.notices] == expected
    assert all("the camera given" in notice.text for notice in known.notices)
    if 50 < rest[0] < 400:
        _, notices = view_of_photo(taken(400, 300), given, LENS, training_camera(LENS, 64))
        assert notices == known.notices


TRUE_MM = 307.5 / 500 * _DIAGONAL  # of LENS: 26.6


@pytest.mark.parametrize("size", [(400, 300), (200, 150), (300, 400)])
@pytest.mark.parametrize(
    ("mm", "doubted"), [(14, 1), (20, 1), (24, 0), (27, 0), (31, 0), (35, 1), (90, 1)]
)
def test_exif_that_contradicts_the_scene_is_told(
    size: tuple[int, int], mm: int, doubted: bool
) -> None:
    """Phones' lenses differ by 1.8 and more; roundings and crops of one by a tenth."""
    known = camera_of_photo(taken(*size, mm), LENS)
    assert codes(taken(*size, mm)) == ["exif-focal-contradicts"] * doubted
    assert known.camera.focal[0] == pytest.approx(mm / _DIAGONAL * np.hypot(*size))
    for notice in known.notices:
        assert f"EXIF says {mm} mm" in notice.text
        assert f"{mm / TRUE_MM:.2g} times" in notice.text


def test_a_photo_of_another_shape_may_have_a_somewhat_other_lens() -> None:
    assert codes(taken(400, 225, 36)) == []
    assert codes(taken(400, 225, 64)) == ["exif-focal-contradicts"]


def test_what_cannot_be_the_cameras_is_told_by_its_source() -> None:
    target = training_camera(LENS, 64)
    with pytest.raises(InputError, match=r"^photo: EXIF: .*give --camera"):
        view_of_photo(taken(400, 300, 300), None, LENS, target)
    long = Camera.pinhole(400, 300, 4000.0, 4000.0, 200.0, 150.0)
    with pytest.raises(InputError, match=r"^photo: the camera given: .*correct it"):
        view_of_photo(taken(400, 300), long, LENS, target)
    view, notices = view_of_photo(taken(400, 300), None, LENS, target)
    assert tuple(view.shape) == (3, target.height, target.width)
    assert [notice.code for notice in notices] == ["camera-assumed"]


def test_a_given_camera_of_the_scenes_model_is_compared_with_it() -> None:
    near = Camera("OPENCV", 400, 300, LENS.params * 1.01)
    assert camera_of_photo(taken(400, 300), LENS, near).notices == ()
