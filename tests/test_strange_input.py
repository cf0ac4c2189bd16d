"""Strange photos, the whole way: what is accepted is right, what is refused is refused by name."""

import io
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_images import STORED, UPRIGHT, noise, png_header

from relocal.camera import Camera
from relocal.datasets import import_scene
from relocal.errors import InputError
from relocal.images import decode, exif_orientation, open_photo
from relocal.localizers import Regressor
from relocal.pose import Pose
from relocal.scene import Points, Scene, load_scene, save_scene
from relocal.scene.upright import turned
from relocal.training import TrainConfig, train

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(call: Callable[..., tuple[int, str, str]]) -> Call:
    """Runs a command line; returns its exit code and all that it said."""

    def run(*arguments: Any) -> tuple[int, str]:
        code, out, error = call(*arguments)
        return code, out + error

    return run


def smooth(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """A picture without sharp edges, so that a JPEG keeps it nearly."""
    draw = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.array(Image.fromarray(draw).resize((width, height), Image.Resampling.BICUBIC))


def capture(folder: Path, photos: dict[str, bytes], **fields: Any) -> Path:
    """A nerfstudio folder with these files as its photos."""
    frames: list[dict[str, Any]] = []
    draw = np.random.default_rng(1)
    for name, content in photos.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        matrix = np.eye(4)
        matrix[:3, 3] = draw.normal(size=3)
        frames.append({"file_path": name, "transform_matrix": matrix.tolist(), **fields})
    (folder / "transforms.json").write_text(json.dumps({"fl_x": 50.0, "frames": frames}))
    return folder


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_exif(pixels: np.ndarray, orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_of(Image.fromarray(np.ascontiguousarray(pixels)), kind, exif=exif)


def deep_colour_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16-bit RGB, which Pillow cannot write."""
    import cv2

    done, content = cv2.imencode(".png", pixels[..., ::-1])
    assert done
    return content.tobytes()


GREY = np.asarray(Image.fromarray(smooth()).convert("L"))
SEEN = (np.indices((48, 64)).sum(0) * 3 % 256).astype(np.uint8)
PALETTE = Image.fromarray(smooth()).quantize(64)
# Each kind of file, what its pixels are by NumPy alone, and by how much a lossy one may be off.
KINDS: dict[str, tuple[bytes, np.ndarray, int]] = {
    "cmyk.jpg": (
        file_of(Image.fromarray(255 - smooth()).convert("CMYK"), "JPEG", quality=98),
        255 - smooth(),
        12,
    ),
    "grey16.png": (file_of(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), GREY, 0),
    "colour16.png": (deep_colour_png(smooth().astype(np.uint16) * 257), smooth(), 0),
    "grey.png": (file_of(Image.fromarray(GREY), "PNG"), GREY, 0),
    "grey-alpha.png": (file_of(Image.fromarray(np.dstack([GREY, SEEN]), "LA"), "PNG"), GREY, 0),
    "rgba.png": (file_of(Image.fromarray(np.dstack([smooth(), SEEN])), "PNG"), smooth(), 0),
    "palette.png": (
        file_of(PALETTE, "PNG", transparency=bytes(range(0, 256, 4))),
        np.array(PALETTE.convert("RGB")),
        0,
    ),
    "lossless.webp": (file_of(Image.fromarray(smooth()), "WEBP", lossless=True), smooth(), 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_photo_becomes_8_bit_rgb(name: str) -> None:
    content, pixels, off = KINDS[name]
    pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    found = decode(content).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - pixels).max() <= off


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 48).round().astype(np.uint16).reshape(48, 64)
    found = decode(file_of(Image.fromarray(values), "PNG"))[0].numpy()
    assert np.abs(found - values / 65535 * 255).max() <= 1
    assert (found.min(), found.max()) == (0, 255)


def test_every_kind_of_photo_goes_the_whole_way(
    tiny_config: TrainConfig, tmp_path: Path, call: Call
) -> None:
    """Import, train, localize, in folders whose names have spaces, accents and other scripts."""
    place = tmp_path / "mein Büro 写真"
    photos = {f"été 1/{name}": content for name, (content, _, _) in KINDS.items()}
    source = capture(place / "aufnahme ü", photos)
    real = (source / "été 1").rename(place / "elsewhere")
    (source / "été 1").symlink_to(real)
    before = listing(place)
    code, said = call("import", "nerfstudio", source, "--out", tmp_path / "out" / "szene é")
    assert (code, "8 images" in said) == (0, True)
    assert listing(place) == before
    config = replace(tiny_config, epochs=1, batch_size=4)
    config = replace(config, loss=replace(config.loss, name="posenet"))
    train(tmp_path / "out" / "szene é", tmp_path / "out" / "lauf é", config)
    code, said = call(
        "localize", tmp_path / "out/lauf é", *(source / name for name in photos), "--format", "tum"
    )
    assert code == 0
    assert sum(line[0].isdigit() for line in said.splitlines()) == len(KINDS)
    assert listing(place) == before


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Every path below a folder with the time it was changed and its size."""
    stats = ((path, path.lstat()) for path in sorted(folder.rglob("*")))
    return [(str(path), stat.st_mtime_ns, stat.st_size) for path, stat in stats]


# --- EXIF --------------------------------------------------------------------------------------

LENS = Camera(
    "OPENCV", 64, 48, torch.tensor([55.0, 52, 29.5, 26.25, 0.05, -0.03, 4e-3, -7e-3]).double()
)
TURNS = {6: 1, 3: 2, 8: 3}


def labelled(folder: Path, orientation: int, camera: Camera = LENS) -> Scene:
    """A photo of noise with a label of its stored pixels, and points on exact pixel centres."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(with_exif(noise(64, 48), orientation))
    draw = np.random.default_rng(2)
    xy = np.column_stack([draw.integers(2, 62, 30), draw.integers(2, 46, 30)]) + 0.5
    position, turn = (torch.from_numpy(draw.normal(size=(1, n))) for n in (3, 4))
    pose = Pose.from_quaternion(position, turn).canonical()
    depth = torch.from_numpy(draw.uniform(1, 3, (30, 1)))
    points = Points(
        xyz=pose[0].apply(depth * camera.unproject(torch.from_numpy(xy))).numpy(),
        rgb=np.zeros((30, 3), np.uint8),
        image_index=np.zeros(30, np.int64),
        point_index=np.arange(30),
        xy=xy,
    )
    return Scene(
        name="one",
        unit="m",
        image_root=folder,
        images=("a.png",),
        cameras=(camera,),
        camera_index=torch.zeros(1, dtype=torch.int64),
        poses=pose,
        points=points,
    )


@pytest.mark.parametrize("orientation", TURNS)
def test_labels_of_stored_pixels_turn_with_the_photo(orientation: int, tmp_path: Path) -> None:
    scene = labelled(tmp_path / "photos", orientation)
    exif = "stored" if orientation == 3 else None  # half a turn keeps the size
    save_scene(scene, tmp_path / "scene", exif=exif)
    saved, pixels = load_scene(tmp_path / "scene"), noise(64, 48)
    assert saved.points is not None
    upright = decode(saved.path(0)).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(upright, UPRIGHT[orientation](pixels))
    # The oracle: every map point shows the same content before and after.
    camera, pose = saved.camera(0), saved.poses[0]
    xyz = torch.from_numpy(saved.points.xyz[saved.points.point_index])
    seen, inside = camera.project(pose.inverse().apply(xyz))
    assert bool(inside.all())
    np.testing.assert_allclose(seen, saved.points.xy, atol=1e-6)
    column, row = np.floor(saved.points.xy).astype(int).T
    assert scene.points is not None
    old_column, old_row = np.floor(scene.points.xy[saved.points.point_index]).astype(int).T
    np.testing.assert_array_equal(upright[row, column], pixels[old_row, old_column])
    # The camera stays where it is and looks where it looked; provenance says what was done.
    torch.testing.assert_close(pose.position, scene.poses[0].position)
    torch.testing.assert_close(pose.look_direction, scene.poses[0].look_direction)
    assert saved.provenance["exif"] == {"stored": 1}


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_labels_of_upright_pixels_stay(orientation: int, tmp_path: Path) -> None:
    sideways = orientation != 3
    camera = Camera("OPENCV", 48, 64, LENS.params) if sideways else LENS
    scene = labelled(tmp_path / "photos", orientation, camera)
    saved = save_scene(scene, tmp_path / "scene", exif=None if sideways else "upright")
    assert saved.camera(0).to_json() == camera.to_json()
    assert torch.equal(saved.poses.matrix(), scene.poses.matrix())
    assert saved.provenance["exif"] == {"upright": 1}
    pixels = decode(saved.path(0)).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](noise(64, 48)))


@pytest.mark.parametrize("model", ["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL"])
def test_four_quarter_turns_are_none(model: str) -> None:
    draw = torch.tensor([50.0, 21, 33, 0.1, -0.2]).double()
    params = {"SIMPLE_PINHOLE": draw[:3], "PINHOLE": torch.tensor([50.0, 40, 21, 33]).double()}
    params |= {"SIMPLE_RADIAL": draw[:4], "RADIAL": draw}
    camera = Camera(model, 64, 48, params[model])
    assert camera.turned(4).to_json() == camera.turned(1).turned(3).to_json() == camera.to_json()
    assert camera.turned(-1).to_json() == camera.turned(3).to_json()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_only_some_images_turn(scene_of: Callable[..., Scene], quarters: int) -> None:
    scene = scene_of(["a.png", "b.png", "c.png"])
    result = turned(scene, [0, quarters, 0])
    assert result.camera(0).to_json() == scene.camera(0).to_json()
    assert result.camera(1).to_json() == scene.camera(1).turned(quarters).to_json()
    torch.testing.assert_close(result.poses[2].matrix(), scene.poses[2].matrix())


@pytest.mark.parametrize(
    ("orientation", "size", "exif", "words"),
    [
        (3, (64, 48), None, ["--exif stored or --exif upright"]),
        (6, (48, 48), None, ["--exif stored or --exif upright"]),
        (2, (64, 48), "stored", ["orientation 2", "mirror image"]),
        (5, (64, 48), None, ["orientation 5", "mirror image"]),
        (6, (48, 64), "stored", ["--exif stored", "64 x 48", "48 x 64"]),
        (6, (64, 48), "upright", ["--exif upright", "48 x 64"]),
        (6, (60, 48), None, ["48 x 64", "60 x 48"]),
    ],
)
def test_turned_photo_whose_label_cannot_follow_is_refused(
    call: Call, tmp_path: Path, orientation: int, size: Any, exif: str | None, words: list[str]
) -> None:
    pixels = noise(48, 48) if size == (48, 48) else noise(64, 48)
    photos = {"a.png": with_exif(pixels, orientation)}
    source = capture(tmp_path / "capture", photos, w=size[0], h=size[1])
    options = () if exif is None else ("--exif", exif)
    code, said = call("import", "nerfstudio", source, "--out", tmp_path / "scene", *options)
    assert code == 2
    assert [word for word in ["a.png", *words] if word not in said] == []
    assert [path.name for path in tmp_path.iterdir()] == ["capture"]


def test_option_says_which_pixels_labels_are_of(call: Call, tmp_path: Path) -> None:
    source = capture(tmp_path / "capture", {"a.png": with_exif(noise(64, 48), 3)}, w=64, h=48)
    code, said = call(
        *("import", "nerfstudio", source, "--out", tmp_path / "scene", "--exif", "stored")
    )
    assert (code, "1 image turned as EXIF says" in said) == (0, True)
    assert load_scene(tmp_path / "scene").provenance["exif"] == {"stored": 1}


@pytest.mark.parametrize("reader", ["cambridge", "nerfstudio"])
def test_option_must_say_it_where_only_the_photo_has_a_size(reader: str, tmp_path: Path) -> None:
    source = capture(tmp_path / "capture", {"a.png": with_exif(noise(64, 48), 6)})
    (source / "b.png").write_bytes(file_of(Image.new("RGB", (64, 48)), "PNG"))
    for split, name in (("train", "a.png"), ("test", "b.png")):
        lines = ["Visual Landmark Dataset V1", "ImageFile", "", f"{name} 0 0 0 1 0 0 0"]
        (source / f"dataset_{split}.txt").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"a\.png.*--exif stored or --exif upright"):
        import_scene(reader, source, tmp_path / "none")
    scenes = {
        exif: import_scene(reader, source, tmp_path / exif, exif=exif)
        for exif in ("stored", "upright")
    }
    for exif, scene in scenes.items():
        camera = scene.camera(0)
        assert (camera.width, camera.height) == (48, 64)
        assert scene.provenance["exif"] == {exif: 1}
    # The labels of stored pixels follow the picture: they turn by a quarter about the view axis.
    stored, upright = (scene.poses[0].matrix()[:3, :3] for scene in scenes.values())
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]).double()
    torch.testing.assert_close(stored, upright @ quarter)


@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 8])
def test_turned_photo_is_localized_as_the_upright_one(
    tiny_run: Path, tiny_scene: Scene, orientation: int, tmp_path: Path
) -> None:
    upright = decode(tiny_scene.path(0)).permute(1, 2, 0).numpy()
    Image.fromarray(upright).save(tmp_path / "upright.png")
    (tmp_path / "turned.png").write_bytes(with_exif(STORED[orientation](upright), orientation))
    with open_photo(tmp_path / "turned.png") as image:
        assert exif_orientation(image, "turned") == orientation
    localizer = Regressor(tiny_run)
    poses = [localizer.localize(tmp_path / f"{n}.png").pose for n in ("upright", "turned")]
    assert torch.equal(poses[0].matrix(), poses[1].matrix())


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (file_of(Image.new("RGB", (1, 1)), "PNG"), ["1 x 1", "too few"]),
        (png_header(60000, 60000), ["64 megapixels", "scale it down"]),
        (None, ["this is a folder, not a photo"]),
    ],
    ids=["1x1", "60000x60000", "folder"],
)
def test_unusable_photo_is_refused_by_import_and_localize(
    call: Call, tiny_run: Path, tmp_path: Path, content: bytes | None, words: list[str]
) -> None:
    source = capture(tmp_path / "capture", {"a.jpg": content or b""}, w=64, h=48)
    if content is None:
        (source / "a.jpg").unlink()
        (source / "a.jpg").mkdir()
    began = time.monotonic()
    for arguments in (
        ("import", "nerfstudio", source, "--out", tmp_path / "scene"),
        ("localize", tiny_run, source / "a.jpg"),
    ):
        code, said = call(*arguments)
        assert code == 2
        assert [word for word in ["a.jpg", *words] if word not in said] == []
    assert time.monotonic() - began < 60  # ten gigabytes would take longer
    assert not (tmp_path / "scene").exists()


@pytest.mark.parametrize(
    "names", [("a.png", "a.png"), ("IMG.png", "img.PNG"), ("caf\u00e9.png", "cafe\u0301.png")]
)
def test_two_photos_of_one_name_are_refused(
    call: Call, tmp_path: Path, names: tuple[str, str]
) -> None:
    source = capture(tmp_path / "capture", dict.fromkeys(names, KINDS["grey.png"][0]))
    file = source / "transforms.json"
    content = json.loads(file.read_text())
    content["frames"] = [{**content["frames"][0], "file_path": name} for name in names]
    file.write_text(json.dumps(content))
    code, said = call("import", "nerfstudio", source, "--out", tmp_path / "scene")
    assert code == 2
    assert names[0] in said
    assert "twice" in said or "take for one" in said


def test_float_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((48, 64), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: pixels of mode F"):
        decode(tmp_path / "a.tif")


def test_camera_that_is_not_supported_is_refused(
    call: Call, tiny_scene: Scene, tmp_path: Path
) -> None:
    assert tiny_scene.folder is not None
    shutil.copytree(tiny_scene.folder / "images", tmp_path / "project/images")
    model = tmp_path / "project/sparse/0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 EQUIRECTANGULAR 160 120 160 120\n")
    (model / "images.txt").write_text(f"1 1 0 0 0 0 0 0 1 {tiny_scene.images[0]}\n\n")
    (model / "points3D.txt").write_text("")
    command = ("import", "colmap", tmp_path / "project", "--out", tmp_path / "scene")
    code, said = call(*command)
    assert code == 2
    assert f"{model}/cameras.txt, line 1: the camera model EQUIRECTANGULAR" in said
    assert "cut it into pinhole views" in said
    (model / "cameras.txt").write_text("1 PINHOLE 160 120 144 144 80 60\n")
    assert call(*command)[0] == 0
    assert (
        import_scene("colmap", tmp_path / "project", tmp_path / "b").images == tiny_scene.images[:1]
    )
