"""Request bodies: bounded before and while they are read."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import Request
from starlette.requests import ClientDisconnect

from .errors import RequestError

BODY_TIMEOUT_S = 30.0


async def read_body(request: Request, media_type: str, max_bytes: int) -> bytes:
    """Read a request's body of this media type.

    Raises:
        RequestError: 415, 413 where it says or turns out to be larger than `max_bytes`, 400
            where it ends early, 408 where it takes longer than BODY_TIMEOUT_S.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != media_type:
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Content-Type",
            f"is {given[:80]!r}",
            f"send {media_type}",
        )
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > max_bytes:
        raise _too_large(f"{length[:20]} bytes are announced", max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large("has more bytes", max_bytes)
    except TimeoutError as error:
        raise RequestError(
            HTTPStatus.REQUEST_TIMEOUT,
            "body",
            f"did not come within {BODY_TIMEOUT_S:g} s",
            "send it at once",
        ) from error
    except ClientDisconnect as error:
        raise RequestError(
            HTTPStatus.BAD_REQUEST, "body", "ended early", "send it whole"
        ) from error
    return bytes(body)


def _too_large(problem: str, max_bytes: int) -> RequestError:
    return RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body",
        problem,
        f"send at most {max_bytes} bytes",
        {"Connection": "close"},
    )
