"""Structure and hybrid at three sizes of photos: how exact, and how long a photo takes.

    python bench/localizers.py SCENE RUN [RUN ...] [--maps FOLDER] [--scales 1 0.75 0.5] [--out F]

A map is made of SCENE's training images at each scale (kept in FOLDER, and taken from there), and
all localizers are asked about the same photos one after the other, the RUNs among them (or exported
networks), and a hybrid of each with each map: all times are from one process. Beside them stands
how long the features of a photo alone take, which no way to match them can save.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import relocal
from relocal.localizers import Hybrid, Structure, load_map
from relocal.localizers.exported import open_regressor
from relocal.localizers.feature_map import extract
from relocal.scene.files import write_json
from relocal.training.run import environment


def map_at(scene: relocal.Scene, scale: float, folder: Path) -> dict[str, Any]:
    """Makes the map at a scale where it is not there yet: its size, and how long it took."""
    out, seconds = folder / f"map-{scale:g}", None
    if not out.is_dir():
        start = time.perf_counter()
        made = relocal.build_map(scene, relocal.MapConfig(scale=scale))
        relocal.save_map(made, out)
        seconds = time.perf_counter() - start
    start = time.perf_counter()
    map = load_map(out)
    loading = time.perf_counter() - start
    size = sum(file.stat().st_size for file in out.iterdir())
    about = {"points": len(map), "bytes": size, "seconds": seconds, "load_ms": 1000 * loading}
    return {"folder": str(out), **about}


def features_ms(scene: relocal.Scene, folder: str) -> float:
    """Median time of a photo's features, from the file, in milliseconds."""
    map = load_map(folder)
    times: list[float] = []
    for i in scene.indices("test").tolist()[:50]:
        start = time.perf_counter()
        extract(scene.path(i), scene.camera(i), map.config, map.photo_camera)
        times.append(1000 * (time.perf_counter() - start))
    return float(torch.tensor(times[1:]).median())


def main() -> None:
    """Makes the maps, asks all about the same photos, and prints a row a localizer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 0.75, 0.5])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scene = relocal.load_scene(options.scene)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.maps or Path(temporary)
        maps = {scale: map_at(scene, scale, folder) for scale in options.scales}
        networks = {run.name: open_regressor(run) for run in options.runs}
        localizers: dict[str, relocal.Localizer] = {**networks}
        for scale, about in maps.items():
            opened = load_map(about["folder"])
            localizers[f"structure {scale:g}"] = Structure(opened)
            for name, network in networks.items():
                localizers[f"hybrid {scale:g}, {name}"] = Hybrid(network, opened)
        report = relocal.evaluate(localizers, scene)
        alone = {f"{scale:g}": features_ms(scene, a["folder"]) for scale, a in maps.items()}
    rows: dict[str, Any] = {}
    for name, n in report.summary().items():
        kept = ("median_position", "median_rotation_deg", "recall", "failures", "time_ms")
        rows[name] = {key: n[key] for key in (*kept, "other_methods")}
        shown = "" if n["time_ms"] is None else f"{n['time_ms']:.1f} ms"
        print(f"{name}: {n['median_position']:.4f} {n['median_rotation_deg']:.3f}° {shown}")
    print("features alone, ms:", {scale: round(ms, 1) for scale, ms in alone.items()})
    for about in maps.values():
        del about["folder"]
    content = {
        "made_by": environment(),
        "images": len(report.images),
        "training_images": len(report.training),
        "thresholds": report.thresholds,
        "maps": {f"{scale:g}": about for scale, about in maps.items()},
        "features_ms": alone,
        "localizers": rows,
    }
    if options.out is not None:
        write_json(options.out, content)


if __name__ == "__main__":
    main()
