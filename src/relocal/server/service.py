"""Service: what a server knows, and how it answers one photo."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import open_photo
from relocal.localizers.doubt import check_doubts, refused
from relocal.report import estimate_to_json
from relocal.server.batching import Batcher, QueueFullError
from relocal.server.bounds import RETRY_AFTER, has_a_short_header, photo_kind
from relocal.server.config import ServeConfig
from relocal.server.metrics import Metrics
from relocal.server.places import Place
from relocal.server.schemas import Location

PHOTO_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


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
        # Beside the event loop: reading a header takes its time.
        await asyncio.to_thread(_check_photo, photo, self.config.max_megapixels)
        try:
            estimate = await self.asked[place.name].ask(photo, camera)
        except QueueFullError:
            raise HTTPException(429, "too many photos wait; try again.", RETRY_AFTER) from None
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        self.metrics.located(place.name, estimate)
        unsure = self.config.reject and refused(place.localizer, estimate)
        if estimate is None or unsure:
            return Location(located=False, scene=place.name, unit=place.unit)
        values: dict[str, Any] = estimate_to_json(estimate, "")
        del values["photo"]
        return Location(located=True, scene=place.name, **values)


def _check_photo(photo: bytes, most_megapixels: float) -> None:
    """Refuses what is no photo of a kind that is accepted, or too large, from its header alone."""
    if not photo:
        raise HTTPException(400, "the photo is empty.")
    if photo_kind(photo) is None:
        raise HTTPException(415, f"this is no photo in {', '.join(PHOTO_TYPES)}.")
    if not has_a_short_header(photo):
        raise HTTPException(422, "the photo's header has too many parts.")
    try:
        with open_photo(photo) as image:
            megapixels = image.width * image.height / 1e6
    except InputError as error:
        raise HTTPException(422, str(error)) from error
    if megapixels > most_megapixels:
        told = f"{megapixels:.0f} megapixels; at most {most_megapixels:g} are looked at."
        raise HTTPException(422, f"the photo has {told}")
