"""Time stamps: the pose nearest to an image, by an independent search, in any unit."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listing import photo, pose, quaternion, words

from relocal.datasets.stamps import MAX_APART_S, match_stamps
from relocal.datasets.tum import read_tum
from relocal.errors import InputError

EPOCH_NS = 1305031100170304000
PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def stamped(times: list[str]) -> list[tuple[str, str]]:
    return [(f"line {i}", time) for i, time in enumerate(times)]


def sound(count: int) -> np.ndarray:
    return np.zeros(count, dtype=np.bool_)


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=30),
    st.lists(st.integers(0, 5000), min_size=1, max_size=30),
    st.integers(0, 10**9),
)
@settings(max_examples=50)
def test_nearest_pose_is_taken(images: list[int], poses: list[int], start: int) -> None:
    """Milliseconds as text, against a search through all with fractions."""
    as_text = [[f"{start + t // 1000}.{t % 1000:03d}" for t in times] for times in (images, poses)]
    matched = match_stamps(stamped(as_text[0]), stamped(as_text[1]), sound(len(poses)))
    assert [images[i] for i in matched.order] == sorted(images)
    for i, row in zip(matched.order, matched.rows, strict=True):
        apart = min(abs(images[i] - t) for t in poses)
        if row is None:
            assert apart > 1000 * MAX_APART_S
        else:
            assert abs(images[i] - poses[row]) == apart <= 1000 * MAX_APART_S


def in_unit(times_ns: list[int], unit: str, start_ns: int) -> list[str]:
    exact = [Fraction(t + start_ns, 10**9) * PER_SECOND[unit] for t in times_ns]
    return [str(int(t)) if t.denominator == 1 else f"{float(t):.6f}" for t in exact]


@pytest.mark.parametrize("theirs", PER_SECOND)
@pytest.mark.parametrize("mine", PER_SECOND)
@pytest.mark.parametrize("start_ns", [EPOCH_NS // 10**9 * 10**9, 0])
def test_unit_of_each_file_is_recognised(mine: str, theirs: str, start_ns: int) -> None:
    images = [33_000_000 * k for k in range(300)]  # ten seconds
    poses = [10_000_000 * k + 4_000_000 for k in range(1000)]
    matched = match_stamps(
        stamped(in_unit(images, mine, start_ns)),
        stamped(in_unit(poses, theirs, start_ns)),
        sound(len(poses)),
    )
    nearest = [int(np.abs(np.array(poses) - t).argmin()) for t in images]
    assert matched.order == list(range(300))
    rows = [-9 if row is None else row for row in matched.rows]
    assert np.abs(np.subtract(rows, nearest)).max() <= 1  # a tie may go either way
    told = [
        f"{f}: its time stamps are taken as {u}."
        for f, u in (("rgb.txt", mine), ("groundtruth.txt", theirs))
        if u != "seconds"
    ]
    assert [notice.text for notice in matched.notices] == told


def test_nanoseconds_keep_all_their_digits() -> None:
    times = [str(EPOCH_NS + k) for k in (2, 0, 1)]  # a float would take these for one
    assert match_stamps(stamped(times), stamped(times), sound(3)).order == [1, 2, 0]


@pytest.mark.parametrize("gap", [50.0, 50.5, 0.03])
@pytest.mark.parametrize("count", [2, 40])
def test_other_clock_is_no_other_unit(count: int, gap: float) -> None:
    """Seconds that begin elsewhere are not squeezed until they fit."""
    images = stamped([str(k) for k in range(count)])
    poses = stamped([f"{count + gap + k}" for k in range(count)])
    matched = match_stamps(images, poses, sound(count))
    assert matched.rows == [None] * count
    assert matched.notices == ()


def test_lost_pose_is_not_made_up_from_its_neighbour() -> None:
    """At 60 frames a second the next pose is near, but of another image."""
    matched = match_stamps(
        stamped(["1.0", "2.0", "3.0"]),
        stamped(["1.0", "1.01", "2.0", "2.0"]),
        np.array([True, False, True, False]),
    )
    assert matched.rows == [0, 3, None]  # of two of one time the one that is there


@given(st.integers(2, 60), st.sets(st.integers(0, 59)))
def test_every_lost_row_of_a_fast_recording_is_an_image_without_a_pose(
    count: int, gone: set[int]
) -> None:
    times = [f"{100 + k / 60:.6f}" for k in range(count)]
    lost = np.array([k in gone for k in range(count)])
    assert match_stamps(stamped(times), stamped(times), lost).rows == list(range(count))


@pytest.mark.parametrize(
    "word", ["x", "nan", "inf", "1e999999999", "9" * 5000, "-1e30", "1.#IND", "0x10"]
)
def test_senseless_stamp_is_refused_by_its_line(word: str) -> None:
    with pytest.raises(InputError, match=r"line 1: .*stamp"):
        match_stamps(stamped(["1", word]), stamped(["1"]), sound(1))


def recording(root: Path, offset_s: float, near: int) -> Path:
    """Ten images; poses of ``near`` of them, and of times ``offset_s`` later."""
    (root / "cameras.txt").write_text("1 PINHOLE 32 24 30 30 16 12")
    listing = [f"{k} {photo(root / f'{k}.png').name}" for k in range(10)]
    (root / "rgb.txt").write_text("\n".join(listing))
    rows: list[str] = []
    for k in range(10):
        w, x, y, z = quaternion(k)
        time = k if k < near else k + offset_s
        rows.append(words([time, *pose(k)[:3, 3], x, y, z, w]))
    (root / "groundtruth.txt").write_text("\n".join(rows))
    return root


def test_both_time_ranges_are_told(tmp_path: Path) -> None:
    ranges = r"Images are from 0\.000 to 9\.000 s, poses from {}\.500 to {}\.500 s"
    with pytest.raises(InputError, match=ranges.format(1000, 1009) + ".*two clocks"):
        read_tum(recording(tmp_path, 1000.5, 0))
    scene = read_tum(recording(tmp_path, 1000.5, 3))
    assert len(scene) == 3
    assert scene.account is not None
    assert [notice.code for notice in scene.account.notices] == ["clocks-apart"]
    assert "to 1009.500 s" in scene.account.notices[0].text


@pytest.mark.parametrize("poses", ["first half", "every tenth", "two of three"])
@pytest.mark.parametrize("start_ns", [0, 5 * 10**9, 3600 * 10**9])
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("nanoseconds", "seconds"),
        ("seconds", "nanoseconds"),
        ("nanoseconds", "nanoseconds"),
        ("microseconds", "seconds"),
    ],
)
def test_unit_is_recognised_where_tracking_was_lost(
    mine: str, theirs: str, start_ns: int, poses: str
) -> None:
    """Since the boot, of a recording of which a part has poses."""
    images = [33_333_000 * k for k in range(300)]
    kept = {"first half": range(140), "every tenth": range(0, 300, 10)}
    rows = kept.get(poses, [k for k in range(300) if k % 3])
    known = [images[k] + 1_000_000 for k in rows]
    matched = match_stamps(
        stamped(in_unit(images, mine, start_ns)),
        stamped(in_unit(known, theirs, start_ns)),
        sound(len(known)),
    )
    row = {k: i for i, k in enumerate(rows)}
    assert [matched.rows[k] for k in rows] == [row[k] for k in rows]
    assert sum(r is not None for r in matched.rows) <= 2 * len(rows)
    assert str(start_ns // 10**9) + ".000 to" in matched.ranges
