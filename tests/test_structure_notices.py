"""What an answer from a map says of the photo's camera."""

from unittest.mock import Mock

import pytest
import torch

from relocal.camera import Camera
from relocal.localizers import structure
from relocal.localizers.feature_map import Described, FeatureMap
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
    map = Mock(spec=FeatureMap, unit="m", calibration=None, photo_camera=camera)
    pose = Pose(torch.zeros(3).double(), torch.tensor([1.0, 0, 0, 0]).double())
    found = pose, torch.zeros((0, 2), dtype=torch.int64)
    notices = [Notice(code, "told") for code in before]
    seen = Mock(spec=Described)
    answer = structure.estimate(map, seen, found, camera, "structure", 0.0, notices)
    assert [one.code for one in answer.warnings] == told
