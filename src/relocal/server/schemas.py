"""What the interface takes and gives, as its OpenAPI description says."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Notice(BaseModel):
    """What the user should know about an answer."""

    code: str = Field(
        description="For programs; the conventions list all", examples=["network-alone"]
    )
    text: str = Field(description="For people")


class Location(BaseModel):
    """Where a photo was taken."""

    located: bool = Field(description="False: it cannot tell, and all else is null")
    scene: str = Field(examples=["kitchen"])
    unit: str = Field(description="m, or unit where nobody knows the scale", examples=["m"])
    position: list[float] | None = Field(
        default=None, description="The camera's centre in the world", examples=[[0.52, -0.13, 1.4]]
    )
    quaternion: list[float] | None = Field(
        default=None,
        description="w, x, y, z: turns the camera's directions (x right, y down, z forward) into "
        "the world's",
        examples=[[0.98, 0.0, 0.17, 0.0]],
    )
    world_from_cam: list[list[float]] | None = Field(default=None, description="4 x 4")
    cam_from_world: list[list[float]] | None = Field(default=None, description="4 x 4, its inverse")
    sigma_m: float | None = Field(
        default=None, description="Standard deviation of the position per axis, in the unit"
    )
    sigma_deg: float | None = Field(
        default=None, description="Standard deviation of the rotation vector per axis, in degrees"
    )
    inliers: int | None = Field(default=None, description="Matches that support it")
    method: str | None = Field(default=None, examples=["hybrid"])
    time_ms: float | None = Field(default=None, description="From the whole photo to the pose")
    warnings: list[Notice] = Field(default=[], description="What the user should know")


class UnreadPhoto(BaseModel):
    """A photo of a batch that could not be asked about."""

    status: int = Field(description="What it alone would have got", examples=[422])
    detail: str


class Batch(BaseModel):
    """Answers in the order of the photos."""

    answers: list[Location | UnreadPhoto]


class Scene(BaseModel):
    """A place that the server answers for."""

    name: str
    unit: str
    method: str
    camera: dict[str, Any] = Field(description="That of its photos: COLMAP's model and parameters")
    training_images: int
    points: list[list[float]] = Field(description="Map points: x, y, z, r, g, b")
    training_positions: list[list[float]] = Field(description="Where it was recorded")
    scenes: list[str] = Field(description="All scenes of this server")


class Scenes(BaseModel):
    """The places that the server answers for."""

    scenes: list[str] = Field(examples=[["kitchen", "office"]])


class Status(BaseModel):
    """How the server is."""

    status: Literal["ok", "ready"]


class Reason(BaseModel):
    """Why a request was refused."""

    detail: str


def _refusal(words: str) -> dict[str, Any]:
    return {"model": Reason, "description": words}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: _refusal("The photo is empty, or the request damaged."),
    401: _refusal("The API key is missing or wrong."),
    404: _refusal("The scene is not known, or has to be named."),
    413: _refusal("The body is too large."),
    415: _refusal("Not a photo in a format that is accepted."),
    422: _refusal("The photo cannot be read, or does not fit its camera."),
    429: _refusal("Too many photos wait; Retry-After says for how many seconds."),
}
_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["photo"], "properties": {"photo": _BINARY}}
_LIST = {"type": "array", "items": _BINARY, "minItems": 1}
PHOTO_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{f"image/{kind}": {"schema": _BINARY} for kind in ("jpeg", "png", "webp")},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}
BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {**_FORM, "properties": {"photo": _LIST}}},
        },
    }
}
