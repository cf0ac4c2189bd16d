"""What a server refuses before it reads it: too much at once, and headers without end."""

import asyncio
import io
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="serving is an extra: pip install 'relocal[serve]'")

from fastapi import HTTPException  # after the check above

from relocal.server.bounds import BoundedBody, has_a_short_header, photo_kind


def encoded(form: str, size: tuple[int, int] = (160, 120)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, "grey").save(content, form)
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8" + b"\xff\xe9\x00\x02" * 200_000 + encoded("JPEG")[2:],
        b"\xff\xd8" + b"\xff" * 500_000 + encoded("JPEG")[2:],
        encoded("PNG")[:33] + b"\0\0\0\0zzZz\0\0\0\0" * 100_000 + encoded("PNG")[33:],
    ],
    ids=["segments", "fill", "chunks"],
)
def test_a_header_of_a_million_parts_is_known_without_reading_it(content: bytes) -> None:
    assert not has_a_short_header(content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_headers_of_photos_are_short(form: str) -> None:
    assert photo_kind(encoded(form)) == form
    assert has_a_short_header(encoded(form, (2000, 1500)))


def test_bodies_that_come_in_at_once_are_bounded() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            await asyncio.sleep(0)

    async def crowd() -> tuple[list[Any], BoundedBody]:
        bounded = BoundedBody(app, most_bytes=100, held_bytes=250)

        async def ask() -> None:
            left = 10

            async def receive() -> dict[str, Any]:
                nonlocal left
                left -= 1
                return {"type": "http.request", "body": b"x" * 10, "more_body": left > 0}

            await bounded({"type": "http", "headers": []}, receive, None)  # pyright: ignore

        found = await asyncio.gather(*(ask() for _ in range(4)), return_exceptions=True)
        return list(found), bounded

    found, bounded = asyncio.run(crowd())
    refused = [one for one in found if isinstance(one, HTTPException)]
    assert 0 < len(refused) < 4
    assert all(one.status_code == 429 for one in refused)
    assert bounded.held == 0
