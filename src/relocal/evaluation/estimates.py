"""Other systems' estimates, read from files and judged as every localizer is."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from relocal.datasets.pose_lines import poses_of_lines, read_pose_lines
from relocal.errors import InputError
from relocal.evaluation.report import BASELINES, MethodResult, Report
from relocal.metrics import RECALL_THRESHOLDS_M, pose_errors
from relocal.pose import Pose
from relocal.scene.scene import some
from relocal.training.run import environment


def evaluate_estimates(labels: Path | str, estimates: Sequence[Path | str] | Path | str) -> Report:
    """Measures estimates that other systems wrote, in metres.

    Args:
        labels: True poses of every image that was asked about, lines
            ``name qw qx qy qz tx ty tz [f]``, ``cam_from_world``.
        estimates: Files of the same form, as hloc writes them. An image that a file lacks counts
            as one without an answer; images that the labels lack are not counted, and remarked.

    Returns:
        A report without baselines, for nothing is known of the training images.

    Raises:
        InputError: If a file cannot be read, or has none of the labels' images.
    """
    given = [estimates] if isinstance(estimates, str | Path) else estimates
    labels, files = Path(labels), [Path(file) for file in given]
    truth_rows = read_pose_lines(labels, "--labels")
    if not truth_rows or not files:
        empty = f"--labels {labels}" if files else "--estimates"
        raise InputError(f"{empty}: holds nothing to compare.")
    images = tuple(truth_rows)
    truth = poses_of_lines(truth_rows.values())
    methods: dict[str, MethodResult] = {}
    notes: list[str] = []
    for name, file in zip(_names(files), files, strict=True):
        found, unknown = read_estimates(file, images)
        if unknown:
            notes.append(
                f"{name} has {len(unknown)} more images, which the labels lack: {some(unknown)}."
            )
        methods[name] = MethodResult(found, pose_errors(found, truth))
    positions = truth.position
    return Report(
        scene=labels.stem,
        unit="m",
        split="listed",
        regime="as the maker of the estimates chose",
        images=images,
        truth=truth,
        training=truth[:0],
        methods=methods,
        thresholds=RECALL_THRESHOLDS_M,
        extent=float((positions.amax(0) - positions.amin(0)).norm()),
        notes=tuple(notes),
        made_by={
            **environment(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "provenance": {
                "labels": str(labels),
                "split": "all images of the labels",
                "estimates": dict(zip(methods, map(str, files), strict=True)),
            },
        },
    )


def read_estimates(file: Path, images: Sequence[str]) -> tuple[list[Pose | None], list[str]]:
    """Reads the estimates of images.

    Args:
        file: Pose lines.
        images: Names of the images without their suffixes.

    Returns:
        A pose an image, None where the file has none; and the names of the images that were not
        asked for.

    Raises:
        InputError: If the file cannot be read, or has none of the images.
    """
    rows = read_pose_lines(file, "--estimates")
    known = [name for name in images if name in rows]
    if not known:
        raise InputError(
            f"--estimates {file}: none of its {len(rows)} images is in the labels (estimates "
            f"{some(list(rows), 2)}; labels {some(list(images), 2)})."
        )
    poses = poses_of_lines([rows[name] for name in known])
    place = {name: i for i, name in enumerate(known)}
    found = [poses[place[name]] if name in place else None for name in images]
    return found, sorted(rows.keys() - set(images))


def _names(files: Sequence[Path]) -> list[str]:
    """What the report calls each file: its stem, with as many folders as tell two apart."""
    paths = [file.resolve().with_suffix("").parts for file in files]

    def name(parts: tuple[str, ...]) -> str:
        depth = 1
        while depth < len(parts) and [p[-depth:] for p in paths].count(parts[-depth:]) > 1:
            depth += 1
        return "/".join(parts[-depth:])

    names = [name(parts) for parts in paths]
    if twice := {name for name in names if names.count(name) > 1 or name in BASELINES}:
        raise InputError(f"--estimates: {twice.pop()} is given twice, or is a baseline's name.")
    return names
