# pyright: basic, reportArgumentType=false, reportCallIssue=false
"""Says where photos were taken, a JSON line each: the camera's position, and the unit quaternion
w x y z that turns its directions (x right, y down, z forward) into the world's."""  # noqa: D205, D209

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
CONFIG = json.loads((HERE / "config.json").read_text("utf-8"))
KNOWN, SEEN, OUT = CONFIG["photo_camera"], CONFIG["camera"], ["position", "quaternion"]
TEXTS = {
    "camera-assumed": "no focal length is known; the scene's lens is assumed (--focal)",
    "exif-focal-contradicts": "EXIF's focal length, far from the scene's, is believed (--focal)",
}
WIDE = any(word in KNOWN["model"] for word in ("FISHEYE", "FOV", "DIV", "EUCM"))  # no other fits


def network():
    """The network: photos (B, H, W, 3) in uint8 -> positions less the origin, quaternions."""
    if (HERE / "model.onnx").is_file():
        import onnxruntime

        session = onnxruntime.InferenceSession(HERE / "model.onnx")
        return lambda photos: session.run(OUT, {"image": photos})
    import openvino  # pyright: ignore[reportMissingImports]

    model = openvino.Core().read_model(HERE / "model.xml")
    hint = model.get_rt_info(["relocal", "INFERENCE_PRECISION_HINT"]).value
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda photos: [compiled({"image": photos})[name] for name in OUT]


def load(file, focal):
    """A photo, cut or framed to the field of view that the network knows; doubts of its camera."""
    with Image.open(file) as image:
        mm = float(image.getexif().get_ifd(0x8769).get(0xA405) or 0)  # as on film, 43.27 mm across
        lens = KNOWN["params"][0] / max(KNOWN["width"], KNOWN["height"]) * max(image.size)
        film = mm / 43.27 * float(np.hypot(*image.size)) if 3 <= mm <= 3000 else None
        doubts = ["camera-assumed"] if WIDE or not (focal or film) else []
        shape = max(image.size) / min(image.size) * min(KNOWN["width"], KNOWN["height"])
        limit = 1.25 if abs(shape / max(KNOWN["width"], KNOWN["height"]) - 1) < 0.01 else 1.4
        if film and not focal and not WIDE and not 1 / limit < film / lens < limit:
            doubts = ["exif-focal-contradicts"]
        focal = (lens if WIDE else focal or film or lens) / max(image.size)
        least = max(SEEN["params"][:2]) / max(image.size) / focal  # of the pixels, for the network
        k = next((k for k in (8, 4, 2) if not any(n % k or 1 / k < least for n in image.size)), 1)
        image.draft("RGB", (image.width // k, image.height // k))  # a JPEG is then smaller
        photo = ImageOps.exif_transpose(image).convert("RGB")
    ratio = focal * max(photo.size) / KNOWN["params"][0]
    width, height = round(KNOWN["width"] * ratio), round(KNOWN["height"] * ratio)
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return np.asarray(photo.crop((left, top, left + width, top + height)))[None], doubts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--focal", type=float, help="in pixels; else that of EXIF or the scene's")
    options, answer = parser.parse_args(), network()
    if options.focal and WIDE:
        parser.error(f"--focal: the network knows photos of one {KNOWN['model']} lens only")
    for file in options.photos:
        try:
            photo, doubts = load(file, options.focal)
            at, turn = map(np.ravel, answer(photo))
            at, turn = np.add(CONFIG.get("origin", 0), at).tolist(), turn.tolist()
            said = {"photo": file, "unit": CONFIG["unit"], OUT[0]: at, OUT[1]: turn}
            print(json.dumps({**said, "warnings": [{"code": c, "text": TEXTS[c]} for c in doubts]}))
        except (OSError, Image.DecompressionBombError) as error:
            print(f"{file}: {error}", file=sys.stderr)
