#!/usr/bin/env bash
# pycolmap 4.2.1, estimate_sim3d(src, tgt): one would expect the similarity of two sets of positions
# wherever they lie. Seen: None for positions in a plane through the origin, on exact data; a level
# walk at z = 0 is such a set. Centring both sets first, the usual advice, does not help: centred,
# any plane runs through the origin. The same sets moved off the plane give the right scale.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check pycolmap==4.2.1 numpy
"$work/env/bin/python" - <<'PY'
import numpy as np
import pycolmap

k = np.arange(40)
floor = np.stack([0.1 * k, np.sin(k / 6), 0.0 * k], axis=1)
turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
placed = 0.5 * floor @ turn.T
up = np.array([0.0, 0.0, 1.0])
for name, one, other in (
    ("in the plane z = 0", placed, floor),
    ("centred", placed - placed.mean(0), floor - floor.mean(0)),
    ("one above the plane", placed + up, floor + up),
):
    found = pycolmap.estimate_sim3d(one, other)
    scale = None if found is None else round(float(found.scale), 6)
    print(f"pycolmap {pycolmap.__version__}, {name}: scale {scale} (true 2.0)")
    assert scale == (2.0 if name.startswith("one above") else None), "it behaves otherwise now"
PY
