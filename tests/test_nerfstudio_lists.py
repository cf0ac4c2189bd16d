"""What nerfstudio's own lists say: an image that trains is nowhere else, others may be."""

import json
from pathlib import Path
from typing import Any

import pytest
from listing import READ, frame, photo

from relocal.datasets import import_scene
from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.errors import InputError

NAMES = [f"images/{k}.png" for k in range(8)]


def project(root: Path, **fields: Any) -> Path:
    content = {"fl_x": 30.0, "frames": [frame(n, k, READ) for k, n in enumerate(NAMES)]}
    for name in NAMES:
        photo(root / name)
    (root / "transforms.json").write_text(json.dumps(content | fields))
    return root


def blender(root: Path, **frames: list[dict[str, Any]]) -> Path:
    for part, listed in frames.items():
        content = {"camera_angle_x": 0.7, "frames": listed}
        (root / f"transforms_{part}.json").write_text(json.dumps(content))
        for one in listed:
            photo(root / f"{one['file_path']}.png")
    return root


def made(*numbers: int) -> list[dict[str, Any]]:
    return [frame(f"./images/{k}", k, READ) for k in numbers]


@pytest.mark.parametrize(
    ("val", "test", "aside"), [((6, 7), (6, 7), 0), ((5, 6), (6, 7), 1), ((7,), (6, 7), 0)]
)
def test_validation_and_test_images_may_be_the_same(
    val: tuple[int, ...], test: tuple[int, ...], aside: int, tmp_path: Path
) -> None:
    lists = {"train": range(5), "val": val, "test": test}
    named = {f"{part}_filenames": [NAMES[k] for k in ks] for part, ks in lists.items()}
    (tmp_path / "one").mkdir()
    (tmp_path / "three").mkdir()
    three = blender(tmp_path / "three", **{part: made(*ks) for part, ks in lists.items()})
    for source in (project(tmp_path / "one", **named), three):
        scene = read_nerfstudio(source)
        assert scene.splits["train"] == tuple(NAMES[:5])
        assert scene.splits["test"] == tuple(NAMES[k] for k in test)
        assert scene.account is not None
        said = " ".join(notice.text for notice in scene.account.notices)
        assert ("validation images" in said) == bool(aside)
        assert f"{aside} images are its validation images" in said or not aside


@pytest.mark.parametrize("part", ["val", "test"])
def test_image_that_trains_is_in_no_other_list(part: str, tmp_path: Path) -> None:
    named = {"train_filenames": NAMES[:6], f"{part}_filenames": NAMES[5:]}
    said = f"images/5.png stands in train_filenames and again in {part}_filenames"
    with pytest.raises(InputError, match=said):
        read_nerfstudio(project(tmp_path, **named))
    (tmp_path / "three").mkdir()
    three = blender(tmp_path / "three", **{"train": made(0, 1), part: made(1, 2)})
    said = rf"images/1 stands in transforms_train\.json and again in transforms_{part}\.json"
    with pytest.raises(InputError, match=said):
        read_nerfstudio(three)


def test_name_twice_in_a_list_is_refused(tmp_path: Path) -> None:
    named = {"train_filenames": [NAMES[0], NAMES[0]]}
    with pytest.raises(InputError, match="train_filenames and again in train_filenames"):
        read_nerfstudio(project(tmp_path, **named))


def test_one_photo_with_two_poses_is_refused(tmp_path: Path) -> None:
    frames = {"val": made(1), "test": [frame("./images/1", 5, READ)]}
    with pytest.raises(InputError, match=r"_test\.json: \./images/1 has another pose than in tr"):
        read_nerfstudio(blender(tmp_path, train=made(0), **frames))


def test_list_of_blender_may_be_empty(tmp_path: Path) -> None:
    scene = read_nerfstudio(blender(tmp_path, train=made(0, 1), val=[], test=made(2)))
    assert scene.splits == {"train": tuple(NAMES[:2]), "test": (NAMES[2],)}
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no frames"):
        read_nerfstudio(blender(tmp_path / "none", train=[], test=[]))


@pytest.mark.parametrize("lists", [{}, {"train_filenames": NAMES[:4]}])
def test_second_list_of_frames_is_the_test_split(lists: dict[str, Any], tmp_path: Path) -> None:
    """As ScanNet++ has it."""
    every = [frame(name, k, READ) for k, name in enumerate(NAMES)]
    scene = read_nerfstudio(project(tmp_path, frames=every[:5], test_frames=every[5:], **lists))
    assert scene.images == tuple(NAMES)
    assert scene.splits["test"] == tuple(NAMES[5:])
    assert scene.splits["train"] == tuple(NAMES[: 4 if lists else 5])


@pytest.mark.parametrize(
    "field", [{"ftheta_p0": 0.1}, {"latlong": True}, {"equirectangular": True}]
)
def test_lens_of_other_fields_is_refused_by_its_name(field: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{next(iter(field))}, a lens that is not supported"):
        read_nerfstudio(project(tmp_path, **field))
    read_nerfstudio(project(tmp_path, **dict.fromkeys(field, 0)))


@pytest.mark.parametrize("none", [None, [], [["-1.#IND"] * 4] * 4, [["nan"] * 4] * 4, [[None] * 4]])
def test_pose_that_is_none_is_a_lost_frame(none: Any, tmp_path: Path) -> None:
    frames = [frame(name, k, READ) for k, name in enumerate(NAMES)]
    frames[3]["transform_matrix"] = none
    scene = read_nerfstudio(project(tmp_path, frames=frames))
    assert scene.account is not None
    assert dict(scene.account.images.examples) == {"a lost frame": (NAMES[3],)}


def test_numbers_may_stand_there_as_text(tmp_path: Path) -> None:
    frames = [frame(name, k, READ) for k, name in enumerate(NAMES)]
    text = [
        {**one, "transform_matrix": [[str(v) for v in row] for row in one["transform_matrix"]]}
        for one in frames
    ]
    plain = read_nerfstudio(project(tmp_path)).poses.position
    assert read_nerfstudio(project(tmp_path, frames=text)).poses.position.equal(plain)


def test_lists_that_leave_nothing_to_train_are_told_as_the_source_s_own(tmp_path: Path) -> None:
    source = project(tmp_path / "in", train_filenames=NAMES[:2], test_filenames=NAMES[2:])
    for name in NAMES[:2]:
        (source / name).unlink()
    with pytest.raises(InputError, match=r"its own lists leave no images for train.*--split"):
        import_scene("nerfstudio", source, tmp_path / "out")
