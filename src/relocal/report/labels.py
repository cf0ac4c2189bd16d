"""The account of a labelling: a page of words and numbers, and a picture of cameras and points."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from relocal.report.figures import (
    COLOURS,
    GRID,
    drawing,
    ground_axes,
    of_place,
    picture_origin,
)
from relocal.report.study_texts import markdown_text
from relocal.report.tables import markdown_table
from relocal.scene import Scene
from relocal.scene.files import write_text
from relocal.sfm import Labelling

PAGE, PICTURE = "label.md", "label.png"
_MOST_POINTS = 30_000
_FAR = (1, 99)  # percentiles of the points that are in the picture
_LOOK = 0.04  # length of a look direction, as a share of the picture


def save_labels(labels: Labelling) -> Path:
    """Writes the page and the picture into the scene's folder.

    Returns:
        The page.
    """
    folder = labels.scene.folder
    assert folder is not None  # a labelled scene is saved
    draw_labels(labels.scene, folder / PICTURE)
    write_text(folder / PAGE, labels_to_markdown(labels))
    return folder / PAGE


def labels_to_markdown(labels: Labelling) -> str:
    """How many photos were placed and how well, the cameras, and why photos were left out."""
    about, scene = labels.about, labels.scene
    parts = [f"{len(names)} {part}" for part, names in scene.splits.items()]
    rows = [
        ["", ""],
        ["photos placed", f"{about['placed']} of {about['photos']}"],
        ["other parts", ", ".join(f"{n} photos" for n in about["other_parts"]) or "none"],
        ["map points", str(about["points"])],
        ["mean reprojection error", f"{about['mean_reprojection_error_px']:.2f} px"],
        ["mean track", f"{about['mean_track_length']:.1f} photos"],
        [
            "map points a photo",
            f"median {about['points_an_image']['median']:.0f}, "
            f"least {about['points_an_image']['least']}",
        ],
        ["extent of the path", f"{scene.extent():.3g} {scene.unit}"],
        ["scale", scale_text(about["scale"], scene.unit)],
        ["split", f"{scene.provenance.get('split', 'none')} ({', '.join(parts)})"],
    ]
    cameras = [["model", "size, px", "parameters", "photos"]]
    for i, camera in enumerate(scene.cameras):
        values = ", ".join(f"{value:.5g}" for value in camera.params.tolist())
        count = int((scene.camera_index == i).sum())
        cameras.append([camera.model, f"{camera.width} x {camera.height}", values, str(count)])
    page = [
        f"# Labels of {markdown_text(scene.name)}",
        *(f"**Doubt:** {markdown_text(doubt.text)}" for doubt in labels.warnings),
        markdown_table(rows),
        f"![Cameras and map points from above and from the side]({PICTURE})",
        "## Cameras",
        markdown_table(cameras),
    ]
    if about["left_out"]:
        left = [["photo", "why"]]
        left += [[markdown_text(a), markdown_text(b)] for a, b in about["left_out"].items()]
        page += ["## Left out", markdown_table(left)]
    return "\n\n".join(page) + "\n"


def scale_text(fit: Mapping[str, Any], unit: str) -> str:
    """What gave a labelled scene its unit of length, in words."""
    if not fit and unit == "m":
        return "metres, as the scene had it"
    if not fit:
        return f'not known; lengths are in the unit "{unit}" (--scale gives it one)'
    if fit["by"] == "distance":
        return f"{fit['metres']:g} m between {' and '.join(fit['images'])}"
    if fit.get("hopeless"):
        return (
            f'not known; GPS errs too much for so small a place; lengths are in the unit "{unit}"'
        )
    turned = f", {fit['median_residual_deg']:.2f}°" if "median_residual_deg" in fit else ""
    left = f"median residual {fit['median_residual_m']:.3f} m{turned}"
    sure = f", scale ± {100 * fit['relative_error']:.2g} %" if "relative_error" in fit else ""
    flat = ", level" if fit.get("level") else ""
    return f"fitted to the {fit['by']} of {fit['images']} images{flat}, {left}{sure}"


def draw_labels(scene: Scene, path: Path) -> None:
    """Draws map points in their colours, and the cameras of each recording, from above and aside.

    Args:
        scene: The scene.
        path: The picture to write.
    """
    from matplotlib.figure import Figure

    right, ahead, up = ground_axes(scene.poses).T
    origin = picture_origin(scene.poses)
    with drawing():
        figure = Figure(figsize=(12, 5.5), layout="constrained")
        above, side = figure.subplots(1, 2)
        _draw(above, scene, np.stack([right, ahead], axis=1))
        _draw(side, scene, np.stack([right, up], axis=1))
        for axes, name in ((above, "ahead"), (side, "up")):
            axes.set_xlabel(f"to the right{of_place(origin)}, {scene.unit}")
            axes.set_ylabel(f"{name}, {scene.unit}")
            axes.set_aspect("equal", adjustable="datalim")
            axes.grid(color=GRID, lw=0.6)
            axes.set_axisbelow(True)
        above.set_title("From above")
        side.set_title("From the side")
        side.legend(loc="best", frameon=True, fontsize=9)
        figure.savefig(path, dpi=130)


def _draw(axes: Any, scene: Scene, plane: Float[np.ndarray, "3 2"]) -> None:
    origin = picture_origin(scene.poses)
    centres = (scene.poses.position.numpy() - origin) @ plane
    shown = centres
    if scene.points is not None:
        some = slice(None, None, max(1, len(scene.points.xyz) // _MOST_POINTS))
        points = (scene.points.xyz[some] - origin) @ plane
        low, high = np.percentile(points, _FAR, axis=0)
        inside = ((points >= low) & (points <= high)).all(axis=1)
        axes.scatter(*points[inside].T, s=1, c=scene.points.rgb[some][inside] / 255, zorder=1)
        shown = np.concatenate([shown, points[inside]])
    length = _LOOK * float(np.ptp(shown, axis=0).max())
    look = scene.poses.look_direction.numpy() @ plane
    recordings = np.array([scene.sequence(i) for i in range(len(scene))])
    for name, colour in zip(dict.fromkeys(recordings.tolist()), cycle(COLOURS), strict=False):
        rows = recordings == name
        axes.scatter(*centres[rows].T, s=9, color=colour, label=f" {name}", zorder=3)
        ends = centres[rows] + length * look[rows]
        lines = np.stack([centres[rows], ends], axis=1)
        axes.plot(*lines.transpose(2, 1, 0), color=colour, lw=0.6, zorder=2)
