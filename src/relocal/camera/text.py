"""A camera as a text: ``MODEL,width,height,parameters...``, or JSON."""

import json
from typing import Any

from relocal.camera.calibrations import camera_of_content
from relocal.camera.camera import Camera
from relocal.camera.models import CAMERA_MODELS, no_model
from relocal.errors import InputError

_LONGEST = 10_000


def parse_camera(text: str, what: str = "--camera") -> Camera:
    """Reads ``MODEL,width,height,parameters...``, or a JSON object such as ``to_json`` makes.

    Args:
        text: The camera.
        what: The option or field that it is from, for messages.

    Raises:
        InputError: If it is no camera.
    """
    if len(text) > _LONGEST:
        raise InputError(f"{what}: {len(text)} characters are no camera.")
    if text.lstrip().startswith("{"):
        return camera_of_content(_json(text, what), what)
    model, *numbers = text.split(",")
    model = model.strip().upper()
    if len(model.split()) > 1 and model.split()[0] in CAMERA_MODELS:
        mended = ",".join(text.replace(",", " ").split())
        raise InputError(f"{what} {text}: the commas are missing; write {mended}.")
    if model not in CAMERA_MODELS:
        raise no_model(what, model, max(0, len(numbers) - 2))
    try:
        values = [float(number) for number in numbers]
    except ValueError as error:
        raise InputError(f"{what} {text}: {error}.") from error
    if len(values) < 3 or not all(value.is_integer() for value in values[:2]):
        raise InputError(
            f"{what} {text}: needs MODEL,width,height,{','.join(CAMERA_MODELS[model])}."
        )
    return Camera.read(f"{what} {text}", model, values[0], values[1], values[2:])


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: this is not whole JSON ({error}).") from error
