"""The order of recording: numbers by what they count, folders in one piece."""

from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from listing import READ, Build, cambridge, colmap, nerfstudio, photo, reader_of, seven_scenes

from relocal.cli.asking import photos_in
from relocal.datasets import DATASETS
from relocal.scene.order import natural_key
from relocal.sfm import LabelConfig
from relocal.sfm.sources import gather

PARTS = st.text(st.sampled_from("aAb019\u0663² ._-é"), min_size=1, max_size=5)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


def in_order(*names: str) -> bool:
    return sorted(names, key=natural_key) == list(names)


@given(st.lists(NAMES, unique=True, max_size=30))
def test_order_is_total_and_does_not_depend_on_where_names_come_from(names: list[str]) -> None:
    once = sorted(names, key=natural_key)
    assert len({natural_key(name) for name in names}) == len(names)
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == once
    # A folder's photos stand together.
    folders = [folder for folder, _ in groupby(once, lambda name: name.rpartition("/")[0])]
    assert len(folders) == len(set(folders))


@given(st.lists(st.integers(0, 10**30), unique=True), st.sampled_from(["", "img", "IMG_", "a/7/x"]))
def test_numbers_are_in_the_order_of_counting(numbers: list[int], prefix: str) -> None:
    names = [f"{prefix}{number}.jpg" for number in numbers]
    counted = [f"{prefix}{number}.jpg" for number in sorted(numbers)]
    assert sorted(names, key=natural_key) == counted


@given(st.lists(st.tuples(*[st.integers(0, 300)] * 3), unique=True))
def test_each_number_of_a_name_counts(rows: list[tuple[int, int, int]]) -> None:
    names = [f"seq{a}/cam{b}_t{c}.png" for a, b, c in rows]
    assert sorted(names, key=natural_key) == [f"seq{a}/cam{b}_t{c}.png" for a, b, c in sorted(rows)]


def test_names_that_photos_have() -> None:
    assert in_order("1.jpg", "2.jpg", "10.jpg", "100.jpg")
    assert in_order("IMG_9.JPG", "img_10.jpg", "IMG_11.JPG")
    assert in_order("01.jpg", "1.jpg", "02.jpg", "2.jpg")
    assert in_order("seq-2/frame-1.png", "seq-10/frame-0.png")
    assert in_order("a/b/1.jpg", "a/2.jpg", "a/10.jpg", "b/1.jpg", "0.jpg")
    assert in_order("1305031100.170304.png", "1305031100.203304.png", "1305031101.1.png")
    assert in_order("x\u0662.jpg", "x3.jpg", "x\u0661\u0660.jpg")  # two, three, ten
    assert in_order("x1.jpg", "x10.jpg", "x².jpg")  # a superscript is a letter, and no failure
    long = "9" * 5000  # more digits than int() takes
    assert in_order("2.jpg", f"1{long}.jpg", f"2{long}.jpg")


NUMBERS = (1, 2, 9, 10, 11, 100)


@pytest.mark.parametrize("build", [seven_scenes, cambridge, colmap, nerfstudio])
def test_readers_keep_the_order_of_recording(build: Build, tmp_path: Path) -> None:
    build(tmp_path, [READ] * 12)
    for file in list(tmp_path.rglob("frame-*")):  # numbers without zeros in front
        number, _, rest = file.name.removeprefix("frame-").partition(".")
        file.rename(file.with_name(f"frame-{int(number)}.{rest}"))
    scene = DATASETS[reader_of(build)](tmp_path)
    order = [int("".join(c for c in Path(name).name if c.isdigit())) for name in scene.images]
    assert order == list(range(12))
    # Poses went with the names.
    along = scene.poses.position[:, 0].tolist()
    assert along == sorted(along)


def test_label_and_folders_of_photos_keep_it(tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    for seed, number in enumerate(NUMBERS[::-1]):
        photo(folder / f"{number}.jpg", seed=seed)
        photo(folder / f"part{number}/0.jpg", seed=seed + 9)
    found = gather([folder], tmp_path / "work", LabelConfig(), lambda done, total, text: None)
    names = [f"walk/part{n}/0.jpg" for n in NUMBERS] + [f"walk/{n}.jpg" for n in NUMBERS]
    assert [photo.name for photo in found.photos] == names
    assert [f"walk/{file.relative_to(folder)}" for file in photos_in(folder)] == names
