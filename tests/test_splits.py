"""Laws of split rules: nothing on both sides, gaps kept, every block tested once."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocal.errors import InputError
from relocal.notices import Notice
from relocal.scene import Scene, apply_split, block_split
from relocal.scene.account import Account, Tally
from relocal.scene.splits import OF_OWN_LISTS

SceneOf = Callable[..., Scene]
rules = st.fixed_dictionaries(
    {
        "size": st.integers(1, 60),
        "every": st.integers(2, 7),
        "gap": st.integers(0, 12),
        "fold": st.integers(0, 6),
    }
).map(lambda rule: {**rule, "fold": rule["fold"] % rule["every"]})
counts = st.integers(0, 500)


def frames(count: int, sequence: str = "seq-01") -> list[str]:
    return [f"{sequence}/frame-{i:06d}.png" for i in range(count)]


def numbers(names: list[str] | tuple[str, ...]) -> list[int]:
    return [int(Path(name).stem[-6:]) for name in names]


def distance(i: int, others: list[int]) -> float:
    return min((abs(i - j) for j in others), default=float("inf"))


@given(counts, rules)
def test_blocks_leave_exactly_the_gap_on_both_sides(count: int, rule: dict[str, int]) -> None:
    names = frames(count)
    train, test = block_split(names, **rule)
    near = numbers(test)
    expected = [i for i in range(count) if distance(i, near) > rule["gap"]]
    assert numbers(train) == expected
    assert not set(train) & set(test)


@given(counts, rules)
def test_blocks_of_all_folds_cover_every_image_once(count: int, rule: dict[str, int]) -> None:
    names = frames(count)
    tests = [block_split(names, **{**rule, "fold": k})[1] for k in range(rule["every"])]
    assert sorted(name for test in tests for name in test) == names


@given(counts, rules)
def test_test_images_are_whole_blocks_in_order(count: int, rule: dict[str, int]) -> None:
    _, test = block_split(frames(count), **rule)
    size, every, fold = rule["size"], rule["every"], rule["fold"]
    starts = range(fold * size, count, size * every)
    assert numbers(test) == [i for start in starts for i in range(start, min(start + size, count))]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"size": 0, "every": 5, "gap": 5, "fold": 0}, "--split blocks"),
        ({"size": 40, "every": 1, "gap": 5, "fold": 0}, "--split blocks"),
        ({"size": 40, "every": 5, "gap": 5, "fold": 5}, "--fold 5.*0 to 4"),
        ({"size": 40, "every": 5, "gap": 5, "fold": -1}, "--fold -1.*0 to 4"),
    ],
)
def test_blocks_that_make_no_sense_are_refused(rule: dict[str, int], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        block_split(frames(200), **rule)


def test_blocks_of_redkitchen_are_those_of_its_file(shared: Path, scene_of: SceneOf) -> None:
    folder = shared / "data/7scenes/redkitchen"
    scene = scene_of(sorted(f"seq-01/{p.name}" for p in folder.glob("seq-01/*.color.jpg")))
    expected = json.loads((folder / "split_blocks.json").read_text())
    split = apply_split(scene, "blocks:40/5/5")
    assert {part: list(names) for part, names in split.splits.items()} == expected
    assert apply_split(scene, "blocks:40/5/5", 4).splits == split.splits
    assert apply_split(scene, str(folder / "split_blocks.json")).splits == split.splits
    assert split.provenance["split"] == "blocks:40/5/5 fold 4"


def test_rules_apply_to_each_sequence_even_when_they_alternate(scene_of: SceneOf) -> None:
    one, two = frames(50, "one"), frames(50, "two")
    mixed = scene_of([name for pair in zip(one, two, strict=True) for name in pair])
    for rule in ("blocks:5/3/2", "last:20%"):
        splits = apply_split(mixed, rule).splits
        for names in (one, two):
            alone = apply_split(scene_of(names), rule).splits
            for part in ("train", "test"):
                assert [n for n in splits[part] if n in names] == list(alone[part])


@given(count=st.integers(20, 400), percent=st.integers(1, 60))
def test_last_share_is_test_and_five_frames_before_it_are_left_out(
    scene_of: SceneOf, count: int, percent: int
) -> None:
    splits = apply_split(scene_of(frames(count)), f"last:{percent + 4}%").splits
    train, test = numbers(splits["train"]), numbers(splits["test"])
    assert test == list(range(count - len(test), count))
    assert len(test) == pytest.approx(count * (percent + 4) / 100, abs=0.5)
    assert train == list(range(count - len(test) - 5))


def test_share_may_be_a_fraction_of_a_percent(scene_of: SceneOf) -> None:
    assert len(apply_split(scene_of(frames(400)), "last:12.5%").splits["test"]) == 50


def test_each_sequence_is_test_once_by_default_the_last(scene_of: SceneOf) -> None:
    parts = [frames(4, "b"), frames(3, "a"), frames(5, "c")]
    scene = scene_of([name for part in parts for name in part])
    for fold, part in enumerate(parts):
        split = apply_split(scene, "sequence", fold)
        assert list(split.splits["test"]) == part
        assert list(split.splits["train"]) == [n for n in scene.images if n not in part]
        assert split.provenance["split"] == f"sequence fold {fold}"
    assert apply_split(scene, "sequence").splits["test"] == tuple(parts[2])


def test_official_split_is_what_the_reader_found(scene_of: SceneOf) -> None:
    names = tuple(frames(4))
    scene = scene_of(names, splits={"train": names[2:], "test": names[:2]})
    split = apply_split(scene, "official")
    assert split.splits == scene.splits
    assert split.provenance["split"] == "official"


def test_file_may_name_another_suffix(scene_of: SceneOf, tmp_path: Path) -> None:
    names = frames(4)
    file = tmp_path / "mine.json"
    renamed = [name.replace(".png", ".jpg") for name in names]
    file.write_text(json.dumps({"train": renamed[1:], "test": names[:1]}))
    split = apply_split(scene_of(names), str(file))
    assert split.splits == {"train": tuple(names[1:]), "test": tuple(names[:1])}
    assert split.provenance["split"] == "mine.json"


def test_exact_name_comes_before_another_suffix(scene_of: SceneOf, tmp_path: Path) -> None:
    names = ("a.jpg", "a.png", "b.jpg", "b.png")
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"train": ["a.jpg", "a.png"], "test": ["b.jpg", "b.png"]}))
    assert apply_split(scene_of(names), str(file)).splits == {
        "train": names[:2],
        "test": names[2:],
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"train": ["seq-01/frame-000000', "mine.json: this is not whole JSON"),
        ("[" * 100_000, "mine.json: this is not whole JSON"),
        ('{"train": [""], "test": []}', "1 images in train"),
        ('{"train": ["seq-01/frame-000000.png"]}', "not a JSON file"),
        ('{"train": "seq-01", "test": "seq-02"}', "not a JSON file"),
        ("[1, 2]", "not a JSON file"),
        ('{"train": null, "test": []}', "not a JSON file"),
        ('{"train": [], "test": ["seq-01/frame-000000.png"]}', "no images for train"),
        ('{"train": ["frame-000000.png"], "test": []}', "1 images in train.*frame-000000.png"),
        (
            '{"train": ["seq-01/frame-000001.png"], "test": ["seq-01/frame-000001.jpg"]}',
            "mine.json: 1 images are in train and in test: seq-01/frame-000001.png",
        ),
        (
            '{"train": ["seq-01/frame-000001.png", "seq-01/frame-000001"], "test": []}',
            "mine.json: images that train names twice: seq-01/frame-000001.png",
        ),
    ],
)
def test_bad_split_file_is_refused(
    content: str, reason: str, scene_of: SceneOf, tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(InputError, match=reason):
        apply_split(scene_of(frames(3)), str(file))


@pytest.mark.parametrize(
    ("rule", "fold", "reason"),
    [
        ("random:20%", None, "--split random:20%: no such rule and no such file"),
        ("blocks:40/5", None, "no such rule"),
        ("nowhere.json", None, "no such file"),
        ("official", None, "without a split"),
        ("sequence", None, "only one sequence"),
        ("blocks:40/5/5", 5, "--fold 5"),
        ("blocks:40/5/5", 0, "leaves no images for train"),
        ("blocks:40/5/5", None, "leaves no images for test"),
        ("last:0%", None, "between 0 and 100"),
        ("last:100%", None, "between 0 and 100"),
        ("last:150%", None, "between 0 and 100"),
        ("last:90%", None, "leaves no images for train"),
        ("last:25%", 1, "--fold 1: --split last:25% has no folds"),
        ("official", 1, "has no folds"),
    ],
)
def test_bad_rule_is_refused(rule: str, fold: int | None, reason: str, scene_of: SceneOf) -> None:
    with pytest.raises(InputError, match=reason):
        apply_split(scene_of(frames(30)), rule, fold)


@pytest.mark.parametrize("fold", [-1, 2])
def test_sequence_out_of_range_is_refused(fold: int, scene_of: SceneOf) -> None:
    scene = scene_of(frames(3, "a") + frames(3, "b"))
    with pytest.raises(InputError, match=re.escape(f"--fold {fold}: there are 2 sequences")):
        apply_split(scene, "sequence", fold)


def test_a_rule_takes_the_place_of_what_own_lists_said(tiny_scene: Scene) -> None:
    tally = Tally(listed=len(tiny_scene), read=len(tiny_scene))
    codes = (*OF_OWN_LISTS, "paths-elsewhere")
    account = Account(images=tally, notices=tuple(Notice(code, "so") for code in codes))
    scene = replace(tiny_scene, account=account)
    for rule, kept in (("official", codes), ("last:25%", codes[-1:]), ("blocks:4/2/0", codes[-1:])):
        told = apply_split(scene, rule).account
        assert told is not None
        assert tuple(notice.code for notice in told.notices) == kept


def test_a_file_may_say_that_there_are_no_test_images(scene_of: SceneOf, tmp_path: Path) -> None:
    file = tmp_path / "split.json"
    content = json.dumps({"train": frames(3), "test": []})
    file.write_bytes(b"\xef\xbb\xbf" + content.encode())  # as some editors mark a text
    scene = apply_split(scene_of(frames(5)), str(file))
    assert scene.splits == {"train": tuple(frames(3)), "test": ()}
