# pyright: basic
"""Says where photos were taken: ``python localize.py PHOTO [PHOTO ...] [--focal PIXELS]``.

Prints a JSON line a photo: the position of the camera, in the unit of config.json, and the unit
quaternion w x y z that turns the camera's directions (x right, y down, z forward) into the world's.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
CONFIG = json.loads((HERE / "config.json").read_text("utf-8"))


def network():
    """The network: photos (B, H, W, 3) in uint8 -> positions and quaternions."""
    if (HERE / "model.xml").is_file():
        import openvino  # pyright: ignore[reportMissingImports]

        model = openvino.Core().read_model(HERE / "model.xml")
        hint = model.get_rt_info(["relocal", "INFERENCE_PRECISION_HINT"]).value
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        compiled = openvino.Core().compile_model(model, "CPU", hints)
        return lambda photos: [compiled({"image": photos})[k] for k in ("position", "quaternion")]
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(HERE / "model.onnx")
    return lambda photos: session.run(["position", "quaternion"], {"image": photos})


def load(file, focal):
    """A photo, cut or framed in black to the field of view that the network knows."""
    known, seen = CONFIG["photo_camera"], CONFIG["camera"]
    with Image.open(file) as image:
        mm = image.getexif().get_ifd(0x8769).get(0xA405)  # as on 35 mm film, 43.27 mm across
        ratio = (focal or float(mm or 0) / 43.27 * math.hypot(*image.size)) / max(image.size)
        image.draft("RGB", (2 * seen["width"], 2 * seen["height"]))  # a JPEG at a smaller scale
        photo = ImageOps.exif_transpose(image).convert("RGB")
    lens = known["params"][0]
    focal = max(photo.size) * (ratio or lens / max(known["width"], known["height"]))
    width, height = (round(known[side] * focal / lens) for side in ("width", "height"))
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return np.asarray(photo.crop((left, top, left + width, top + height)))[None]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--focal", type=float, help="in pixels; else that of EXIF or the scene's")
    options, answer = parser.parse_args(), network()
    for file in options.photos:
        position, quaternion = (v[0].tolist() for v in answer(load(file, options.focal)))
        print(json.dumps({"photo": str(file), "position": position, "quaternion": quaternion}))
