"""The card of a published scene: what a person reads of a dataset."""

import json
import re
from collections.abc import Mapping

from relocal.errors import InputError
from relocal.publishing.config import PublishConfig
from relocal.publishing.croissant import TABLE
from relocal.report.labels import scale_text
from relocal.report.study_texts import markdown_text
from relocal.report.tables import markdown_table
from relocal.scene import Scene

CARD, PICTURE = "README.md", "label.png"
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
_HUB = {"ODbL-1.0": "odbl"}  # the others are called there as here, in small letters
_TAGS = ("visual-localization", "camera-pose", "structure-from-motion", "croissant")


def describe(scene: Scene) -> str:
    """A sentence of what a scene is, for want of its maker's own."""
    recordings = len({scene.sequence(i) for i in range(len(scene))})
    known = "metres" if scene.unit == "m" else "a unit of their own"
    return (
        f"{len(scene)} photos of one place in {_count(recordings, 'recording')}, each with the "
        f"position and rotation of its camera; lengths are in {known}."
    )


def citation(title: str, config: PublishConfig) -> str:
    """BibTeX of the dataset."""
    first = config.author[0]
    name = first.split(",")[0] if "," in first else first.split()[-1]
    key = "".join(c for c in f"{name}{config.day[:4]}" if c.isalnum())
    title, author = _bibtex(title), _bibtex(" and ".join(config.author))
    url = f",\n  url = {{{config.url}}}" if config.url else ""
    return (
        f"@misc{{{key},\n  title = {{{title}}},\n  author = {{{author}}},\n"
        f"  year = {{{config.day[:4]}}},\n  version = {{{config.version}}}{url}\n}}"
    )


def _bibtex(text: str) -> str:
    """A text that BibTeX shows as it is, and that cannot end the block of code it stands in."""
    words = " ".join(text.replace("`", "'").split())
    return re.sub(r"([{}&%$#_])", r"\\\1", words.replace("\\", "/"))


def card(scene: Scene, config: PublishConfig, about: Mapping[str, str]) -> str:
    """The card as Markdown, its header in the YAML that the Hugging Face Hub reads.

    Args:
        scene: The scene.
        config: What it says of itself.
        about: Its ``title``, ``description`` and ``citation``.
    """
    licence = config.licence
    link = f"[{licence.name}]({licence.url}). {licence.summary}" if licence else "See LICENSE."
    said = (
        "The files of the photos say when, where and by what they were taken."
        if config.keep_metadata
        else "What the files of the photos said of time, place and camera has been taken out."
    )
    parts = [
        _header(scene, config, about["title"]),
        f"# {markdown_text(about['title'])}",
        markdown_text(about["description"]),
        f"![Cameras and map points from above and from the side]({PICTURE})",
        markdown_table([["", ""], *_numbers(scene)]),
        f"Version {config.version}, {config.day}, by "
        f"{markdown_text(', '.join(config.author))}. {said}",
        "## Use",
        "The folder is a scene of relocal (`pip install relocal`), and a COLMAP model "
        "with its photos. Import checks it against its checksums:",
        "```bash\nrelocal import published . --out ../scene\n"
        "relocal train ../scene --out ../run --preset proposed\n```",
        _FILES,
        "`datasets.load_dataset` opens the table. Axes are COLMAP's: x right, y down, z forward. "
        "`metadata.csv` has the camera's centre and "
        "the quaternion that turns camera into world; the COLMAP model has the inverse.",
        "## Licence",
        link,
        "## Citation",
        f"```bibtex\n{about['citation']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


_FILES = """| | |
|---|---|
| `images/` | the photos |
| `sparse/0/` | cameras, poses and map points: a COLMAP model |
| `scene.json` | name, unit, splits, how the poses were made |
| `metadata.csv` | a line for each photo: split, recording, pose, camera |
| `splits/` | names of the photos of each split |
| `croissant.json` | all this for machines |
| `checksums.sha256` | for `sha256sum -c` |"""


def _header(scene: Scene, config: PublishConfig, title: str) -> str:
    size = next((name for most, name in _SIZES if len(scene) < most), "n>1M")
    if config.licence:
        licence = [f"license: {_HUB.get(config.license, config.license.lower())}"]
    else:
        licence = ["license: other", "license_link: LICENSE"]
    tags = [f"- {tag}" for tag in _TAGS]
    lines = [
        "---",
        f"pretty_name: {json.dumps(title, ensure_ascii=False)}",
        *licence,
        "size_categories:",
        f"- {size}",
        "tags:",
        *tags,
        "configs:",
        "- config_name: poses",
        f"  data_files: {TABLE}",
        "---",
    ]
    return "\n".join(lines)


def _numbers(scene: Scene) -> list[list[str]]:
    recordings = [scene.sequence(i) for i in range(len(scene))]
    parts = ", ".join(f"{len(names)} {split}" for split, names in scene.splits.items())
    provenance = scene.provenance
    rows = [
        ["photos", f"{len(scene)} ({parts})"],
        ["split", str(provenance.get("split", "none"))],
        ["recordings", ", ".join(dict.fromkeys(recordings))],
        ["unit", "metre" if scene.unit == "m" else "its own; the scale is not known"],
        ["extent of the path", f"{scene.extent():.3g} {scene.unit}"],
        ["map points", str(0 if scene.points is None else len(scene.points.xyz))],
        ["cameras", str(len(scene.cameras))],
        ["poses from", str(provenance.get("labels", provenance.get("reader", "not said")))],
    ]
    if "label" in provenance:
        rows += _label_numbers(scene)
    return [[name, markdown_text(value)] for name, value in rows]


def _label_numbers(scene: Scene) -> list[list[str]]:
    label = scene.provenance["label"]
    try:
        error = f"{label['mean_reprojection_error_px']:.2f} px"
        track = f"{label['mean_track_length']:.1f} photos"
        rows = [["mean reprojection error", error], ["mean track", track]]
        if label["scale"]:  # without it the unit says all
            rows += [["scale", scale_text(label["scale"], scene.unit)]]
    except (KeyError, TypeError, ValueError) as fault:
        raise InputError(
            f"{scene.folder}/scene.json: its provenance.label is not what label writes ({fault!r})."
        ) from fault
    return rows


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
