"""Whoever connects to a node's peer port with what it holds: nothing, or a member's files."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from pathlib import Path

from fog_node.network import certificates, wire
from fog_node.protocol.founding import Founding

HOST = "127.0.0.1"
# Another address of this machine, so that what is counted by address is not counted with ours.
ELSEWHERE = "127.0.0.66"
DEADLINE_S = 60.0


class Attacker:
    """One connection over TLS, after both have said hello."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._drain: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, port: int, founding: Founding, directory: Path, *, reads: bool = True
    ) -> Attacker:
        """Connect with a member's TLS files and greet; raises OSError where it is not let in."""
        streams = await open_tls(port, founding, directory)
        attacker = cls(*streams)
        try:
            attacker.send(wire.Hello(wire.PROTOCOL_VERSION, founding.chain_id, "attacker"))
            async with asyncio.timeout(DEADLINE_S):
                await attacker.read()  # its hello
                await attacker.read()  # its status: we are registered
        except (OSError, EOFError) as error:
            attacker.close()
            raise ConnectionError("is not let in") from error
        if reads:
            attacker._drain = asyncio.create_task(attacker._read_on())
        return attacker

    async def read(self) -> wire.Message:
        (length,) = wire.LENGTH.unpack(await self.reader.readexactly(wire.LENGTH.size))
        return wire.parse_message(await self.reader.readexactly(length))

    async def _read_on(self) -> None:
        with contextlib.suppress(OSError):
            while await self.reader.read(1 << 20):
                pass

    def send(self, message: wire.Message) -> None:
        self.writer.write(wire.encode_message(message))

    async def flood(self, frame: bytes, duration_s: float, most: int) -> int:
        """Send a frame again and again; returns how often it was taken off our hands."""
        ends = time.monotonic() + duration_s
        sent = 0
        with contextlib.suppress(OSError, TimeoutError):
            while sent < most and time.monotonic() < ends and not self.is_cut_off:
                self.writer.write(frame)
                sent += 1
                async with asyncio.timeout(max(0.01, ends - time.monotonic())):
                    await self.writer.drain()
                if sent % 64 == 0:
                    await asyncio.sleep(0)
        return sent

    @property
    def is_cut_off(self) -> bool:
        return self.writer.transport.is_closing() or self.reader.at_eof()

    async def cut_off(self) -> bool:
        """Wait until the other side has cut the connection."""
        ends = time.monotonic() + DEADLINE_S
        while not self.is_cut_off and time.monotonic() < ends:  # noqa: ASYNC110 - a socket has none
            await asyncio.sleep(0.02)
        return self.is_cut_off

    def close(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
        self.writer.transport.abort()


async def open_tls(
    port: int, founding: Founding, directory: Path | None, source: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=founding.authority)
    if directory is not None:
        context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    return await asyncio.open_connection(
        HOST, port, ssl=context, server_hostname=certificates.SERVER_NAME,
        local_addr=None if source is None else (source, 0),
    )  # fmt: skip


def raw_connections(port: int, count: int, source: str = ELSEWHERE) -> list[socket.socket]:
    """TCP connections that say nothing; the caller closes them."""
    connections = []
    for _ in range(count):
        connection = socket.socket()
        connection.settimeout(DEADLINE_S)
        connection.bind((source, 0))
        connection.connect((HOST, port))
        connections.append(connection)
    return connections


def is_closed_by_peer(connection: socket.socket) -> bool:
    """Whether the other side has ended a silent connection."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmRSS")
