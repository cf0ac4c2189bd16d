"""What the preset ``proposed`` costs beside ``default``: the same network, seen from outside.

    python bench/proposed.py [--out results/proposed_cost.json]

Both train the same PoseNet (GoogLeNet, relocal's own options) on the same rendered photos; rates
alternate within one run, and ratios are what matters.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from speed import latency_ms

import relocal
from relocal.training import PRESETS
from relocal.training.run import environment

ROOM = relocal.RoomConfig(train_frames=256, test_frames=40, width_px=640, height_px=480)
ROUNDS = 7
NAMES = ("default", "proposed")


def config_of(name: str) -> relocal.TrainConfig:
    """Everything but the loss and what it asks of the network is equal."""
    config = PRESETS["proposed"] if name == "proposed" else relocal.TrainConfig()
    return replace(
        config, backbone=relocal.BackboneConfig(name="googlenet", weights="none"), epochs=2
    )


def main() -> None:
    """Measures and prints; with --out also writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    out = parser.parse_args().out
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in NAMES}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        relocal.render_room(folder / "room", ROOM)
        scene = relocal.import_scene("synthetic", folder / "room", folder / "scene")
        files = [scene.path(i) for i in scene.indices("test").tolist()]
        for k in range(ROUNDS):
            for name in NAMES[:: 1 if k % 2 else -1]:  # who goes first changes, too
                place = folder / f"{name}-{k}"
                run = relocal.train(scene, place, config_of(name))
                localizer = relocal.Regressor(place)
                measured = {
                    "training_images_per_s": run.epochs()[-1]["images_per_s"],
                    "photo_to_pose_ms": latency_ms(
                        lambda file, ask=localizer: ask.localize(file, scene.camera(0)), files
                    ),
                    "weights_mb": (place / "weights.safetensors").stat().st_size / 1e6,
                    "parameters": sum(p.numel() for p in localizer.model.parameters()),
                }
                print(name, {key: round(value, 2) for key, value in measured.items()}, flush=True)
                for key, value in measured.items():
                    rows[name].setdefault(key, []).append(value)
    keys = rows["default"].keys()
    result = {
        **{name: {k: statistics.median(rows[name][k]) for k in keys} for name in NAMES},
        # Round by round, so that a slow moment of the machine meets both.
        "ratio": {
            k: statistics.median(
                b / a for a, b in zip(*(rows[name][k] for name in NAMES), strict=True)
            )
            for k in keys
        },
        "network": "PoseNet on googlenet, 144 x 192, batch 32; photos of 640 x 480",
        "made_by": environment(),
    }
    print(json.dumps(result, indent=1))
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
