"""What a board says of itself over its REPL, and which of `hardware/boards/` it is."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.boards import Board, load_board
from tools.devices.errors import BoardError
from tools.devices.repl import Repl

__all__ = ["ARCHITECTURES", "LEAST_VERSION", "Identity", "ask", "which_board"]

LEAST_VERSION = (1, 24)
# `arch` of sys.implementation._mpy >> 10, by number (MicroPython: reference/mpyfiles.html).
ARCHITECTURES = (
    None, "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp", "xtensa",
    "xtensawin", "rv32imc", "rv64imc",
)  # fmt: skip

_QUESTION = """\
import sys, os, binascii
try:
    import machine
    u = binascii.hexlify(machine.unique_id()).decode()
except (ImportError, AttributeError):
    u = ""
try:
    s = os.statvfs("")
    s = (s[0], s[3])
except (OSError, AttributeError):
    s = None
try:
    from fogline import VERSION as v
except Exception:
    v = None
sys.modules.pop("fogline", None)
i = sys.implementation
print(repr((i.name, i.version[:3], getattr(i, "_machine", ""), getattr(i, "_mpy", 0), u, s, v)))
"""


@dataclass(frozen=True)
class Identity:
    """What a board runs.

    Attributes:
        version: of MicroPython.
        machine: what its MicroPython calls the board.
        unique_id: of the chip, hex; empty where it has none.
        mpy: (version, sub-version) of the .mpy files that it takes.
        arch: of the native code that it takes, as mpy-cross calls it; None for none.
        free_bytes: of its flash file system, None where it cannot say; block_bytes: what a file
            takes at least.
        firmware: version of Fogline on it, None for none.
    """

    version: tuple[int, ...]
    machine: str
    unique_id: str
    mpy: tuple[int, int]
    arch: str | None
    free_bytes: int | None
    block_bytes: int
    firmware: str | None


def ask(repl: Repl) -> Identity:
    """Ask a board whose REPL we have; raises BoardError where it is no MicroPython of ours."""
    answer = repl.run(_QUESTION)
    try:
        _, version, machine, mpy, unique_id, space, firmware = ast.literal_eval(answer.strip())
        return Identity(
            version=tuple(int(part) for part in version),
            machine=_short(machine),
            unique_id=_short(unique_id),
            mpy=(mpy & 0xFF, mpy >> 8 & 3),
            arch=ARCHITECTURES[mpy >> 10 & 0x0F],
            free_bytes=space and space[0] * space[1],
            block_bytes=space[0] if space else 0,
            firmware=None if firmware is None else _short(firmware),
        )
    except (ValueError, TypeError, SyntaxError, IndexError, MemoryError) as error:
        raise BoardError(
            f"{repl.name}: {_short(answer)!r} is no answer of MicroPython",
            "`fogline device flash` it",
        ) from error


def which_board(
    identity: Identity, boards: Mapping[str, Board], asked: str | None, port: str
) -> Board:
    """The board that this is; `asked` is what the user says that it is.

    Raises:
        BoardError: its MicroPython is too old, is none that we know, or is another board's.
        ToolError: there is no board `asked`.
    """
    if identity.version[:2] < LEAST_VERSION:
        raise BoardError(
            f"{port}: runs MicroPython {'.'.join(map(str, identity.version))}",
            f"`fogline device flash` it with {'.'.join(map(str, LEAST_VERSION))} or later",
        )
    found = [board for board in boards.values() if board.machine == identity.machine]
    if asked is not None:
        board = load_board(asked)
        if found and board not in found:
            raise BoardError(
                f"{port}: is a {found[0].id} ({identity.machine}), no {asked}",
                f"leave --board out, or flash it with {_firmware(board)} if it is a {asked}",
            )
        return board
    if not found:
        raise BoardError(
            f"{port}: {identity.machine!r} is no board of hardware/boards/",
            "say which one it is like with --board",
        )
    return found[0]


def _firmware(board: Board) -> str:
    return board.flash.firmware if board.flash else "its own MicroPython"


def _short(value: Any) -> str:
    """Text of a board, without what could steer a terminal."""
    return "".join(char for char in str(value)[:96] if char.isprintable())
