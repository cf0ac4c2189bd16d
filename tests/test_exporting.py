"""Export: the graph equals the run, in every format, and its folder localizes by itself."""

import json
import math
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from relocal.camera import Camera
from relocal.cli import main
from relocal.errors import InputError
from relocal.exporting import ExportConfig, export
from relocal.exporting.formats import traced
from relocal.exporting.graph import PhotoToPose, antialiased, cell_means, nearest_quaternion
from relocal.exporting.parity import Parity
from relocal.images import decode, load_view, resize, training_camera
from relocal.localizers import Exported, Hybrid, Regressor, load_map, open_localizer
from relocal.pose import ROTATIONS, nearest_rotation, position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.scene.files import read_json
from relocal.training import PRESETS, load_run, predict, train
from relocal.training.run import build_model
from relocal.training.views import input_camera

pytest.importorskip("onnxscript", reason="export is an extra: pip install 'relocal[export]'")


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "tiny"
    found = export(tiny_run, tiny_scene, out)
    assert found.split == "test"
    assert found.photos == 8
    return out


def test_it_answers_as_the_run_does(exported: Path, tiny_run: Path, tiny_scene: Scene) -> None:
    ours, theirs = Regressor(tiny_run), Exported(exported)
    for i in tiny_scene.indices("test").tolist():
        for camera in (None, tiny_scene.camera(i), longer(tiny_scene.camera(i))):
            one = ours.localize(tiny_scene.path(i), camera)
            other = theirs.localize(tiny_scene.path(i), camera)
            assert position_error(one.pose, other.pose) < 1e-4
            assert rotation_error_deg(one.pose, other.pose) < 1e-2
            assert (one.unit, one.method, one.warnings) == (
                other.unit,
                other.method,
                other.warnings,
            )


def longer(camera: Camera) -> Camera:
    """A lens of another focal length, which shows less."""
    names = camera.params.new_tensor([1.3, 1.3, 1.0, 1.0])
    return replace(camera, params=camera.params * names)


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=9, max_size=9).filter(
        lambda m: np.linalg.norm(m) > 0.1
    )
)
def test_nearest_quaternion_is_that_of_the_svd(entries: list[float]) -> None:
    matrix = torch.tensor(entries, dtype=torch.float64).reshape(1, 3, 3)
    u, s, vt = torch.linalg.svd(matrix)
    gap = s[0, 1] + s[0, 2] * torch.linalg.det(u @ vt)[0]
    if gap < 0.01 * s[0, 0]:  # no rotation is much nearer than all others
        return
    ours = nearest_quaternion(matrix)
    theirs = ROTATIONS["9d"].decode(matrix.flatten(1))
    assert torch.allclose(ours.abs(), theirs.abs(), atol=1e-6)
    assert torch.isfinite(nearest_rotation(matrix)).all()


@pytest.mark.parametrize("size", [(480, 640), (97, 131), (100, 60), (50, 40), (1200, 900)])
def test_the_resize_is_that_of_the_photos(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    theirs = resize(images[0], 66, 50).float()
    ours = antialiased(images.float(), 50, 66)[0]
    off = (ours - theirs).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() < 0.001
    same = antialiased(images.float(), *size)
    assert torch.equal(same, images.float())


@pytest.mark.parametrize("size", [(5, 6), (3, 4), (4, 6), (12, 16), (2, 3)])
def test_cell_means_are_those_of_the_run(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 7, *size)
    wanted = torch.nn.functional.adaptive_avg_pool2d(maps, (3, 4))
    assert torch.allclose(cell_means(maps, (3, 4)), wanted, atol=1e-6)


def test_any_number_and_size_of_photos(exported: Path, tiny_run: Path) -> None:
    answer = Exported(exported).runtime
    run = load_run(tiny_run)
    eager = PhotoToPose(run, run.model())
    for shape in ((1, 120, 160, 3), (3, 240, 320, 3), (2, 97, 131, 3)):
        photos = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.no_grad():
            wanted = eager(photos)
        for one, other in zip(answer(photos.numpy()), wanted, strict=True):
            assert np.allclose(one, other.numpy(), atol=1e-3)


@pytest.mark.parametrize("rotation", list(ROTATIONS))
@pytest.mark.parametrize("says", [False, True])
def test_every_rotation_and_spread_can_be_traced(rotation: str, says: bool, tiny_run: Path) -> None:
    run = load_run(tiny_run)
    config = replace(
        run.config, model=replace(run.config.model, rotation=rotation, log_variance=says)
    )
    model = build_model(config, pretrained=False).eval()
    network = PhotoToPose(replace(run, config=config), model).eval()
    photos = torch.randint(0, 256, (2, 60, 80, 3), dtype=torch.uint8)
    with torch.no_grad():
        wanted = network(photos)
        found: Any = traced(network, 120, 160).module()(photos)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(wanted[1].norm(dim=1), torch.ones(2))


def test_a_lens_that_bends_is_part_of_it(tiny_run: Path, tiny_scene: Scene, tmp_path: Path) -> None:
    run = load_run(tiny_run)
    params = torch.tensor([130.0, 75.0, 63.0, 0.08], dtype=torch.float64)
    bent = Camera("SIMPLE_RADIAL", 160, 120, params)
    camera = training_camera(bent, run.camera.height)
    window = input_camera(camera, run.config.view)
    run = replace(run, photo_camera=bent, camera=camera, window=window)
    network = PhotoToPose(run, run.model()).eval()
    assert network.grid is not None
    source = tiny_scene.path(0)
    with torch.no_grad():
        position, quaternion, _ = network(decode(source).permute(1, 2, 0)[None])
    view = load_view(source, bent, run.camera)
    wanted = predict(run.model(), view[None], run.camera, run.window, run.config.cached)
    assert torch.allclose(position, wanted.position, atol=2e-3)
    assert torch.allclose(quaternion.abs(), wanted.quaternion.abs(), atol=2e-3)


def test_its_folder_localizes_alone(exported: Path, tiny_scene: Scene, tmp_path: Path) -> None:
    i = int(tiny_scene.indices("test")[0])
    ran = subprocess.run(
        [sys.executable, str(exported / "localize.py"), str(tiny_scene.path(i))],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    said = json.loads(ran.stdout)
    wanted = Exported(exported).localize(tiny_scene.path(i)).pose
    assert np.allclose(said["position"], wanted.position.numpy(), atol=1e-3)
    assert np.allclose(np.abs(said["quaternion"]), wanted.quaternion.abs().numpy(), atol=1e-3)
    assert said["unit"] == "m"
    assert [one["code"] for one in said["warnings"]] == ["camera-assumed"]
    assert len((exported / "localize.py").read_text("utf-8").splitlines()) <= 76
    needed = (exported / "requirements.txt").read_text("utf-8")
    assert {line.split("==")[0] for line in needed.split()} == {"onnxruntime", "numpy", "pillow"}
    assert "Median errors on 8 test photos" in (exported / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("ratio", "told"), [(1.1, []), (2, ["exif-focal-contradicts"])])
@pytest.mark.parametrize("focal", [None, 130.0])
def test_localize_py_tells_of_an_exif_that_contradicts(
    ratio: float,
    told: list[str],
    focal: float | None,
    exported: Path,
    tiny_scene: Scene,
    tmp_path: Path,
) -> None:
    camera, exif = tiny_scene.camera(0), Image.Exif()
    across = math.hypot(camera.width, camera.height)
    mm = ratio * float(camera.focal.mean()) / across * 43.27
    exif.get_ifd(0x8769)[0xA405] = round(mm)
    with Image.open(tiny_scene.path(0)) as photo:
        photo.save(tmp_path / "a.jpg", exif=exif)
    given = [] if focal is None else ["--focal", str(focal)]
    ran = subprocess.run(
        [sys.executable, exported / "localize.py", "a.jpg", *given],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    warnings = json.loads(ran.stdout)["warnings"]
    assert [one["code"] for one in warnings] == ([] if focal else told)
    ours = Exported(exported).localize(tmp_path / "a.jpg").warnings
    assert [one.code for one in ours] == told


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
def test_localize_py_decodes_as_relocal_does(
    factor: int, exported: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    """A JPEG that is decoded at another scale looks otherwise: blurred, or full of steps."""
    source = tiny_scene.path(int(tiny_scene.indices("test")[1]))
    with Image.open(source) as photo:
        size = (factor * photo.width, factor * photo.height)
        photo.resize(size, Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=90)
    (tmp_path / "none.jpg").write_bytes(b"no photo")
    ran = subprocess.run(
        [sys.executable, exported / "localize.py", "none.jpg", "large.jpg", "gone.jpg"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert [name in ran.stderr for name in ("none.jpg", "gone.jpg", "large.jpg")] == [1, 1, 0]
    said = json.loads(ran.stdout)
    wanted = Exported(exported).localize(tmp_path / "large.jpg").pose
    assert np.allclose(said["position"], wanted.position.numpy(), atol=2e-3)


def test_a_run_whose_stem_is_frozen_is_exported(tiny_scene: Scene, tmp_path: Path) -> None:
    config = replace(PRESETS["frozen_stem"], epochs=1, validate=False)
    config = replace(config, view=replace(config.view, input_px=64))
    train(tiny_scene, tmp_path / "run", config)
    found = export(tmp_path / "run", tiny_scene, tmp_path / "out")
    assert found.worst_position < 1e-3
    assert not math.isnan(found.change)


def test_answers_that_are_no_numbers_are_refused(
    tiny_run: Path, tiny_scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = (0.0, 0.0)
    broken = Parity(8, "test", "m", *nothing, *nothing, (0.1, 1.0), (0.1, math.nan))
    assert math.isnan(broken.change)
    module = sys.modules["relocal.exporting.export"]
    monkeypatch.setattr(module, "parity", lambda *args: broken)
    with pytest.raises(InputError, match="nothing was written"):
        export(tiny_run, tiny_scene, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_fresh_environment_localizes_and_is_small(
    exported: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    """Only what requirements.txt names is installed, from the package index."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-compile"]
    subprocess.run([*pip, "-r", exported / "requirements.txt"], check=True)
    photo = tiny_scene.path(int(tiny_scene.indices("test")[0]))
    call = [python, "-I", exported / "localize.py", photo]
    ran = subprocess.run(call, capture_output=True, text=True, check=True, cwd=tmp_path)
    wanted = Exported(exported).localize(photo).pose
    assert np.allclose(json.loads(ran.stdout)["position"], wanted.position.numpy(), atol=1e-3)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    sizes = {
        part.name: sum(file.stat().st_size for file in part.rglob("*") if file.is_file()) / 1e6
        for part in packages.iterdir()
        if not part.name.startswith(("pip-", "setuptools"))
        and part.name not in ("pip", "pkg_resources", "_distutils_hack")
    }
    print({name: round(size) for name, size in sizes.items() if size >= 1}, sum(sizes.values()))
    assert sum(sizes.values()) <= 200


def test_localize_py_frames_a_photo_of_another_lens(
    exported: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    i = int(tiny_scene.indices("test")[0])
    with Image.open(tiny_scene.path(i)) as photo:
        photo.crop((20, 15, 140, 105)).save(tmp_path / "narrow.png")  # the same lens, cut
    focal = float(tiny_scene.camera(i).focal[0])
    ran = subprocess.run(
        [sys.executable, exported / "localize.py", tmp_path / "narrow.png", "--focal", str(focal)],
        capture_output=True,
        text=True,
        check=True,
    )
    framed = Image.new("RGB", (160, 120))
    with Image.open(tmp_path / "narrow.png") as photo:
        framed.paste(photo, (20, 15))
    localizer = Exported(exported)
    wanted = localizer.run.origin + localizer.runtime(np.asarray(framed)[None])[0][0]
    assert np.allclose(json.loads(ran.stdout)["position"], wanted, atol=1e-4)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_smaller_numbers_make_a_smaller_network_that_errs_as_much(
    precision: Any, exported: Path, tiny_run: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    found = export(tiny_run, tiny_scene, tmp_path / "small", ExportConfig(precision=precision))
    assert 0 < found.change < 0.05
    sizes = [(folder / "model.onnx").stat().st_size for folder in (tmp_path / "small", exported)]
    assert sizes[0] < {"float16": 0.55, "int8": 0.35}[precision] * sizes[1]
    answer = Exported(tmp_path / "small").localize(tiny_scene.path(0))
    assert torch.isfinite(answer.pose.position).all()


def test_torch_export_answers_too(tiny_run: Path, tiny_scene: Scene, tmp_path: Path) -> None:
    found = export(tiny_run, tiny_scene, tmp_path / "pt", ExportConfig(format="torch"))
    assert found.worst_position < 1e-4
    assert not (tmp_path / "pt/localize.py").exists()
    with pytest.raises(InputError, match="is exported for torch"):
        open_localizer(tmp_path / "pt")


def test_an_export_stands_for_its_run(
    exported: Path, tiny_map: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    assert isinstance(open_localizer(exported), Exported)
    hybrid = Hybrid(exported, load_map(tiny_map))
    assert isinstance(hybrid.regressor, Exported)
    i = int(tiny_scene.indices("test")[0])
    assert hybrid.localize(tiny_scene.path(i), tiny_scene.camera(i)).method in (
        "hybrid",
        "structure",
    )


def test_the_command(
    tiny_run: Path, tiny_scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = str(tiny_scene.image_root.parent)
    with pytest.raises(SystemExit) as end:
        main(["export", str(tiny_run), scene, "--out", str(tmp_path / "e"), "--photos", "3"])
    assert end.value.code in (0, None)
    said = capsys.readouterr().out
    assert "On 3 test photos its answers differ" in said
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(tmp_path / "e"), scene, "--out", str(tmp_path / "report")])
    assert end.value.code in (0, None)
    about = read_json(tmp_path / "report" / "report.json")["made_by"]["runs"]["e"]
    assert about["training_images"] == 24


def _refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_bad_calls_are_refused(
    exported: Path,
    tiny_run: Path,
    tiny_scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = replace(tiny_scene, name="elsewhere")
    _refused(lambda: export(tiny_run, other, tmp_path / "e"), "was not made of 'elsewhere'")
    _refused(lambda: ExportConfig(format="torch", precision="int8"), "--precision int8")
    _refused(lambda: ExportConfig(precision="bfloat16"), "--precision bfloat16")
    _refused(lambda: ExportConfig(photos=0), "--photos")
    _refused(lambda: Exported(tmp_path), "no exported network")
    copy = tmp_path / "copy"
    copy.mkdir()
    whole = (exported / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(whole[: len(whole) // 2])
    _refused(lambda: Exported(copy), "config.json")
    (copy / "config.json").write_bytes((exported / "config.json").read_bytes())
    _refused(lambda: Exported(copy), "model.onnx: cannot be read")
    (copy / "model.onnx").write_bytes(whole)
    assert Exported(copy).method == "posenet"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    _refused(lambda: Exported(exported), r"relocal\[export\]")


def test_a_network_that_answers_otherwise_is_not_written(
    tiny_run: Path, tiny_scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: PhotoToPose, image: torch.Tensor) -> Any:
        position, quaternion, spread = right(self, image)
        return position + 0.5, quaternion, spread

    right = PhotoToPose.forward
    monkeypatch.setattr(PhotoToPose, "forward", wrong)
    config = ExportConfig(format="torch")
    _refused(lambda: export(tiny_run, tiny_scene, tmp_path / "e", config), "nothing was written")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8"])
def test_openvino_answers_too(
    precision: Any, tiny_run: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="an extra: pip install 'relocal[openvino]'")
    config = ExportConfig(format="openvino", precision=precision, most_change=1.0)
    found = export(tiny_run, tiny_scene, tmp_path / "ov", config)
    assert (found.worst_position < 1e-4) == (precision == "float32")
    assert found.change < {"bfloat16": 0.5}.get(precision, 0.05)
    said = Exported(tmp_path / "ov").localize(tiny_scene.path(0))
    assert said.method == "posenet"
