"""The card of an exported network: what a person reads who was given the folder."""

from relocal.exporting.parity import Parity
from relocal.training import Run

_ASKED = {
    "onnx": "pip install -r requirements.txt\npython localize.py photo.jpg",
    "openvino": "pip install -r requirements.txt\npython localize.py photo.jpg",
    "torch": (
        "python - <<'END'\nimport numpy, torch\nfrom PIL import Image\n\n"
        'photo = torch.from_numpy(numpy.array(Image.open("photo.jpg").convert("RGB")))[None]\n'
        'print(torch.export.load("model.pt2").module()(photo))\nEND'
    ),
}
_ALONE = (
    "Positions in the world are these plus the origin ({origin}), in double precision: single\n"
    "precision keeps seven digits, too few for coordinates of a map of the Earth. The origin\n"
    "stands in `config.json`, too."
)
_ADDED = {
    "torch": _ALONE,
    **dict.fromkeys(
        ("onnx", "openvino"),
        f"{_ALONE} `localize.py` adds it, and cuts or frames photos of other lenses to\n"
        "the network's field of view.",
    ),
}


def card(run: Run, format: str, precision: str, found: Parity, size: int) -> str:
    """The card as Markdown.

    Args:
        run: The run that was exported.
        format: Of the network.
        precision: The numbers that it multiplies with.
        found: How its answers differ from the run's.
        size: Bytes of the network.
    """
    origin = ", ".join(map(repr, run.origin))
    unit = "metres" if run.unit == "m" else "the scene's own unit"
    camera, photos = run.photo_camera, f"{found.photos} {found.split} photos"
    lens = ", ".join(f"{value:.6g}" for value in camera.params.tolist())
    seen = "" if found.split == "test" else " It learned from these: new photos have larger errors."
    before, after = (_pair(*each, found.unit) for each in (found.errors, found.exported_errors))
    usual = _pair(found.median_position, found.median_deg, found.unit)
    most = _pair(found.worst_position, found.worst_deg, found.unit)
    return f"""# {run.scene}: where was this photo taken?

A network ({run.config.model.name} on {run.config.backbone.name}, {precision}, {format},
{size / 1e6:.1f} MB) that says from one photo of *{run.scene}* where the camera was and how it was
turned. It knows this place and no other, and does not notice a photo of another.

```
{_ASKED[format]}
```

| | name | type | what |
|---|---|---|---|
| in | `image` | uint8 (B, H, W, 3) | upright RGB photos of any size, of the lens below |
| out | `position` | float32 (B, 3) | the camera's centre less the origin below, in {unit} |
| out | `quaternion` | float32 (B, 4) | unit, w x y z: camera directions into the world's |
| out | `spread` | float32 (B, 2) | standard deviations that the network states; else ones |

The camera's x is right, y down, z forward. Spreads are of the position per axis and of the rotation
vector in radians. Resize and normalisation are part of the network. It takes a photo for one of
this camera (COLMAP's model and parameters, for {camera.width} x {camera.height} pixels), at any
resolution: {camera.model} {lens}.
{_ADDED[format].format(origin=origin)}

Median errors on {photos}: {after}; of the run that it was made of: {before}.{seen}
Its answers differ from the run's by {usual} in the median, {most} at most.

Photos show people and homes, and a network can be asked where an unknown photo was taken: share it
as you would share the photos that it learned from.
"""


def _pair(position: float, degrees: float, unit: str) -> str:
    return f"{position:.3g} {unit} and {degrees:.3g}°"
