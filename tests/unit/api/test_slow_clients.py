"""Clients that take their time or send too much of a head: their place is needed for others."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fog_node.api import connections
from fog_node.client import Client

DEADLINE_S = 60.0


async def opened(base: str):
    url = httpx.URL(base)
    return await asyncio.open_connection(url.host, url.port)


async def ended(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read()
    except ConnectionResetError:
        return b""


async def check_answers(base: str) -> None:
    """Whoever asks has to be quick here, and may have to ask again."""
    async with Client([base], timeout_s=DEADLINE_S, patience_s=DEADLINE_S) as client:
        assert (await client.status()).height


@pytest.mark.parametrize(
    "begin", [b"", b"GET /v1/status HT", b"GET /v1/status HTTP/1.1\r\nA: b\r\n"]
)
async def test_a_head_that_trickles_in_is_not_waited_for(world, monkeypatch, begin) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.3)
    async with world.served() as base:
        reader, writer = await opened(base)
        writer.write(begin)

        async def trickle() -> None:
            while True:
                writer.write(b"x" if begin else b"")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        try:
            assert not (await ended(reader)).startswith(b"HTTP/1.1 2")
        finally:
            trickling.cancel()
            writer.transport.abort()
        await check_answers(base)


async def test_a_head_that_never_ends_is_cut_off(world) -> None:
    async with world.served() as base:
        reader, writer = await opened(base)
        writer.write(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n")
        for number in range(4000):
            writer.write(b"X-%d: %s\r\n" % (number, b"y" * 100))
        assert not (await ended(reader)).startswith(b"HTTP/1.1 2")
        writer.transport.abort()
        await check_answers(base)


async def test_many_that_say_nothing_leave_room(world, monkeypatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.5)
    async with world.served() as base:
        silent = [await opened(base) for _ in range(300)]
        try:
            await check_answers(base)
        finally:
            for _, writer in silent:
                writer.transport.abort()
