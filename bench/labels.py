"""Time and accuracy of labelling, against pycolmap's exhaustive matching of the same photos.

    python bench/labels.py [IMAGES --poses FILE] [--counts 100 200] [--out FILE]

IMAGES is a folder of photos of one recording whose poses FILE knows (lines ``name qw qx qy qz tx ty
tz f``, ``cam_from_world``, as ``import 7scenes --labels`` takes them); without it a room is
rendered. For each count that many photos, evenly spaced, are labelled by ``relocal.label``, and the
smaller counts also by pycolmap as it comes: the same number of SIFT features, every pair matched,
incremental mapping. The time of exhaustive matching is carried on to larger counts by its number of
pairs. Both are compared with the known poses after the similarity that fits best.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

import relocal
from relocal.datasets.pose_lines import read_label_file
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene.files import read_json, write_json
from relocal.sfm.alignment import fitted
from relocal.training.run import environment

STAGES = {
    "finding features": "features",
    "describing photos": "pairs",
    "matching": "matching",
    "placing photos": "mapping",
}
FEATURES = relocal.LabelConfig().features


def rendered(folder: Path, frames: int) -> tuple[Path, Path]:
    """Photos of a rendered room, and the file of where they were rendered from."""
    room = relocal.RoomConfig(train_frames=frames, train_lap_frames=100, test_frames=1)
    relocal.render_room(folder / "room", room)
    scene = relocal.import_scene("synthetic", folder / "room", folder / "scene")
    out = relocal.export_scene(scene, folder / "export", "7scenes")
    return out / "seq-01", out / "labels.txt"


def chosen(images: Path, count: int, folder: Path) -> Path:
    """A folder with links to some photos, evenly spaced."""
    every = sorted(f for f in images.iterdir() if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
    out = folder / f"photos-{count}" / images.name
    out.mkdir(parents=True)
    for k in range(min(count, len(every))):
        file = every[k * len(every) // count]
        (out / file.name).symlink_to(file.resolve())
    return out


def ours(photos: Path, work: Path) -> dict[str, Any]:
    """Labels photos and gives the seconds of each stage."""
    spent: dict[str, float] = defaultdict(float)
    last = time.perf_counter()

    def clock(done: int, total: int, text: str) -> None:
        nonlocal last, stage
        now = time.perf_counter()
        spent[stage] += now - last  # what went by belongs to the stage that was told of before
        last, stage = now, STAGES.get(text, "other")

    stage = "other"
    # Every photo is to be labelled: none is passed over for showing what its neighbours do.
    config = relocal.LabelConfig(step=1e-4, frames=10**6)
    began = time.perf_counter()
    made = relocal.label([photos], work / "scene", config, progress=clock)
    spent[stage] += time.perf_counter() - last
    return {
        "seconds": {**spent, "all": time.perf_counter() - began},
        "placed": len(made.scene),
        "scene": str(work / "scene"),
    }


def theirs(photos: Path, work: Path) -> dict[str, Any]:
    """The same photos with pycolmap as it comes: every pair matched."""
    import pycolmap

    pycolmap.logging.minloglevel = 3
    database, out = work / "database.db", work / "sparse"
    out.mkdir(parents=True)
    spent: dict[str, float] = {}

    def timed(name: str, do: Any) -> Any:
        began = time.perf_counter()
        found = do()
        spent[name] = time.perf_counter() - began
        return found

    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = FEATURES
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_RADIAL"
    cpu = pycolmap.Device.cpu
    timed(
        "features",
        lambda: pycolmap.extract_features(
            database,
            photos,
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=extraction,
            device=cpu,
        ),
    )
    timed("matching", lambda: pycolmap.match_exhaustive(database, device=cpu))
    models = timed("mapping", lambda: pycolmap.incremental_mapping(database, photos, out))
    best = max(models, key=lambda k: models[k].num_reg_images())
    return {
        "seconds": {**spent, "all": sum(spent.values())},
        "placed": models[best].num_reg_images(),
        "model": str(out / str(best)),
    }


def poses_of(made: dict[str, Any]) -> dict[str, Pose]:
    """Poses by the photo's stem."""
    if "scene" in made:
        scene = relocal.load_scene(made["scene"])
        return {Path(name).stem: scene.poses[i] for i, name in enumerate(scene.images)}
    import pycolmap

    found: dict[str, Pose] = {}
    for image in pycolmap.Reconstruction(made["model"]).images.values():
        rigid = image.cam_from_world()
        x, y, z, w = rigid.rotation.quat.tolist()
        quaternion = torch.tensor([w, x, y, z], dtype=torch.float64)
        shift = torch.tensor(rigid.translation.tolist(), dtype=torch.float64)
        found[Path(image.name).stem] = Pose.from_colmap(quaternion, shift)
    return found


def accuracy(found: dict[str, Pose], known: dict[str, Pose]) -> dict[str, float]:
    """Median errors after the similarity that fits best."""
    names = sorted(found.keys() & known.keys())
    mine, truth = (Pose.stack([poses[name] for name in names]) for poses in (found, known))
    moved = fitted(mine.position, truth.position, "poses").poses(mine)
    return {
        "median_cm": 100 * float(position_error(moved, truth).median()),
        "median_deg": float(rotation_error_deg(moved, truth).median()),
    }


def known_poses(file: Path) -> dict[str, Pose]:
    """Known poses by the photo's stem."""
    rows = read_label_file(file)
    values = torch.tensor(list(rows.values()), dtype=torch.float64)
    poses = Pose.from_colmap(values[:, :4], values[:, 4:7])
    return {Path(name).name: poses[i] for i, name in enumerate(rows)}


def one(method: str, images: Path, poses: Path, count: int, out: Path) -> None:
    """One measurement, written to a file; a process of its own tells its memory."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = chosen(images, count, folder)
        made = {"ours": ours, "exhaustive": theirs}[method](photos, folder / "work")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = {name: round(value, 1) for name, value in made["seconds"].items()}
        row = {
            "method": method,
            "photos": count,
            "placed": made["placed"],
            "seconds": seconds,
            "ms_a_photo": {name: round(1000 * s / count, 1) for name, s in seconds.items()},
            "peak_mib": round(memory),
            **accuracy(poses_of(made), known_poses(poses)),
        }
    write_json(out, row)


def main() -> None:
    """Measures each count in a process of its own, and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--exhaustive", type=int, nargs="*", default=[50, 100])
    parser.add_argument(
        "--out", type=Path, help="default: results/labels.json, or labels_room.json"
    )
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "COUNT", "FILE"))
    given = parser.parse_args()
    if given.one:
        method, count, file = given.one
        one(method, given.images, given.poses, int(count), Path(file))
        return
    rows: list[dict[str, Any]] = []
    work = [("exhaustive", n) for n in given.exhaustive] + [("ours", n) for n in given.counts]
    with tempfile.TemporaryDirectory() as temporary:
        images, poses = given.images, given.poses
        if images is None:
            images, poses = rendered(Path(temporary), max(given.counts + given.exhaustive))
        for method, count in work:
            file = Path(temporary) / f"{method}-{count}.json"
            words = [str(images), "--poses", str(poses)]
            subprocess.run(
                [sys.executable, __file__, *words, "--one", method, str(count), str(file)],
                check=True,
                env={**os.environ, "GLOG_minloglevel": "3"},
            )
            rows.append(read_json(file))
            print(text(rows[-1]), flush=True)
    beside = compared(rows)
    for row in beside:
        print("{photos} photos: {matching:.1f} x in matching, {all:.1f} x in all".format(**row))
    out = given.out or Path(f"results/labels{'' if given.images else '_room'}.json")
    write_json(out, {"rows": rows, "exhaustive_over_ours": beside, "made_by": environment()})


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times as long exhaustive matching takes, beyond its own counts by its pairs."""
    full = {row["photos"]: row for row in rows if row["method"] == "exhaustive"}
    if not full:
        return []
    largest = full[max(full)]
    found: list[dict[str, Any]] = []
    for row in rows:
        if row["method"] != "ours":
            continue
        n, seconds = row["photos"], row["seconds"]
        # Choosing pairs is a part of matching few of them.
        mine = seconds["matching"] + seconds.get("pairs", 0)
        if n in full:
            matching, every = (full[n]["seconds"][key] for key in ("matching", "all"))
        else:
            m = largest["photos"]
            matching = largest["seconds"]["matching"] * n * (n - 1) / (m * (m - 1))
            every = seconds["all"] - mine + matching
        found.append(
            {
                "photos": n,
                "matching": round(matching / mine, 2),
                "all": round(every / seconds["all"], 2),
                "extrapolated": n not in full,
            }
        )
    return found


def text(row: dict[str, Any]) -> str:
    """A measurement in a line."""
    stages = ", ".join(f"{name} {s:g} s" for name, s in row["seconds"].items())
    return (
        f"{row['method']} {row['photos']}: {row['placed']} placed, {row['median_cm']:.2f} cm, "
        f"{row['median_deg']:.3f} deg, {row['peak_mib']} MiB; {stages}"
    )


if __name__ == "__main__":
    main()
