"""Localizers: ``localize(photo, camera=None) -> Estimate | None``, one file a way."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from relocal.camera import Camera
from relocal.images import Source
from relocal.localizers.regressor import Regressor
from relocal.types import Estimate


@runtime_checkable
class Localizer(Protocol):
    """What evaluation, serving and the command line ask of every way to localize."""

    method: str

    def localize(self, image: Source, camera: Camera | None = None) -> Estimate | None:
        """The pose of a photo, or None when it cannot tell."""
        ...


LOCALIZERS: dict[str, Callable[..., Localizer]] = {
    "regressor": Regressor,
}

__all__ = ["LOCALIZERS", "Localizer", "Regressor"]
