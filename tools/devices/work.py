"""What `fogline device` does with boards that are plugged in: the steps put together.

Each step works on one board, may be repeated, and leaves a board that the same step repairs.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fog_node.small_files import read_small
from tools.boards import Board, load_board
from tools.devices.compiler import check_compiler
from tools.devices.errors import BoardError, DeviceError, PortError
from tools.devices.esp import flash_esp
from tools.devices.fleet import Work
from tools.devices.found import Found
from tools.devices.identity import ask, which_board
from tools.devices.images import Image
from tools.devices.line import USB_PREFIX, Line, open_line, unopened
from tools.devices.listening import Listener
from tools.devices.pico import Bootsel, flash_pico
from tools.devices.progress import Tell, whisper
from tools.devices.provision import provision
from tools.devices.repl import Repl
from tools.devices.settings import Settings
from tools.errors import UsageError
from tools.firmware_files import FIRMWARE

__all__ = ["choose", "flashing", "load_records", "look", "provisioning"]

# A board tests itself at each start, which takes a Pico some seconds, before it says `boot`.
START_TIMEOUT_S = 40.0
# Of some thousand boards.
MAX_REPORT_BYTES = 16 * 1024 * 1024

Open = Callable[[str], Line]


def choose(found: Sequence[Found], ports: Sequence[str], *, everything: bool) -> list[str]:
    """The ports to work on.

    Raises:
        UsageError: a port is named twice, or there are several boards and nothing says which.
        PortError: nothing is plugged in.
    """
    if ports and everything:
        raise UsageError("--all: leave --port out, or name the ports alone")
    if len(set(ports)) < len(ports):
        raise UsageError("--port: the same port twice")
    if ports:
        return list(ports)
    if not found:
        raise PortError(
            "no board is plugged in that hardware/boards/ knows",
            "use a cable that carries data, hold BOOTSEL while plugging a Pico in, or name a port "
            "with --port",
        )
    if len(found) > 1 and not everything:
        names = ", ".join(one.port for one in found)
        raise UsageError(f"{len(found)} boards are plugged in ({names}); say --all, or --port")
    return [one.port for one in found]


def look(
    found: Found,
    boards: Mapping[str, Board],
    *,
    open_: Open = open_line,
    tell: Tell = whisper,
) -> dict[str, Any]:
    """Ask a board what it runs, and let it go on; what it does not say is in `note`."""
    row: dict[str, Any] = {
        **found.as_dict(),
        "board": found.boards[0] if len(found.boards) == 1 else "",
        "micropython": "",
        "fogline": "",
        "unique_id": "",
        "note": "",
    }
    if found.state == "bootloader":
        row["note"] = "waits for firmware: fogline device flash"
        return row
    tell("asking")
    try:
        with _repl(found.port, open_) as repl:
            identity = ask(repl)
            repl.restart()
        row["micropython"] = ".".join(map(str, identity.version))
        row["fogline"] = identity.firmware or ""
        row["unique_id"] = identity.unique_id
        is_known = any(board.machine == identity.machine for board in boards.values())
        alone = found.boards[0] if len(found.boards) == 1 and not is_known else None
        row["board"] = which_board(identity, boards, alone, found.port).id
    except DeviceError as error:
        row["note"] = str(error)
    return row


def flashing(
    images: Sequence[Image],
    boards: Mapping[str, Board],
    asked: str | None,
    found: Sequence[Found],
    *,
    erase: bool,
    open_: Open = open_line,
    bootsel: Bootsel | None = None,
) -> Work:
    """Make the work of flashing these images on boards of either kind.

    Raises:
        UsageError: the asked board is none that is flashed, or is a Pico and is to be erased.
    """
    methods = {board.id: board.flash.method for board in boards.values() if board.flash}
    if asked is not None and load_board(asked).id not in methods:
        raise UsageError(f"--board {asked}: is no board that is flashed")
    by_port = {one.port: {methods[b] for b in one.boards if b in methods} for one in found}
    shared = bootsel or Bootsel(open_)

    def work(port: str, attempt: int, tell: Tell) -> dict[str, Any]:
        if asked is not None:
            method = methods[asked]
        elif port.startswith(USB_PREFIX) or Path(port).is_dir():
            method = "uf2"
        elif len(by_port.get(port, ())) == 1:
            (method,) = by_port[port]
        else:
            raise _unknown(port, sorted(methods))
        if method == "esptool":
            return flash_esp(port, images, boards, asked, attempt, tell, erase=erase)
        if erase:
            raise BoardError(
                f"{port}: a Pico's files lie beside its firmware, and are not erased by flashing",
                "leave --erase out; to erase it, copy flash_nuke.uf2 of its maker onto its drive",
            )
        return flash_pico(port, images, boards, asked, shared, tell)

    return work


def _unknown(port: str, kinds: Sequence[str]) -> DeviceError:
    """The error for a port of which nothing says what to do there."""
    if "://" not in port and not Path(port).exists():
        return unopened(port, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    return BoardError(
        f"{port}: its USB id does not say what kind of board is there",
        f"say which with --board: {', '.join(kinds)}",
    )


def provisioning(
    settings: Settings,
    boards: Mapping[str, Board],
    asked: str | None,
    *,
    source: Path = FIRMWARE,
    start: bool = True,
    lock: bool = False,
    open_: Open = open_line,
) -> Work:
    """Make the work of provisioning boards with these settings; locked ones are started.

    Raises ToolError where no board could be provisioned: no such kind, no firmware, no mpy-cross.
    """
    if asked is not None:
        load_board(asked)
    check_compiler(source)

    def work(port: str, _attempt: int, tell: Tell) -> dict[str, Any]:
        tell("asking")
        with _repl(port, open_) as repl:
            repl.fresh()
            identity = ask(repl)
            board = which_board(identity, boards, asked, port)
            done = provision(repl, identity, board, settings, tell, source, lock=lock).as_dict()
            if not start and not lock:
                repl.leave()
                return {**done, "started": None, "summary": _summary(done)}
            tell("starting")
            repl.restart()
            done["started"] = _started(repl.line, port)
            return {**done, "summary": _summary(done)}

    return work


@contextmanager
def _repl(port: str, open_: Open) -> Iterator[Repl]:
    line = open_(port)
    try:
        repl = Repl(line, port)
        repl.enter()
        yield repl
    finally:
        line.close()


def _started(line: Line, port: str) -> bool:
    """Whether the board has said `boot`; raises BoardError with its words where it refuses."""
    listener = Listener()
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        for heard in listener.feed(line.read()):
            event = heard.event
            if event.get("event") == "boot":
                return True
            if event.get("event") == "refused":
                raise BoardError(
                    f"{port}: is provisioned, and refuses to run: {event.get('error')}",
                    "mend what it says, and repeat the step",
                )
    raise BoardError(
        f"{port}: is provisioned, and has not said within {START_TIMEOUT_S:.0f} s that it runs",
        "press RESET (EN) on the board and see `fogline device monitor`",
    )


def _summary(done: Mapping[str, Any]) -> str:
    return (
        f"{done['board']} {done['kid']}: {done['copied']} files copied, {done['unchanged']} as "
        f"they were, key {'made' if done['is_new_key'] else 'kept'}, "
        + ("locked" if done["is_locked"] else "not locked: whoever plugs it in reads its key")
    )


def load_records(path: Path) -> list[dict[str, Any]]:
    """The boards of a report that `device provision --json` wrote; raises UsageError."""
    try:
        records = json.loads(read_small(path, MAX_REPORT_BYTES))["boards"]
        good = [record for record in records if record["ok"] and record["kid"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: is no report of `fogline device provision --json` ({error})"
        ) from error
    if not good:
        raise UsageError(f"{path}: no board in it was provisioned")
    return good
