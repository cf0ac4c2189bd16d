"""Files of poses that `align` reads, and the verb."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_session import some_poses, some_similarity
from torch.testing import assert_close

import relocal
from relocal.errors import InputError
from relocal.pose import rotation_error_deg
from relocal.session import read_poses
from relocal.session.files import key_of

# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("photos/walk-1/IMG_3.jpg", "IMG_3"),
        ("C:\\photos\\IMG_3.jpg", "IMG_3"),
        ("photos/0007.jpg", "7.0"),
        ("7", "7.0"),
        ("walk.mp4:000007", "7.0"),
        ("1305031100.170304", "1305031100.170304"),
        ("rgb/1305031100.170304.png", "1305031100.170304"),
    ],
)
def test_photos_are_known_by_number_or_name(name: str, key: str) -> None:
    assert key_of(name) == key


def test_all_forms_of_a_pose_are_read_alike(tmp_path: Path) -> None:
    pose = some_poses(0, 1)[0]
    w, x, y, z = pose.quaternion.tolist()
    place = pose.position.tolist()
    rows = [
        {"photo": "a/1.jpg", "position": place, "quaternion": [w, x, y, z], "unit": "unit"},
        {"photo": "2", "session_from_device": pose.matrix().tolist()},
    ]
    tum = " ".join(map(repr, [3, *place, x, y, z, w]))
    text = "# stamp tx ty tz qx qy qz qw\n\n" + "\n".join([*map(json.dumps, rows), tum])
    (tmp_path / "poses").write_text(text)
    poses, unit = read_poses(tmp_path / "poses")
    assert (list(poses), unit) == (["1.0", "2.0", "3.0"], "unit")
    for one in poses.values():
        assert_close(one.position, pose.position)
        assert float(rotation_error_deg(one, pose)) < 1e-6


LINE = "1 0 0 0 0 0 0 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0 0 0 0", "line 1: needs stamp tx ty tz qx qy qz qw or a JSON object, has 7"),
        (f"{LINE}\n1.0 0 0 0 0 0 0 1", "line 2: photo 1.0 has a pose already"),
        ("1 0 0 0 0 0 0 2", "quaternion is not unit"),
        ("1 0 0 nan 0 0 0 1", "position is not 3 finite numbers"),
        ("1 0 0 x 0 0 0 1", "position is not numbers"),
        ('{"photo": "a", "position": [1, 2, 3]', "not whole JSON"),
        ('{"photo": "a", "position": [1, 2, 3]}', "needs photo, and position with quaternion"),
        (
            '{"photo": "a", "session_from_device": '
            "[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 2, 3, 1]]}",
            "is this one transposed",
        ),
        (
            '{"photo": "a", "position": [1, 2, 3], "quaternion": [1, 0, 0, 0], "unit": "ft"}',
            "unit",
        ),
    ],
)
def test_lines_that_are_no_poses_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "poses").write_text(text)
    with pytest.raises(InputError, match=message):
        read_poses(tmp_path / "poses")


def test_a_file_that_is_missing_or_of_two_units_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"session .*gone: there is no such file"):
        read_poses(tmp_path / "gone", "session")
    rows = (
        {"photo": unit, "position": [0, 0, 0], "quaternion": [1, 0, 0, 0], "unit": unit}
        for unit in ("m", "unit")
    )
    (tmp_path / "poses").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="poses in m and in unit"):
        read_poses(tmp_path / "poses")


# --- the verb ----------------------------------------------------------------------------------


def test_the_verb_writes_what_the_function_finds(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    session, truth = some_poses(0, 7), some_similarity(1, scaled=False)
    files = tmp_path / "estimates.txt", tmp_path / "session.txt"
    for file, poses in zip(files, (truth.poses(session), session), strict=True):
        rows = torch.cat([poses.position, poses.quaternion[:, [1, 2, 3, 0]]], dim=1).tolist()
        lines = (f"{i} " + " ".join(map(repr, row)) for i, row in enumerate(rows))
        file.write_text("\n".join(lines))
    out = tmp_path / "map_from_session.json"
    code, said, error = call("align", *files, "--out", out)
    assert (code, error) == (0, "")
    assert said == (
        f"{out}: 7 photos, 7 agree; residual median 0.000 m, 0.00°, worst 0.000 m, 0.00°; "
        "scale 1.\n"
    )
    content = json.loads(out.read_text())
    assert content == relocal.align(*files).to_json()
    matrix = np.array(content["map_from_session"])
    expected = truth.points(session.position).numpy()
    found = session.position.numpy() @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    turn = Rotation.from_quat(content["quaternion"], scalar_first=True).as_matrix()
    np.testing.assert_allclose(content["scale"] * turn, matrix[:3, :3], atol=1e-12)
    assert (content["scale"], content["unit"], len(content["pairs"])) == (1, "m", 7)
    code, said, error = call("align", *files, "--out", out)
    assert (code, said) == (2, "")
    assert "exists already" in error
    other = tmp_path / "scaled.json"
    code, said, error = call("align", *files, "--out", other, "--unit", "unit", "--axes", "webxr")
    assert (code, said) == (2, "")
    assert "They fit with --axes opencv --quarter-turns 0." in error
    assert not other.exists()


def test_names_that_only_python_takes_for_numbers_are_names() -> None:
    assert key_of("2024_01.jpg") == "2024_01"
    assert key_of("infinity.png") == "infinity"
    assert key_of("nan.png") == "nan"
    assert key_of("1e3.jpg") == key_of("1000.jpg")
