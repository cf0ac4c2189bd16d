"""The Cambridge Landmarks reader, against a synthetic scene written in that format."""

from pathlib import Path

import listing
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from relocal.datasets.cambridge import read_cambridge
from relocal.errors import InputError
from relocal.scene import Scene

HEADER = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
FOCAL_PX = 144.0


def line_of(scene: Scene, index: int) -> str:
    """As VisualSFM writes: the centre, and the turn of world vectors into the camera."""
    matrix = scene.poses.matrix()[index].numpy()
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3].T).as_quat()
    values = (*matrix[:3, 3], w, x, y, z)
    return " ".join([scene.images[index], *(f"{value:.9f}" for value in values)])


def write(root: Path, scene: Scene, nvm: bool = True) -> Path:
    """The scene's images by link, the two lists, and the NVM file."""
    root.mkdir()
    for folder in {Path(name).parts[0] for name in scene.images}:
        (root / folder).symlink_to(scene.image_root / folder)
    for split in ("train", "test"):
        lines = [line_of(scene, i) for i in scene.indices(split).tolist()]
        (root / f"dataset_{split}.txt").write_text(HEADER + "\n".join(lines) + "\n")
    if nvm:
        rows = [
            f"{Path(name).with_suffix('.png')}\t{FOCAL_PX} 1 0 0 0 0 0 0 0 0"
            for name in scene.images
        ]
        text = "\n".join(["NVM_V3 ", "", str(len(rows)), *rows, "", "0"])
        (root / "reconstruction.nvm").write_text(text)
    return root


def test_scene_written_in_its_format_is_read_back(tiny_scene: Scene, tmp_path: Path) -> None:
    scene = read_cambridge(write(tmp_path / "place", tiny_scene))
    order = [tiny_scene.images.index(name) for name in scene.images]
    truth = tiny_scene.poses[order]
    assert_close(scene.poses.matrix(), truth.matrix(), rtol=0, atol=1e-7)
    assert dict(scene.splits) == {k: tuple(sorted(v)) for k, v in tiny_scene.splits.items()}
    assert (scene.unit, len(scene.cameras)) == ("m", 1)
    # The map points of the room land where the room says that they are seen.
    points = tiny_scene.points
    assert points is not None
    for index in scene.indices("train")[::5].tolist():
        mine = points.image_index == order[index]
        world = truth.position.new_tensor(points.xyz[points.point_index[mine]])
        pixels, _ = scene.camera(index).project(scene.poses[index].inverse().apply(world))
        assert np.abs(pixels.numpy() - points.xy[mine]).max() < 0.01


def test_without_an_nvm_file_the_focal_length_is_assumed_and_said(
    tiny_scene: Scene, tmp_path: Path
) -> None:
    scene = read_cambridge(write(tmp_path / "place", tiny_scene, nvm=False))
    assert float(scene.camera(0).focal[0]) == pytest.approx(1670 * 160 / 1920)
    assert scene.provenance["intrinsics"].startswith("reconstruction.nvm for 0 images")


def test_missing_images_are_counted_and_named(tiny_scene: Scene, tmp_path: Path) -> None:
    root = write(tmp_path / "place", tiny_scene)
    file = root / "dataset_test.txt"
    file.write_text(file.read_text() + "seq9/a photo.png 0 0 0 1 0 0 0\n")
    scene = read_cambridge(root)
    assert scene.provenance["missing_images"] == ["seq9/a photo.png"]
    assert scene.provenance["listed_images"] == len(tiny_scene) + 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("seq9/1.png 0 0 0 1 0 0", "line .*7 numbers"),
        ("seq9/1.png 0 0 x 1 0 0 0", "line .*could not convert"),
        ("seq9/1.png 0 0 0 1 1 0 0", "not a unit quaternion"),
        ("{first}", "stands there already"),
        ("{training}", "1 images train and test"),
    ],
)
def test_bad_line_is_named(line: str, reason: str, tiny_scene: Scene, tmp_path: Path) -> None:
    root = write(tmp_path / "place", tiny_scene)
    first, training = (int(tiny_scene.indices(split)[0]) for split in ("test", "train"))
    line = line.format(first=line_of(tiny_scene, first), training=line_of(tiny_scene, training))
    with (root / "dataset_test.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=f"place.*{reason}"):
        read_cambridge(root)


@pytest.mark.parametrize("keep", [0, 5, 30, 200])
def test_cut_nvm_file_is_refused(keep: int, tiny_scene: Scene, tmp_path: Path) -> None:
    file = write(tmp_path / "place", tiny_scene) / "reconstruction.nvm"
    file.write_text(file.read_text()[:keep])
    with pytest.raises(InputError, match=r"reconstruction\.nvm"):
        read_cambridge(tmp_path / "place")


@pytest.mark.parametrize("head", ["", "a title\nImageFile, X Y Z W P Q R\n", "\n", "# by hand\n"])
@pytest.mark.parametrize(
    "row", ["seq1/1 0.1 0.2", "seq1/1", "seq1\\1 0.1", "0001 0.1 0.2", "seq1/1.png"]
)
def test_cut_row_is_no_header(head: str, row: str, tmp_path: Path) -> None:
    listing.cambridge(tmp_path, [listing.READ] * 6)
    file = tmp_path / "dataset_train.txt"
    file.write_text(head + row + "\n" + file.read_text().split("\n\n", 1)[1])
    with pytest.raises(InputError, match=rf"dataset_train\.txt, line {head.count(chr(10)) + 1}: "):
        read_cambridge(tmp_path)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_names_that_begin_as_comments_do_are_read_anywhere(place: int, tmp_path: Path) -> None:
    listing.cambridge(tmp_path, [listing.READ] * 6)
    file = tmp_path / "dataset_train.txt"
    rows = file.read_text().split("\n\n", 1)[1].splitlines()
    name, numbers = rows[0].split(maxsplit=1)
    listing.photo(tmp_path / "#1/a b.png")
    rows.insert(place, f"#1/a b.png {numbers}")
    rows.insert(place, f"# {name} {numbers}")
    file.write_text("\n".join(rows))
    scene = read_cambridge(tmp_path)
    assert len(scene) == 7
    assert "#1/a b.png" in scene.splits["train"]
