"""What an exported network costs and saves: size, time from JPEG bytes to pose, errors.

    python bench/exports.py SCENE RUN [RUN ...] [--out results/exports.json]

Each RUN is exported in every format and asked about the same test photos as the run itself and two
recipes written plainly: Pillow with torch in float32, as most people run a network, and OpenCV with
onnxruntime in float32 on the bare network. Ways alternate in blocks of photos, so that a slow
moment of the machine meets all of them; ratios are medians over these rounds.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch.nn import functional as F

import relocal
from relocal.exporting import ExportConfig, export
from relocal.exporting.parity import spread_evenly
from relocal.images import load_view
from relocal.localizers import Exported
from relocal.metrics import median, pose_errors
from relocal.models import PoseNet
from relocal.pose import ROTATIONS, Pose, position_error, rotation_error_deg
from relocal.scene.files import write_json
from relocal.training import Run, load_run
from relocal.training.run import environment

Way = Callable[[bytes], Pose]
"""From the bytes of a JPEG to a pose."""
EXPORTS = (
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("onnx", "int8"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("torch", "float32"),
)
USUAL, EAGER, PLAIN = "Pillow, torch float32", "relocal, eager", "OpenCV, onnxruntime float32"
PHOTOS, BLOCK, ROUNDS, WARM = 200, 20, 6, 3
MB = 1e6


def crop_of(run: Run) -> tuple[slice, slice]:
    """Rows and columns of the middle of a resized photo that the network sees."""
    top = (run.camera.height - run.window.height) // 2
    left = (run.camera.width - run.window.width) // 2
    return slice(top, top + run.window.height), slice(left, left + run.window.width)


def usual(run: Run, model: PoseNet) -> Way:
    """Pillow decodes, torch resizes and runs the network: float32, channels first, eager."""
    model = model.to(memory_format=torch.contiguous_format)
    rows, columns = crop_of(run)
    size = (run.camera.height, run.camera.width)

    def way(jpeg: bytes) -> Pose:
        pixels = np.array(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        image = F.interpolate(image, size, mode="bilinear", antialias=True)
        with torch.no_grad():
            return model(image[:, :, rows, columns].contiguous()).pose()[0]

    return way


def plain_onnx(run: Run, model: PoseNet, file: Path) -> Way:
    """OpenCV decodes and resizes, onnxruntime runs the bare network as it comes."""

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            said = self.model(image)
            return said.position, said.rotation

    example = torch.zeros(1, 3, run.window.height, run.window.width)
    torch.onnx.export(
        Bare().eval(), (example,), file, dynamo=True, external_data=False, verbose=False
    )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name, decode = session.get_inputs()[0].name, ROTATIONS[run.config.model.rotation].decode
    rows, columns = crop_of(run)

    def way(jpeg: bytes) -> Pose:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        size = (run.camera.width, run.camera.height)
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)[rows, columns]
        image = np.ascontiguousarray(small.transpose(2, 0, 1)[None], dtype=np.float32)
        position, rotation = map(torch.from_numpy, session.run(None, {name: image}))
        return Pose(position, decode(rotation))[0]

    return way


def program(run: Run, camera: relocal.Camera, file: Path) -> Way:
    """What torch.export wrote, run by torch."""
    module = torch.export.load(file).module()

    def way(jpeg: bytes) -> Pose:
        view = load_view(jpeg, camera, run.seen_camera).permute(1, 2, 0).contiguous()
        with torch.no_grad():
            position, quaternion, _ = module(view[None])
        return Pose(position, quaternion)[0]

    return way


def ways_of(run: Run, scene: relocal.Scene, folder: Path) -> tuple[dict[str, Way], dict[str, int]]:
    """Ways from JPEG to pose by name, and the bytes of what each loads."""
    camera = scene.camera(int(scene.indices("test")[0]))

    def localizing(localizer: relocal.Regressor) -> Way:
        return lambda jpeg: localizer.localize(jpeg, camera).pose

    weights = (run.folder / "weights.safetensors").stat().st_size
    plain = folder / "plain.onnx"
    ways = {
        USUAL: usual(run, run.model()),
        EAGER: localizing(relocal.Regressor(run)),
        PLAIN: plain_onnx(run, run.model(), plain),
    }
    sizes = {USUAL: weights, EAGER: weights, PLAIN: plain.stat().st_size}
    for format, precision in EXPORTS:
        name, out = f"{format} {precision}", folder / f"{format}-{precision}"
        # What a format changes is the result here: nothing is refused, one photo is compared.
        config = ExportConfig(format=format, precision=precision, photos=1, most_change=100.0)
        export(run, scene, out, config)
        torch_file = out / "model.pt2"
        ways[name] = (
            program(run, camera, torch_file) if format == "torch" else localizing(Exported(out))
        )
        sizes[name] = sum(file.stat().st_size for file in out.glob("model.*"))
        print(f"  exported {name}", flush=True)
    return ways, sizes


def times_ms(ways: dict[str, Way], jpegs: Sequence[bytes]) -> dict[str, list[list[float]]]:
    """Times of photos, one after the other: a list a round for each way."""
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    names = list(ways)
    for k in range(ROUNDS):
        block = [jpegs[(k * BLOCK + i) % len(jpegs)] for i in range(BLOCK)]
        for name in names[k % len(names) :] + names[: k % len(names)]:
            for jpeg in block[:WARM]:
                ways[name](jpeg)
            found[name].append([])
            for jpeg in block:
                began = time.perf_counter()
                ways[name](jpeg)
                found[name][-1].append(1000 * (time.perf_counter() - began))
    return found


def ratio(slow: list[list[float]], fast: list[list[float]]) -> float:
    """How many times as long: the median over rounds of the ratio of their medians."""
    rounds = zip(slow, fast, strict=True)
    return statistics.median(statistics.median(a) / statistics.median(b) for a, b in rounds)


def measured(run: Run, scene: relocal.Scene, folder: Path) -> dict[str, dict[str, Any]]:
    """A row a way."""
    ways, sizes = ways_of(run, scene, folder)
    rows = spread_evenly(scene.indices("test"), PHOTOS)
    jpegs, truth = [scene.path(i).read_bytes() for i in rows], scene.poses[torch.tensor(rows)]
    answers = {name: [_double(way(jpeg)) for jpeg in jpegs] for name, way in ways.items()}
    times = times_ms(ways, jpegs)
    eager = _stacked(answers[EAGER])
    table: dict[str, dict[str, Any]] = {}
    for name in ways:
        errors, poses = pose_errors(answers[name], truth), _stacked(answers[name])
        table[name] = {
            "bytes": sizes[name],
            "ms": statistics.median(chain.from_iterable(times[name])),
            "times_as_fast_as_usual": ratio(times[USUAL], times[name]),
            "times_as_fast_as_plain_onnx": ratio(times[PLAIN], times[name]),
            "median_position": median(errors.position),
            "median_deg": median(errors.rotation_deg),
            "worst_position_difference": float(position_error(poses, eager).max()),
            "worst_deg_difference": float(rotation_error_deg(poses, eager).max()),
        }
    return table


def _double(pose: Pose) -> Pose:
    return Pose(pose.position.double(), pose.quaternion.double())


def _stacked(poses: Sequence[Pose]) -> Pose:
    return Pose(
        torch.stack([p.position for p in poses]), torch.stack([p.quaternion for p in poses])
    )


def shown(table: dict[str, dict[str, Any]], unit: str) -> str:
    """The table as Markdown."""
    eager = table[EAGER]
    lines = [
        f"| | MB | ms | ÷ usual | ÷ plain onnx | median, {unit} | change | median, ° | change "
        f"| most, {unit} | most, ° |",
        "|---|" + "--:|" * 10,
    ]
    for name, n in table.items():
        change = [n[key] / eager[key] - 1 for key in ("median_position", "median_deg")]
        lines.append(
            f"| {name} | {n['bytes'] / MB:.0f} | {n['ms']:.1f} | {n['times_as_fast_as_usual']:.1f} "
            f"| {n['times_as_fast_as_plain_onnx']:.2f} | {n['median_position']:.4f} "
            f"| {change[0]:+.1%} | {n['median_deg']:.3f} | {change[1]:+.1%} "
            f"| {n['worst_position_difference']:.2g} | {n['worst_deg_difference']:.2g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Exports, asks, times and prints a table a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    scene, networks = relocal.load_scene(options.scene), {}
    for folder in options.runs:
        run = load_run(folder)
        with tempfile.TemporaryDirectory() as temporary:
            table = measured(run, scene, Path(temporary))
        about = f"{run.config.backbone.name}, {run.window.width} x {run.window.height} pixels"
        networks[folder.name] = {"network": about, "unit": run.unit, "ways": table}
        print(f"{folder.name}: {about}\n{shown(table, run.unit)}", flush=True)
    result = {
        "photos": len(spread_evenly(scene.indices("test"), PHOTOS)),
        "timed": BLOCK * ROUNDS,
        "networks": networks,
        "made_by": environment(),
    }
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
