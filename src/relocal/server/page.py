"""The page for people: a photo is dropped or taken, and seen where it was taken."""

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse

from relocal.viewer.recording import viewer_page

NO_VIEWER = "this server has no viewer: pip install 'relocal[view]'."
_FILES = Path(__file__).with_name("page_files")
_KINDS = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_ONLY_OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob:; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# viser's page is one file with all that it runs, reads parts of itself as data and makes workers.
# A recording may hold a script, which may not run.
_VIEWER = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src blob: data:; font-src data:; connect-src blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

pages = APIRouter(include_in_schema=False)


def _file(name: str) -> Response:
    headers = {"Content-Security-Policy": _ONLY_OURS, "X-Content-Type-Options": "nosniff"}
    return FileResponse(_FILES / name, media_type=f"{_KINDS[name]}; charset=utf-8", headers=headers)


@pages.get("/")
def page() -> Response:
    """The page."""
    return _file("page.html")


@pages.get("/page.css")
def style() -> Response:
    """How it looks."""
    return _file("page.css")


@pages.get("/page.js")
def script() -> Response:
    """What it does."""
    return _file("page.js")


@pages.get("/viewer/")
def viewer(request: Request) -> Response:
    """What plays /v1/scene/view in the page, which hands it over as a blob.

    From an address in a link it plays nothing: strangers' recordings would run in this origin.
    """
    file = viewer_page()
    if file is None:
        raise HTTPException(404, NO_VIEWER)
    played = request.query_params.getlist("playbackPath")
    if not all(address.startswith("blob:") for address in played):
        raise HTTPException(400, "playbackPath: plays what the page hands over and nothing else.")
    headers = {"Content-Security-Policy": _VIEWER, "X-Content-Type-Options": "nosniff"}
    return FileResponse(file, media_type="text/html; charset=utf-8", headers=headers)
