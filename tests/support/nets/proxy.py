"""All places on loopback, and the network between them as a proxy in this process.

Every pair of places has ports of its own, so the proxy knows who talks to whom. It sees streams,
not packets: a cut holds back what is sent, new connections included, until the link heals; a
lost packet is what TCP makes of it, a pause until it is sent again, and now and then a
connection that is given up.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Sequence

from tools.demo.processes import free_port
from tools.listener import Listener

from .links import DESK, Link, Links

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
# Chunks that are on the way; the sender waits for room, as for a TCP window.
MAX_CHUNKS = 64
# TCP's least time-out for a packet that is not acknowledged (Linux).
RESEND_S = 0.2
# Of the losses, this share ends the connection.
GIVE_UP = 0.02
POLL_S = 0.02

_Chunk = tuple[float, bytes]


class Proxy:
    """See the module."""

    way = "proxy"

    def __init__(self, links: Links, places: Sequence[str]) -> None:
        self._links = links
        self._ports: dict[tuple[str, str], int] = {}
        self._doors: dict[tuple[str, str, str], socket.socket] = {}
        self._listeners: list[Listener] = []

    async def start(self) -> None:
        """Accept on all ports that were asked for."""
        for (who, place, service), door in self._doors.items():
            listener = Listener(functools.partial(self._carry, (who, place), service))
            await listener.open(door=door)
            self._listeners.append(listener)

    async def stop(self) -> None:
        """End every connection."""
        await asyncio.gather(*(listener.close() for listener in self._listeners))

    def listen(self, place: str, service: str) -> str:
        """A port that was free a moment ago."""
        if (place, service) not in self._ports:
            self._ports[place, service] = free_port()
        return f"{HOST}:{self._ports[place, service]}"

    def reach(self, who: str, place: str, service: str) -> str:
        """The proxy's port for this pair; the desk goes straight there."""
        if who == DESK:
            return self.listen(place, service)
        key = (who, place, service)
        if key not in self._doors:
            self._doors[key] = door = socket.socket()
            door.bind((HOST, 0))
        return f"{HOST}:{self._doors[key].getsockname()[1]}"

    def command(self, place: str, command: Sequence[str]) -> list[str]:
        """As it is."""
        return list(command)

    def source(self, place: str) -> str:
        """Any."""
        return ""

    def hosts(self) -> list[str]:
        """None but loopback's."""
        return []

    async def _carry(
        self,
        pair: tuple[str, str],
        service: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        await self._until_passable(pair)
        port = self._ports[pair[1], service]
        far_reader, far_writer = await asyncio.open_connection(HOST, port)
        try:
            ways = [
                asyncio.create_task(self._one_way(pair, reader, far_writer)),
                asyncio.create_task(self._one_way(pair, far_reader, writer)),
            ]
            try:
                # Whoever ends the connection ends it for both, once the link lets it pass.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            far_writer.transport.abort()

    async def _one_way(
        self, pair: tuple[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        under_way: asyncio.Queue[_Chunk] = asyncio.Queue(MAX_CHUNKS)
        delivery = asyncio.create_task(self._deliver(pair, under_way, writer))
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    data = await reader.read(CHUNK_BYTES)
                except OSError:
                    data = b""
                await under_way.put((loop.time() + self._links.between(*pair).delay_s, data))
                if not data:
                    break
            await delivery
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    async def _deliver(
        self, pair: tuple[str, str], under_way: asyncio.Queue[_Chunk], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            link = await self._until_passable(pair)
            while self._links.is_lost(link):
                if self._links.chance() < GIVE_UP:
                    return
                await asyncio.sleep(RESEND_S)
                link = await self._until_passable(pair)
            if not data:
                return
            writer.write(data)
            await writer.drain()

    async def _until_passable(self, pair: tuple[str, str]) -> Link:
        while (link := self._links.between(*pair)).cut:  # noqa: ASYNC110 - cuts are rare
            await asyncio.sleep(POLL_S)
        return link
