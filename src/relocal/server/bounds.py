"""Bounds: a body is refused as soon as it is too large, and a photo by its first bytes."""

from fastapi import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RETRY_AFTER = {"Retry-After": "1"}
_MOST_PARTS = 10_000
"""Segments and chunks before a photo's pixels: whoever reads them goes from one to the next."""


class BoundedBody:
    """Passes requests on whose bodies are small enough, as far as all of them together are.

    Args:
        app: What answers them.
        most_bytes: The largest body.
        held_bytes: The most that bodies of all requests that are being answered may hold.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, held_bytes: int) -> None:
        self.app, self.most, self.most_held = app, most_bytes, held_bytes
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        detail = f"the body is larger than {self.most / 1e6:g} MB."
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > self.most:
            await JSONResponse({"detail": detail}, 413)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            size = len(message.get("body", b""))
            seen += size
            self.held += size
            if seen > self.most:
                raise HTTPException(413, detail)
            if self.held > self.most_held:
                raise HTTPException(429, "too many photos come in; try again.", RETRY_AFTER)
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.held -= seen


def photo_kind(photo: bytes) -> str | None:
    """JPEG, PNG or WEBP, from the first bytes; None for all else."""
    if photo.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if photo.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    return "WEBP" if photo[:4] == b"RIFF" and photo[8:12] == b"WEBP" else None


def has_a_short_header(photo: bytes) -> bool:
    """Whether few parts stand before a photo's pixels: millions of empty ones take a minute."""
    kind = photo_kind(photo)
    at = {"JPEG": 2, "PNG": 8}.get(str(kind), len(photo))
    for _ in range(_MOST_PARTS):
        if at + 4 > len(photo):
            return True
        if kind == "PNG":
            at += 12 + int.from_bytes(photo[at : at + 4], "big")
        elif photo[at] != 0xFF or photo[at + 1] == 0xDA:
            return True  # the pixels, or damage, at which a decoder stops
        elif photo[at + 1] == 0xFF or photo[at + 1] in (0x01, *range(0xD0, 0xD9)):
            at += 1 if photo[at + 1] == 0xFF else 2  # fill, and markers without a length
        else:
            at += 2 + max(2, int.from_bytes(photo[at + 2 : at + 4], "big"))
    return False
