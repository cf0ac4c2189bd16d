"""Exported scenes, read again by their readers: the same poses, cameras, photos and splits."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import relocal
from relocal.camera import Camera, nerfstudio_camera
from relocal.cli import main
from relocal.datasets import DATASETS, import_scene
from relocal.datasets.tum import read_tum
from relocal.datasets.writing import WRITERS, export_scene, nerfstudio_transforms
from relocal.errors import InputError
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene import Scene, load_scene, save_scene

SIZE = 64, 48
PINHOLE = Camera("SIMPLE_PINHOLE", *SIZE, torch.tensor([50.0, 32.0, 24.0]).double())
LENS = Camera("OPENCV", *SIZE, torch.tensor([52, 50, 30, 25, -0.1, 0.02, 1e-3, -2e-3]).double())
SEQUENCES = ("walk", "way back")


def photo_of(camera: Camera, file: Path, offset: float = 0.0) -> None:
    """A photo whose colours say where each pixel looks, whatever the lens."""
    y, x = torch.meshgrid(*(torch.arange(n).double() + 0.5 for n in SIZE[::-1]), indexing="ij")
    rays = camera.unproject(torch.stack([x, y], dim=-1))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours_of(rays, offset).round().to(torch.uint8).numpy()).save(file)


def colours_of(rays: torch.Tensor, offset: float = 0.0) -> torch.Tensor:
    return torch.stack(
        [128 + 100 * rays[..., 0], 128 + 100 * rays[..., 1], 50 + 5 * offset + 0 * rays[..., 0]],
        dim=-1,
    )


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Scene]:
    """A scene of two recordings of ten photos; one is test, and two photos are in no split."""

    def made(*cameras: Camera, **changes: Any) -> Scene:
        folder = tmp_path_factory.mktemp("photos")
        names = tuple(f"{part}/photo {i:02d}.png" for part in SEQUENCES for i in range(10))
        index = torch.arange(20) % len(cameras)
        for i, name in enumerate(names):
            photo_of(cameras[int(index[i])], folder / name, i)
        quaternion = torch.nn.functional.normalize(torch.randn(20, 4).double(), dim=-1)
        scene = Scene(
            name="place",
            unit="m",
            image_root=folder,
            images=names,
            cameras=cameras,
            camera_index=index,
            poses=Pose.from_quaternion(torch.randn(20, 3).double(), quaternion),
            splits={"train": names[:8], "test": names[10:]},
        )
        return replace(scene, **changes)

    return made


def read_again(layout: str, folder: Path) -> Scene:
    options = {"labels": folder / "labels.txt"} if layout == "7scenes" else {}
    scene = DATASETS[layout](folder, **options)
    if (file := folder / "split.json").is_file():
        scene = relocal.scene.apply_split(scene, str(file))
    return scene


def same_poses(one: Pose, other: Pose) -> None:
    assert float(position_error(one, other).max()) < 1e-12
    assert float(rotation_error_deg(one, other).max()) < 1e-9


@pytest.mark.parametrize("layout", WRITERS)
def test_what_is_written_is_read_again(
    make: Callable[..., Scene], tmp_path: Path, layout: str
) -> None:
    scene = make(PINHOLE)
    seen: list[tuple[int, int]] = []
    export_scene(scene, tmp_path / "out", layout, lambda done, total, _: seen.append((done, total)))
    assert seen[-1][0] <= seen[-1][1] == max(done for done, _ in seen)
    again = read_again(layout, tmp_path / "out")
    kept = torch.cat([scene.indices("train"), scene.indices("test")])
    if layout in ("nerfstudio", "tum"):
        kept = torch.arange(len(scene))
    assert len(again) == len(kept)
    same_poses(again.poses, scene.poses[kept])
    for i, k in enumerate(kept.tolist()):
        assert again.path(i).samefile(scene.path(k))  # neither copied nor encoded again
        assert_close(again.camera(i).opencv_params(), PINHOLE.opencv_params())
    for part in ("train", "test"):
        before, after = (
            [place.path(i) for i in place.indices(part).tolist()] for place in (scene, again)
        )
        assert all(a.samefile(b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("layout", [*WRITERS, "scene"])
@pytest.mark.parametrize(
    ("scale", "shift"),
    [
        (1.0, (1e7, -1e7, 1e7)),
        (1.0, (389212.4, 5819731.8, 54.1)),
        (1e3, (0.0, 0.0, 0.0)),
        (1e-3, (389.2124, 5819.7318, 0.0541)),
    ],
)
def test_what_is_written_is_read_again_in_any_world(
    make: Callable[..., Scene],
    tmp_path: Path,
    layout: str,
    scale: float,
    shift: tuple[float, ...],
) -> None:
    scene = make(PINHOLE)
    position = scale * scene.poses.position + torch.tensor(shift, dtype=torch.float64)
    there = replace(scene, poses=Pose(position, scene.poses.quaternion))
    if layout == "scene":
        save_scene(there, tmp_path / "out")
        again = load_scene(tmp_path / "out")
    else:
        export_scene(there, tmp_path / "out", layout)
        again = read_again(layout, tmp_path / "out")
    row = {scene.path(i).stat().st_ino: i for i in range(len(scene))}
    rows = torch.tensor([row[again.path(k).stat().st_ino] for k in range(len(again))])
    last_digits = 16 * 2.0**-52 * float(position.abs().max())
    assert float((again.poses.position - position[rows]).norm(dim=1).max()) < last_digits
    assert float(rotation_error_deg(again.poses, there.poses[rows]).max()) < 1e-9


@pytest.mark.parametrize("layout", ["7scenes", "cambridge"])
def test_layouts_without_a_lens_get_photos_of_a_pinhole(
    make: Callable[..., Scene], tmp_path: Path, layout: str
) -> None:
    scene = make(LENS)
    export_scene(scene, tmp_path / "out", layout)
    again = read_again(layout, tmp_path / "out")
    camera = again.camera(0)
    assert_close(camera.focal, camera.focal.new_full((2,), (52 * 50) ** 0.5))
    assert camera.principal_point.tolist() == [32, 24]
    pixels = torch.from_numpy(np.array(Image.open(again.path(3)))).double()
    y, x = torch.meshgrid(*(torch.arange(n).double() + 0.5 for n in SIZE[::-1]), indexing="ij")
    wanted = colours_of(camera.unproject(torch.stack([x, y], dim=-1)), 3)
    inner = (slice(6, -6), slice(6, -6))  # beyond, the photo shows nothing
    assert float((pixels - wanted)[inner].abs().max()) < 2


@pytest.mark.parametrize("layout", ["nerfstudio", "tum"])
def test_layouts_that_know_lenses_keep_them(
    make: Callable[..., Scene], tmp_path: Path, layout: str
) -> None:
    scene = make(LENS)
    export_scene(scene, tmp_path / "out", layout)
    again = read_again(layout, tmp_path / "out")
    assert_close(again.camera(5).opencv_params(), LENS.opencv_params(), rtol=0, atol=0)


def test_nerfstudio_keeps_a_camera_for_each_photo(
    make: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make(LENS, PINHOLE)
    export_scene(scene, tmp_path / "out", "nerfstudio")
    again = read_again("nerfstudio", tmp_path / "out")
    for i in range(4):
        assert_close(again.camera(i).opencv_params(), scene.camera(i).opencv_params())
    with pytest.raises(InputError, match="2 cameras, and a TUM recording has one"):
        export_scene(scene, tmp_path / "tum", "tum")
    assert not (tmp_path / "tum").exists()


def test_a_split_in_blocks_becomes_sequences(make: Callable[..., Scene], tmp_path: Path) -> None:
    scene = relocal.scene.apply_split(make(PINHOLE), "blocks:2/5/0", 2)
    export_scene(scene, tmp_path / "out", "7scenes")
    again = read_again("7scenes", tmp_path / "out")
    assert len({again.sequence(i) for i in range(len(again))}) == 6  # before, test, after; twice
    for part in ("train", "test"):
        same_poses(again.poses[again.indices(part)], scene.poses[scene.indices(part)])


def test_a_scene_without_test_images_has_none_again(
    make: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make(PINHOLE)
    scene = scene.with_splits({"train": scene.images, "test": ()}, "none")
    for layout in ("7scenes", "nerfstudio", "tum"):
        export_scene(scene, tmp_path / layout, layout)
        again = read_again(layout, tmp_path / layout)
        assert not again.splits
        assert len(again) == len(scene)
    with pytest.raises(InputError, match="no test images; import it again with --split"):
        export_scene(scene, tmp_path / "cambridge", "cambridge")


@pytest.mark.parametrize("layout", ["7scenes", "nerfstudio", "tum"])
def test_images_that_do_not_train_stay_so_without_test_images(
    make: Callable[..., Scene], layout: str, tmp_path: Path
) -> None:
    scene = make(PINHOLE)
    train = scene.images[:12]
    scene = save_scene(replace(scene, splits={"train": train, "test": ()}), tmp_path / "scene")
    with pytest.raises(SystemExit):
        main(["export-scene", str(scene.folder), "--format", layout, "--out", f"{tmp_path}/out"])
    options: dict[str, Any] = {"labels": tmp_path / "out/labels.txt"} if layout == "7scenes" else {}
    if layout == "tum":
        options = {"split": str(tmp_path / "out/split.json")}
    again = import_scene(layout, tmp_path / "out", tmp_path / "again", **options)
    assert len(again.splits["train"]) == 12
    assert not again.splits["test"]
    assert len(again) == (12 if layout == "7scenes" else len(scene))


@pytest.mark.parametrize("layout", ["nerfstudio", "tum"])
def test_split_that_a_layout_cannot_say_is_refused(
    make: Callable[..., Scene], layout: str, tmp_path: Path
) -> None:
    scene = make(PINHOLE)
    scene = replace(scene, splits={"train": (), "test": scene.images[:5]})
    with pytest.raises(InputError, match="has no training images, and images"):
        export_scene(scene, tmp_path / "out", layout)


def test_a_scale_is_never_made_up(make: Callable[..., Scene], tmp_path: Path) -> None:
    scene = make(PINHOLE, unit="unit")
    for layout in ("7scenes", "cambridge"):
        with pytest.raises(InputError, match=r"no known scale, and .* is in metres"):
            export_scene(scene, tmp_path / layout, layout)
    for layout in ("nerfstudio", "tum"):
        export_scene(scene, tmp_path / layout, layout)
        assert read_again(layout, tmp_path / layout).unit == "unit"
    assert read_tum(tmp_path / "tum", unit="m").unit == "m"


def test_photos_of_another_shape_and_unknown_layouts_are_refused(
    make: Callable[..., Scene], tmp_path: Path
) -> None:
    wide = Camera("SIMPLE_PINHOLE", 64, 40, torch.tensor([50.0, 32.0, 20.0]).double())
    with pytest.raises(InputError, match="64 x 40 pixels; 7-Scenes knows photos of 4 : 3 only"):
        export_scene(make(wide), tmp_path / "out", "7scenes")
    with pytest.raises(
        InputError, match=r"--format: there is no 'nerfstudo'. Did you mean nerfstudio"
    ):
        export_scene(make(PINHOLE), tmp_path / "out", "nerfstudo")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(InputError, match="exists already"):
        export_scene(make(PINHOLE), tmp_path / "out", "nerfstudio")


# TUM


def tum_folder(folder: Path, trajectory: str, listed: str = "1.0 a.png\n2.0 b.png\n") -> Path:
    for name in ("a.png", "b.png"):
        photo_of(PINHOLE, folder / name)
    (folder / "rgb.txt").write_text(listed)
    (folder / "groundtruth.txt").write_text(trajectory)
    return folder


def test_tum_poses_are_the_nearest_in_time(tmp_path: Path) -> None:
    rows = "# a comment\n2.05 0 0 9 0 0 0 1\n1.012 1 2 3 0 0 0.6 0.8\n0.99 4 5 6 0 0 0 1\n"
    scene = read_tum(tum_folder(tmp_path, rows))
    assert scene.images == ("a.png",)
    assert scene.provenance["images_without_label"] == 1
    assert scene.unit == "m"
    assert scene.poses.position.tolist() == [[4, 5, 6]]
    scene = read_tum(tum_folder(tmp_path, rows.replace("0.99 4", "0.9 4")))
    assert_close(scene.poses.quaternion, torch.tensor([[0.8, 0, 0, 0.6]]).double())
    assert scene.camera(0).focal.tolist() == [52.5, 52.5]  # a tenth of 640 x 480


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("1.0 1 2 3 0 0 0\n", r"groundtruth.txt, line 1: needs 8 fields, has 7"),
        ("1.0 1 2 x 0 0 0 1\n", r"groundtruth.txt, line 1: could not convert"),
        ("1.0 1 2 nan 0 0 0 1\n", r"1 no pose .b.png., 1 a lost frame .a.png."),
        ("1.0 1 2 3 0 0 0 2\n", r"line 1: qx qy qz qw is not a unit quaternion"),
        ("# nothing\n", r"groundtruth.txt: has no line"),
        ("7.0 1 2 3 0 0 0 1\n", r"of 2 images of rgb.txt 0 have a pose within 0.02 s"),
    ],
)
def test_tum_lines_that_are_none_are_refused(tmp_path: Path, rows: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_tum(tum_folder(tmp_path, rows))


def test_tum_has_one_camera(tmp_path: Path) -> None:
    folder = tum_folder(tmp_path, "1.0 0 0 0 0 0 0 1\n")
    (folder / "cameras.txt").write_text("1 PINHOLE 64 48 50 51 30 20\n")
    assert read_tum(folder).camera(0).params.tolist() == [50, 51, 30, 20]
    (folder / "cameras.txt").write_text("1 PINHOLE 64 48 5 5 3 2\n2 PINHOLE 64 48 5 5 3 2\n")
    with pytest.raises(InputError, match="needs one camera, has 2"):
        read_tum(folder)


@pytest.mark.parametrize("layout", sorted(WRITERS))
def test_the_command_that_the_verb_prints_keeps_unit_and_split(
    make: Callable[..., Scene], layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = save_scene(make(PINHOLE), tmp_path / "scene")
    export = ["export-scene", str(scene.folder), "--format", layout, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main(export)
    assert not end.value.code
    again = capsys.readouterr().out.partition("It is read again by: relocal ")[2]
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(again.replace("SCENE", shlex.quote(str(tmp_path / "again"))))])
    assert not end.value.code
    read = load_scene(tmp_path / "again")
    assert read.unit == scene.unit
    for part in ("train", "test"):
        assert len(read.splits[part]) == len(scene.splits[part])


@pytest.mark.parametrize(
    ("camera", "model"),
    [
        (Camera("RADIAL_FISHEYE", 64, 48, (40.0, 32, 24, 0.02, -0.01)), "OPENCV_FISHEYE"),
        (Camera("FULL_OPENCV", 64, 48, (50, 52, 31, 25, 0.1, 0.01, 0, 0, 0.02, 0, 0, 0)), "OPENCV"),
    ],
)
def test_nerfstudio_has_words_for_fisheyes_and_k3(camera: Camera, model: str) -> None:
    content = nerfstudio_transforms(["1.png", "2.png"], Pose.identity(2), [camera, camera])
    assert content["camera_model"] == model
    again = nerfstudio_camera(content, "transforms.json")
    ray = torch.tensor([0.3, -0.2, 1.0]).double()
    assert_close(again.project(ray)[0], camera.project(ray)[0])


@pytest.mark.parametrize(
    "camera",
    [
        Camera("EUCM", 64, 48, (40.0, 40, 32, 24, 0.6, 1.0)),
        Camera("FULL_OPENCV", 64, 48, (50, 52, 31, 25, 0, 0, 0, 0, 0, 0.1, 0, 0)),
        Camera("THIN_PRISM_FISHEYE", 64, 48, (50, 52, 31, 25, *[0.01] * 8)),
    ],
)
def test_nerfstudio_refuses_cameras_that_it_has_no_words_for(camera: Camera) -> None:
    with pytest.raises(InputError, match=rf"{camera.model} .*no place in nerfstudio's"):
        nerfstudio_transforms(["1.png"], Pose.identity(1), [camera])
    fisheye = Camera("FISHEYE", 64, 48, (40.0, 40, 32, 24))
    with pytest.raises(InputError, match="one camera model"):
        nerfstudio_transforms(["1", "2"], Pose.identity(2), [fisheye, fisheye.undistorted()])
