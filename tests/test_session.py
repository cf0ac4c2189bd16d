"""Aligning a device's session with the map: laws, wrong pairs, oracles, what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from relocal.errors import InputError
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.session import AXES, align
from relocal.sfm.alignment import Similarity

seeds = st.integers(0, 10_000)
some = settings(max_examples=25)
Poses = dict[str, Pose]
FLIP = np.diag([1.0, -1.0, -1.0])  # OpenGL's camera axes in OpenCV's


def some_poses(seed: int, count: int, walk: str = "anywhere") -> Pose:
    """Cameras that look anywhere, and stand anywhere, on a line or in one place."""
    draw = np.random.default_rng(seed)
    place = {"anywhere": 3 * np.eye(3), "line": np.diag([3.0, 0, 0]), "place": np.zeros((3, 3))}
    position = draw.normal(size=(count, 3)) @ place[walk] + draw.normal(size=3)
    return Pose(torch.from_numpy(position), quaternions(Rotation.random(count, rng=draw)))


def quaternions(turns: Rotation) -> torch.Tensor:
    return torch.from_numpy(turns.as_quat(canonical=True, scalar_first=True))


def some_similarity(seed: int, scaled: bool = True) -> Similarity:
    draw = np.random.default_rng(seed)
    turn = torch.from_numpy(Rotation.random(rng=draw).as_matrix())
    scale = float(np.exp(draw.normal())) if scaled else 1.0
    return Similarity(scale, turn, torch.from_numpy(draw.normal(size=3)))


def named(poses: Pose) -> Poses:
    return {f"photo{i}": poses[i] for i in range(len(poses))}


def noisy(poses: Pose, seed: int, position: float, degrees: float) -> Pose:
    """Poses that are off by a normal error of so much an axis."""
    draw = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(draw.normal(scale=np.radians(degrees), size=(len(poses), 3)))
    off = torch.from_numpy(draw.normal(scale=position, size=(len(poses), 3)))
    return Pose(poses.position + off, poses.quaternion) @ Pose(0 * off, quaternions(turns))


def same(found: Similarity, truth: Similarity, tolerance: float = 1e-7) -> None:
    assert found.scale == pytest.approx(truth.scale, rel=tolerance)
    assert_close(found.rotation, truth.rotation, atol=tolerance, rtol=0)
    assert_close(found.shift, truth.shift, atol=10 * tolerance, rtol=0)


# --- laws --------------------------------------------------------------------------------------


@some
@given(seed=seeds, unit=st.sampled_from(["m", "unit"]), walk=st.sampled_from(["anywhere", "line"]))
def test_the_motion_that_made_the_pairs_is_found(seed: int, unit: str, walk: str) -> None:
    session, truth = some_poses(seed, 5, walk), some_similarity(seed + 1, unit == "unit")
    found = align(named(truth.poses(session)), named(session), unit=unit)
    same(found.map_from_session, truth)
    assert found.residual.position.max() < 1e-6
    assert found.residual.rotation_deg.max() < 1e-5
    assert found.kept.all()
    assert found.warnings == ()


@some
@given(seed=seeds, unit=st.sampled_from(["m", "unit"]))
def test_moving_the_map_or_the_session_composes(seed: int, unit: str) -> None:
    session, truth = some_poses(seed, 12), some_similarity(seed + 1, unit == "unit")
    estimates = noisy(truth.poses(session), seed + 2, 0.02, 0.5)
    first = align(named(estimates), named(session), unit=unit)
    by, other = (some_similarity(seed + k, scaled=False) for k in (3, 4))
    second = align(named(by.poses(estimates)), named(other.poses(session)), unit=unit)
    assert_close(second.residual.position, first.residual.position, atol=1e-6, rtol=0)
    points = torch.randn(4, 3).double()
    once = by.points(first.map_from_session.points(points))
    assert_close(second.map_from_session.points(other.points(points)), once, atol=1e-6, rtol=0)
    assert first.matrix() @ torch.eye(4).double()[:, 3] == pytest.approx(
        [*first.map_from_session.shift.tolist(), 1]
    )


@some
@given(seed=seeds, unit=st.sampled_from(["m", "unit"]))
def test_wrong_pairs_have_next_to_no_say(seed: int, unit: str) -> None:
    draw = np.random.default_rng(seed)
    session, truth = some_poses(seed, 20), some_similarity(seed + 1, unit == "unit")
    good = noisy(truth.poses(session), seed + 2, 0.01 * truth.scale, 0.3)
    wrong = draw.choice(20, 7, replace=False).tolist()
    estimates = named(good)
    far = some_poses(seed + 3, 20)
    for i in wrong:
        estimates[f"photo{i}"] = Pose(10 * truth.scale * far.position[i], far.quaternion[i])
    found = align(estimates, named(session), unit=unit)
    right = {f"photo{i}" for i in range(20) if i not in wrong}
    clean = align({name: estimates[name] for name in right}, named(session), unit=unit)
    moved, same_moved = (one.poses(session) for one in (found, clean))
    assert float(position_error(moved, same_moved).max()) < 0.02 * truth.scale
    assert float(rotation_error_deg(moved, same_moved).max()) < 0.3
    assert not found.kept[wrong].any()
    assert int(found.kept.sum()) >= 11
    assert "disagree with the others" in found.warnings[0].text


@some
@given(seed=seeds)
def test_even_two_wrong_pairs_of_five_are_told(seed: int) -> None:
    session, truth = some_poses(seed, 5), some_similarity(seed + 1, scaled=False)
    estimates = named(truth.poses(session))
    for i, other in ((1, 4), (3, 2)):
        estimates[f"photo{i}"] = some_poses(seed + other, 5)[other]
    found = align(estimates, named(session))
    same(found.map_from_session, truth)
    assert found.kept.tolist() == [True, False, True, False, True]


@some
@given(seed=seeds, unit=st.sampled_from(["m", "unit"]))
def test_nine_of_twenty_that_agree_on_another_motion_are_outvoted(seed: int, unit: str) -> None:
    session, truth = some_poses(seed, 20), some_similarity(seed + 1, unit == "unit")
    other = some_similarity(seed + 2, unit == "unit")
    estimates = named(noisy(truth.poses(session), seed + 3, 0.01 * truth.scale, 0.3))
    estimates |= {f"photo{i}": other.poses(session)[i] for i in range(9)}
    found = align(estimates, named(session), unit=unit).map_from_session
    apart = found.rotation @ truth.rotation.T
    assert np.degrees(Rotation.from_matrix(apart.numpy()).magnitude()) < 1


@pytest.mark.parametrize("count", [5, 8])
def test_few_sound_pairs_are_not_taken_for_wrong(count: int) -> None:
    kept: list[bool] = []
    for seed in range(20):
        session, truth = some_poses(seed, count), some_similarity(seed + 1, scaled=False)
        estimates = named(noisy(truth.poses(session), seed + 2, 0.1, 2.0))
        kept += align(estimates, named(session)).kept.tolist()
    assert np.mean(kept) > 0.99


# --- oracles -----------------------------------------------------------------------------------


def turn_of_positions(here: torch.Tensor, there: torch.Tensor) -> Rotation:
    there, here = (points - points.mean(0) for points in (there, here))
    return Rotation.align_vectors(there.numpy(), here.numpy())[0]


def test_positions_alone_agree_with_scipy_and_rotations_with_their_mean() -> None:
    """Where one kind of evidence is next to exact, the answer is that of it alone."""
    session, truth = some_poses(0, 40), some_similarity(1, scaled=False)
    exact = truth.poses(session)
    rough_turns = align(named(noisy(exact, 2, 0.001, 8.0)), named(session)).map_from_session
    here, there = session.position, noisy(exact, 2, 0.001, 8.0).position
    oracle = turn_of_positions(here, there)
    apart = Rotation.from_matrix(rough_turns.rotation) * oracle.inv()
    assert np.degrees(apart.magnitude()) < 0.01
    rough = noisy(exact, 3, 0.8, 0.05)
    rough_places = align(named(rough), named(session)).map_from_session
    turns = Rotation.from_quat(rough.quaternion.numpy(), scalar_first=True)
    turns = turns * Rotation.from_quat(session.quaternion.numpy(), scalar_first=True).inv()
    apart = Rotation.from_matrix(rough_places.rotation) * turns.mean().inv()
    assert np.degrees(apart.magnitude()) < 0.01


def test_both_kinds_of_evidence_beat_each_alone() -> None:
    errors: dict[str, list[float]] = {"both": [], "positions": [], "rotations": []}
    for seed in range(20):
        session, truth = some_poses(seed, 8), some_similarity(seed + 1, scaled=False)
        rough = noisy(truth.poses(session), seed + 2, 0.15, 2.0)
        here, there = session.position, rough.position
        positions = turn_of_positions(here, there)
        turns = Rotation.from_quat(rough.quaternion.numpy(), scalar_first=True)
        turns = turns * Rotation.from_quat(session.quaternion.numpy(), scalar_first=True).inv()
        both = align(named(rough), named(session)).map_from_session.rotation
        answers = {"both": Rotation.from_matrix(both), "positions": positions}
        for name, turn in {**answers, "rotations": turns.mean()}.items():
            off = turn * Rotation.from_matrix(truth.rotation).inv()
            errors[name].append(float(np.degrees(off.magnitude())))
    rms = {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in errors.items()}
    assert rms["both"] < min(rms["positions"], rms["rotations"])


@pytest.mark.parametrize("axes", AXES)
def test_a_gravity_aligned_session_stands_upright_in_an_upright_map(axes: str) -> None:
    """A level camera, written down with SciPy in a world of z up and in one of y up."""
    session: Poses = {}
    estimates: Poses = {}
    map_from_session = Rotation.from_euler("z", 40, degrees=True).as_matrix() @ np.array(
        [[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]  # the session's y is the map's z
    )
    for i in range(6):
        heading = Rotation.from_euler("y", 50 * i, degrees=True).as_matrix()
        opengl = heading  # x right, y up, looking along -z
        place = np.array([i % 3, 1.5, i // 3 - 1.0])
        device = opengl if AXES[axes] else opengl @ FLIP
        session[f"{i}"] = pose_of(device, place)
        estimates[f"{i}"] = pose_of(map_from_session @ opengl @ FLIP, map_from_session @ place + 5)
        assert estimates[f"{i}"].rotation[:, 1].numpy() == pytest.approx([0, 0, -1])  # y is down
    found = align(estimates, session, axes=axes).map_from_session
    assert_close(found.rotation, torch.from_numpy(map_from_session))
    assert found.rotation[:, 1].numpy() == pytest.approx([0, 0, 1])


def pose_of(rotation: np.ndarray, position: np.ndarray) -> Pose:
    turn = quaternions(Rotation.from_matrix(rotation[None]))[0]
    return Pose(torch.from_numpy(position), turn)


@pytest.mark.parametrize("turns", range(4))
def test_photos_that_were_turned_are_told(turns: int) -> None:
    """A phone held upright: the photo is the sensor's, turned clockwise about its axis."""
    session, truth = some_poses(4, 9), some_similarity(5, scaled=False)
    back = Rotation.from_euler("z", -90 * turns, degrees=True).as_matrix()
    opengl = torch.from_numpy(FLIP @ back)
    seen = truth.poses(session)
    quaternion = quaternions(Rotation.from_matrix(seen.rotation.numpy() @ opengl.numpy()))
    estimates = named(Pose(seen.position, quaternion))
    found = align(estimates, named(session), axes="webxr", quarter_turns=turns)
    same(found.map_from_session, truth)
    if turns:
        advice = rf"rotations .* They fit with --axes arkit --quarter-turns {turns}\.$"
        with pytest.raises(InputError, match=advice):
            align(estimates, named(session), axes="webxr")
    with pytest.raises(InputError, match="--quarter-turns 4: give 0, 1, 2 or 3"):
        align(estimates, named(session), quarter_turns=4)


def test_turning_a_photo_clockwise_is_what_scenes_do_with_exif(scene_of: Any) -> None:
    from relocal.scene.upright import turned
    from relocal.session.axes import device_from_cam

    scene = scene_of(["a.jpg", "b.jpg"])
    for turns in range(4):
        made = turned(scene, [turns, turns]).poses
        own = (scene.poses @ device_from_cam("opencv", turns)).canonical()
        assert float(rotation_error_deg(made, own).max()) < 1e-5


# --- what is refused ---------------------------------------------------------------------------


def test_too_few_pairs_are_refused_with_what_was_found() -> None:
    session = named(some_poses(0, 9))
    few = {name: session[name] for name in list(session)[:4]}
    with pytest.raises(InputError, match=r"session has 4 of the 4 .* and 5 are needed"):
        align(few, session)
    others = {f"other{name}": pose for name, pose in session.items()}
    with pytest.raises(InputError, match=r"has 0 of the 9 .*otherphoto0.*the session has photo0"):
        align(others, session)


def test_pairs_that_do_not_belong_together_are_refused() -> None:
    session, truth = some_poses(0, 12), some_similarity(1, scaled=False)
    right = truth.poses(session)
    shuffled = right[torch.arange(12).roll(5)]
    with pytest.raises(InputError, match=r"rotations are still \d+° apart in the median"):
        align(named(shuffled), named(session))
    turned_only = Pose(shuffled.position, right.quaternion)
    for unit, message in (("m", "positions are still"), ("unit", "scale is uncertain by")):
        with pytest.raises(InputError, match=message):
            align(named(turned_only), named(session), unit=unit)
    centimetres = Pose(100 * session.position, session.quaternion)
    with pytest.raises(InputError, match=r"positions ask for scale 0\.01; .* not in metres"):
        align(named(right), named(centimetres))


def test_one_place_tells_the_turn_but_no_scale_and_is_warned_of() -> None:
    session, truth = some_poses(0, 12, "place"), some_similarity(1, scaled=False)
    estimates = named(noisy(truth.poses(session), 2, 0.05, 0.5))
    found = align(estimates, named(session))
    apart = found.map_from_session.rotation @ truth.rotation.T
    assert np.degrees(Rotation.from_matrix(apart.numpy()).magnitude()) < 1
    assert "rests on the photos' rotations alone; walk farther" in found.warnings[-1].text
    with pytest.raises(InputError, match="never moved: no scale"):
        align(estimates, named(session), unit="unit")
    barely = noisy(session, 3, 0.01, 0)
    with pytest.raises(InputError, match=r"the scale is uncertain by \d+ %"):
        align(estimates, named(barely), unit="unit")


def test_a_map_of_another_scale_is_warned_of() -> None:
    session, truth = some_poses(0, 12), some_similarity(1, scaled=False)
    larger = replace(truth, scale=1.3)
    found = align(named(larger.poses(session)), named(session))
    assert "positions fit better with scale 1.3" in found.warnings[-1].text
    assert found.map_from_session.scale == 1
    assert align(named(larger.poses(session)), named(session), unit="unit").warnings == ()


def test_names_of_options_are_checked() -> None:
    session = named(some_poses(0, 9))
    with pytest.raises(InputError, match=r"--axes.*arcor.*arcore"):
        align(session, session, axes="arcor")
    with pytest.raises(InputError, match="--unit"):
        align(session, session, unit="feet")


@pytest.mark.parametrize("part", ["position", "quaternion"])
def test_poses_that_are_not_finite_are_refused(part: str) -> None:
    poses = named(some_poses(1, 6))
    broken = replace(poses["photo2"], **{part: getattr(poses["photo2"], part) * torch.nan})
    for arguments, what in (
        (({**poses, "photo2": broken}, poses), "estimates"),
        ((poses, {**poses, "photo2": broken}), "session"),
    ):
        with pytest.raises(InputError, match=f"{what}: has a pose that is not finite"):
            align(*arguments)
