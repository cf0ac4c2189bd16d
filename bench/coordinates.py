"""The same place in several worlds: how exact are maps, hybrids, alignments and networks?

    python bench/coordinates.py SCENE [--epochs 40] [--every 2] [--out FILE]

SCENE (a metric one with a test split, such as the rendered room) is written once more for each
world: at the origin, in UTM and ECEF coordinates, in millimetres and in kilometres. In each world
a map is made and asked about the test images. A hybrid is asked with the same network guess in all
of them (the nearest training pose). Poses with noise, in a frame of their own, are aligned with the
world's. A regressor is trained at the origin and in UTM. All errors are in metres.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import relocal
from relocal.localizers import Hybrid, MapConfig, Regressor, Structure, build_map
from relocal.metrics import median, nearest_pose, pose_errors
from relocal.pose import Pose, quaternion_exp, quaternion_multiply
from relocal.scene.files import write_json
from relocal.sfm.alignment import Similarity, scaled
from relocal.training.run import environment
from relocal.types import Estimate

WORLDS: dict[str, tuple[float, tuple[float, float, float]]] = {
    "origin": (1.0, (0.0, 0.0, 0.0)),
    "UTM": (1.0, (389212.4, 5819731.8, 54.1)),
    "ECEF": (1.0, (3782970.1, 902154.6, 5038375.9)),
    "millimetres": (1000.0, (0.0, 0.0, 0.0)),
    "kilometres": (0.001, (0.0, 0.0, 0.0)),
}
"""Length of a metre, and where the scene's own origin lies."""


def in_world(scene: relocal.Scene, world: str, folder: Path, every: int) -> relocal.Scene:
    """The scene in another world, on disk; of its images each ``every``-th."""
    length, shift = WORLDS[world]
    rows = torch.arange(0, len(scene), every)
    names = [scene.images[i] for i in rows.tolist()]
    poses = scene.poses[rows]
    moved = Pose(length * poses.position + torch.tensor(shift).double(), poses.quaternion)
    part = replace(
        scene,
        images=tuple(names),
        camera_index=scene.camera_index[rows],
        poses=moved,
        splits={k: tuple(n for n in v if n in set(names)) for k, v in scene.splits.items()},
        points=None,
        folder=None,
    )
    return relocal.save_scene(part, folder / world)


class Guess(Regressor):
    """Answers with the training pose nearest to the true one, whatever the world."""

    def __init__(self, run: relocal.Run, scene: relocal.Scene) -> None:
        names = [scene.images[i] for i in scene.indices("train").tolist()]
        about: dict[str, Any] = {"training_images": tuple(names), "anchors": scene.anchors(names)}
        self.run = replace(run, scene=scene.name, unit=scene.unit, **about)
        self.scene, self.calibration, self.method = scene, None, "guess"
        train, test = scene.poses[scene.indices("train")], scene.poses[scene.indices("test")]
        nearest = train[nearest_pose(test, train, scene.extent())]
        self.guess = {
            scene.path(i).name: nearest[row] for row, i in enumerate(scene.indices("test").tolist())
        }

    def localize(self, image: Any, camera: Any = None) -> Estimate:
        """The guess for a photo of the scene."""
        pose = self.guess[Path(image).name]
        return Estimate(pose=pose, unit=self.run.unit, method=self.method, time_ms=0.0)


def aligned(scene: relocal.Scene) -> list[float]:
    """Median errors (m, °) of poses with noise of 1 cm and 0.3° that are fitted to the world's."""
    length = float(scene.extent()) / EXTENT_M
    generator = torch.Generator().manual_seed(0)
    count = len(scene)
    noise = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    turned = quaternion_multiply(
        scene.poses.quaternion, quaternion_exp(torch.deg2rad(0.3 * noise[:, 3:]) / 2)
    )
    noisy = Pose(scene.poses.position + 0.01 * length * noise[:, :3], turned)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator).double())[0]
    turn = turn * torch.linalg.det(turn)
    middle = scene.poses.position.mean(0)
    own = Similarity(0.4 / length, turn, -0.4 / length * turn @ middle)
    labelled = replace(scene, poses=own.poses(noisy), unit="unit")
    truth = {name: scene.poses[i] for i, name in enumerate(scene.images)}
    made, _ = scaled(labelled, "poses", truth)
    found = pose_errors([made.poses[i] for i in range(count)], scene.poses)
    return [median(found.position) / length, median(found.rotation_deg)]


def asked(localizer: Any, scene: relocal.Scene, length: float) -> list[float]:
    """Median errors in metres and degrees, and how many photos had no answer."""
    found = relocal.evaluate({"asked": localizer}, scene).methods["asked"].errors
    failed = float((~torch.isfinite(torch.as_tensor(found.position))).sum())
    return [median(found.position) / length, median(found.rotation_deg), failed]


def trained(scene: relocal.Scene, folder: Path, epochs: int) -> relocal.Run:
    """A small network on frozen features."""
    config = replace(relocal.PRESETS["frozen"], epochs=epochs)
    return relocal.train(scene, folder, config)


def main() -> None:
    """Makes every world and prints a row for each."""
    global EXTENT_M
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scene, rows = relocal.load_scene(options.scene), dict[str, dict[str, list[float]]]()
    with tempfile.TemporaryDirectory() as temporary:
        folder, first = Path(temporary), None
        for world, (length, _) in WORLDS.items():
            here = in_world(scene, world, folder, options.every)
            if first is None:
                EXTENT_M = here.extent()
                first = trained(here, folder / "run", options.epochs)
                rows[world] = {"regressor": asked(Regressor(first), here, length)}
            elif world == "UTM":
                run = trained(here, folder / "run-utm", options.epochs)
                rows[world] = {"regressor": asked(Regressor(run), here, length)}
            made = build_map(here, MapConfig())
            rows.setdefault(world, {})["structure"] = asked(Structure(made), here, length)
            rows[world]["hybrid"] = asked(Hybrid(Guess(first, here), made), here, length)
            try:
                rows[world]["alignment"] = aligned(here)
            except relocal.InputError as error:
                print(f"{world}: alignment: refused: {error}")
            for method, values in rows[world].items():
                failed = f", {values[2]:.0f} unanswered" if len(values) > 2 else ""
                print(f"{world}: {method}: {values[0]:.5f} m {values[1]:.4f}°{failed}", flush=True)
    if options.out:
        write_json(options.out, {"errors": rows, "environment": environment()})


EXTENT_M = 1.0

if __name__ == "__main__":
    main()
