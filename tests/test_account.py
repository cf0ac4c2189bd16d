"""Everything that a source lists is read, or left aside for a reason that is told."""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from listing import (
    BUILDERS,
    NONES,
    READ,
    Build,
    colmap,
    nerfstudio,
    published,
    reader_of,
    seven_scenes,
    tum,
)

import relocal
from relocal.datasets import DATASETS, import_scene
from relocal.errors import InputError
from relocal.notices import Notice
from relocal.scene import Scene, load_scene
from relocal.scene.account import LOST, NO_FILE, NO_POSE, NO_TRACK, UNSEEN, Account, Tally
from relocal.scene.files import save_points
from relocal.sfm.accounts import PASSED_OVER, added_account, label_account, passed_over
from relocal.sfm.sources import Gathered

CASES = [
    (reader, build, fates) for reader, built in BUILDERS.items() for build, fates in built.items()
]


def drawn(fates: Sequence[str], seed: int) -> list[str]:
    """Seven frames that are read, between five that meet each fate."""
    draw = random.Random(seed)
    found = [READ] * 7 + [*fates, *draw.choices(fates, k=5 - len(fates))]
    draw.shuffle(found)
    return found


def test_every_reader_has_a_source_here() -> None:
    assert BUILDERS.keys() | {"synthetic"} == DATASETS.keys()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("reader", "build", "fates"), CASES, ids=lambda c: getattr(c, "__name__", None)
)
def test_listed_is_read_and_left_aside(
    reader: str, build: Build, fates: Sequence[str], seed: int, tmp_path: Path
) -> None:
    met = drawn(fates, seed)
    (tmp_path / "in").mkdir()
    source = build(tmp_path / "in", met)
    scene = import_scene(reader, source.path, tmp_path / "out", **source.options)
    account = scene.account
    assert account is not None
    tally = account.images
    assert (tally.listed, tally.read) == (len(met), len(scene))
    assert tally.listed == tally.read + sum(tally.left.values())
    # Each listed image is in one place, which is the right one.
    places = [(name, READ) for name in scene.images]
    places += [(name, reason) for reason, names in tally.examples.items() for name in names]
    assert sorted(places) == sorted(zip(source.names, met, strict=True))
    assert load_scene(tmp_path / "out").account == account
    assert relocal.check(tmp_path / "out") == account


def test_room_is_read_whole(tiny_scene: Scene) -> None:
    account = relocal.check(tiny_scene)
    assert account is not None
    assert tiny_scene.points is not None
    assert (account.images, account.notices) == (Tally(listed=32, read=32), ())
    count = len(tiny_scene.points.xyz)
    assert account.points == Tally(listed=count, read=count)


def test_reader_from_outside_accounts_for_what_it_returns(
    tiny_scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "own", lambda path: replace(tiny_scene, account=None))
    scene = import_scene("own", tmp_path, tmp_path / "out")
    assert scene.account is not None
    assert scene.account.images == Tally(listed=32, read=32)


def test_points_are_accounted_for(tmp_path: Path) -> None:
    colmap(tmp_path, [READ, READ, NO_FILE, LOST, READ])
    account = DATASETS["colmap"](tmp_path).account
    assert account is not None
    assert account.points == Tally(listed=6, read=3, left={NO_TRACK: 1, UNSEEN: 2})


def test_account_survives_a_split_and_other_points_take_its_own(
    tiny_scene: Scene, tmp_path: Path
) -> None:
    assert tiny_scene.folder is not None
    shutil.copytree(tiny_scene.folder, tmp_path / "scene")
    scene = load_scene(tmp_path / "scene")
    assert scene.account is not None
    assert scene.with_splits({"train": scene.images}, "mine").account == scene.account
    assert scene.points is not None
    save_points(scene, scene.points, {})
    assert load_scene(tmp_path / "scene").account == replace(scene.account, points=None)


def test_scene_made_before_accounts_opens_and_check_says_so(
    tiny_scene: Scene, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    assert tiny_scene.folder is not None
    shutil.copytree(tiny_scene.folder, tmp_path / "scene")
    file = tmp_path / "scene/scene.json"
    content = json.loads(file.read_text())
    del content["account"]
    file.write_text(json.dumps(content))
    assert relocal.check(tmp_path / "scene") is None
    code, out, error = call("check", tmp_path / "scene")
    assert (code, error) == (0, "")
    assert "No account was kept" in out


def test_import_tells_a_reason_a_line_and_check_tells_all_again(
    tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "in").mkdir()
    nerfstudio(tmp_path / "in", [READ, NO_FILE, READ, LOST, READ, NO_FILE])
    code, out, error = call("import", "nerfstudio", tmp_path / "in", "--out", tmp_path / "out")
    assert code == 0
    assert "2 of 6 listed images left out, no file: images/1.png, images/5.png." in error
    assert "1 of 6 listed images left out, a lost frame: images/3.png." in error
    code, out, error = call("check", tmp_path / "out")
    assert (code, error) == (0, "")
    assert "3 images (3 train, 0 test)" in out
    assert "6 images listed, 3 read." in out
    assert "2 of 6 listed images left out, no file" in out


def images_of(root: Path) -> Tally:
    account = DATASETS["7scenes"](root).account
    assert account is not None
    return account.images


@pytest.mark.parametrize("word", NONES)
def test_each_way_to_write_a_lost_frame_is_known(word: str, tmp_path: Path) -> None:
    seven_scenes(tmp_path, [READ] * 3)
    pose = tmp_path / "seq-01/frame-000001.pose.txt"
    pose.write_text(f"{' '.join([word] * 4)}\n" * 4)
    assert images_of(tmp_path).left == {LOST: 1}
    # Zeros of a turn are none even in a sound last row.
    pose.write_text("0 0 0 1\n0 0 0 1\n0 0 0 1\n0 0 0 1\n")
    assert images_of(tmp_path).left == {LOST: 1}


@pytest.mark.parametrize("build", [seven_scenes, nerfstudio, colmap, tum])
def test_import_of_mostly_lost_frames_needs_a_word(build: Build, tmp_path: Path) -> None:
    reader = reader_of(build)
    (tmp_path / "half").mkdir()
    build(tmp_path / "half", [READ, LOST, READ, LOST])
    assert len(import_scene(reader, tmp_path / "half", tmp_path / "a")) == 2
    (tmp_path / "most").mkdir()
    source = build(tmp_path / "most", [READ, LOST, LOST])
    with pytest.raises(InputError, match=r"most: 2 of 3 images have no pose.*--allow-missing"):
        import_scene(reader, source.path, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert len(import_scene(reader, source.path, tmp_path / "b", allow_missing=True)) == 1
    (tmp_path / "all").mkdir()
    build(tmp_path / "all", [LOST, LOST])
    with pytest.raises(InputError, match=r"none of its 2 images can be read: 2 a lost frame"):
        import_scene(reader, tmp_path / "all", tmp_path / "c", allow_missing=True)


NAMES = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=15)


@given(st.dictionaries(st.sampled_from([NO_FILE, LOST, NO_POSE]), NAMES), st.integers(0, 9))
def test_account_is_read_as_it_was_written(left: dict[str, list[str]], read: int) -> None:
    listed = read + sum(map(len, left.values()))
    account = Account(images=Tally.of(listed, read, left), points=Tally(listed=1, read=1))
    account = account.with_notices(Notice("several-models", "two"))
    assert Account.from_json(json.loads(json.dumps(account.to_json()))) == account


def test_notice_of_a_later_version_keeps_its_text() -> None:
    content = Account(images=Tally(listed=1, read=1)).to_json()
    content["notices"] = [{"code": "from-the-future", "text": "beware"}]
    assert Account.from_json(content).notices == (Notice("other", "beware"),)


def test_tally_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(InputError, match="3 listed, but 1 read and 1 left aside"):
        Tally(listed=3, read=1, left={NO_FILE: 1})


@pytest.mark.parametrize(
    "harm",
    [
        lambda a: a.update(images=None),
        lambda a: a.pop("notices"),
        lambda a: a["images"].update(listed=3),
        lambda a: a["images"].update(read=True),
        lambda a: a["images"].update(read="1"),
        lambda a: a["images"].update(listed=-1, read=-1),
        lambda a: a["images"].update(left={"no file": 10**400}),
        lambda a: a["images"].update(examples={"no file": "a.png"}),
        lambda a: a["images"].update(examples={"unheard of": ["a.png"]}),
        lambda a: a.update(notices=[{"code": "other"}]),
        lambda a: a.update(points=[1]),
    ],
)
def test_damaged_account_is_refused_by_its_file(
    harm: Callable[[dict[str, Any]], object], tiny_scene: Scene, tmp_path: Path
) -> None:
    assert tiny_scene.folder is not None
    shutil.copytree(tiny_scene.folder, tmp_path / "scene")
    file = tmp_path / "scene/scene.json"
    content = json.loads(file.read_text())
    harm(content["account"])
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"scene\.json: account: "):
        load_scene(tmp_path / "scene")


def test_labelled_photos_are_accounted_for() -> None:
    left = {
        "a/1.jpg": "has 12 features: blurred, or without texture",
        "a/2.jpg": "has 40 features: blurred, or without texture",
        "a/3.jpg": "belongs to another part, of 7 photos",
        "a/4.jpg": "/photos/a/4.jpg: this is not a photo; accepted are JPEG.",
        "a/5.jpg": "has 99 matches at most, which fit no place",
    }
    account = label_account(20, left, 25, 100)
    assert account.images.left == {
        "blurred, or without texture": 2,
        "belongs to another part": 1,
        "this is not a photo; accepted are JPEG": 1,
        "fit no place": 1,
        PASSED_OVER: 100,
    }
    # Of two that had been left out, one is placed now and one is not, for another reason.
    new = {"a/2.jpg", "a/3.jpg", "b/1.jpg"}
    more = added_account(account, left, 2, {"a/3.jpg": left["a/5.jpg"]}, 0, new)
    assert more is not None
    assert (more.images.listed, more.images.read) == (126, 22)
    assert more.images.left["blurred, or without texture"] == 1
    assert "belongs to another part" not in more.images.left
    assert more.images.examples["fit no place"] == ("a/5.jpg", "a/3.jpg")
    assert added_account(None, left, 2, {}, 0, new) is None


@pytest.mark.parametrize(("lost", "refused"), [(3, False), (4, True)])
def test_more_than_half_is_of_the_frames_that_are_there(
    lost: int, refused: bool, tmp_path: Path
) -> None:
    """Photos that are missing say nothing of how well the recording was tracked."""
    source = nerfstudio(tmp_path, [READ] * 3 + [LOST] * lost + [NO_FILE] * 6)
    if refused:
        with pytest.raises(InputError, match=f"{lost} of {lost + 3} images have no pose"):
            import_scene("nerfstudio", source.path, tmp_path / "out")
    else:
        assert len(import_scene("nerfstudio", source.path, tmp_path / "out")) == 3


def test_published_scene_is_not_asked_again_for_its_lost_frames(tmp_path: Path) -> None:
    source = published(tmp_path, [READ] * 3 + [LOST] * 5)
    scene = import_scene("published", source.path, tmp_path / "out")
    assert len(scene) == 3
    assert scene.account is not None
    assert scene.account.images.left == {LOST: 5}


@pytest.mark.parametrize("content", ["", "\n", "nan\n", "-1.#IND00e+000 0 0 0\n" * 4])
def test_pose_file_without_a_number_is_a_lost_frame(content: str, tmp_path: Path) -> None:
    source = seven_scenes(tmp_path, [READ] * 3)
    (tmp_path / "seq-01/frame-000001.pose.txt").write_text(content)
    scene = DATASETS["7scenes"](source.path)
    assert scene.account is not None
    assert scene.account.images.left == {LOST: 1}


def test_scene_refuses_a_camera_beyond_measure(tiny_scene: Scene) -> None:
    position = tiny_scene.poses.position.clone()
    position[2, 1] = -3.4028235e38
    with pytest.raises(InputError, match=r"of seq.*below 1e\+12"):
        replace(tiny_scene, poses=replace(tiny_scene.poses, position=position))


def test_frames_that_are_passed_over_count_once(tiny_scene: Scene) -> None:
    """A recording that the scene has is added again, as in a folder with another one."""
    walk = tiny_scene.sequence(0)
    own = [f"{walk}/passed {k}" for k in range(30)]
    old: dict[str, Any] = {
        "left_out": {own[0]: "is blurred"},
        "frames_passed_over": 29,
        "passed_over": {walk: 29},
    }
    found = Gathered([], {}, {walk: (tiny_scene.images[0], *own), "new": ("a", "b")})
    assert passed_over(found, tiny_scene, old) == ({walk: 29, "new": 2}, 29)
    # One of them is taken now.
    fewer = Gathered([], {}, {walk: tuple(own[2:])})
    assert passed_over(fewer, tiny_scene, old) == ({walk: 28}, 29)
    # Labels of before recordings were counted one by one, and a scene that was not labelled.
    less = {"left_out": old["left_out"], "frames_passed_over": 29}
    assert passed_over(found, tiny_scene, less) == ({walk: 29, "new": 2}, 29)
    assert passed_over(found, tiny_scene, {}) == ({walk: 30, "new": 2}, 0)
    account = label_account(len(tiny_scene), {}, len(tiny_scene), 29)
    more = added_account(account, {}, 5, {}, 31, set(), counted=29)
    assert more is not None
    assert more.images.left == {PASSED_OVER: 31}
    assert more.images.listed == len(tiny_scene) + 5 + 31
