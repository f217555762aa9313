"""Conversations over TCP, and what is left of them when the port is closed: nothing."""

import asyncio
import contextlib
import gc

import pytest

from tools.listener import Listener

HOST = "127.0.0.1"


async def test_a_conversation_ends_with_all_that_was_said():
    async def serve(reader, writer):
        writer.write((await reader.readexactly(6))[::-1] * 100_000)

    async with Listener(serve) as listener:
        reader, writer = await asyncio.open_connection(HOST, listener.port)
        writer.write(b"a week")
        assert await reader.read(-1) == b"keew a" * 100_000
        writer.close()
    assert not listener.conversations


@pytest.mark.parametrize("turns", range(8))
async def test_closing_cuts_a_connection_in_whatever_state_it_is(turns):
    """Not yet taken, taken and not yet begun, begun: asyncio has all three for a turn or two."""
    begun = []

    async def serve(reader, writer):
        begun.append(writer)
        await asyncio.Event().wait()

    listener = Listener(serve)
    await listener.open()
    reader, writer = await asyncio.open_connection(HOST, listener.port)
    for _ in range(turns):
        await asyncio.sleep(0)
    await listener.close()
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    port = writer.get_extra_info("peername")[1]
    writer.close()
    assert not listener.conversations
    assert all(writer.transport.is_closing() for writer in begun)
    gc.collect()  # a socket left open is a warning here, and warnings are errors
    with pytest.raises(OSError):  # noqa: PT011 - as the system words it
        await asyncio.open_connection(HOST, port)


async def test_who_does_not_read_does_not_keep_it_open():
    async def serve(reader, writer):
        writer.write(bytes(50_000_000))

    listener = Listener(serve)
    await listener.open()
    _, writer = await asyncio.open_connection(HOST, listener.port)
    async with asyncio.timeout(60):
        while not listener.conversations:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        await listener.close()
    writer.transport.abort()


async def test_a_port_that_is_taken_is_said():
    async with Listener(lambda *_: None) as listener:
        with pytest.raises(OSError, match="in use"):
            await Listener(lambda *_: None).open(listener.port)
        assert listener.is_open
