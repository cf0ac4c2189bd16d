"""Localizers: one suite over the table, and the law of focal lengths that regressors break."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from relocal.camera import Camera
from relocal.datasets.room.config import RoomConfig
from relocal.datasets.room.recording import film
from relocal.errors import InputError
from relocal.images import build_cache, load_view
from relocal.localizers import LOCALIZERS, Localizer, Regressor
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.training import load_run, predict
from relocal.training.run import read_tensors, write_tensors
from relocal.training.views import central_view
from relocal.types import Estimate

EXIF_IFD, FOCAL_35MM, ORIENTATION = 0x8769, 0xA405, 0x0112


def another(run: Path, folder: Path) -> Path:
    """A run that answers a little otherwise."""
    copy = shutil.copytree(run, folder / "another")
    weights = read_tensors(copy / "weights.safetensors")
    name = next(name for name in weights if name.endswith("position.bias"))
    weights[name] = weights[name] + 0.01
    write_tensors(copy / "weights.safetensors", weights)
    return copy


@pytest.fixture(params=LOCALIZERS)
def localizer(
    request: pytest.FixtureRequest,
    tiny_run: Path,
    tiny_map: Path,
    tiny_scene: Scene,
    tmp_path: Path,
) -> Localizer:
    run = load_run(tiny_run)
    model = replace(run.config.model, dropout=0.2)
    parts = {
        "regressor": (tiny_run,),
        "retrieval": (tiny_scene,),
        "structure": (tiny_map,),
        "hybrid": (tiny_run, tiny_map),
        "bayesian": (replace(run, config=replace(run.config, model=model)),),
        "ensemble": ([tiny_run, another(tiny_run, tmp_path)],),
    }
    return LOCALIZERS[request.param](*parts[request.param])


@pytest.fixture(scope="module")
def regressor(tiny_run: Path) -> Regressor:
    return Regressor(tiny_run)


@pytest.fixture
def photo(tiny_scene: Scene) -> Path:
    return tiny_scene.path(int(tiny_scene.indices("test")[0]))


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be spoiled."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def answer(localizer: Localizer, photo: Any, camera: Camera | None = None) -> Estimate:
    estimate = localizer.localize(photo, camera)
    assert estimate is not None
    return estimate


def same(a: Estimate, b: Estimate) -> bool:
    return torch.equal(a.pose.position, b.pose.position) and torch.equal(
        a.pose.quaternion, b.pose.quaternion
    )


# --- the same for every localizer --------------------------------------------------------------


def test_estimate_is_a_pose_in_the_unit_of_the_scene(
    localizer: Localizer, photo: Path, tiny_scene: Scene
) -> None:
    estimate = answer(localizer, photo, tiny_scene.camera(0))
    assert estimate.pose.shape == ()
    assert estimate.pose.position.dtype == torch.float64
    assert estimate.pose.quaternion.norm() == pytest.approx(1, abs=1e-6)
    assert estimate.pose.quaternion[0] >= 0
    assert estimate.unit == tiny_scene.unit == "m"
    assert estimate.method in LOCALIZERS or estimate.method == localizer.method
    assert estimate.time_ms > 0


def test_file_name_and_bytes_give_the_same_answer(localizer: Localizer, photo: Path) -> None:
    first = answer(localizer, photo)
    assert same(first, answer(localizer, photo))
    assert same(first, answer(localizer, photo.read_bytes()))
    assert same(first, answer(localizer, str(photo)))


def test_answer_depends_on_the_photo(localizer: Localizer, tiny_scene: Scene) -> None:
    rows = tiny_scene.indices("train").tolist()
    found = Pose.stack([answer(localizer, tiny_scene.path(i)).pose for i in rows])
    mean = found.position.mean(0)
    assert (found.position - mean).norm(dim=-1).mean() > 0.2


def test_photo_turned_by_exif_gives_the_answer_of_the_upright_one(
    localizer: Localizer, photo: Path, tiny_scene: Scene
) -> None:
    with Image.open(photo) as image:
        upright, turned = (
            image.convert("RGB"),
            image.convert("RGB").transpose(Image.Transpose.ROTATE_90),
        )
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be shown turned by a quarter, clockwise
    camera = tiny_scene.camera(0)
    expected = answer(localizer, png(upright), camera)
    assert same(expected, answer(localizer, png(turned, exif), camera))
    assert not same(expected, answer(localizer, png(upright.rotate(180)), camera))


def png(image: Image.Image, exif: Image.Exif | None = None) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **({} if exif is None else {"exif": exif}))
    return file.getvalue()


def test_unknown_camera_is_assumed_with_a_warning(
    localizer: Localizer, photo: Path, tiny_scene: Scene
) -> None:
    blind, told = answer(localizer, photo), answer(localizer, photo, tiny_scene.camera(0))
    assert same(blind, told)
    assert told.warnings == ()
    (warning,) = blind.warnings
    assert warning.code == "camera-assumed"
    assert "--camera" in warning.text


def test_focal_length_comes_from_exif(localizer: Localizer, photo: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_IFD] = {FOCAL_35MM: 31}
    with Image.open(photo) as image:
        data = png(image, exif)
    focal = 31 / 43.27 * np.hypot(160, 120)
    camera = Camera.pinhole(160, 120, focal, focal, 80.0, 60.0)
    estimate = answer(localizer, data)
    assert estimate.warnings == ()
    assert same(estimate, answer(localizer, data, camera))
    assert not same(estimate, answer(localizer, photo))


def test_photo_that_cannot_be_used_is_refused_by_name(
    localizer: Localizer, photo: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photo.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cut\.jpg.*damaged"):
        localizer.localize(cut)
    with pytest.raises(InputError, match=r"gone\.jpg: there is no such file"):
        localizer.localize(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match="shape of its camera"):
        localizer.localize(photo, Camera.pinhole(100, 100, 90.0, 90.0, 50.0, 50.0))


# --- the law of focal lengths ------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoomed(tiny_room: Path) -> Any:
    """Takes the room's photos from the same poses with another focal length."""
    config = RoomConfig(**json.loads((tiny_room / "room.json").read_text())["config"])
    train, test, _ = film(config)

    def shoot(factor: float) -> tuple[list[bytes], Camera]:
        focal = factor * config.camera.fx_px
        zoom = replace(config, focal_px=focal)
        frames = [
            replace(sequence, config=zoom).frame(i)
            for sequence in (train, test)
            for i in range(len(sequence.poses))
        ]
        return [jpeg(frame) for frame in frames], Camera.pinhole(160, 120, focal, focal, 80.0, 60.0)

    return shoot


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("factor", [0.7, 0.85, 1.2, 1.4])
def test_answer_does_not_depend_on_the_focal_length_when_it_is_known(
    regressor: Regressor, zoomed: Any, tiny_scene: Scene, factor: float
) -> None:
    photos, camera = zoomed(factor)
    usual = tiny_scene.camera(0)
    original = [tiny_scene.path(i) for i in range(len(tiny_scene))]
    wanted = answers(regressor, original, usual)
    right, wrong = answers(regressor, photos, camera), answers(regressor, photos, usual)
    limit = 0.6 if factor in (0.7, 1.4) else 0.9
    for error in (position_error, rotation_error_deg):
        assert error(right, wanted).median() < limit * error(wrong, wanted).median()
    assert position_error(right, wanted).median() < 0.3
    assert rotation_error_deg(right, wanted).median() < 10
    # The network is given the same picture to begin with.
    run = regressor.run
    first, second = views(run, original, usual), views(run, photos, camera)
    mistaken = views(run, photos, usual)
    assert (second - first).abs().mean() < 0.3 * (mistaken - first).abs().mean()


def answers(localizer: Localizer, photos: list[Any], camera: Camera) -> Pose:
    return Pose.stack([answer(localizer, photo, camera).pose for photo in photos])


def views(run: Any, photos: list[Any], camera: Camera) -> Tensor:
    seen = torch.stack([load_view(photo, camera, run.camera) for photo in photos])
    return central_view(seen, run.window)


# --- the regressor -----------------------------------------------------------------------------


def test_serving_sees_the_pixels_of_training_and_answers_alike(
    regressor: Regressor, tiny_scene: Scene, tmp_path: Path
) -> None:
    rows, run = tiny_scene.indices("test").tolist(), regressor.run
    files, cameras = [tiny_scene.path(i) for i in rows], [tiny_scene.camera(i) for i in rows]
    cached = build_cache(files, cameras, run.camera, tmp_path)
    for view, file, camera in zip(cached, files, cameras, strict=True):
        assert torch.equal(view, load_view(file, camera, run.camera))
    together = run.in_world(predict(run.model(), cached, run.camera, run.window))
    alone = answers(regressor, files, cameras[0])
    assert position_error(together, alone).max() < 1e-4
    assert rotation_error_deg(together, alone).max() < 1e-2


def test_run_may_be_given_as_a_folder_or_opened(
    regressor: Regressor, tiny_run: Path, photo: Path
) -> None:
    for way in (str(tiny_run), load_run(tiny_run)):
        assert same(answer(Regressor(way), photo), answer(regressor, photo))


def test_folder_without_a_run_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: this is no run"):
        Regressor(tmp_path / "nowhere")
    (run / "weights.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"run: the run has no weights\.safetensors; go on with train --resume"
    ):
        Regressor(run)


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_damaged_weights_are_refused_by_name(run: Path, keep: int) -> None:
    file = run / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"weights\.safetensors: these weights cannot be read"):
        Regressor(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda options: options["backbone"].update(name="googlenet"),
        lambda options: options["model"].update(width=128),
    ],
)
def test_weights_of_another_architecture_are_refused_by_name(run: Path, change: Any) -> None:
    content = json.loads((run / "config.json").read_text())
    change(content["train"])
    (run / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"weights\.safetensors: does not fit its config\.json"):
        Regressor(run)


def test_missing_tensor_is_refused_by_name(run: Path) -> None:
    file = run / "weights.safetensors"
    tensors = read_tensors(file)
    del tensors["model.position_scale"]
    write_tensors(file, tensors)
    with pytest.raises(InputError, match="1 tensors, such as that position_scale is missing"):
        Regressor(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.long(), "is int64, not float32"),
        (lambda value: value * torch.nan, "has values that are not finite"),
    ],
)
def test_weights_that_are_none_are_refused_by_name(run: Path, change: Any, words: str) -> None:
    file = run / "weights.safetensors"
    tensors = read_tensors(file)
    tensors["model.position_scale"] = change(tensors["model.position_scale"])
    write_tensors(file, tensors)
    with pytest.raises(InputError, match=f"weights.safetensors: .*position_scale {words}"):
        Regressor(run)
