"""Labels of a large rendered room of two recordings, from photos alone, against its exact poses.

    python bench/label_room.py --work DIR [--train 2000 --test 1200] [--out FILE]

The room is rendered, its two recordings are labelled together by the verb ``label`` (every photo is
taken), and the poses are compared with those that it was rendered from, after the one similarity
that fits best. Then the labelled scene is published and imported again, and the two are compared
byte by byte. What is in DIR already is kept: a run that was stopped goes on, and its time is added.
"""

import argparse
import filecmp
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import relocal
from relocal.datasets.synthetic import read_synthetic
from relocal.pose import position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.scene.files import read_json, write_json
from relocal.sfm.alignment import fitted
from relocal.training.run import environment

ROOM = relocal.RoomConfig(train_lap_frames=250, test_lap_frames=200, width_px=320, height_px=240)


def labelled(room: Path, work: Path) -> Scene:
    """The room's photos, labelled in a process of its own, which tells its memory."""
    scene, spent = work / "scene", work / "spent.json"
    if not (scene / "label.json").is_file():
        before = read_json(spent) if spent.is_file() else {"seconds": 0.0, "peak_mib": 0.0}
        words = [room / "seq-01", room / "seq-02", "--out", scene, "--split", "sequence"]
        every = ["--step", "0.0001", "--frames", "1000000"]
        began = time.perf_counter()
        done = subprocess.Popen(
            [sys.executable, "-m", "relocal", "label", *map(str, words), *every]
        )
        _, status, usage = os.wait4(done.pid, 0)
        now = {
            "seconds": before["seconds"] + time.perf_counter() - began,
            "peak_mib": max(before["peak_mib"], usage.ru_maxrss / 1024),
        }
        write_json(spent, now)
        if status:
            raise SystemExit(os.waitstatus_to_exitcode(status))
    return relocal.load_scene(scene)


def errors(made: Scene, truth: Scene) -> dict[str, Any]:
    """How many photos were placed and how well, all and by recording."""
    row = {name: i for i, name in enumerate(truth.images)}
    wanted = truth.poses[torch.tensor([row[name] for name in made.images])]
    poses = fitted(made.poses.position, wanted.position, "poses").poses(made.poses)
    found: dict[str, Any] = {}
    for name, split in (("all", None), ("first recording", "train"), ("second recording", "test")):
        rows = torch.arange(len(made)) if split is None else made.indices(split)
        moved, turned = position_error(poses, wanted)[rows], rotation_error_deg(poses, wanted)[rows]
        found[name] = {
            "photos": len(truth) if split is None else len(truth.splits[split]),
            "placed": len(rows),
            "median_cm": 100 * float(moved.median()),
            "largest_cm": 100 * float(moved.max()),
            "median_deg": float(turned.median()),
            "largest_deg": float(turned.max()),
        }
    return found


def same_after_publishing(scene: Path, work: Path) -> bool:
    """Whether the scene is the same, byte by byte, when it was published and imported again."""
    published, again = work / "published", work / "again"
    if not published.exists():
        relocal.publish(
            scene, published, relocal.PublishConfig(license="CC0-1.0", author=("relocal",))
        )
    if not again.exists():
        relocal.import_scene("published", published, again)
    parts = [f.relative_to(scene) for f in (scene / "sparse").rglob("*") if f.is_file()]
    parts += [f.relative_to(scene) for f in (scene / "images").rglob("*") if f.is_file()]
    every = [*parts, Path("scene.json")]
    return all(filecmp.cmp(scene / part, again / part, shallow=False) for part in every)


def main() -> None:
    """Renders, labels, compares, publishes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=Path("results/label_room.json"))
    given = parser.parse_args()
    room = given.work / "room"
    given.work.mkdir(parents=True, exist_ok=True)
    if not room.exists():
        relocal.render_room(room, replace(ROOM, train_frames=given.train, test_frames=given.test))
    made, truth = labelled(room, given.work), read_synthetic(room)
    about = read_json(given.work / "scene" / "label.json")
    result = {
        "errors": errors(made, truth),
        "extent_m": truth.extent(),
        "label": {k: v for k, v in about.items() if k != "left_out"},
        **read_json(given.work / "spent.json"),
        "same_after_publishing": same_after_publishing(given.work / "scene", given.work),
        "made_by": environment(),
    }
    write_json(given.out, result)
    print(json.dumps(result["errors"], indent=1), result["seconds"], result["peak_mib"])


if __name__ == "__main__":
    main()
