"""Training with labels of ``relocal label``, against training with known poses of the same photos.

    python bench/label_training.py [IMAGES --poses FILE] [--step 0.02] [--out FILE]

IMAGES is the folder of one recording whose poses FILE knows (lines ``name qw qx qy qz tx ty tz f``,
``cam_from_world``); without it a room is rendered. Its photos are labelled without the poses; the
similarity that fits best gives the labels the metres and axes of these. Then the same networks are
trained with either labels, on the same photos, folds and seeds, and each is judged by the labels
that it was trained with. Every photo is tested by the fold that leaves it out; settings are tried
on validation blocks.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from labels import rendered

import relocal
from relocal.datasets.pose_lines import read_label_file
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene.files import write_json
from relocal.studies import SceneErrors, StudyConfig
from relocal.studies.methods import DEPTHS
from relocal.studies.statistics import Quantity, block_medians, compare
from relocal.training.run import environment

METHODS = ("default", "posenet/robust=huber/model.rotation=9d")
SPLIT = "blocks:20/5/2"


def both_scenes(images: Path, poses: Path, step: float, folder: Path) -> list[relocal.Scene]:
    """The photos with labels of their own and with the known poses."""
    config = relocal.LabelConfig(step=step)
    made = relocal.label([images], folder / "ours", config, scale=str(poses), split=SPLIT)
    rows = read_label_file(poses)
    found = [rows[str(Path(name).with_suffix(""))] for name in made.scene.images]
    values = torch.tensor(found, dtype=torch.float64)
    known = Pose.from_colmap(values[:, :4], values[:, 4:7])
    camera = made.scene.cameras[0]
    pinhole = relocal.Camera(
        "SIMPLE_PINHOLE",
        camera.width,
        camera.height,
        torch.tensor([float(values[0, 7]), camera.width / 2, camera.height / 2]).double(),
    )
    theirs = replace(made.scene, name="known", poses=known, cameras=(pinhole,), points=None)
    return [made.scene, relocal.save_scene(theirs, folder / "known")]


def contrast(ours: SceneErrors, known: SceneErrors, method: str, quantity: Quantity) -> Any:
    """How much larger errors are with labels of one's own, over blocks."""
    attribute = {"position": "position", "rotation": "rotation_deg"}[quantity]
    medians = [
        block_medians(getattr(scene.methods[method], attribute), scene.block)
        for scene in (ours, known)
    ]
    return compare(medians[0], medians[1], names=("own labels", "known poses"), quantity=quantity)


def main() -> None:
    """Labels, trains, compares and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--step", type=float, default=0.02)
    parser.add_argument(
        "--out", type=Path, help="default: results/label_training.json, or ..._room.json"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, images, poses = Path(temporary), given.images, given.poses
        if images is None:
            images, poses = rendered(folder, 240)
        own, known = both_scenes(images, poses, given.step, folder)
        moved = position_error(own.poses, known.poses).median()
        turned = rotation_error_deg(own.poses, known.poses).median()
        print(f"{len(own)} photos; labels differ by {100 * moved:.2f} cm, {turned:.2f} deg")
        config = StudyConfig(
            losses=",".join(METHODS),
            train="tail",
            tune_train="head",
            folds="all",
            seeds=3,
            final=True,
        )
        base = replace(DEPTHS["tail"], epochs=8)
        study = relocal.study([folder / "ours", folder / "known"], folder / "study", config, base)
        ours, theirs = study.scenes[own.name], study.scenes[known.name]
        rows = [row_of(ours, theirs, method) for method in METHODS]
    out = given.out or Path(f"results/label_training{'' if given.images else '_room'}.json")
    write_json(
        out,
        {
            "photos": len(own),
            "blocks": len(set(ours.block.tolist())),
            "labels_differ": {"median_cm": 100 * float(moved), "median_deg": float(turned)},
            "rows": rows,
            "made_by": environment(),
        },
    )


def row_of(ours: SceneErrors, known: SceneErrors, method: str) -> dict[str, Any]:
    """Medians of a method with either labels, and their difference."""
    row: dict[str, Any] = {"method": method}
    for name, scene in (("own", ours), ("known", known)):
        errors = scene.methods[method]
        row[name] = {
            "median_cm": 100 * float(torch.from_numpy(errors.position).median(1).values.mean()),
            "median_deg": float(torch.from_numpy(errors.rotation_deg).median(1).values.mean()),
        }
    for quantity in ("position", "rotation"):
        found = contrast(ours, known, method, quantity)
        row[quantity] = {
            "percent": found.percent_change,
            "interval": found.percent_interval,
            "verdict": found.verdict,
        }
    print(row)
    return row


if __name__ == "__main__":
    main()
