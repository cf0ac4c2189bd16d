"""Metres from GPS: how sure the scale is, and places without an altitude."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from scipy.spatial.transform import Rotation

from relocal.camera import Camera
from relocal.pose import Pose
from relocal.report import scale_text
from relocal.scene import Scene
from relocal.sfm.alignment import Similarity, moved
from relocal.sfm.gps import HOPELESS, UNCERTAIN, fit_places, scaled_by_gps
from relocal.sfm.labelling import scale_doubts
from relocal.sfm.places import Place, gps_place

EAST_M, NORTH_M = 94_493.0, 110_873.0  # of a degree near 32° S


def gps_photo(file: Path, place: np.ndarray, height: bool = True, **wrong: object) -> None:
    """A photo whose EXIF says a place near 32° S, 116° E, and 50 m above what is given."""

    def parts(angle: float) -> tuple[float, float, float]:
        minutes, seconds = divmod(abs(angle) * 3600, 60)
        return (*divmod(minutes, 60), round(seconds, 6))

    exif = Image.Exif()
    said = exif.get_ifd(ExifTags.IFD.GPSInfo)
    said[ExifTags.GPS.GPSLatitudeRef] = "S"
    said[ExifTags.GPS.GPSLatitude] = parts(-32 + place[1] / NORTH_M)
    said[ExifTags.GPS.GPSLongitudeRef] = "E"
    said[ExifTags.GPS.GPSLongitude] = parts(116 + place[0] / EAST_M)
    if height:
        said[ExifTags.GPS.GPSAltitude] = 50 + place[2]
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(file, exif=exif)


def upright_similarity(seed: int) -> Similarity:
    draw = np.random.default_rng(seed)
    turn = Rotation.from_euler("z", draw.uniform(-np.pi, np.pi)).as_matrix()
    scale = float(np.exp(draw.normal()))
    return Similarity(scale, torch.from_numpy(turn), torch.from_numpy(draw.normal(size=3)))


def walk(root: Path, size_m: float, count: int = 24) -> Scene:
    """A scene in metres, east, north and up; its photos do not exist yet."""
    place = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 3)) * size_m
    place[:, 2] *= 0.2
    quaternion = torch.tensor([[1.0, 0, 0, 0]]).double().repeat(count, 1)
    return Scene(
        name="walk",
        unit="unit",
        image_root=root,
        images=tuple(f"walk/{i:02d}.jpg" for i in range(count)),
        cameras=(Camera.pinhole(64, 48, 50.0, 50.0, 32.0, 24.0),),
        camera_index=torch.zeros(count, dtype=torch.int64),
        poses=Pose(torch.from_numpy(place), quaternion),
    )


def took(scene: Scene, error_m: float, without_height: int) -> Scene:
    """The scene in units of its own, its photos with places that err by ``error_m`` an axis."""
    draw = np.random.default_rng(1)
    for i, place in enumerate(scene.poses.position.numpy()):
        noisy = place + draw.normal(0, error_m, 3)
        gps_photo(scene.path(i), noisy, height=i >= without_height)
    return moved(scene, upright_similarity(3))


@pytest.mark.parametrize("without_height", [0, 1, 10, 13, 23, 24])
def test_a_missing_altitude_is_not_the_sea(tmp_path: Path, without_height: int) -> None:
    truth = walk(tmp_path, 100.0)
    made, about = scaled_by_gps(took(truth, 0.1, without_height))
    assert made.unit == "m"
    ratio = torch.pdist(made.poses.position) / torch.pdist(truth.poses.position)
    assert float(ratio.min()) == pytest.approx(1, abs=0.01)
    assert float(ratio.max()) == pytest.approx(1, abs=0.01)
    assert about["images_without_altitude"] == without_height
    assert about["level"] == (without_height > 12)
    assert about["images"] == (24 if about["level"] else 24 - without_height)
    east = made.poses.position[:, 0] - truth.poses.position[:, 0]
    assert float(east.std()) < 0.1  # north is north
    assert "± 0." in scale_text(about, "m")
    assert scale_doubts(about) == []


@pytest.mark.parametrize("without_height", [0, 24])
def test_a_phones_gps_gives_a_room_no_metres(tmp_path: Path, without_height: int) -> None:
    scene = took(walk(tmp_path, 3.0), 3.0, without_height)
    made, about = scaled_by_gps(scene)
    assert made is scene
    assert made.unit == "unit"
    assert about["hopeless"]
    assert [notice.code for notice in scale_doubts(about)] == ["scale-not-told"]
    assert scale_text(about, "unit").startswith("not known")


def test_a_rough_scale_is_told_with_its_uncertainty(tmp_path: Path) -> None:
    made, about = scaled_by_gps(took(walk(tmp_path, 30.0), 2.5, 0))
    assert made.unit == "m"
    (notice,) = scale_doubts(about)
    assert notice.code == "scale-uncertain"
    assert f"uncertain by {100 * about['relative_error']:.2g} %" in notice.text
    assert UNCERTAIN < about["sigma_m"] / about["spread_m"] < HOPELESS


@pytest.mark.parametrize("level", [False, True])
@pytest.mark.parametrize("error_m", [5, 10])
def test_the_stated_uncertainty_of_the_scale_is_true(
    level: bool, error_m: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of simulated walks some 68 % are within one standard error, some 95 % within two."""
    monkeypatch.setattr("relocal.sfm.gps._DRAWS", 8)  # enough without outliers
    draw, off = np.random.default_rng(7), []
    for _ in range(200):
        place = draw.uniform(-20, 20, (20, 3)) * [1, 1, 0.1] * max(error_m, 2) / 2
        centres, errors = torch.from_numpy(place), draw.normal(0, error_m, (20, 3))
        fit = fit_places(centres / 2, torch.from_numpy(place + errors), level=level)
        off.append((fit.by.scale / 2 - 1) / (fit.by.scale / 2 * fit.relative_error))
    share = [float((np.abs(off) < k).mean()) for k in (1, 2)]
    assert 0.58 < share[0] < 0.80
    assert share[1] > 0.88


@pytest.mark.parametrize("level", [False, True])
def test_places_of_a_mirrored_world_tell_no_scale(level: bool) -> None:
    places = torch.from_numpy(np.random.default_rng(0).uniform(-30, 30, (20, 3)))
    fit = fit_places(places, places * torch.tensor([-1, 1, 1]), level=level)
    assert fit.sigma_m > UNCERTAIN * fit.spread_m


@pytest.mark.parametrize("without_height", [0, 24])
def test_a_walk_across_the_180th_meridian_is_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_height: int
) -> None:
    truth = walk(tmp_path, 100.0)
    scene = took(truth, 0.1, without_height)

    def moved_east(file: Path) -> Place | None:
        place = gps_place(file)
        return place and place._replace(longitude=(place.longitude - 116 + 360) % 360 - 180)

    monkeypatch.setattr("relocal.sfm.gps.gps_place", moved_east)
    made, about = scaled_by_gps(scene)
    ratio = torch.pdist(made.poses.position) / torch.pdist(truth.poses.position)
    assert float(ratio.median()) == pytest.approx(1, abs=0.01)
    assert abs(about["origin_lat_lon_alt"][1]) == pytest.approx(180, abs=0.01)
    assert scale_doubts(about) == []


@given(st.integers(0, 10_000))
def test_on_the_ground_exact_places_give_the_similarity_back(seed: int) -> None:
    draw = np.random.default_rng(seed)
    centres, by = torch.from_numpy(draw.normal(size=(6, 3))), upright_similarity(seed)
    places = by.points(centres)
    places = places + torch.from_numpy(np.c_[np.zeros((6, 2)), draw.normal(size=6)])  # any height
    fit = fit_places(centres, places, level=True)
    assert fit.by.scale == pytest.approx(by.scale)
    torch.testing.assert_close(fit.by.rotation, by.rotation)
    torch.testing.assert_close(fit.by.points(centres)[:, :2], places[:, :2])


def test_one_place_far_off_has_no_say() -> None:
    draw = np.random.default_rng(0)
    centres = torch.from_numpy(draw.uniform(-20, 20, (20, 3)))
    places = 2 * centres
    places[3, :2] += 500
    for level in (True, False):
        assert fit_places(centres, places, level=level).by.scale == pytest.approx(2)


def test_a_damaged_altitude_is_a_missing_one(tmp_path: Path) -> None:
    gps_photo(tmp_path / "a.jpg", np.array([0.0, 0, 7]))
    gps_photo(tmp_path / "b.jpg", np.zeros(3), height=False)
    known, missing = gps_place(tmp_path / "a.jpg"), gps_place(tmp_path / "b.jpg")
    assert known is not None
    assert missing is not None
    assert known.altitude == pytest.approx(57)
    assert missing.altitude is None
