"""Notices: what a user should know about an answer or a scene, as data.

A notice has a code, by which a program can act, and a text for people.
"""

from dataclasses import dataclass
from typing import Any

from relocal.errors import InputError

NOTICES: dict[str, str] = {
    # of a photo's camera
    "camera-assumed": "no camera is known; the photo has the size of the scene's, whose is taken",
    "focal-unknown": "no camera is known, and the photo has another size than the scene's",
    "shape-unknown": "no camera is known, and the photo has another shape than the scene's",
    "exif-focal-contradicts": "EXIF states a focal length far from that of the scene's photos",
    "camera-off-centre": "the camera that was given looks past the middle of the photo",
    "camera-scaled": "the camera that was given is of another size than the photo",
    "other-lens": "its focal length is far from that of the scene's photos",
    "focal-doubtful": "what the photo shows fits another focal length better",
    "distortion-doubtful": "a distortion that the camera does not have fits what the photo shows",
    "focal-not-written": "a format needs a focal length, and none is known",
    # of a scene
    "centre-exchanged": "cx and cy of a camera fit when they are exchanged",
    "centre-far-off": "a camera's principal point is far from the middle of its photos",
    "focals-apart": "a camera's fx and fy are far apart",
    "field-of-view": "a camera's field of view is one that no lens has",
    "poses-identical": "many images have the very pose of another",
    # of an answer
    "network-alone": "too little was found in the map: the answer is the network's",
    "frame-misfit": "a frame's own answer does not fit how the camera moves, and is left aside",
    "frame-unseen": "a frame has no answer of its own: it follows from those before it",
    # of a session
    "pairs-disagree": "some photos contradict the others, and had next to no say",
    "device-still": "the device moved little: the turn rests on rotations alone",
    "scale-disagrees": "positions of map and session ask for a scale that is not 1",
    # of labels
    "few-placed": "few of the photos could be placed",
    "parts-apart": "the photos fall into parts that do not connect",
    "few-photos": "the photos are few to train on",
    "large-residuals": "map points are seen far from where they should be",
    "short-tracks": "few photos see a map point",
    "scale-uncertain": "GPS errs by much of the photos' spread: the scale is rough",
    "scale-not-told": "GPS errs too much for the place's size: the scene has no scale",
    "scale-residuals": "the known poses of --scale are far from those of the photos",
    "few-points": "photos see few map points",
    "other": "a notice of another version of this program",
    # of what a reader found
    "scene-already": "what was imported is a scene already",
    "several-models": "the source holds several models of the place; one of them was taken",
    "model-unread": "another model beside the one that was taken cannot be read",
    "photos-smaller": "the photos are smaller than their cameras, which were scaled to them",
    "paths-elsewhere": "photos are named by paths of another computer; the folder has them",
    "validation-is-test": "the source's list of validation images is the test split",
    "lists-leave-out": "images that the source's own lists leave out of training and of test",
    "stamps-scaled": "time stamps are not in seconds; their unit was recognised",
    "clocks-apart": "few images have a pose near in time",
    "intrinsics-assumed": "no file says the camera of the photos; a usual one is taken",
}
"""Every code, with what it means in a line."""


@dataclass(frozen=True)
class Notice:
    """A warning with a code.

    Raises:
        InputError: If the code is no key of ``NOTICES``.
    """

    code: str
    """A key of ``NOTICES``."""
    text: str
    """What is the matter and what to do, for people."""

    def __post_init__(self) -> None:
        if self.code not in NOTICES:
            raise InputError(f"notice: there is no code {self.code!r}; add it to NOTICES.")

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {"code": self.code, "text": self.text}
