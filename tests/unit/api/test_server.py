"""The server on a real socket: start, stop, limits."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import httpx
import pytest

from fog_node.api import following
from fog_node.api.server import ApiServer
from fog_node.errors import ConfigurationError

DEADLINE_S = 60


async def test_a_port_that_is_taken_is_named_with_a_remedy(world):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"\[api\] listen 127.0.0.1:{port}: .*free"):
            ApiServer(world.services(), "127.0.0.1", port)


async def test_a_host_that_does_not_exist_is_named(world):
    with pytest.raises(ConfigurationError, match=r"\[api\] listen"):
        ApiServer(world.services(), "host.invalid", 0)


async def test_it_stops_while_someone_follows(world):
    async with asyncio.timeout(DEADLINE_S), httpx.AsyncClient(timeout=DEADLINE_S) as client:
        async with world.served() as url:
            opened = client.stream("GET", f"{url}/v1/stream", params={"from": 1})
            response = await opened.__aenter__()
            chunks = response.aiter_bytes()
            assert await anext(chunks)
        with pytest.raises((StopAsyncIteration, httpx.HTTPError)):
            await anext(chunks)
        await opened.__aexit__(None, None, None)


async def test_followers_are_bounded_and_leave_room_when_they_go(world, monkeypatch):
    monkeypatch.setattr(following.Followers, "__init__", _two_at_most)
    async with (
        asyncio.timeout(DEADLINE_S),
        world.served() as url,
        httpx.AsyncClient(timeout=DEADLINE_S) as client,
    ):
        opened = [client.stream("GET", f"{url}/v1/events", params={"from": 1}) for _ in range(2)]
        followed = [(await context.__aenter__()).aiter_bytes() for context in opened]
        for chunks in followed:
            assert await anext(chunks)
        refused = await client.get(f"{url}/v1/stream", params={"from": 1})
        assert refused.status_code == 503
        assert refused.json()["error"]["field"] == "followers"
        assert refused.headers["retry-after"]
        for context in opened:
            await context.__aexit__(None, None, None)
        while True:
            if await _status_of(client, f"{url}/v1/events") == 200:
                break
            await asyncio.sleep(0.02)


async def test_a_reader_that_does_not_read_is_not_read_for(world, chain, monkeypatch):
    """What a stalled follower costs is a block and what the sockets hold, not the chain."""
    blocks, size = 500, 1024 * 1024
    read = []

    def large_block(height):
        read.append(height)
        return bytes(size), b""

    monkeypatch.setattr(chain.ledger, "block", large_block)
    world.feed.announce(blocks)
    async with asyncio.timeout(DEADLINE_S), world.served() as url:
        address = httpx.URL(url)
        async with connection(address) as (reader, writer):
            writer.write(b"GET /v1/stream?from=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
                for _ in range(50):
                    assert (await client.get(f"{url}/v1/status")).status_code == 200
    assert len(read) < blocks // 5


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\x01\x02 garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"POST /v1/transactions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_garbage_on_the_port_ends_the_connection_only(world, request_):
    async with asyncio.timeout(DEADLINE_S), world.served() as url:
        address = httpx.URL(url)
        async with connection(address) as (reader, writer):
            writer.write(request_)
            # It may be cut off before all was sent, and then there is no answer to read.
            with contextlib.suppress(ConnectionError):
                assert (await reader.read(64)).startswith(b"HTTP/1.1 4")
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
            assert (await client.get(f"{url}/v1/healthz")).status_code == 200


async def test_a_large_body_is_refused_before_it_is_sent(world):
    async with asyncio.timeout(DEADLINE_S), world.served() as url:
        address = httpx.URL(url)
        async with connection(address) as (reader, writer):
            writer.write(
                b"POST /v1/transactions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/cose\r\nContent-Length: 10000000000\r\n\r\n"
            )
            assert (await reader.read(64)).startswith(b"HTTP/1.1 413")


@contextlib.asynccontextmanager
async def connection(address):
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _two_at_most(self):
    self._limit = 2
    self.count = 0


async def _status_of(client, url):
    async with client.stream("GET", url, params={"from": 1}) as response:
        return response.status_code
