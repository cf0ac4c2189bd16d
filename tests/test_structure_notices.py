"""What an answer from a map says of the photo's camera."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from relocal.camera import Camera
from relocal.localizers import structure
from relocal.notices import Notice
from relocal.pose import Pose


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ((), ["distortion-doubtful"]),
        (("exif-focal-contradicts",), ["exif-focal-contradicts"]),
        (("camera-scaled",), ["camera-scaled", "distortion-doubtful"]),
    ],
)
def test_a_lens_is_not_blamed_where_exif_contradicts(
    before: tuple[str, ...], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong focal length looks like a lens that bends."""
    answers = {
        "_bent": Notice("distortion-doubtful", "bent"),
        "_doubt": None,
        "_arrays": (),
        "pose_sigmas": None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(structure, name, lambda *args, answer=answer: answer)
    camera = Camera.pinhole(64, 48, 50.0, 50.0, 32.0, 24.0)
    map: Any = SimpleNamespace(unit="m", calibration=None, photo_camera=camera)
    pose = Pose(torch.zeros(3).double(), torch.tensor([1.0, 0, 0, 0]).double())
    found: Any = pose, []
    notices = [Notice(code, "told") for code in before]
    seen: Any = None
    answer = structure.estimate(map, seen, found, camera, "structure", 0.0, notices)
    assert [one.code for one in answer.warnings] == told
