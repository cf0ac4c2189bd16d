"""Real recordings labelled from their photos alone, against poses that others found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.datasets.pose_lines import read_label_file
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.sfm import LabelConfig, label
from relocal.sfm.alignment import fitted

KITCHEN = Path("data/7scenes/redkitchen/seq-01")


def frames(shared: Path, count: int | None = None) -> list[Path]:
    return sorted((shared / KITCHEN).glob("*.jpg"))[:count]


def kitchen_poses(shared: Path) -> dict[str, Pose]:
    """Poses of redkitchen's frames by number."""
    rows = read_label_file(shared / KITCHEN.parent / "sfm_pgt_seq-01.txt")
    values = torch.tensor(list(rows.values()), dtype=torch.float64)
    poses = Pose.from_colmap(values[:, :4], values[:, 4:7])
    return {name.split("-")[-1].split(".")[0]: poses[i] for i, name in enumerate(rows)}


def film(files: list[Path], out: Path) -> Path:
    first: Any = cv2.imread(str(files[0]))
    codec: Any = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(out), codec, 30, first.shape[1::-1])
    for file in files:
        picture: Any = cv2.imread(str(file))
        writer.write(picture)
    writer.release()
    return out


def errors(scene: Scene, known: Mapping[str, Pose]) -> tuple[float, float]:
    """Median errors after the similarity that fits best; names without their folder."""
    stems = {i: Path(name).stem.removeprefix("frame-") for i, name in enumerate(scene.images)}
    stems = {i: stem.removesuffix(".color") for i, stem in stems.items()}
    rows = [i for i, stem in stems.items() if stem in known]
    truth = Pose.stack([known[stems[i]] for i in rows])
    poses = scene.poses[torch.tensor(rows)]
    moved = fitted(poses.position, truth.position, "test").poses(poses)
    return (
        float(position_error(moved, truth).median()),
        float(rotation_error_deg(moved, truth).median()),
    )


def nerfstudio_poses(folder: Path) -> tuple[dict[str, Pose], float]:
    """Poses by the photo's stem, and the extent of the path."""
    scene = read_nerfstudio(folder)
    poses = {Path(name).stem: scene.poses[i] for i, name in enumerate(scene.images)}
    return poses, scene.extent()


def test_a_part_of_a_real_video_is_labelled(shared: Path, tmp_path: Path) -> None:
    video = film(frames(shared, 150), tmp_path / "walk.mp4")
    made = label([video], tmp_path / "place", LabelConfig(features=2000))
    assert len(made.scene) >= 0.98 * made.about["photos"] > 15
    moved, turned = errors(made.scene, kitchen_poses(shared))
    assert moved < 0.01
    assert turned < 2  # positions on so short a way hardly tell how the worlds are turned


@pytest.mark.slow
@pytest.mark.parametrize("source", ["images", "video"])
def test_redkitchen_from_its_images_alone(shared: Path, tmp_path: Path, source: str) -> None:
    if source == "video":
        given = film(frames(shared), tmp_path / "redkitchen.mp4")
    else:
        given = tmp_path / "redkitchen"
        given.mkdir()
        for file in frames(shared):
            (given / file.name).symlink_to(file.resolve())
    made = label([given], tmp_path / "place", LabelConfig(step=0.02))
    assert made.about["photos"] >= 300
    assert len(made.scene) >= 0.98 * made.about["photos"]
    moved, turned = errors(made.scene, kitchen_poses(shared))
    print(f"{source}: {len(made.scene)}, {100 * moved:.3f} cm, {turned:.3f} deg")
    assert moved <= 0.01
    assert turned <= 0.3


@pytest.mark.slow
def test_fox_is_placed(shared: Path, tmp_path: Path) -> None:
    made = label([shared / "data/fox" / "images"], tmp_path / "fox")
    known, extent = nerfstudio_poses(shared / "data/fox")
    moved, turned = errors(made.scene, known)
    print(f"fox: {len(made.scene)}, {100 * moved / extent:.3f} % of the path, {turned:.3f} deg")
    assert len(made.scene) >= 48


@pytest.mark.slow
def test_the_cube_diorama_is_labelled(shared: Path, tmp_path: Path) -> None:
    made = label([shared / "data/cube_diorama_room" / "images"], tmp_path / "cube")
    known, extent = nerfstudio_poses(shared / "data/cube_diorama_room")
    moved, turned = errors(made.scene, known)
    print(f"cube: {len(made.scene)}, {100 * moved / extent:.3f} % of the path, {turned:.3f} deg")
    assert len(made.scene) == 100
    assert moved <= 0.003 * extent
