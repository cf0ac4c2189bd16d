"""The demo: the whole way, once."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import relocal
from relocal import demonstration
from relocal.datasets.room.config import RoomConfig
from relocal.errors import InputError
from relocal.training import TrainConfig


def test_demo_goes_the_whole_way_and_keeps_what_is_finished(
    tmp_path: Path, tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = RoomConfig(train_frames=9, test_frames=3, width_px=80, height_px=60, textureless=True)
    said: list[str] = []
    report, page, line = relocal.demo(
        tmp_path / "demo", lambda *call: said.append(call[2]), tiny_config, room
    )
    assert page == tmp_path / "demo" / "report" / "report.html"
    assert {path.name for path in page.parent.iterdir()} >= {
        "report.json",
        "report.md",
        "top_view.png",
    }
    assert report.localizers() == ["posenet"]
    assert len(report.images) == 3
    assert "frame-000000.jpg: at " in line
    assert {"rendering", "checking images", "reading images", "posenet"} <= set(said)

    def no_training(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it was trained already")

    monkeypatch.setattr(demonstration, "train", no_training)
    again, same_page, same_line = relocal.demo(tmp_path / "demo", config=tiny_config, room=room)
    assert same_page == page
    assert same_line.split(";")[0] == line.split(";")[0]  # then comes the time
    assert again.summary()["posenet"]["median_position"] == pytest.approx(
        report.summary()["posenet"]["median_position"]
    )
    shutil.rmtree(tmp_path / "demo" / "scene")
    with pytest.raises(InputError, match="seed"):
        relocal.demo(tmp_path / "demo", config=tiny_config, room=replace(room, seed=3))
