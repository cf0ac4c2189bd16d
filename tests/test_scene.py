"""Laws of scenes in memory and on disk; pycolmap and NumPy give the second opinion."""

import json
import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import decode, upright_size
from relocal.pose import Pose, rotation_angle
from relocal.scene import Points, Scene, load_scene, save_scene
from relocal.scene.colmap import read_colmap

SceneOf = Callable[..., Scene]
NAMES = ("seq-01/a.png", "seq-01/b.png", "seq 02/été 1.jpg", "日本/写真.webp", "flat.png", "z.jpg")
CAMERAS = (
    Camera(
        "OPENCV", 40, 24, torch.tensor([31.5, 30.2, 19.7, 12.1, 0.1, -0.05, 1e-3, 2e-3]).double()
    ),
    Camera("SIMPLE_PINHOLE", 24, 40, torch.tensor([28.0, 12.5, 19.5]).double()),
    Camera("RADIAL", 32, 32, torch.tensor([30.0, 16.0, 16.5, -0.02, 0.01]).double()),
)


def take(scene: Scene) -> None:
    """Makes the image files of a scene."""
    for i, name in enumerate(scene.images):
        camera = scene.camera(i)
        pixels = np.random.default_rng(i).integers(0, 256, (camera.height, camera.width, 3))
        scene.path(i).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(scene.image_root / name)


def some_points(images: int, points: int = 40, observations: int = 120) -> Points:
    draw = np.random.default_rng(1)
    return Points(
        xyz=draw.normal(size=(points, 3)),
        rgb=draw.integers(0, 256, (points, 3)).astype(np.uint8),
        image_index=draw.integers(0, images, observations),
        point_index=draw.integers(0, points - 5, observations),  # the last five are never seen
        xy=draw.uniform(0, 24, (observations, 2)),
    )


def sorted_rows(points: Points) -> np.ndarray:
    rows = np.column_stack([points.image_index, points.point_index, points.xy])
    return rows[np.lexsort(rows.T[::-1])]


@pytest.fixture
def scene(scene_of: SceneOf, tmp_path: Path) -> Scene:
    scene = scene_of(
        NAMES,
        image_root=tmp_path / "photos",
        cameras=CAMERAS,
        camera_index=torch.tensor([0, 1, 2, 0, 1, 0]),
        unit="unit",
        splits={"train": NAMES[:3], "test": NAMES[4:]},
        points=some_points(len(NAMES)),
        provenance={"reader": "none", "labels": "日本", "versions": {"pycolmap": "x"}},
    )
    take(scene)
    return scene


def test_saved_scene_loads_as_it_was(scene: Scene, tmp_path: Path) -> None:
    saved = save_scene(scene, tmp_path / "out")
    loaded = load_scene(tmp_path / "out")
    assert (loaded.name, loaded.unit, loaded.images) == (scene.name, scene.unit, scene.images)
    assert loaded.splits == scene.splits
    assert loaded.provenance == scene.provenance
    assert loaded.camera_index.tolist() == scene.camera_index.tolist()
    assert [c.to_json() for c in loaded.cameras] == [c.to_json() for c in scene.cameras]
    assert_close(loaded.poses.position, scene.poses.position, atol=1e-12, rtol=0)
    assert rotation_angle(loaded.poses.quaternion, scene.poses.quaternion).max() < 1e-12
    assert (saved.folder, saved.image_root) == (loaded.folder, loaded.image_root)


def test_saved_points_load_as_they_were(scene: Scene, tmp_path: Path) -> None:
    save_scene(scene, tmp_path / "out")
    before, after = scene.points, load_scene(tmp_path / "out").points
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after.xyz, before.xyz)
    np.testing.assert_array_equal(after.rgb, before.rgb)
    np.testing.assert_array_equal(sorted_rows(after), sorted_rows(before))


def test_scene_without_points_and_splits_loads_without(scene: Scene, tmp_path: Path) -> None:
    save_scene(replace(scene, points=None, splits={}), tmp_path / "out")
    loaded = load_scene(tmp_path / "out")
    assert loaded.points is None
    assert loaded.splits == {}


def test_pycolmap_opens_a_scene_and_projects_as_we_do(scene: Scene, tmp_path: Path) -> None:
    save_scene(scene, tmp_path / "out")
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    for i, name in enumerate(scene.images):
        image, pose, camera = model.find_image_with_name(name), scene.poses[i], scene.camera(i)
        np.testing.assert_allclose(image.projection_center(), pose.position, atol=1e-12)
        pixels, depth = 24 * torch.rand(20, 2).double(), torch.rand(20, 1).double() + 0.5
        points = pose.apply(depth * camera.unproject(pixels)).numpy()
        theirs = np.array([image.project_point(point) for point in points], dtype=np.float64)
        np.testing.assert_allclose(theirs, pixels, atol=1e-8)


def test_translation_of_the_model_is_not_the_centre(scene_of: SceneOf, tmp_path: Path) -> None:
    # At x = 2 and looking along x: the origin lies 2 behind the camera.
    quarter = torch.tensor([[0.5**0.5, 0, 0.5**0.5, 0]], dtype=torch.float64)
    centre = torch.tensor([[2.0, 0, 0]], dtype=torch.float64)
    scene = scene_of(["a.png"], image_root=tmp_path / "photos", poses=Pose(centre, quarter))
    take(scene)
    save_scene(scene, tmp_path / "out")
    image = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0")).images[1]
    np.testing.assert_allclose(image.cam_from_world().translation, [0, 0, -2], atol=1e-12)
    assert_close(load_scene(tmp_path / "out").poses.position, centre, atol=1e-12, rtol=0)


def test_keypoints_without_a_point_are_no_observations(tmp_path: Path) -> None:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        camera_id=7, model="PINHOLE", width=40, height=30, params=[30.0, 30, 20, 15]
    )
    model.add_camera_with_trivial_rig(camera)
    for image_id, name in ((9, "late.png"), (4, "early.png")):
        keypoints = np.array([[1.0, 2], [3, 4], [5, 6]])
        image = pycolmap.Image(name=name, keypoints=keypoints, camera_id=7, image_id=image_id)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    track = pycolmap.Track([pycolmap.TrackElement(9, 2), pycolmap.TrackElement(4, 1)])
    model.add_point3D(np.array([0.0, 0, 5]), track, np.array([1, 2, 3], np.uint8))
    for write in (model.write_binary, model.write_text):
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(str(folder))
        names, cameras, index, _, points = read_colmap(folder)
        assert (names, index.tolist(), len(cameras)) == (("early.png", "late.png"), [0, 0], 1)
        assert points is not None
        assert points.image_index.tolist() == [0, 1]
        assert points.xy.tolist() == [[3, 4], [5, 6]]


def test_images_become_hard_links_and_sources_stay(scene: Scene, tmp_path: Path) -> None:
    before = [scene.path(i).read_bytes() for i in range(len(scene))]
    saved = save_scene(scene, tmp_path / "out")
    for i, content in enumerate(before):
        assert saved.path(i).samefile(scene.path(i))
        assert scene.path(i).read_bytes() == content


def test_images_are_copied_where_no_link_is_possible(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr("os.link", refuse)
    saved = save_scene(scene, tmp_path / "out")
    assert not saved.path(0).samefile(scene.path(0))
    assert saved.path(0).read_bytes() == scene.path(0).read_bytes()


def test_symbolic_link_is_followed(scene: Scene, tmp_path: Path) -> None:
    real = scene.path(0).rename(tmp_path / "real.png")
    scene.path(0).symlink_to(real)
    saved = save_scene(scene, tmp_path / "out")
    assert not saved.path(0).is_symlink()
    assert saved.path(0).samefile(real)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [6, 8])
def test_turned_image_is_written_upright(
    scene_of: SceneOf, suffix: str, orientation: int, tmp_path: Path
) -> None:
    size = (24, 32)  # as stored; upright it is 32 x 24
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene = scene_of([f"a.{suffix}"], image_root=tmp_path / "photos")
    scene.image_root.mkdir()
    Image.linear_gradient("L").resize(size).convert("RGB").save(scene.path(0), exif=exif)
    content = scene.path(0).read_bytes()
    saved = save_scene(scene, tmp_path / "out")
    with Image.open(saved.path(0)) as image:
        assert image.size == upright_size(saved.path(0)) == (32, 24)
    difference = decode(saved.path(0)).double() - decode(scene.path(0)).double()
    assert difference.abs().max() <= (4 if suffix == "jpg" else 0)
    assert scene.path(0).read_bytes() == content


def test_copied_images_stay_when_their_source_is_written_to(scene: Scene, tmp_path: Path) -> None:
    saved = save_scene(scene, tmp_path / "out", link=False)
    before = saved.path(0).read_bytes()
    scene.path(0).write_bytes(scene.path(1).read_bytes())
    assert saved.path(0).read_bytes() == before


def test_progress_counts_every_image_into_an_empty_folder(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    calls: list[tuple[int, int]] = []
    save_scene(scene, tmp_path / "out", lambda *call: calls.append(call))
    assert calls == [(i, 6) for i in range(1, 7)]
    assert len(load_scene(tmp_path / "out")) == 6


def wrong_size(scene: Scene) -> str:
    Image.new("RGB", (25, 40)).save(scene.path(1))
    return "25 x 40"


def damaged(scene: Scene) -> str:
    scene.path(2).write_bytes(scene.path(2).read_bytes()[:-60])
    return scene.images[2]


def missing(scene: Scene) -> str:
    scene.path(3).unlink()
    return scene.images[3]


@pytest.mark.parametrize("harm", [wrong_size, damaged, missing])
def test_unusable_image_is_named_and_nothing_is_left(
    harm: Callable[[Scene], str], scene: Scene, tmp_path: Path
) -> None:
    reason = harm(scene)
    with pytest.raises(InputError, match=re.escape(reason)):
        save_scene(scene, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_interrupted_save_leaves_nothing(scene: Scene, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_scene(scene, tmp_path / "out", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_existing_out_is_refused_and_kept(scene: Scene, tmp_path: Path) -> None:
    save_scene(scene, tmp_path / "out")
    content = (tmp_path / "out/scene.json").read_bytes()
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=re.escape(str(out))):
            save_scene(scene, out)
    assert (tmp_path / "out/scene.json").read_bytes() == content
    assert (tmp_path / "file").read_text() == "mine"


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        about = json.loads((folder / "scene.json").read_text())
        (folder / "scene.json").write_text(json.dumps({**about, **changes}))

    return edit


def cut_json(folder: Path) -> None:
    text = (folder / "scene.json").read_text()
    (folder / "scene.json").write_text(text[: len(text) // 2])


def renamed(folder: Path) -> None:
    file = folder / "sparse/0/images.bin"
    file.write_bytes(file.read_bytes().replace(b"seq-01/b.png", b"seq-01/a.png"))


def not_a_number(folder: Path) -> None:
    file = folder / "sparse/0/images.bin"
    content = bytearray(file.read_bytes())
    struct.pack_into("<d", content, 8 + 4 + 8 * 5, float("nan"))
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: (f / "scene.json").unlink(), "no scene"),
        (cut_json, "scene.json.*not whole JSON"),
        (edited(splits=None), "scene.json"),
        (edited(splits=["seq-01/a.png"]), "scene.json"),
        (edited(splits={"train": "flat.png"}), "scene.json: is not what a scene has"),
        (edited(name=5), "scene.json: is not what a scene has"),
        (edited(provenance="hi"), "scene.json: is not what a scene has"),
        (edited(format="x"), "scene.json: is not what a scene has"),
        (edited(format=2), "scene.json: is of format 2; this relocal reads format 1"),
        (edited(unit="feet"), "unit: there is no 'feet'"),
        (edited(splits={"train": ["flat.png", "ghost.png"]}), "'train'.*ghost.png"),
        (
            edited(splits={"train": ["flat.png"], "test": ["flat.png"]}),
            "in train and in test.*flat",
        ),
        (edited(splits={"test": ["flat.png", "flat.png"]}), "twice: flat.png"),
        (lambda f: (f / "images/seq-01/a.png").unlink(), "1 images are missing: seq-01/a.png"),
        (lambda f: (f / "sparse").rename(f / "dense"), "sparse/0.*no such folder"),
        (lambda f: (f / "sparse/0/cameras.bin").unlink(), "cameras.bin"),
        (lambda f: (f / "sparse/0/points3D.bin").unlink(), "points3D.bin"),
        (not_a_number, "not finite numbers, of seq-01/a.png"),
        (renamed, "2 images of the name seq-01/a.png"),
    ],
)
def test_damaged_scene_is_refused(
    harm: Callable[[Path], None], reason: str, scene: Scene, tmp_path: Path
) -> None:
    save_scene(scene, tmp_path / "out")
    harm(tmp_path / "out")
    with pytest.raises(InputError, match=reason):
        load_scene(tmp_path / "out")


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_model_cut_anywhere_or_too_long_is_refused(name: str, scene: Scene, tmp_path: Path) -> None:
    save_scene(replace(scene, points=some_points(6, 8, 4)), tmp_path / "out")
    file = tmp_path / "out/sparse/0" / f"{name}.bin"
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf"{name}\.bin.*cut short"):
            read_colmap(file.parent)
    file.write_bytes(content + b"\0")
    with pytest.raises(InputError, match=rf"{name}\.bin.*1 bytes too many"):
        read_colmap(file.parent)


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png"])
def test_image_outside_the_folder_is_refused(name: str, scene_of: SceneOf) -> None:
    with pytest.raises(InputError, match=re.escape(name)):
        scene_of(["b.png", name])


def test_parts_of_different_lengths_are_refused(scene_of: SceneOf) -> None:
    for fields in ({"poses": Pose.identity(3)}, {"camera_index": torch.zeros(1, dtype=torch.long)}):
        with pytest.raises(InputError, match="2 images"):
            scene_of(["a.png", "b.png"], **fields)
    with pytest.raises(InputError, match="no images"):
        scene_of([])


def test_indices_stand_in_the_order_of_the_scene(scene_of: SceneOf) -> None:
    scene = scene_of(["c.png", "a.png", "b.png"], splits={"train": ("b.png", "c.png"), "test": ()})
    assert scene.indices("train").tolist() == [0, 2]
    for split in ("test", "nonsense"):
        with pytest.raises(InputError, match=rf"'{split}'.*--split"):
            scene.indices(split)


def test_extent_is_the_diagonal_of_the_box_around_the_centres(scene_of: SceneOf) -> None:
    positions = torch.tensor([[0.0, 0, 0], [2, 0, 5], [1, 3, 6]], dtype=torch.float64)
    poses = Pose(positions, Pose.identity(3).quaternion)
    assert scene_of(["a", "b", "c"], poses=poses).extent() == pytest.approx(7)


def test_cache_lies_in_a_saved_scene(scene: Scene, tmp_path: Path) -> None:
    assert save_scene(scene, tmp_path / "out").cache_folder() == tmp_path / "out" / "cache"


def test_cache_of_a_scene_that_cannot_be_written_is_temporary(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_scene(scene, tmp_path / "out")
    monkeypatch.setattr("os.access", lambda *_: False)
    folders = [saved.cache_folder(), scene.cache_folder()]
    assert all(folder.is_relative_to(tempfile.gettempdir()) for folder in folders)
    assert folders[0] != folders[1]  # other images, another folder
    assert folders[1] == replace(scene, name="other").cache_folder()
