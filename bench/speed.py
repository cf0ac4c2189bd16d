"""Speed of training and of one answer, against the usual recipe written plainly.

    python bench/speed.py [--out results/speed.json]

The usual recipe: Pillow decodes, resizes, crops and jitters item by item in a DataLoader of two
workers; the network runs eagerly in float32, channels first. Both train the same PoseNet (GoogLeNet
with batch normalisation, 224 x 224 crops, batch 32) on the same rendered 640 x 480 photos. The
second comparison, file to pose, has beside it OpenCV with onnxruntime in float32, where these are
installed (pip install '.[export]' in the clone). Rates alternate within one run; ratios are what
matters.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

import relocal
from relocal.models import PoseNet
from relocal.pose import safe_norm
from relocal.training import PRESETS, load_run
from relocal.training.run import build_model, environment

ROOM = relocal.RoomConfig(train_frames=256, test_frames=40, width_px=640, height_px=480)
CONFIG = replace(
    PRESETS["posenet2015"],
    model=relocal.PoseNetConfig(pool="average"),
    backbone=relocal.BackboneConfig(name="googlenet_bn", weights="none"),
    view=relocal.ViewConfig(input_px=224, shape="square", augment="crop", jitter=0.3),
    epochs=2,
)
RESIZED, CROP, BATCH, WORKERS, ROUNDS, PHOTOS = 256, 224, 32, 2, 3, 40
MEAN, STD = np.float32([0.5, 0.5, 0.5]), np.float32([0.5, 0.5, 0.5])


def resized(image: Image.Image) -> Image.Image:
    """The photo with its short side at 256 pixels."""
    scale = RESIZED / min(image.size)
    size = tuple(round(side * scale) for side in image.size)
    return image.resize(size, Image.Resampling.BILINEAR)


def normalised(image: Image.Image) -> np.ndarray:
    """Channels first, in the network's own range."""
    return ((np.asarray(image, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


class Photos(Dataset):
    """The usual dataset: everything item by item, in Python."""

    def __init__(self, scene: relocal.Scene) -> None:
        self.files = [scene.path(i) for i in scene.indices("train").tolist()]
        poses = scene.poses[scene.indices("train")]
        self.labels = torch.cat([poses.position, poses.quaternion], dim=1).float()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, torch.Tensor]:
        image = resized(Image.open(self.files[index]).convert("RGB"))
        left, top = (random.randint(0, side - CROP) for side in image.size)
        image = image.crop((left, top, left + CROP, top + CROP))
        for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = change(image).enhance(random.uniform(0.7, 1.3))
        return normalised(image), self.labels[index]


def plain_model() -> PoseNet:
    """The same network, as the usual recipe runs it: its input is normalised already."""
    model = build_model(CONFIG)
    model.backbone.preprocess = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return model


def usual_epoch(scene: relocal.Scene) -> float:
    """Images a second of the usual recipe over one epoch, its first batch left out."""
    loader = DataLoader(
        Photos(scene), batch_size=BATCH, shuffle=True, num_workers=WORKERS, drop_last=True
    )
    model = plain_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    seen, began = 0, 0.0
    for step, (images, labels) in enumerate(loader):
        if step == 1:
            began = time.perf_counter()
        prediction = model(images)
        unit = prediction.rotation / safe_norm(prediction.rotation)[:, None]
        loss = safe_norm(prediction.position - labels[:, :3]) + 2.5 * safe_norm(
            unit - labels[:, 3:]
        )
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        seen += len(images) if step else 0
    return seen / (time.perf_counter() - began)


def our_epoch(scene: relocal.Scene, folder: Path) -> float:
    """Images a second of the second epoch of a training, as its metrics say."""
    run = relocal.train(scene, folder, CONFIG)
    return run.epochs()[-1]["images_per_s"]


def answers(scene: relocal.Scene, run: Path, folder: Path) -> dict[str, Callable[[Path], Any]]:
    """Ways from a JPEG file to a pose, by name."""
    localizer, model = relocal.Regressor(run), plain_model().eval()
    model.load_state_dict(load_run(run).model().state_dict(), strict=False)
    camera = scene.camera(0)
    offset = (RESIZED - CROP) // 2

    def usual(file: Path) -> torch.Tensor:
        image = resized(Image.open(file).convert("RGB"))
        left = (image.width - CROP) // 2
        array = normalised(image.crop((left, offset, left + CROP, offset + CROP)))
        with torch.no_grad():
            return model(torch.from_numpy(array)[None]).position

    ways: dict[str, Callable[[Path], Any]] = {
        "relocal": lambda file: localizer.localize(file, camera),
        "Pillow, torch float32": usual,
    }
    try:
        ways["OpenCV, onnxruntime float32"] = onnx_way(model, folder)
    except ImportError as error:
        print(f"without onnxruntime: {error}")
    return ways


def onnx_way(model: PoseNet, folder: Path) -> Callable[[Path], Any]:
    """OpenCV decodes and resizes, onnxruntime answers on two threads."""
    import cv2
    import onnxruntime

    class Plain(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            prediction = model(image)
            return prediction.position, prediction.rotation

    path = folder / "plain.onnx"
    torch.onnx.export(Plain().eval(), (torch.zeros(1, 3, CROP, CROP),), path, dynamo=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def way(file: Path) -> Any:
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        scale = RESIZED / min(image.shape[:2])
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        top, left = ((side - CROP) // 2 for side in image.shape[:2])
        crop = image[top : top + CROP, left : left + CROP].astype(np.float32) / 255
        array = ((crop - MEAN) / STD).transpose(2, 0, 1)[None]
        return session.run(None, {name: np.ascontiguousarray(array)})

    return way


def latency_ms(way: Callable[[Path], Any], files: list[Path]) -> float:
    """Median time over the files, after two that warm up."""
    times = []
    for file in [*files[:2], *files]:
        began = time.perf_counter()
        way(file)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[2:])


def rounds(measure: dict[str, Callable[[int], float]]) -> Iterator[tuple[str, float]]:
    """Alternates the ways, so that a slow moment of the machine meets all of them."""
    for k in range(ROUNDS):
        for name, run in measure.items():
            value = run(k)
            print(f"  {name}: {value:.1f}", flush=True)
            yield name, value


def medians(values: Iterator[tuple[str, float]]) -> dict[str, float]:
    """The median of each way's rounds."""
    found: dict[str, list[float]] = {}
    for name, value in values:
        found.setdefault(name, []).append(value)
    return {name: statistics.median(each) for name, each in found.items()}


def main() -> None:
    """Measures and prints; with --out also writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        relocal.render_room(folder / "room", ROOM)
        scene = relocal.import_scene("synthetic", folder / "room", folder / "scene")
        print("training, images/s")
        training = medians(
            rounds(
                {
                    "relocal": lambda k: our_epoch(scene, folder / f"run{k}"),
                    "usual recipe": lambda k: usual_epoch(scene),
                }
            )
        )
        print("file to pose, ms")
        files = [scene.path(i) for i in scene.indices("test").tolist()][:PHOTOS]
        ways = answers(scene, folder / "run0", folder)
        latency = medians(
            rounds({name: lambda k, way=way: latency_ms(way, files) for name, way in ways.items()})
        )
    result = {
        "training_images_per_s": training,
        "training_ratio": training["relocal"] / training["usual recipe"],
        "file_to_pose_ms": latency,
        "file_to_pose_ratio": {n: v / latency["relocal"] for n, v in latency.items()},
        "network": "PoseNet on googlenet_bn, 224 x 224, batch 32; photos of 640 x 480",
        "made_by": environment(),
    }
    print(json.dumps(result, indent=1))
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
