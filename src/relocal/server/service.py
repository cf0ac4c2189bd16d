"""Service: what a server knows, and how it answers one photo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import open_photo
from relocal.localizers.doubt import check_doubts, doubt
from relocal.report import estimate_to_json
from relocal.server.batching import Batcher, QueueFullError
from relocal.server.metrics import Metrics
from relocal.server.places import Place
from relocal.server.schemas import Location

PHOTO_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
RETRY_AFTER_S = 1


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How requests are answered."""

    batch: int = 8
    """Most photos that a network answers at once; 1 is one after the other."""
    waiting: int = 64
    """Most photos that may wait; further ones get 429 and Retry-After."""
    max_mb: float = 20.0
    """Largest body of a request, in megabytes."""
    batch_photos: int = 32
    """Most photos of one batch request."""
    reject: bool = False
    """Answer "cannot tell" where it is less sure than on nearly all held-out images; needs
    calibrate."""

    def __post_init__(self) -> None:
        for name in ("batch", "waiting", "batch_photos"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')}: must be at least 1.")
        if not 0 < self.max_mb <= 1000:
            raise InputError(f"--max-mb: must be in (0, 1000], not {self.max_mb}.")


class Service:
    """Answers photos of places.

    Args:
        places: By name, the scenes that it answers for.
        config: How requests are answered.
        api_key: What clients must send; None: anybody may ask.

    Raises:
        InputError: If there is no place, or one cannot refuse a photo where that is asked for.
    """

    def __init__(
        self, places: Mapping[str, Place], config: ServeConfig, api_key: str | None = None
    ) -> None:
        if not places:
            raise InputError("RUN: give at least one run, map or exported network.")
        for name, place in places.items():
            if config.reject:
                check_doubts(name, place.localizer)
        self.places, self.config, self.api_key = places, config, api_key
        self.asked = {
            name: Batcher(place.localizer, config.batch, config.waiting)
            for name, place in places.items()
        }
        self.metrics = Metrics(self.asked)

    async def locate(self, photo: bytes, place: Place, camera: Camera | None) -> Location:
        """Where a photo was taken.

        Raises:
            HTTPException: If it cannot be asked about, with the status that says why.
        """
        _check_photo(photo)
        try:
            estimate = await self.asked[place.name].ask(photo, camera)
        except QueueFullError:
            after = {"Retry-After": str(RETRY_AFTER_S)}
            raise HTTPException(429, "too many photos wait; try again.", after) from None
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        self.metrics.located(place.name, estimate)
        sure = not self.config.reject or doubt(place.localizer, estimate) <= 1
        if estimate is None or not sure:
            return Location(located=False, scene=place.name, unit=place.unit)
        values: dict[str, Any] = estimate_to_json(estimate, "")
        del values["photo"]
        return Location(located=True, scene=place.name, **values)


def _check_photo(photo: bytes) -> None:
    """Refuses what is no photo of a kind that is accepted, from its header alone."""
    if not photo:
        raise HTTPException(400, "the photo is empty.")
    try:
        with open_photo(photo) as image:
            form = str(image.format)
    except InputError as error:
        raise HTTPException(422, str(error)) from error
    if form not in PHOTO_TYPES:
        raise HTTPException(415, f"a photo in {form} is not one of {', '.join(PHOTO_TYPES)}.")
