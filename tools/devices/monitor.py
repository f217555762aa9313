"""Shows what boards say: their console in words, and the readings in the packs that they send.

Packs are heard where they pass: on a serial line that carries the link too, or at the MQTT broker.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fog_node.gateway import topics
from fog_node.small_files import read_small
from tools.devices.errors import CableError, DeviceError, PortError
from tools.devices.line import Line, open_line
from tools.devices.listening import Heard, Listener
from tools.devices.pack_words import transaction_lines
from tools.devices.tapping import UP, LinkTap
from tools.errors import ToolError, UsageError

__all__ = ["Broker", "describe", "parse_broker", "watch"]

# A board that is plugged in again takes up to so long to show its port.
RETRY_S = 1.0
MAX_FIELD_CHARS = 100
BROKER_TIMEOUT_S = 10.0
POLL_S = 0.2

Show = Callable[[str, str], None]
Open = Callable[[str], Line]


@dataclass(frozen=True)
class Broker:
    """An MQTT broker that boards publish to.

    Attributes:
        ca: file with the authority of its certificate; None to speak without TLS.
    """

    host: str
    port: int
    ca: Path | None = None
    username: str | None = None
    password: str | None = None


def parse_broker(
    text: str, ca: Path | None, username: str | None, password_file: Path | None
) -> Broker:
    """Read HOST:PORT and what goes with it; raises UsageError, ToolError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"--broker {text}: give HOST:PORT")
    try:
        password = read_small(password_file).decode().strip() if password_file else None
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"{password_file}: cannot be read: {error}") from error
    return Broker(host.strip("[]"), int(port), ca, username, password)


def watch(
    ports: Sequence[str],
    show: Show,
    *,
    broker: Broker | None = None,
    seconds: float | None = None,
    keep: bool = True,
    open_: Open = open_line,
    stopping: threading.Event | None = None,
) -> None:
    """Show what boards say until Ctrl-C, or for so many seconds.

    Args:
        ports: of the boards; each is listened to, none is written to.
        show: called with the port (or the broker) and a line, from several threads.
        broker: where packs are heard too.
        seconds: how long; None for ever.
        keep: wait for a board that is unplugged to come back.
        open_: opens a port.
        stopping: set by whoever wants an end.

    Raises:
        DeviceError: a port cannot be opened at the start, or its line breaks and `keep` is not set.
        ToolError: the broker does not take us.
    """
    stop = stopping or threading.Event()
    deadline = None if seconds is None else time.monotonic() + seconds
    lines = [open_(port) for port in ports]
    with ThreadPoolExecutor(max_workers=len(ports) + 1) as pool:
        futures = [
            pool.submit(_watch_port, port, line, show, deadline, keep, open_, stop)
            for port, line in zip(ports, lines, strict=True)
        ]
        if broker is not None:
            futures.append(pool.submit(asyncio.run, _watch_broker(broker, show, deadline, stop)))
        try:
            for future in futures:
                future.result()
        finally:
            stop.set()


def _watch_port(
    port: str,
    line: Line,
    show: Show,
    deadline: float | None,
    keep: bool,
    open_: Open,
    stop: threading.Event,
) -> None:
    listener, tap = Listener(), LinkTap()
    try:
        while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
            try:
                for heard in listener.feed(line.read()):
                    for text in describe(heard, tap):
                        show(port, text)
            except CableError as error:
                if not keep:
                    raise
                show(port, str(error))
                line.close()
                line = _again(port, deadline, open_, stop) or line
                listener, tap = Listener(), LinkTap()
    finally:
        line.close()


def _again(port: str, deadline: float | None, open_: Open, stop: threading.Event) -> Line | None:
    while not stop.wait(RETRY_S) and (deadline is None or time.monotonic() < deadline):
        try:
            return open_(port)
        except PortError:
            continue
        except DeviceError:
            raise
    return None


async def _watch_broker(
    broker: Broker, show: Show, deadline: float | None, stop: threading.Event
) -> None:
    import aiomqtt

    name = f"{broker.host}:{broker.port}"
    try:
        context = None if broker.ca is None else ssl.create_default_context(cafile=broker.ca)
        async with aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            tls_context=context,
            timeout=BROKER_TIMEOUT_S,
        ) as client:
            await client.subscribe(f"{topics.PREFIX}/+/{topics.UP}/+", qos=0)
            listening = asyncio.create_task(_packs(client, name, show))
            while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
                done, _ = await asyncio.wait({listening}, timeout=POLL_S)
                if done:
                    break
            if not listening.cancel():
                await listening
            await asyncio.gather(listening, return_exceptions=True)
    except (aiomqtt.MqttError, OSError) as error:
        raise ToolError(
            f"{name}: the broker does not take us: {error}; see that it runs, and that "
            "--broker-ca, --broker-user and its access rules let you read fogline/+/up/+"
        ) from error


async def _packs(client: Any, name: str, show: Show) -> None:
    async for message in client.messages:
        for text in transaction_lines(bytes(message.payload)):
            show(name, text)


def describe(heard: Heard, tap: LinkTap) -> Iterator[str]:
    """Lines for people: a console event in words, a pack, other text as it is."""
    if heard.link:
        message = tap.feed(heard.link)
        if message is not None and message[:1] == bytes([UP]):
            yield from transaction_lines(message[1:])
    elif heard.event:
        yield _event(heard.event)
    else:
        yield heard.text


def _event(event: Mapping[str, Any]) -> str:
    fields = (f"{_short(key)} {_short(value)}" for key, value in event.items() if key != "event")
    return f"[{_short(event['event'])}] " + ", ".join(fields)


def _short(value: Any) -> str:
    text = "".join(char for char in str(value) if char.isprintable())
    return text if len(text) <= MAX_FIELD_CHARS else text[: MAX_FIELD_CHARS - 1] + "…"
