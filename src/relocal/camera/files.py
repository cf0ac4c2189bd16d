"""``--camera FILE``: calibrations in YAML or JSON."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from relocal.camera.calibrations import camera_of_content
from relocal.camera.camera import Camera
from relocal.camera.text import parse_camera
from relocal.errors import InputError

_SUFFIXES = (".yaml", ".yml", ".json")
_MOST_BYTES = 4_000_000
_POWER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")  # 1e-5, a text in YAML 1.1
_OPENCV = "%YAML:1.0"  # how OpenCV begins its files, which no YAML reader takes


def read_camera(text: str, what: str = "--camera") -> Camera:
    """Reads a camera that is given as a text, or as the name of a file.

    Files are ROS's camera_info (as its calibrator saves it, or the message printed), OpenCV's
    FileStorage in YAML, Kalibr's chains (``FILE:cam1`` where there are several cameras), and JSON:
    ``Camera.to_json``'s or one with nerfstudio's names.

    Args:
        text: The camera, or the file.
        what: The option that it is from, for messages.

    Raises:
        InputError: If it is no camera.
    """
    for name, which in ((text, None), _named(text)):
        if name and Path(name).suffix.lower() in _SUFFIXES and not name.lstrip().startswith("{"):
            return camera_of_content(_content(Path(name)), name, which)
    return parse_camera(text, what)


def _named(text: str) -> tuple[str, str]:
    file, _, which = text.rpartition(":")
    return file, which


def _content(file: Path) -> Any:
    """What a file holds, as mappings, lists and numbers."""
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file.") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}).") from error
    if len(data) > _MOST_BYTES:
        raise InputError(f"{file}: is larger than a calibration is.")
    text = data.decode("utf-8-sig", errors="replace")
    is_json = file.suffix.lower() == ".json"
    try:
        return json.loads(text) if is_json else _yaml(text)
    except (ValueError, RecursionError, ArithmeticError, AttributeError) as error:
        kind = "JSON" if is_json else "YAML"
        raise InputError(f"{file}: this is not {kind} that can be read ({error}).") from error


def _yaml(text: str) -> Any:
    """The first document of a YAML file, by PyYAML's safe loader.

    Aliases are refused: a few of them can stand for more than a memory holds.

    Raises:
        ValueError: If it is none.
    """
    yaml: Any = import_module("yaml")

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise ValueError("it has aliases")
            return super().compose_node(parent, index)

    def matrix(loader: Any, node: Any) -> Any:
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", matrix)
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _POWER, list("-+.0123456789"))
    try:
        # Whole texts with control characters are refused as the loader is made.
        loader = Loader(text.removeprefix(_OPENCV))
        try:
            return loader.get_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(reason.encode("unicode_escape").decode()) from error
