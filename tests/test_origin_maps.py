"""Any origin, any unit: maps, lines and pictures are the same wherever a world lies."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_alignment import level_scene
from worlds import HERE, UTM, WORLDS, every_world

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.features import Keypoints
from relocal.images import Source
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
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.report.lines import estimate_line
from relocal.scene import Scene
from relocal.scene.scene import same_poses
from relocal.sfm.alignment import Similarity, moved
from relocal.sfm.pairs import TriangulateConfig
from relocal.sfm.triangulation import triangulated
from relocal.training import Run
from relocal.types import Estimate

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


@every_world
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


# --- texts ---------------------------------------------------------------------------


@every_world
def test_lines_give_every_digit_back(name: str) -> None:
    pose = WORLDS[name].poses(level_scene(5).poses[3])
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


# --- pictures ----------------------------------------------------------------------------------


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
