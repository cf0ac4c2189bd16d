"""The HTTP application: photos in, poses out, as JSON."""

import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.requests import ClientDisconnect

from relocal import __version__
from relocal.server.bounds import BoundedBody
from relocal.server.config import ServeConfig
from relocal.server.page import pages
from relocal.server.places import Place
from relocal.server.routes import photos, router
from relocal.server.service import Service

BODIES = 16
"""So many of the largest bodies are held at once."""


def create_app(
    places: Mapping[str, Place], config: ServeConfig | None = None, api_key: str | None = None
) -> FastAPI:
    """The server's application.

    Args:
        places: By name, the scenes that it answers for.
        config: How requests are answered.
        api_key: What clients must send as ``X-API-Key``; None: anybody may ask.

    Raises:
        InputError: If there is no place, or one cannot refuse a photo where that is asked for.
    """
    service = Service(places, config or ServeConfig(), api_key)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        for name, batcher in service.asked.items():
            batcher.start()
            await batcher.ask(_grey_photo(places[name]), None)  # the first photo is the slowest
        yield
        for batcher in service.asked.values():
            await batcher.stop()

    app = FastAPI(
        title="relocal",
        version=__version__,
        summary="Where was this photo taken?",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.service = service
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(ClientDisconnect, _tell_nobody)
    most = round(1e6 * service.config.max_mb)
    app.add_middleware(BoundedBody, most_bytes=most, held_bytes=BODIES * most)
    app.middleware("http")(service.metrics.count)
    app.include_router(photos)
    app.include_router(router)
    app.include_router(pages)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """Says in one sentence, as of every other refusal, what of a request is wrong."""
    assert isinstance(error, RequestValidationError)
    parts = [
        f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}"
        for one in error.errors()
    ]
    return JSONResponse({"detail": f"{'; '.join(parts)}."}, 422)


async def _tell_nobody(request: Request, error: Exception) -> Response:
    """Whoever hung up: no client reads this, but the metrics count it."""
    return JSONResponse({"detail": "the client hung up."}, 400)


def _grey_photo(place: Place) -> bytes:
    camera, content = place.camera, io.BytesIO()
    Image.new("RGB", (camera.width, camera.height), "grey").save(content, "PNG")
    return content.getvalue()
