"""Any origin, any unit: maps, fits, files and pictures are the same wherever a world lies."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from test_alignment import level_scene, turn

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.features import Keypoints
from relocal.images import Source
from relocal.local_frame import LocalFrame
from relocal.localizers import (
    FeatureMap,
    Hybrid,
    MapConfig,
    Regressor,
    Structure,
    build_map,
    feature_map,
    hybrid,
    load_map,
    save_map,
    structure,
)
from relocal.localizers.retrieval import blended
from relocal.localizers.sequence import Measured, filter_poses, fit_motion
from relocal.localizers.spread import middle_and_spread
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.report.lines import estimate_line
from relocal.scene import Scene
from relocal.scene.scene import same_poses
from relocal.session.fitting import fit_poses
from relocal.sfm.absolute_pose import fitted_focal, pose_sigmas, refine_pose, solve_pose
from relocal.sfm.alignment import Similarity, fitted, moved, scaled, upright
from relocal.sfm.pairs import TriangulateConfig, pose_pairs
from relocal.sfm.triangulation import triangulated
from relocal.training import Run
from relocal.types import Estimate

CAMERA = Camera.pinhole(640, 480, 520.0, 520.0, 320.0, 240.0)
seeds = st.integers(0, 10_000)


def world(scale: float, shift: tuple[float, float, float], turned: int | None = None) -> Similarity:
    rotation = torch.eye(3).double() if turned is None else turn(turned)
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
worlds = pytest.mark.parametrize("name", WORLDS)
any_world = st.sampled_from(sorted(WORLDS))


def same(found: float, wanted: float, least: float = 0.0) -> None:
    """The law: equal to one per cent."""
    assert found == pytest.approx(wanted, rel=0.01, abs=least)


# --- PnP ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Points with noisy pixels, some of them wrong."""

    pose: Pose
    points: torch.Tensor
    pixels: np.ndarray


def seen(seed: int, count: int = 80) -> Seen:
    draw = np.random.default_rng(seed)
    pixels = torch.from_numpy(draw.uniform([20, 20], [620, 460], size=(count, 2)))
    rays = CAMERA.unproject(pixels) * torch.from_numpy(draw.uniform(1, 5, size=(count, 1)))
    place, quaternion = (torch.from_numpy(draw.normal(size=k)) for k in (3, 4))
    pose = Pose.from_quaternion(place, quaternion)
    noisy = pixels.numpy() + draw.normal(0, 0.5, size=(count, 2))
    noisy[: count // 5] = draw.uniform(0, 480, size=(count // 5, 2))
    return Seen(pose, pose.apply(rays), noisy)


def answers(case: Seen, by: Similarity) -> tuple[list[float], Pose]:
    """Errors and spreads in the unit of the first world, and the refined pose."""
    points, truth = by.points(case.points).numpy(), by.poses(case.pose)
    found = solve_pose(points, case.pixels, CAMERA, 4.0)
    assert found is not None
    right = np.flatnonzero(found.inliers)
    pose = refine_pose(found.pose, points[right], case.pixels[right], CAMERA)
    assert pose is not None
    sigmas = pose_sigmas(pose, points[right], case.pixels[right], CAMERA)
    assert sigmas is not None
    focal = fitted_focal(pose, points[right], case.pixels[right], CAMERA)
    lengths = float(position_error(pose, truth)) / by.scale, sigmas[0] / by.scale
    angle = float(rotation_error_deg(pose, truth))
    return [*lengths, angle, sigmas[1], focal, len(right)], pose


@given(seed=seeds, name=any_world)
@settings(max_examples=40)
def test_a_pose_is_as_exact_in_any_world(seed: int, name: str) -> None:
    case = seen(seed)
    here, there = answers(case, HERE)[0], answers(case, WORLDS[name])[0]
    least = (here[1], here[1], here[3], here[3], 0, 0)  # an error far below its spread is chance
    for found, wanted, floor in zip(there, here, least, strict=True):
        same(found, wanted, 0.01 * floor)


@pytest.mark.parametrize("name", ["utm", "large", "ecef in millimetres"])
@given(seed=seeds)
@settings(max_examples=10)
def test_the_refined_pose_is_the_least_of_an_independent_optimiser(name: str, seed: int) -> None:
    case = seen(seed)
    right, by = np.arange(16, 80), WORLDS[name]
    points, pixels = case.points.numpy()[right], case.pixels[right]

    def residuals(x: np.ndarray) -> np.ndarray:
        local = Rotation.from_rotvec(x[:3]).apply(points - x[3:], inverse=True)
        error = 520 * local[:, :2] / local[:, 2:] + (320, 240) - pixels
        return np.linalg.norm(error, axis=1)

    w, *xyz = case.pose.quaternion.tolist()
    start = [*Rotation.from_quat([*xyz, w]).as_rotvec(), *case.pose.position.tolist()]
    least = least_squares(residuals, start, loss="cauchy", xtol=1e-12, ftol=1e-14, gtol=1e-12)
    near = by.poses(Pose(case.pose.position + 0.01, case.pose.quaternion))
    found = refine_pose(near, by.points(torch.from_numpy(points)).numpy(), pixels, CAMERA)
    assert found is not None
    wanted = by.points(torch.from_numpy(least.x[3:]))
    sigmas = pose_sigmas(case.pose, points, pixels, CAMERA)
    assert sigmas is not None
    assert float((found.position - wanted).norm()) / by.scale < 0.02 * sigmas[0]


# --- fits --------------------------------------------------------------------------------------


def umeyama(one: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Umeyama (1991), equations 34 and 39 to 43, written anew."""
    a, b = one - one.mean(0), other - other.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    s = np.ones(3)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        s[-1] = -1
    scale = float((d * s).sum() / (a**2).sum() * len(a))
    turned = u @ np.diag(s) @ vt
    return scale, turned, other.mean(0) - scale * turned @ one.mean(0)


def walk(kind: str, seed: int) -> np.ndarray:
    """Positions: level ones lie at z = 0, those of a plane in a turned one through the origin."""
    draw = np.random.default_rng(seed)
    k = np.arange(30.0)
    if kind == "level":
        return np.stack([0.1 * k, np.sin(k / 6), 0 * k], axis=1)
    xyz = draw.normal(size=(30, 3))
    if kind == "plane":
        xyz[:, 2] = 0
        xyz -= xyz.mean(0)
    return xyz @ turn(seed + 1).numpy().T if kind == "plane" else xyz


@given(seed=seeds, name=any_world, kind=st.sampled_from(["level", "plane", "space"]))
def test_a_fit_is_that_of_umeyama_in_any_world(seed: int, name: str, kind: str) -> None:
    draw = np.random.default_rng(seed + 2)
    source, by = walk(kind, seed), WORLDS[name]
    noisy = source + draw.normal(0, 0.01, size=source.shape)
    scale, turned, shift = umeyama(source, noisy)
    target = by.points(torch.from_numpy(noisy))
    for one, ratio in ((source, 1.0), (by.scale * source, by.scale)):
        for tolerance in (None, by.scale * 1.0):  # all agree, to that
            found = fitted(torch.from_numpy(one), target, tolerance, "test")
            assert found.scale * ratio == pytest.approx(by.scale * scale, rel=1e-6)
            left = found.points(torch.from_numpy(one)) - target
            wanted = scale * source @ turned.T + shift - noisy
            same(float(left.norm()) / by.scale, float(np.linalg.norm(wanted)))
            mirror = torch.linalg.det(found.rotation)
            assert float(mirror) == pytest.approx(1)


@given(seed=seeds, name=any_world, kind=st.sampled_from(["level", "plane", "space"]))
def test_outliers_have_no_say_in_any_world(seed: int, name: str, kind: str) -> None:
    source, by = walk(kind, seed), WORLDS[name]
    target = by.points(torch.from_numpy(source))
    target[::4] += 3 * by.scale
    found = fitted(torch.from_numpy(source), target, 0.1 * by.scale, "test")
    assert found.scale == pytest.approx(by.scale, rel=1e-5)


@worlds
def test_images_on_a_line_are_refused_in_any_world_and_a_path_of_a_metre_is_not(name: str) -> None:
    by = WORLDS[name]
    line = by.points(torch.linspace(0, 1, 9)[:, None].double() * torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(InputError, match="on a line"):
        fitted(line, line, None, "test")
    wide = torch.from_numpy(walk("level", 0)[:9])
    assert fitted(wide, by.points(wide), None, "test").scale == pytest.approx(by.scale, rel=1e-5)


@worlds
def test_a_labelled_scene_is_put_into_any_world(name: str) -> None:
    scene, by = level_scene(4), WORLDS[name]
    draw = np.random.default_rng(0)
    known = {
        image: Pose(
            by.points(scene.poses.position[i] + torch.from_numpy(draw.normal(0, 0.01, 3))),
            by.poses(scene.poses).quaternion[i],
        )
        for i, image in enumerate(scene.images)
    }
    wanted = {image: Pose(*parts) for image, parts in zip(known, here(known, by), strict=True)}
    at, told = scaled(scene, "poses", known)
    _, usual = scaled(scene, "poses", wanted)
    same(told["median_residual_m"] / by.scale, usual["median_residual_m"])
    same(told["median_residual_deg"], usual["median_residual_deg"], 1e-6)
    assert at.points is not None
    assert scene.points is not None
    ends = by.points(torch.from_numpy(scene.points.xyz)).numpy()
    assert np.abs(at.points.xyz - ends).max() < 0.2 * by.scale
    # What is up does not depend on where the world is: heights and distances stay.
    one, other = (moved(s, upright(s)) for s in (scene, moved(scene, by)))
    low, high = one.poses.position, other.poses.position / by.scale
    assert torch.allclose(low[:, 2] - low[0, 2], high[:, 2] - high[0, 2], atol=1e-5)
    assert torch.allclose(torch.pdist(low), torch.pdist(high), rtol=1e-5)


def here(poses: dict[str, Pose], by: Similarity) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Poses of another world in the first one."""
    back = Similarity(1 / by.scale, by.rotation.T, torch.zeros(3).double())
    return [
        (
            back.points(p.position - by.shift),
            back.poses(Pose(0 * p.position, p.quaternion)).quaternion,
        )
        for p in poses.values()
    ]


@worlds
@pytest.mark.parametrize("free", [False, True])
def test_a_session_is_aligned_in_any_world(name: str, free: bool) -> None:
    draw = np.random.default_rng(1)
    position, quaternion = (torch.from_numpy(draw.normal(size=(30, k))) for k in (3, 4))
    tracked = Pose.from_quaternion(position, quaternion)
    off = torch.from_numpy(draw.normal(0, 0.02, size=(30, 3)))
    off[3] += 5.0  # a wrong answer
    estimated, by = Pose(position + off, tracked.quaternion), WORLDS[name]
    usual = fit_poses(tracked, estimated, scaled=free)
    # Without a free scale both are in one unit.
    device = tracked if free else Pose(by.scale * position, tracked.quaternion)
    found = fit_poses(device, by.poses(estimated), scaled=free)
    ratio = by.scale if free else 1.0
    same(found.sigma / by.scale, usual.sigma)
    same(found.free_scale / ratio, usual.free_scale)
    same(found.scale_error / ratio, usual.scale_error)
    assert torch.equal(found.kept, usual.kept)
    assert not found.kept[3]
    ends, wanted = found.by.points(device.position), by.points(usual.by.points(position))
    assert float((ends - wanted).norm(dim=1).max()) < 1e-5 * by.scale


@worlds
def test_images_are_paired_alike_in_any_world(name: str) -> None:
    draw = np.random.default_rng(2)
    position, quaternion = (torch.from_numpy(draw.normal(size=(80, k))) for k in (3, 4))
    poses, config = Pose.from_quaternion(position, quaternion), TriangulateConfig()
    pairs = pose_pairs(WORLDS[name].poses(poses), config)
    assert np.array_equal(pairs, pose_pairs(poses, config))


@worlds
def test_a_filter_and_means_of_poses_are_the_same_in_any_world(name: str) -> None:
    draw, by = np.random.default_rng(3), WORLDS[name]
    steps = torch.from_numpy(draw.normal(0, 0.02, size=(40, 3))).cumsum(0).cumsum(0)
    turns = torch.tensor([1.0, 0, 0, 0]).double() + torch.from_numpy(
        0.01 * draw.normal(size=(40, 4))
    )
    path = Pose.from_quaternion(steps, turns)
    noisy = Pose(steps + torch.from_numpy(draw.normal(0, 0.05, size=(40, 3))), path.quaternion)

    def errors(by: Similarity) -> list[float]:
        true, seen = by.poses(path), by.poses(noisy)
        motion = fit_motion(true, ["one"] * 40)
        given = [Measured(seen[i], 0.05 * by.scale, 1.0) for i in range(40)]
        last = filter_poses(given, motion)[-1]
        assert last is not None
        off = [float(position_error(last.pose, true[39])), last.sigma, motion.acceleration]
        middle, spread, _ = middle_and_spread(seen[:9])
        blend = blended(seen[:5], torch.linspace(1, 0.95, 5).double())
        off += [spread, *(float(position_error(p, true[4])) for p in (middle, blend))]
        return [value / by.scale for value in off]

    for found, wanted in zip(errors(by), errors(HERE), strict=True):
        same(found, wanted)


# --- maps --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A scene whose features are found once, and what answers are to be compared with."""

    scene: Scene
    map: Callable[[Scene], FeatureMap]
    photos: list[int]


@pytest.fixture(scope="module")
def place(tiny_scene: Scene) -> Any:
    """The tiny room; its features are found once, and then are the same in every world."""
    found: dict[str, Any] = {}
    keypoints, extract = feature_map._keypoints, feature_map.extract

    def once(scene: Scene, rows: list[int], *words: Any) -> Any:
        if "training" not in found:
            found["training"] = keypoints(scene, rows, *words)
        return found["training"]

    def photo(source: Source, *words: Any) -> tuple[Camera, Keypoints]:
        if str(source) not in found:
            found[str(source)] = extract(source, *words)
        return found[str(source)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_map, "_keypoints", once)
        for module in (structure, hybrid):
            patch.setattr(module, "extract", photo)
        scene = replace(tiny_scene, points=None)
        config = MapConfig(limit=600, neighbours=10)
        yield Place(scene, lambda s: build_map(s, config), scene.indices("test").tolist())


@pytest.fixture(scope="module")
def usual(place: Place) -> FeatureMap:
    return place.map(place.scene)


class Guess(Regressor):
    """A network that answers with one pose for every photo."""

    def __init__(self, scene: Scene, pose: Pose) -> None:
        self.run, self.pose = Known(scene), pose

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate:
        return Estimate(pose=self.pose, unit="m", method="guess", time_ms=0.0)


class Known(Run):
    """What a run says of its scene."""

    def __init__(self, scene: Scene) -> None:
        names = scene.splits["train"]
        about = {"scene": scene.name, "unit": scene.unit, "folder": Path("run")}
        about |= {"training_images": names, "anchors": scene.anchors(names)}
        for name, value in about.items():
            object.__setattr__(self, name, value)


def errors(
    place: Place, scene: Scene, map: FeatureMap, by: Similarity, guessed: bool
) -> tuple[np.ndarray, list[str]]:
    """By photo, error and spread of the position in the first world's unit, and the rotation's."""
    rows: list[tuple[float, float, float]] = []
    methods: list[str] = []
    for i in place.photos:
        # A guess that is off by 10 cm.
        off = place.scene.poses[i].position + torch.tensor([0.1, 0, 0]).double()
        guess = by.poses(Pose(off, place.scene.poses[i].quaternion))
        localizer = Hybrid(Guess(scene, guess), map) if guessed else Structure(map)
        found = localizer.localize(place.scene.path(i), place.scene.camera(i))
        assert found is not None
        assert found.sigma_m is not None
        far = float(position_error(found.pose, scene.poses[i])), found.sigma_m
        angle = float(rotation_error_deg(found.pose, scene.poses[i]))
        rows.append((far[0] / by.scale, far[1] / by.scale, angle))
        methods.append(found.method)
    return np.array(rows), methods


@worlds
def test_a_map_answers_as_exactly_in_any_world(
    place: Place, usual: FeatureMap, name: str, tmp_path: Path
) -> None:
    by = WORLDS[name]
    scene = moved(place.scene, by)
    made = load_map(save_map(place.map(scene), tmp_path / "map"))
    assert len(made) == len(usual)
    ends = by.points(usual.xyz)
    assert float((made.xyz - ends).norm(dim=1).median()) < 1e-5 * by.scale
    for guessed in (False, True):
        here, methods = errors(place, place.scene, usual, HERE, guessed)
        there, again = errors(place, scene, made, by, guessed)
        assert methods == again
        medians = np.median(here, axis=0)
        assert medians[0] > 1e-4  # there is an error to compare
        assert np.allclose(np.median(there, axis=0), medians, rtol=0.01)
        assert np.allclose(there, here, rtol=0.01, atol=0.01 * medians.max())


def test_a_maps_files_keep_a_float64_origin_and_single_precision_about_it(
    place: Place, tmp_path: Path
) -> None:
    made = place.map(moved(place.scene, UTM))
    assert made.xyz.dtype == made.origin.dtype == made.poses.position.dtype == torch.float64
    assert torch.allclose(made.origin, moved(place.scene, UTM).origin, rtol=1e-14)
    folder = save_map(made, tmp_path / "map")
    about = json.loads((folder / "map.json").read_text("utf-8"))
    assert about["origin"] == made.origin.tolist()
    again = load_map(folder)
    assert float((again.xyz - made.xyz).abs().max()) < 1e-8
    truth = moved(place.scene, UTM).poses[place.scene.indices("train")]
    assert float(position_error(again.poses, truth).max()) < 1e-6


def as_before(folder: Path, map: FeatureMap) -> Path:
    """A map as it was written before maps had an origin."""
    from safetensors.torch import load_file, save_file

    arrays = load_file(folder / "map.safetensors")
    arrays["xyz"] = map.xyz.float()
    arrays["poses"] = torch.cat([map.poses.position, map.poses.quaternion], 1).float()
    save_file(arrays, folder / "map.safetensors")
    about = json.loads((folder / "map.json").read_text("utf-8"))
    del about["origin"]
    (folder / "map.json").write_text(json.dumps({**about, "format": 1}), "utf-8")
    return folder


@pytest.mark.parametrize("by", [HERE, UTM])
def test_a_map_made_before_still_opens_and_goes_with_its_run(
    place: Place, by: Similarity, tmp_path: Path
) -> None:
    scene = moved(place.scene, by)
    made = place.map(scene)
    old = load_map(as_before(save_map(made, tmp_path / "map"), made))
    assert torch.equal(old.origin, torch.zeros(3).double())
    assert torch.equal(old.xyz, made.xyz.float().double())
    Hybrid(Guess(scene, scene.poses[0]), old)
    here = errors(place, scene, old, by, False)[0] if by is HERE else None
    assert here is None or np.median(here[:, 0]) < 0.02


def test_two_truths_that_differ_by_centimetres_are_told_apart_in_any_world(place: Place) -> None:
    off = torch.tensor([0.07, 0.0, 0.0], dtype=torch.float64)
    aside = Pose(place.scene.poses.position + off, place.scene.poses.quaternion)
    for by in (HERE, *WORLDS.values()):
        scene = moved(place.scene, by)
        names = scene.splits["train"]
        anchors = scene.anchors(names)
        assert scene.has_anchors(anchors)
        other = moved(replace(place.scene, poses=aside), by)
        assert not other.has_anchors(anchors)
        rows = scene.indices("train")
        kept = scene.poses[rows]
        assert not same_poses(other.poses[rows], pose_rows(kept), 1e-5)
        # Turning poses to and fro, as files do, is not another truth.
        again = kept.inverse().inverse()
        assert same_poses(again, pose_rows(kept), 1e-6)
    map = place.map(moved(place.scene, UTM))
    other = moved(replace(place.scene, poses=aside), UTM)
    with pytest.raises(InputError, match="other poses"):
        Hybrid(Guess(other, other.poses[0]), map)


def pose_rows(poses: Pose) -> list[list[float]]:
    return torch.cat([poses.position, poses.quaternion], dim=1).tolist()


@pytest.mark.parametrize("name", ["utm", "ecef in millimetres", "utm in kilometres"])
def test_map_points_of_known_poses_are_the_same_in_any_world(
    tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, name: str
) -> None:
    cache = tmp_path_factory.getbasetemp() / "features of the tiny room"
    config, by = TriangulateConfig(neighbours=6, features=500), WORLDS[name]
    here, there = (
        triangulated(replace(s, points=None), config, cache).points
        for s in (tiny_scene, moved(tiny_scene, by))
    )
    assert here is not None
    assert there is not None
    assert len(there.xyz) == pytest.approx(len(here.xyz), rel=0.01)
    if len(here.xyz) == len(there.xyz):
        apart = np.linalg.norm(there.xyz - by.points(torch.from_numpy(here.xyz)).numpy(), axis=1)
        assert np.median(apart) < 1e-5 * by.scale


# --- files and texts ---------------------------------------------------------------------------


@worlds
def test_lines_give_every_digit_back(name: str) -> None:
    pose = WORLDS[name].poses(seen(5).pose)
    estimate = Estimate(pose=pose, unit="m", method="structure", time_ms=1.0)
    place, turned = pose.position.tolist(), pose.quaternion.tolist()

    def words(form: Any, between: str = " ") -> list[str]:
        return estimate_line(estimate, "a.jpg", 0, form).split(between)

    assert [float(word) for word in words("tum")[1:4]] == place
    assert [float(word) for word in words("euroc", ",")[1:]] == [*place, *turned]
    inverse = pose.inverse()
    wanted = [*inverse.canonical().quaternion.tolist(), *inverse.position.tolist()]
    assert [float(word) for word in words("colmap")[1:]] == wanted
    assert [float(word) for word in words("images.txt")[1:8]] == wanted
    told = json.loads(estimate_line(estimate, "a.jpg", 0, "json"))
    assert told["position"] == place
    ros = json.loads(estimate_line(estimate, "a.jpg", 0, "ros"))
    assert list(ros["pose"]["pose"]["position"].values()) == place


@pytest.mark.parametrize(
    ("unit", "place", "sigma", "wanted"),
    [
        ("m", (389212.41234, 5819731.8, 54.1), None, "389212.412 5819731.800 54.100"),
        ("m", (0.00042, 1.0, 2.0), None, "0.000 1.000 2.000"),
        ("unit", (0.5, 1.25, 2.0), None, "0.500 1.250 2.000"),
        ("unit", (0.0012345, -0.0004, 0.0), None, "0.001234 -0.000400 0.000000"),
        ("unit", (5819.7318421, 389.0, 0.05), 2e-6, "5819.7318421 389.0000000 0.0500000"),
    ],
)
def test_a_text_has_the_digits_that_mean_something(
    unit: str, place: tuple[float, ...], sigma: float | None, wanted: str
) -> None:
    pose = Pose(torch.tensor(place, dtype=torch.float64), Pose.identity().quaternion)
    estimate = Estimate(pose=pose, unit=unit, method="m", time_ms=1.0, sigma_m=sigma)
    assert f"at {wanted} {unit}," in estimate_line(estimate, "a.jpg", 0, "text")


# --- the frame, and pictures -------------------------------------------------------------------


@given(seed=seeds, name=any_world)
def test_a_local_frame_gives_the_world_back(seed: int, name: str) -> None:
    xyz = torch.from_numpy(np.random.default_rng(seed).normal(size=(9, 3)))
    there = WORLDS[name].points(xyz)
    frame = LocalFrame.about(there)
    local = frame.points(there)
    assert float(local.norm(dim=1).median()) == pytest.approx(1, rel=1e-4)
    assert torch.allclose(frame.world_points(local), there, rtol=1e-15, atol=1e-12)


@pytest.mark.parametrize("places", [[[5e6, 1.0, 2.0]], [[5e6, 1.0, 2.0]] * 4])
def test_a_local_frame_of_one_place_has_the_worlds_unit(places: list[list[float]]) -> None:
    assert LocalFrame.about(torch.tensor(places)).length == 1.0


def test_a_local_frame_of_places_most_of_which_are_one_reaches_the_others() -> None:
    places = torch.zeros(9, 3)
    places[7:, 0] = torch.tensor([8.0, -8.0])
    assert LocalFrame.about(places).length == pytest.approx(8)


@pytest.mark.parametrize("name", ["utm", "ecef in millimetres", "utm in kilometres"])
def test_a_place_is_drawn_about_its_cameras(tiny_scene: Scene, name: str) -> None:
    pytest.importorskip("viser", reason="the viewer is an extra: pip install 'relocal[view]'")
    from relocal.viewer.gathering import Gathered, _unasked
    from relocal.viewer.place import start_viser
    from relocal.viewer.viewing import Viewer

    by = WORLDS[name]
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    for scene, unit in ((tiny_scene, 1.0), (moved(tiny_scene, by), by.scale)):
        server = start_viser("127.0.0.1", 0)
        try:
            viewer = Viewer(server, Gathered(_unasked(scene), scene), None)
            points = server.scene.get_handle_by_name("/points")
            assert points.precision == "float32"
            camera = server.scene.get_handle_by_name("/true/cameras/3")
            assert scene.points is not None
            back = viewer.drawn.world_points(torch.from_numpy(np.array(points.points)))
            far = (back - torch.from_numpy(scene.points.xyz)).abs().max()
            assert float(far) < 1e-5 * viewer.drawn.length
            drawn.append((points.points, camera.position))
            viewer.show_frame(0)
            said = viewer.text.content.split("at ")[1].split(" m")[0]
            place = [float(word) for word in said.split(", ")]
            assert np.allclose(place, scene.poses.position[0], rtol=0, atol=6e-4 * min(1, unit))
        finally:
            server.stop()
    lengths = [np.linalg.norm(points - camera, axis=1) for points, camera in drawn]
    ratio = lengths[1] / lengths[0]  # the box about the cameras depends on how the world is turned
    assert np.allclose(ratio, ratio[0], rtol=1e-4)
    assert 0.5 < ratio[0] < 2
