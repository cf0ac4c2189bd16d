"""Frames of videos: which are chosen, and videos that are none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from relocal.camera import Camera
from relocal.cli.asking import asking, photos_of
from relocal.errors import InputError
from relocal.images import Source, fit_camera, upright_size
from relocal.sfm import LabelConfig, label
from relocal.sfm.frames import (
    FrameLooks,
    choose_frames,
    greys,
    look_at,
    motion_between,
    stated_length,
    video_frames,
    write_frames,
)
from relocal.sfm.sources import gather

FRAMES, WIDTH, HEIGHT = 40, 320, 240


def quiet(done: int, total: int, text: str) -> None:
    """Reports nothing."""


def scenery() -> np.ndarray:
    """A wide picture that a camera pans over."""
    coarse = np.random.default_rng(0).integers(0, 255, (60, 240, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((1920, 480), Image.Resampling.BICUBIC))


def film(path: Path, frames: list[np.ndarray]) -> Path:
    codec: Any = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), codec, 30, (WIDTH, HEIGHT))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame))
    writer.release()
    return path


def pan(step_px: int, count: int = FRAMES) -> list[np.ndarray]:
    picture = scenery()
    return [picture[100 : 100 + HEIGHT, i * step_px : i * step_px + WIDTH] for i in range(count)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pan by 16 pixels a frame, a twentieth of the width; every fourth frame is blurred."""
    frames = pan(16)
    frames[::4] = [cv2.GaussianBlur(frame, (0, 0), 4) for frame in frames[::4]]
    return film(tmp_path_factory.mktemp("videos") / "walk.mp4", frames)


motions = st.lists(st.floats(0, 0.3), min_size=1, max_size=200)


@given(motion=motions, seed=st.integers(0, 9), step=st.floats(0.01, 0.5), most=st.integers(1, 60))
def test_chosen_frames_rise_and_are_as_many_as_the_motion_asks_for(
    motion: list[float], seed: int, step: float, most: int
) -> None:
    sharpness = np.random.default_rng(seed).random(len(motion))
    looks = FrameLooks(sharpness, np.array(motion), len(motion))
    chosen = choose_frames(looks, step, most)
    assert chosen == sorted(set(chosen))
    assert 1 <= len(chosen) <= max(1, min(most, round(sum(motion) / step)))
    assert 0 <= chosen[0] <= chosen[-1] < len(motion)


def test_a_steady_walk_gives_equal_steps_and_its_sharpest_frames() -> None:
    sharpness = np.tile([1.0, 5.0, 2.0, 9.0, 3.0], 40)
    chosen = choose_frames(FrameLooks(sharpness, np.full(200, 0.01), 200), 0.05, 1000)
    assert len(chosen) == 40
    assert np.diff(chosen).min() >= 2
    assert np.diff(chosen).max() <= 8
    assert sharpness[chosen].mean() > 7
    assert len(choose_frames(FrameLooks(sharpness, np.full(200, 0.01), 200), 0.05, 12)) == 12


def test_frames_are_taken_where_the_camera_moves() -> None:
    motion = np.r_[np.zeros(100), np.full(100, 0.02)]
    chosen = choose_frames(FrameLooks(np.ones(200), motion, 200), 0.1, 1000)
    assert len(chosen) == 20
    assert min(chosen[1:]) > 100


def test_motion_is_the_shift_of_the_picture() -> None:
    picture = cv2.cvtColor(scenery(), cv2.COLOR_RGB2GRAY)
    one, other = (np.ascontiguousarray(picture[:240, x : x + 320]) for x in (200, 216))
    assert motion_between(one, other) == pytest.approx(16 / 320, abs=0.002)
    assert motion_between(one, one) == 0
    elsewhere = np.ascontiguousarray(picture[200:440, 1400:1720])
    assert motion_between(one, elsewhere) == 0.25  # a cut
    assert motion_between(np.full_like(one, 9), one) == 0  # a white wall: nothing to follow


def test_the_sharp_frames_of_a_video_are_written(video: Path, tmp_path: Path) -> None:
    looks = look_at(greys(video), stated_length(video)[0], "walk", quiet)
    assert len(looks.motion) == looks.stated == FRAMES
    assert np.median(looks.motion[1:]) == pytest.approx(0.05, abs=0.01)
    assert looks.sharpness[::4].max() < np.delete(looks.sharpness, np.s_[::4]).min()
    chosen = choose_frames(looks, 0.15, 1000)
    assert not [i for i in chosen if i % 4 == 0]
    names = write_frames(video, chosen, tmp_path / "frames", quiet)
    assert names == [f"frame-{i:06d}.jpg" for i in chosen]
    with Image.open(tmp_path / "frames" / names[5]) as image:
        written = np.asarray(image)[..., ::-1].astype(float)
    assert np.abs(written - pan(16)[chosen[5]]).mean() < 12
    before = (tmp_path / "frames" / names[0]).stat().st_mtime_ns
    (tmp_path / "frames" / names[-1]).unlink()
    write_frames(video, chosen, tmp_path / "frames", quiet)  # what is there stays
    assert (tmp_path / "frames" / names[0]).stat().st_mtime_ns == before
    assert (tmp_path / "frames" / names[-1]).is_file()


def test_frames_of_a_video_are_a_recording_with_one_camera(video: Path, tmp_path: Path) -> None:
    found = gather([video], tmp_path, LabelConfig(step=0.15), quiet)
    photos = found.photos
    assert {photo.recording for photo in photos} == {"walk"}
    assert all(photo.from_video and photo.size == (WIDTH, HEIGHT) for photo in photos)
    assert not found.left
    assert found.passed_over == FRAMES - len(photos)
    assert gather([video], tmp_path, LabelConfig(step=0.15), quiet) == found


def test_a_rate_bounds_the_frames_of_a_video(video: Path, tmp_path: Path) -> None:
    count, rate = stated_length(video)
    assert count == FRAMES
    assert rate == 30
    config = LabelConfig(step=0.01)
    every = gather([video], tmp_path, config, quiet).photos
    some = gather([video], tmp_path, replace(config, rate=4.5), quiet).photos
    assert len(some) == 6 < len(every)  # of 40 at 30 a second
    assert gather([video], tmp_path, replace(config, rate=1000.0), quiet).photos == every
    with pytest.raises(InputError, match=r"--rate 0\.1: leaves one frame"):
        gather([video], tmp_path, replace(config, rate=0.1), quiet)


def test_a_folder_of_a_videos_frames_is_thinned_as_the_video_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relocal.sfm.sources.ALL_UP_TO", 60)
    for i, frame in enumerate(pan(8, 80)):
        (tmp_path / "walk").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "walk" / f"{i:03d}.png"), frame)
    found = gather([tmp_path / "walk"], tmp_path / "work", LabelConfig(step=0.1), quiet)
    assert 18 <= len(found.photos) <= 21
    assert found.passed_over == 80 - len(found.photos)
    assert all(photo.from_video for photo in found.photos)
    # Photos that move more from one to the next are taken as they are, as are few.
    assert (
        len(gather([tmp_path / "walk"], tmp_path / "work", LabelConfig(step=0.02), quiet).photos)
        == 80
    )
    for i in range(60, 80):
        (tmp_path / "walk" / f"{i:03d}.png").unlink()
    assert (
        len(gather([tmp_path / "walk"], tmp_path / "work", LabelConfig(step=0.1), quiet).photos)
        == 60
    )


def test_videos_that_are_none_or_stand_still_are_refused(tmp_path: Path, video: Path) -> None:
    still = film(tmp_path / "still.mp4", pan(0))
    (tmp_path / "none.mp4").write_bytes(b"%PDF-1.4 no video")
    (tmp_path / "half.mp4").write_bytes(video.read_bytes()[:5000])
    for file, reason in (
        (still, "still.mp4: the picture hardly moves in its 40 frames"),
        (tmp_path / "none.mp4", "none.mp4: is no video that can be read"),
        (tmp_path / "half.mp4", "half.mp4: is no video that can be read"),
    ):
        with pytest.raises(InputError, match=reason):
            label([file], tmp_path / "out", LabelConfig())


def test_a_video_that_ends_early_is_told_of(tmp_path: Path, video: Path) -> None:
    content = bytearray(video.read_bytes())
    start, size = content.index(b"mdat") + 4, content.index(b"moov") - content.index(b"mdat")
    middle = start + size // 2
    content[middle : start + size - 8] = bytes(start + size - 8 - middle)  # lost, as of a bad disk
    (tmp_path / "cut.mp4").write_bytes(content)
    found = gather([tmp_path / "cut.mp4"], tmp_path / "work", LabelConfig(step=0.15), quiet)
    assert found.photos
    assert found.left.keys() == {"cut.mp4"}
    assert "of its 40 frames: it is cut short" in found.left["cut.mp4"]


def not_square(video: Path, shown: tuple[int, int]) -> Path:
    """The same video with another size in its track's header: that it is shown at."""
    data = bytearray(video.read_bytes())
    at = data.find(b"tkhd")
    size = at + 8 + (32 if data[at + 4] else 20) + 52
    data[size : size + 8] = b"".join((side << 16).to_bytes(4, "big") for side in shown)
    other = video.with_name(f"{shown[0]}-{shown[1]}.mp4")
    other.write_bytes(data)
    return other


@pytest.mark.parametrize(
    ("shown", "size"),
    [((320, 240), (320, 240)), ((427, 240), (427, 240)), ((240, 240), (320, 320))],
)
def test_pixels_become_square_and_nothing_is_lost(
    video: Path, shown: tuple[int, int], size: tuple[int, int]
) -> None:
    frames = list(video_frames(not_square(video, shown)))
    stored = list(video_frames(video))
    assert len(frames) == len(stored)
    assert frames[0].shape == (size[1], size[0], 3)
    if size == (WIDTH, HEIGHT):
        assert all(np.array_equal(a, b) for a, b in zip(frames, stored, strict=True))
    wanted = np.asarray(Image.fromarray(stored[1]).resize(size, Image.Resampling.BICUBIC))
    assert np.abs(frames[1].astype(float) - wanted).mean() < 3


def test_labelling_and_localizing_see_the_same_square_frames(video: Path, tmp_path: Path) -> None:
    wide = not_square(video, (427, 240))
    (name,) = write_frames(wide, [5], tmp_path, quiet)
    with Image.open(tmp_path / name) as labelled:
        assert labelled.size == (427, 240)
    asked = [bytes_ for _, bytes_ in photos_of([wide])]
    assert isinstance(asked[5], bytes)
    assert upright_size(asked[5]) == (427, 240)


def test_a_camera_of_the_stored_pixels_is_told_why_it_does_not_fit(video: Path) -> None:
    class Fits:
        method = "structure"
        calibration = None

        def localize(self, image: Source, camera: Camera | None = None) -> None:
            assert camera is not None
            fit_camera(camera, *upright_size(image), "photo")

    stored = Camera.pinhole(320, 240, 300.0, 300.0, 160.0, 120.0)
    ask = asking("map", Fits(), stored, reject=False, step=None)
    name, frame = next(iter(photos_of([not_square(video, (427, 240))])))
    with pytest.raises(InputError, match=r"mp4:000000: 427 x 240 .*resampled to square"):
        ask(name, frame)


def test_pixels_of_a_shape_that_none_has_are_refused(video: Path) -> None:
    with pytest.raises(InputError, match="square pixels"):
        next(video_frames(not_square(video, (3200, 240))))
