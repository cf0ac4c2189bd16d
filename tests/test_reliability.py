"""Troubles that users reported, rebuilt small: each is right, or refused with a reason.

Every trouble stands here twice: as it was reported, and as another reader or localizer meets it.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from strange_recordings import (
    CAMBRIDGE_HEAD,
    RECORDINGS,
    UTM,
    cambridge,
    exif_photo,
    photo,
    transforms,
    tum,
    tum_rows,
    walk,
)

from relocal.datasets import import_scene
from relocal.errors import InputError
from relocal.evaluation import evaluate
from relocal.exporting import ExportConfig, export
from relocal.localizers import (
    Localizer,
    MapConfig,
    Structure,
    build_map,
    open_localizer,
    open_localizers,
)
from relocal.metrics import median
from relocal.pose import Pose, matrix_to_quaternion, position_error
from relocal.scene import Scene, load_scene, save_scene
from relocal.session import align
from relocal.sfm import LabelConfig
from relocal.sfm.alignment import Similarity, fitted
from relocal.sfm.sources import gather

ECEF = (3782970.1, 902154.6, 5038375.9)


def read(name: str, reader: str, tmp_path: Path, **options: Any) -> Scene:
    """A strange recording, imported and loaded again."""
    RECORDINGS[name](tmp_path / "source")
    import_scene(reader, tmp_path / "source", tmp_path / "scene", **options)
    return load_scene(tmp_path / "scene")


def left(scene: Scene) -> int:
    """How many images the account says were left aside."""
    assert scene.account is not None
    tally = scene.account.images
    assert tally.listed == tally.read + sum(tally.left.values())
    assert tally.read == len(scene)
    return sum(tally.left.values())


class TestOrderOfRecording:
    """Photos numbered without leading zeros: 2 comes before 10."""

    @pytest.mark.parametrize(
        ("name", "reader", "names"),
        [
            ("colmap-unpadded", "colmap", [f"{k + 1}.jpg" for k in range(120)]),
            ("cambridge-unpadded", "cambridge", [f"seq1/frame{k + 1}.jpg" for k in range(120)]),
        ],
    )
    def test_is_that_of_the_numbers(
        self, name: str, reader: str, names: list[str], tmp_path: Path
    ) -> None:
        assert read(name, reader, tmp_path).images == tuple(names)

    def test_keeps_the_gap_between_training_and_test(self, tmp_path: Path) -> None:
        scene = read("colmap-unpadded", "colmap", tmp_path, split="blocks:10/5/2")
        train, test = (
            np.array([int(Path(name).stem) for name in scene.splits[split]])
            for split in ("train", "test")
        )
        assert np.abs(train[:, None] - test).min() == 3

    def test_is_label_s_too(self, tmp_path: Path) -> None:
        for k in (1, 2, 9, 10, 11, 100):
            photo(tmp_path / f"walk/{k}.jpg", k)
        (tmp_path / "work").mkdir()
        found = gather([tmp_path / "walk"], tmp_path / "work", LabelConfig(), lambda *_: None)
        stems = [int(Path(one.name).stem) for one in found.photos]
        assert stems == [1, 2, 9, 10, 11, 100]


class TestEverythingListed:
    """What a source lists is read, or said to be left aside."""

    def test_the_largest_of_two_models_is_taken(self, tmp_path: Path) -> None:
        scene = read("colmap-two-models", "colmap", tmp_path)
        assert scene.images == tuple(f"{k:03d}.jpg" for k in range(3, 40))
        assert left(scene) == 3
        assert scene.account is not None
        text = " ".join(str(notice) for notice in scene.account.notices)
        assert "sparse/0" in text
        assert "(3)" in text

    def test_a_damaged_second_model_is_told(self, tmp_path: Path) -> None:
        RECORDINGS["colmap-two-models"](tmp_path / "source")
        (tmp_path / "source/sparse/0/images.txt").write_text("1 0.5 zero\n")
        import_scene("colmap", tmp_path / "source", tmp_path / "scene")
        scene = load_scene(tmp_path / "scene")
        assert len(scene) == 37
        assert scene.account is not None
        assert any("sparse/0" in str(notice) for notice in scene.account.notices)

    @pytest.mark.parametrize("lines", range(4))
    def test_lists_of_cambridge_may_have_any_head(self, lines: int, tmp_path: Path) -> None:
        head = "".join(CAMBRIDGE_HEAD.splitlines(keepends=True)[:lines])
        cambridge(tmp_path / "source", [f"seq1/{k:03d}.jpg" for k in range(40)], head=head)
        scene = import_scene("cambridge", tmp_path / "source", tmp_path / "scene")
        assert [len(scene.splits[split]) for split in ("train", "test")] == [30, 10]

    def test_a_head_without_a_comment_sign_loses_no_row(self, tmp_path: Path) -> None:
        tum(tmp_path / "source", tum_rows(walk()))
        file = tmp_path / "source/groundtruth.txt"
        file.write_text("timestamp tx ty tz qx qy qz qw\n" + file.read_text())
        with pytest.raises(InputError, match="line 1"):
            import_scene("tum", tmp_path / "source", tmp_path / "scene")

    @pytest.mark.parametrize(
        ("name", "held"),
        [("nerfstudio-val-only", "images/0{}.jpg"), ("blender-train-val", "images/r_{}.png")],
    )
    def test_photos_held_out_are_not_trained_on(self, name: str, held: str, tmp_path: Path) -> None:
        scene = read(name, "nerfstudio", tmp_path)
        assert set(scene.splits["test"]) == {held.format(k) for k in range(30, 40)}
        assert len(scene.splits["train"]) == 30

    @pytest.mark.parametrize(
        ("name", "reader", "lost"),
        [
            ("lost-infinite", "7scenes", 1),
            ("lost-indefinite", "7scenes", 1),
            ("lost-zeros", "7scenes", 1),
            ("tum-lost", "tum", 3),
        ],
    )
    def test_frames_without_a_pose_are_counted(
        self, name: str, reader: str, lost: int, tmp_path: Path
    ) -> None:
        assert left(read(name, reader, tmp_path)) == lost

    def test_frames_without_a_pose_of_other_layouts(self, tmp_path: Path) -> None:
        names = [f"images/{k:03d}.jpg" for k in range(40)]
        content: Any = transforms(names, walk())
        content["frames"][3]["transform_matrix"] = (np.ones((4, 4)) * np.nan).tolist()
        content["frames"][8]["transform_matrix"] = np.zeros((4, 4)).tolist()
        for k, name in enumerate(names):
            photo(tmp_path / "a" / name, k)
        (tmp_path / "a/transforms.json").write_text(json.dumps(content))
        scene = import_scene("nerfstudio", tmp_path / "a", tmp_path / "scene-a")
        assert left(scene) == 2
        assert "images/003.jpg" not in scene.images

    def test_more_than_half_lost_is_refused(self, tmp_path: Path) -> None:
        rows = tum_rows(walk())
        rows[:21] = [f"{k}.0 nan nan nan nan nan nan nan" for k in range(21)]
        tum(tmp_path / "source", rows)
        with pytest.raises(InputError, match="21"):
            import_scene("tum", tmp_path / "source", tmp_path / "scene")
        scene = import_scene("tum", tmp_path / "source", tmp_path / "scene", allow_missing=True)
        assert len(scene) == 19


def moved(scene: Scene, shift: tuple[float, float, float], folder: Path) -> Scene:
    """The scene in a world whose origin is elsewhere, on disk."""
    poses = Pose(
        scene.poses.position + torch.tensor(shift, dtype=torch.float64), scene.poses.quaternion
    )
    save_scene(replace(scene, poses=poses, points=None, folder=None), folder)
    return load_scene(folder)


class TestCoordinates:
    """A place far from the origin is as exactly known as one at it."""

    def test_labels_keep_their_digits(self, tmp_path: Path) -> None:
        scene = read("colmap-utm", "colmap", tmp_path)
        wanted = torch.tensor(np.array([m[:3, 3] for m in walk()]) + np.array(UTM))
        assert float((scene.poses.position - wanted).abs().max()) < 2e-9

    @pytest.mark.parametrize("shift", [UTM, ECEF])
    def test_a_map_is_as_exact(
        self, shift: tuple[float, float, float], tiny_scene: Scene, tmp_path: Path
    ) -> None:
        errors: list[float] = []
        for name, by in (("here", (0.0, 0.0, 0.0)), ("there", shift)):
            scene = moved(tiny_scene, by, tmp_path / name)
            made = build_map(scene, MapConfig(limit=1000))
            found = evaluate({"map": Structure(made)}, scene).methods["map"].errors
            errors.append(median(found.position))
        assert errors[1] == pytest.approx(errors[0], rel=0.01)

    @pytest.mark.parametrize("height", [0.0, 0.5])
    @pytest.mark.parametrize("turned", [False, True])
    def test_a_level_walk_has_a_scale(self, height: float, turned: bool) -> None:
        k = torch.arange(40, dtype=torch.float64)
        floor = torch.stack([0.1 * k, (k / 6).sin(), torch.full_like(k, height)], dim=1)
        generator = torch.Generator().manual_seed(1)
        turn = torch.linalg.qr(torch.randn(3, 3, generator=generator).double())[0]
        turn = turn * torch.linalg.det(turn)
        target = floor @ turn.T if turned else floor
        placed = 0.37 * floor @ turn.T + torch.tensor([1.0, 2.0, 3.0]).double()
        assert fitted(placed, target, "--scale").scale == pytest.approx(1 / 0.37, rel=1e-9)

    @pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), UTM, ECEF])
    def test_a_level_session_of_a_phone_has_one(self, shift: tuple[float, float, float]) -> None:
        k = torch.arange(12, dtype=torch.float64)
        floor = torch.stack([0.2 * k, (k / 3).sin(), 0 * k], dim=1)
        turns = torch.stack([(k / 9).cos(), 0 * k, 0 * k, (k / 9).sin()], dim=1)
        session = Pose(floor, turns)
        by = Similarity(2.5, torch.eye(3).double(), torch.tensor(shift).double())
        estimates = by.poses(session)
        found = align(
            {f"{i}.jpg": estimates[i] for i in range(12)},
            {f"{i}.jpg": session[i] for i in range(12)},
            unit="unit",
        )
        assert found.map_from_session.scale == pytest.approx(2.5, rel=1e-6)
        assert float(position_error(found.poses(session), estimates).max()) < 1e-6


WRONG: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "mirrored": lambda r, x: (
        np.diag([1.0, -1, 1]) @ r @ np.diag([1.0, -1, 1]),
        x * [1, -1, 1],
    ),
    "axes of OpenGL": lambda r, x: (r @ np.diag([1.0, -1, -1]), x),
    "axes in another order": lambda r, x: (r[:, :, [1, 2, 0]], x),
    "the inverse": lambda r, x: (
        r.transpose(0, 2, 1),
        -np.einsum("nji,nj->ni", r, x),
    ),
}

"""Wrong readings of poses: rotations (n, 3, 3) and positions (n, 3) as they come out."""


class TestPosesThatCannotBe:
    """A map of poses that no photo agrees with is refused."""

    @pytest.fixture
    def scene(self, tiny_scene: Scene) -> Scene:
        return replace(tiny_scene, points=None)

    @pytest.mark.parametrize("name", WRONG)
    def test_are_refused(self, name: str, scene: Scene) -> None:
        rotation, position = WRONG[name](scene.poses.rotation.numpy(), scene.poses.position.numpy())
        quaternion = matrix_to_quaternion(torch.from_numpy(rotation.copy()))
        wrong = replace(scene, poses=Pose(torch.from_numpy(position.copy()), quaternion))
        with pytest.raises(InputError, match="fit the poses"):
            build_map(wrong, MapConfig(limit=1000))

    def test_w_first_read_as_w_last_is_refused(self, scene: Scene) -> None:
        rolled = scene.poses.quaternion[:, [1, 2, 3, 0]]
        wrong = replace(scene, poses=Pose(scene.poses.position, rolled))
        with pytest.raises(InputError, match="fit the poses"):
            build_map(wrong, MapConfig(limit=1000))

    def test_true_poses_make_a_map(self, scene: Scene) -> None:
        assert len(build_map(scene, MapConfig(limit=1000))) > 100


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's network as ONNX."""
    out = tmp_path_factory.mktemp("exports") / "tiny"
    export(tiny_run, tiny_scene, out, ExportConfig(photos=2))
    return out


class TestFocalLengthsOfExif:
    """What camera apps write into EXIF is believed, and doubted aloud where it cannot be."""

    @pytest.fixture(params=["regressor", "exported", "retrieval", "structure", "hybrid"])
    def localizer(
        self, request: Any, tiny_run: Path, tiny_map: Path, tiny_scene: Scene
    ) -> Localizer:
        if request.param == "exported":
            return open_localizer(request.getfixturevalue("exported"))
        (found,) = open_localizers([tiny_run, tiny_map], [request.param], tiny_scene).values()
        return found

    @pytest.mark.parametrize("focal_mm", [14, 64, 90])
    def test_another_lens_is_told(
        self, focal_mm: int, localizer: Localizer, tiny_scene: Scene, tmp_path: Path
    ) -> None:
        exif_photo(tmp_path / "photo.jpg", tiny_scene, focal_mm)
        found = localizer.localize(tmp_path / "photo.jpg")
        assert found is None or found.warnings[0].code == "exif-focal-contradicts"

    def test_the_true_one_is_believed_in_silence(
        self, localizer: Localizer, tiny_scene: Scene, tmp_path: Path
    ) -> None:
        exif_photo(tmp_path / "photo.jpg", tiny_scene, 31)
        found = localizer.localize(tmp_path / "photo.jpg")
        assert found is not None
        assert found.warnings == ()

    def test_one_that_leaves_nothing_to_see_is_refused_by_its_name(
        self, tiny_run: Path, tiny_scene: Scene, tmp_path: Path
    ) -> None:
        exif_photo(tmp_path / "photo.jpg", tiny_scene, 600)
        with pytest.raises(InputError, match="EXIF"):
            open_localizer(tiny_run).localize(tmp_path / "photo.jpg")
