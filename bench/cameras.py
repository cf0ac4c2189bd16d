"""Errors of ``structure`` in the rendered room, photographed through other lenses.

    python bench/cameras.py --work DIR [--train 80 --test 30] [--out FILE]

The same room and walks are photographed by a pinhole, by a perspective camera whose k3 matters
(FULL_OPENCV) and by fisheye cameras, a ray through each pixel's lens. Each recording goes the whole
way: a COLMAP text model is imported, a map is made, test photos are localized. Two rows ask the
pinhole's map for photos of a bent lens, with and without saying so: how many answers doubt it?
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

import relocal
from relocal.camera import Camera
from relocal.datasets.room.config import RoomConfig
from relocal.datasets.room.recording import Sequence, film
from relocal.datasets.room.renderer import Room
from relocal.datasets.room.sensor import expose
from relocal.metrics import median
from relocal.pose import Pose, position_error, rotation_error_deg

SIZE = (320, 240)
FOCAL = 0.9 * SIZE[0]
CENTRE = (SIZE[0] / 2, SIZE[1] / 2)
CAMERAS = {
    "pinhole": Camera("PINHOLE", *SIZE, (FOCAL, FOCAL, *CENTRE)),
    "k3": Camera(
        "FULL_OPENCV",
        *SIZE,
        (0.7 * FOCAL, 0.7 * FOCAL, *CENTRE, -0.28, 0.1, 0.001, -0.0005, -0.012, 0, 0, 0),
    ),
    "fisheye, 143°": Camera(
        "OPENCV_FISHEYE", *SIZE, (160.0, 160.0, *CENTRE, 0.02, -0.01, 0.002, -0.0005)
    ),
    "fisheye, 200°": Camera("FISHEYE", *SIZE, (115.0, 115.0, *CENTRE)),
}
BENT = Camera("SIMPLE_RADIAL", *SIZE, (FOCAL, *CENTRE, -0.25))
_FINE = 2  # rays for a pixel, along each side


def photograph(
    room: Room, world_from_cam: Float[np.ndarray, "4 4"], camera: Camera
) -> UInt8[np.ndarray, "H W 3"]:
    """What a camera sees of the room, RGB; black where its lens looks 90° aside or more.

    As the room's renderer does it, but every pixel has its own ray, so each quad is tried for all.
    """
    fine, rays, seen, area = _rays(camera)
    edges = room.edges.copy()
    edges[:, :, 2] -= world_from_cam[:3, 3]
    edges = world_from_cam[:3, :3].T @ edges
    best = np.zeros((3, *seen.shape), np.float32)
    quad = np.full(seen.shape, -1, np.int32)
    for index in np.flatnonzero(np.linalg.det(edges) > 0):
        box = _box(edges[index], fine)
        s, t, w = there = np.tensordot(np.linalg.inv(edges[index]), rays[:, *box], 1)
        here = best[:, *box]
        hit = (np.minimum(s, t) >= -1e-5) & (np.maximum(s, t) <= w + 1e-5) & (w > here[2])
        np.copyto(here, there, where=hit)
        np.copyto(quad[box], index, where=hit)
    depth = 1 / np.maximum(best[2], 1e-6)
    texels = room.atlas.texels[quad] / np.maximum(np.abs(np.linalg.det(edges))[quad], 1e-30)
    lod = 0.5 * np.log2(np.maximum(texels * area, 1e-30)) + 1.5 * np.log2(depth)
    s, t, lod = ((best[0] * depth), (best[1] * depth), lod)
    image = room.atlas.sample(
        np.maximum(quad, 0), *(value.astype(np.float32) for value in (s, t, lod))
    )
    image[(quad < 0) | ~seen] = 0
    return cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)


@cache
def _rays(camera: Camera) -> tuple[Camera, np.ndarray, np.ndarray, np.ndarray]:
    """The finer camera, its rays (3, h, w), which of them the lens has, and what each covers."""
    fine = camera.resized(_FINE * camera.width, _FINE * camera.height)
    x, y = (torch.arange(side).double() + 0.5 for side in (fine.width, fine.height))
    rays = fine.unproject(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)).numpy()
    seen = np.isfinite(rays).all(-1) & (np.hypot(rays[..., 0], rays[..., 1]) < 50)
    rays = np.where(seen[..., None], rays, [0, 0, 1])
    return fine, np.moveaxis(rays.astype(np.float32), -1, 0), seen, np.abs(_determinant(rays))


def _box(edges: Float[np.ndarray, "3 3"], camera: Camera) -> tuple[slice, slice]:
    """Rows and columns of pixels that hold a quad: all, where its outline leaves the lens."""
    along = np.linspace(0, 1, 17)
    ends = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    outline = np.concatenate([a + along[:, None] * (b - a) for a, b in pairwise(ends)])
    points = torch.from_numpy(np.c_[outline, np.ones(len(outline))] @ edges.T)
    inside = (points[:, 2] > 0.01) & (points[:, :2].norm(dim=1) < 40 * points[:, 2])
    reached = points[:, :2].norm(dim=1) < 0.99 * camera.fold_radius() * points[:, 2]
    if not bool((inside & reached).all()):
        return slice(None), slice(None)
    x, y = camera.project(points)[0].unbind(1)
    bounds = [(max(0, int(v.min()) - 4), max(0, int(v.max()) + 5)) for v in (y, x)]
    return slice(*bounds[0]), slice(*bounds[1])


def _determinant(rays: np.ndarray) -> np.ndarray:
    """Of the change of x and y with the pixel."""
    dy, dx = np.gradient(rays[..., 0]), np.gradient(rays[..., 1])
    return dy[1] * dx[0] - dy[0] * dx[1]


def recorded(folder: Path, camera: Camera, sequences: tuple[Sequence, Sequence]) -> None:
    """Writes photos and a COLMAP text model of both walks."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    lines: list[str] = []
    shots = [(sequence, i) for sequence in sequences for i in range(len(sequence.poses))]

    def shoot(shot: tuple[Sequence, int]) -> None:
        sequence, i = shot
        image = expose(
            photograph(sequence.room, sequence.poses[i], camera),
            sequence.config,
            stops=float(sequence.stops[i]),
            motion_px=np.zeros(2),
            rng=sequence.config.rng("noise", sequence.number, i),
        )
        file = folder / "images" / sequence.name(i)
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(shoot, shots))
    for sequence, i in shots:
        inverse = Pose.from_matrix(torch.from_numpy(sequence.poses[i])).inverse()
        numbers = [*inverse.quaternion.tolist(), *inverse.position.tolist()]
        lines.append(f"{len(lines) + 1} {' '.join(map(str, numbers))} 1 {sequence.name(i)}\n\n")
    row = [1, camera.model, camera.width, camera.height, *camera.params.tolist()]
    (model / "cameras.txt").write_text(" ".join(map(str, row)) + "\n")
    (model / "images.txt").write_text("".join(lines))
    (model / "points3D.txt").write_text("")


def measured(
    map: relocal.FeatureMap, scene: relocal.Scene, camera: Callable[[int], Camera]
) -> dict[str, Any]:
    """Errors of answers about test photos, and how many answers carry a warning."""
    localizer = relocal.Structure(map)
    metres, degrees, warned = [], [], 0
    rows = scene.indices("test").tolist()
    for i in rows:
        found = localizer.localize(scene.path(i), camera(i))
        pose = scene.poses[i]
        metres.append(float("inf") if found is None else float(position_error(found.pose, pose)))
        degrees.append(
            float("inf") if found is None else float(rotation_error_deg(found.pose, pose))
        )
        warned += bool(found and found.warnings)
    return {
        "photos": len(rows),
        "median_cm": 100 * median(np.array(metres)),
        "p90_cm": 100 * float(np.quantile(metres, 0.9)),
        "median_deg": median(np.array(degrees)),
        "answers": int(np.isfinite(metres).sum()),
        "warned": warned,
    }


def bench(work: Path, train: int, test: int) -> dict[str, dict[str, Any]]:
    """Every camera's row; what is in ``work`` already is kept."""
    config = RoomConfig(
        train_frames=train,
        test_frames=test,
        train_lap_frames=max(20, train),
        test_lap_frames=max(20, test),
    )
    *sequences, _ = film(dataclasses.replace(config, width_px=SIZE[0], height_px=SIZE[1]))
    rows: dict[str, dict[str, Any]] = {}
    scenes: dict[str, relocal.Scene] = {}
    for name, camera in {**CAMERAS, "k1 = -0.25": BENT}.items():
        folder = work / name.replace(" ", "-").replace(",", "").replace("°", "")
        if not (folder / "sparse" / "0" / "points3D.txt").is_file():
            recorded(folder, camera, (sequences[0], sequences[1]))
        if not (folder / "scene").is_dir():
            relocal.import_scene("colmap", folder, folder / "scene", split="sequence", unit="m")
        scenes[name] = relocal.load_scene(folder / "scene")
    for name in CAMERAS:
        scene = scenes[name]
        map = relocal.build_map(scene)
        rows[name] = {**measured(map, scene, scene.camera), "points": len(map)}
        if name == "pinhole":
            bent = scenes["k1 = -0.25"]
            for called, camera in (("told", bent.camera), ("not told", scene.camera)):
                rows[f"pinhole's map, k1 = -0.25 {called}"] = measured(map, bent, camera)
    return rows


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=int, default=80)
    parser.add_argument("--test", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = bench(options.work, options.train, options.test)
    print("| camera | median | 90 % | rotation | answers | warned | of the pinhole's |")
    print("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        ratio = row["median_cm"] / rows["pinhole"]["median_cm"]
        print(
            f"| {name} | {row['median_cm']:.2f} cm | {row['p90_cm']:.2f} cm | "
            f"{row['median_deg']:.3f}° | {row['answers']} of {row['photos']} | {row['warned']} | "
            f"{ratio:.2f} |"
        )
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
