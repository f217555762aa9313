"""Shows what boards say: their console in words, and the readings in the packs that they send."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fog_node.protocol import senml
from fog_node.protocol.cose import parse_sign1
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.transactions import PackBody, interpret
from tools.devices.errors import CableError, DeviceError, PortError
from tools.devices.line import Line, open_line
from tools.devices.listening import Heard, Listener

__all__ = ["describe", "watch"]

MAX_MESSAGE_BYTES = 64 * 1024
# A board that is plugged in again takes up to so long to show its port.
RETRY_S = 1.0
MAX_FIELD_CHARS = 100

Show = Callable[[str, str], None]


def watch(
    ports: Sequence[str],
    show: Show,
    *,
    seconds: float | None = None,
    keep: bool = True,
    open_: Callable[[str], Line] = open_line,
    stopping: threading.Event | None = None,
) -> None:
    """Show what the boards at these ports say until Ctrl-C, or for so many seconds.

    Args:
        ports: of the boards; each is listened to, none is written to.
        show: called with the port and a line, from several threads.
        seconds: how long; None for ever.
        keep: wait for a board that is unplugged to come back.
        open_: opens a port.
        stopping: set by whoever wants an end.

    Raises:
        DeviceError: a port cannot be opened at the start, or its line breaks and `keep` is not set.
    """
    stop = stopping or threading.Event()
    deadline = None if seconds is None else time.monotonic() + seconds
    lines = [open_(port) for port in ports]
    with ThreadPoolExecutor(max_workers=max(1, len(ports))) as pool:
        futures = [
            pool.submit(_watch_one, port, line, show, deadline, keep, open_, stop)
            for port, line in zip(ports, lines, strict=True)
        ]
        try:
            for future in futures:
                future.result()
        finally:
            stop.set()


def _watch_one(
    port: str,
    line: Line,
    show: Show,
    deadline: float | None,
    keep: bool,
    open_: Callable[[str], Line],
    stop: threading.Event,
) -> None:
    listener = Listener()
    try:
        while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
            try:
                for heard in listener.feed(line.read()):
                    for text in describe(heard):
                        show(port, text)
            except CableError as error:
                if not keep:
                    raise
                show(port, str(error))
                line.close()
                line = _again(port, deadline, open_, stop) or line
                listener = Listener()
    finally:
        line.close()


def _again(
    port: str, deadline: float | None, open_: Callable[[str], Line], stop: threading.Event
) -> Line | None:
    while not stop.wait(RETRY_S) and (deadline is None or time.monotonic() < deadline):
        try:
            return open_(port)
        except PortError:
            continue
        except DeviceError:
            raise
    return None


def describe(heard: Heard) -> Iterator[str]:
    """Lines for people: a console event in words, a pack row by row, other text as it is."""
    if heard.link:
        yield from _link(heard.link)
    elif heard.event:
        yield _event(heard.event)
    else:
        yield heard.text


def _event(event: Mapping[str, Any]) -> str:
    fields = (f"{_short(key)} {_short(value)}" for key, value in event.items() if key != "event")
    return f"[{_short(event['event'])}] " + ", ".join(fields)


def _link(body: bytes) -> Iterator[str]:
    try:
        transaction = interpret(parse_sign1(body, MAX_MESSAGE_BYTES))
    except ProtocolError:
        yield f"[link] {len(body)} bytes"
        return
    if isinstance(transaction.body, PackBody):
        yield from pack_lines(transaction.body.pack, transaction.sequence)
    else:
        yield f"[{transaction.kind}] number {transaction.sequence}"


def pack_lines(pack: senml.Pack, number: int) -> Iterator[str]:
    """A pack in words."""
    yield f"[pack] number {number}, {len(pack.readings)} readings"


def _short(value: Any) -> str:
    text = "".join(char for char in str(value) if char.isprintable())
    return text if len(text) <= MAX_FIELD_CHARS else text[: MAX_FIELD_CHARS - 1] + "…"
