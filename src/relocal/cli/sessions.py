"""The verb that finds a device's own frame in the map."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from relocal.cli.console import counted, warn
from relocal.errors import InputError
from relocal.metrics import median
from relocal.scene.files import write_json
from relocal.session import AXES, Alignment, align


@dataclass(frozen=True, kw_only=True)
class Align:
    """Find where the frame of a device that tracks itself lies in the map, from 5 photos or more.

    Both files have a line a photo: stamp tx ty tz qx qy qz qw, or JSON with photo, position and
    quaternion (w, x, y, z).

    Example: relocal align estimates.jsonl session.jsonl --axes arkit --out map_from_session.json
    """

    estimates: Annotated[Positional[Path], arg(metavar="ESTIMATES")]
    """Where the photos were taken, as localize --format json or tum prints it."""
    session: Annotated[Positional[Path], arg(metavar="SESSION")]
    """session_from_device of the same photos, as the device says it."""
    out: Path
    """The JSON file to make: map_from_session, and what it leaves of each pair."""
    axes: Literal["opencv", "arkit", "arcore", "webxr"] = "opencv"
    """The device's axes: arkit, arcore and webxr have y up and look along -z."""
    quarter_turns: int = 0
    """By how many quarter turns clockwise the photos were turned from how the sensor gave them: 1
    where a phone that is held upright saves upright photos."""
    unit: Literal["m", "unit"] | None = None
    """unit finds a scale, too; by default what the estimates say, else m, and the scale is 1."""

    def run(self) -> int:
        """Aligns, and says how well the pairs agree."""
        if self.out.exists():
            raise InputError(f"--out {self.out}: exists already; give another or remove it first.")
        found = align(
            self.estimates,
            self.session,
            axes=self.axes,
            quarter_turns=self.quarter_turns,
            unit=self.unit,
        )
        for doubt in found.warnings:
            warn(doubt.text)
        write_json(self.out, found.to_json())
        print(f"{self.out}: {_summary(found)}")
        return 0


def _summary(found: Alignment) -> str:
    left, by, unit = found.residual, found.map_from_session, found.unit
    scale = "scale 1" if unit == "m" else f"scale {by.scale:.4g} {unit} a metre"
    lines = [
        f"{counted(len(found.names), 'photo')}, {int(found.kept.sum())} agree; residual median "
        f"{median(left.position):.3f} {unit}, {median(left.rotation_deg):.2f}°, worst "
        f"{left.position.max():.3f} {unit}, {left.rotation_deg.max():.2f}°; {scale}."
    ]
    if AXES[found.axes]:
        up = " ".join(f"{value:.3f}" for value in by.rotation[:, 1].tolist())
        lines.append(f"The session's up (y) is {up} in the map.")
    return "\n".join(lines)
