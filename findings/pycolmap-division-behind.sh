#!/usr/bin/env bash
# pycolmap 4.2.1, Camera.img_from_cam of points behind a camera: most models give NaN, so one would
# take NaN for the sign of "not visible". Seen: DIVISION with a negative k gives a finite pixel.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check pycolmap==4.2.1 numpy
"$work/env/bin/python" - <<'PY'
import numpy as np
import pycolmap

behind = np.array([[0.2, 0.1, -1.0]])
seen = {}
for model, params in (
    ("PINHOLE", [500.0, 500.0, 320.0, 240.0]),
    ("SIMPLE_RADIAL", [500.0, 320.0, 240.0, -0.1]),
    ("OPENCV", [500.0, 500.0, 320.0, 240.0, -0.1, 0.0, 0.0, 0.0]),
    ("DIVISION", [500.0, 500.0, 320.0, 240.0, -0.1]),
):
    camera = pycolmap.Camera(model=model, width=640, height=480, params=params)
    seen[model] = np.asarray(camera.img_from_cam(behind), dtype=float).ravel()
    print(f"pycolmap {pycolmap.__version__}, {model}: {np.round(seen[model], 3).tolist()}")
assert all(np.isnan(seen[m]).all() for m in ("PINHOLE", "SIMPLE_RADIAL", "OPENCV")), "changed"
assert np.isfinite(seen["DIVISION"]).all(), "changed"
PY
