"""The routes: what can be asked, and what is looked at of a request."""

import asyncio
import hmac
from collections.abc import Awaitable
from typing import Annotated, TypeVar

import torch
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from relocal.camera import Camera, parse_camera
from relocal.errors import InputError
from relocal.pose import Pose
from relocal.server.bounds import RETRY_AFTER
from relocal.server.page import NO_VIEWER
from relocal.server.places import Place
from relocal.server.schemas import (
    BATCH_BODY,
    ERRORS,
    PHOTO_BODY,
    Batch,
    Location,
    Reason,
    Scene,
    Scenes,
    Status,
    UnreadPhoto,
)
from relocal.server.service import PHOTO_TYPES, Service
from relocal.viewer.recording import record, viewer_page

_FORM = "multipart/form-data"
_Result = TypeVar("_Result")


def _service(request: Request) -> Service:
    return request.app.state.service


def _check_key(request: Request) -> None:
    given, key = request.headers.get("x-api-key", ""), _service(request).api_key
    if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
        raise HTTPException(401, "X-API-Key: is missing or wrong.")


def _place(
    request: Request,
    scene: Annotated[
        str | None, Query(description="Its name; not needed if it is the only one")
    ] = None,
) -> Place:
    places = _service(request).places
    if scene is None and len(places) == 1:
        return next(iter(places.values()))
    if scene is None or scene not in places:
        raise HTTPException(404, f"scene: this server knows {', '.join(places)}.")
    return places[scene]


def _camera(
    camera: Annotated[
        str | None,
        Query(
            description="The photo's camera: MODEL,width,height,parameters as COLMAP has them, or "
            "JSON with model, width, height and params; "
            "without it that of EXIF or the scene",
            examples=["SIMPLE_PINHOLE,640,480,525,320,240"],
        ),
    ] = None,
) -> Camera | None:
    try:
        return None if camera is None else parse_camera(camera, "camera")
    except InputError as error:
        raise HTTPException(422, str(error)) from error


Where = Annotated[Place, Depends(_place)]
Lens = Annotated[Camera | None, Depends(_camera)]
Known = Annotated[Service, Depends(_service)]

_MOST = 1e12  # of a coordinate: a map of the Earth in millimetres, and more
_Number = Annotated[float, Field(ge=-_MOST, le=_MOST)]
Position = Annotated[
    list[_Number] | None,
    Query(min_length=3, max_length=3, description="An answer's, three times"),
]
Quaternion = Annotated[
    list[_Number] | None,
    Query(min_length=4, max_length=4, description="An answer's w, x, y, z, four times"),
]
Sigma = Annotated[float | None, Query(ge=0, le=_MOST, description="An answer's sigma_m")]

router = APIRouter()
photos = APIRouter(prefix="/v1", dependencies=[Depends(_check_key)])


@photos.post("/localize", responses=ERRORS, openapi_extra=PHOTO_BODY)
async def localize(request: Request, service: Known, place: Where, camera: Lens) -> Location:
    """Says where a photo was taken."""
    photo = await _photo_of(request)
    return await _while_there(request, service.locate(photo, place, camera))


@photos.post("/localize/batch", responses=ERRORS, openapi_extra=BATCH_BODY)
async def localize_batch(request: Request, service: Known, place: Where, camera: Lens) -> Batch:
    """Says where several photos were taken, each by itself and in their order."""
    given = await _photos_of(request, service.config.batch_photos)
    asked = (service.locate(photo, place, camera) for photo in given)
    found = await _while_there(request, asyncio.gather(*asked, return_exceptions=True))
    if all(isinstance(one, HTTPException) and one.status_code == 429 for one in found):
        raise HTTPException(429, "too many photos wait; try again.", RETRY_AFTER)
    answers: list[Location | UnreadPhoto] = []
    for one in found:
        if isinstance(one, HTTPException):
            answers.append(UnreadPhoto(status=one.status_code, detail=str(one.detail)))
        elif isinstance(one, BaseException):
            raise one
        else:
            answers.append(one)
    return Batch(answers=answers)


@photos.get("/scene", responses=ERRORS)
def scene(service: Known, place: Where) -> Scene:
    """What is known of a scene: its unit and camera, map points and where it was recorded."""
    return Scene(**place.to_json(), scenes=list(service.places))


@photos.get("/scenes", responses=ERRORS)
def scenes(service: Known) -> Scenes:
    """The names of this server's scenes."""
    return Scenes(scenes=list(service.places))


@photos.get(
    "/scene/view",
    response_class=Response,
    responses={**ERRORS, 200: {"content": {"application/octet-stream": {}}}},
)
def scene_view(
    place: Where, position: Position = None, quaternion: Quaternion = None, sigma: Sigma = None
) -> Response:
    """A scene and an answer in it in three dimensions, for /viewer/?playbackPath=ADDRESS."""
    if (position is None) != (quaternion is None):
        raise HTTPException(422, "position and quaternion belong together; give both.")
    if viewer_page() is None:
        raise HTTPException(404, NO_VIEWER)
    answer = None
    if position is not None and quaternion is not None:
        answer = Pose.from_quaternion(
            *(torch.tensor(values, dtype=torch.float64) for values in (position, quaternion))
        )
    content = record(place.recorded, place.points, place.camera, answer, sigma)
    return Response(content, media_type="application/octet-stream")


@router.get("/healthz")
def healthz() -> Status:
    """Whether the server is alive."""
    return Status(status="ok")


@router.get("/readyz", responses={503: {"model": Reason, "description": "Not ready."}})
def readyz(service: Known) -> Status:
    """Whether it answers photos."""
    if not all(batcher.ready for batcher in service.asked.values()):
        raise HTTPException(503, "not ready.")
    return Status(status="ready")


@router.get("/metrics", response_class=Response)
def prometheus(service: Known) -> Response:
    """Counts and times, in Prometheus' text format."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _while_there(request: Request, work: Awaitable[_Result]) -> _Result:
    """What ``work`` finds; it is given up when the client hangs up.

    Raises:
        ClientDisconnect: If the client hung up.
    """
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # behind a body nothing else comes
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _photo_of(request: Request) -> bytes:
    """The photo of a request: its body, or the part ``photo`` of a form."""
    kind = _content_type(request)
    if kind == _FORM:
        return (await _photos_of(request, 1))[0]
    if kind not in (*PHOTO_TYPES.values(), "application/octet-stream"):
        accepted = ", ".join((*PHOTO_TYPES.values(), _FORM))
        raise HTTPException(415, f"Content-Type: {kind or 'none'} is not one of {accepted}.")
    return await request.body()


async def _photos_of(request: Request, most: int) -> list[bytes]:
    """The parts ``photo`` of a form; their file names are not looked at."""
    if (kind := _content_type(request)) != _FORM:
        raise HTTPException(415, f"Content-Type: {kind or 'none'} is not {_FORM}.")
    async with request.form(max_files=most, max_fields=10) as form:
        parts = [part for part in form.getlist("photo") if isinstance(part, UploadFile)]
        if not parts:
            raise HTTPException(422, "the form has no file photo.")
        return [await part.read() for part in parts]
