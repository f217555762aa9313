"""Flashing ESP32 chips with esptool, used as a library.

esptool tells what it does to one logger of the whole process, so that several boards at once mix
up their progress. The logger here passes progress on to the board whose thread it comes from.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tools.boards import Board, EsptoolFlash
from tools.devices.errors import BoardError, CableError, DeviceError, SilentError
from tools.devices.images import Image, fitting
from tools.devices.line import unopened
from tools.devices.progress import Tell
from tools.errors import ToolError

__all__ = ["BAUDS", "flash_esp"]

# One for each try: a long cable or a busy hub carries less. USB JTAG/serial does not care.
BAUDS = (460_800, 230_400, 115_200)
ROM_BAUD = 115_200
CONNECT_ATTEMPTS = 5

_tell: ContextVar[Tell | None] = ContextVar("tell", default=None)


def flash_esp(
    port: str,
    images: Sequence[Image],
    boards: Mapping[str, Board],
    asked: str | None,
    attempt: int,
    tell: Tell,
    *,
    erase: bool,
) -> dict[str, Any]:
    """Flash the image that fits onto the chip at a port, and start it.

    Args:
        port: serial port, or an address that pyserial opens.
        images: of which one is for this chip.
        boards: that there are.
        asked: the kind of board that the user says it is; None to go by the chip.
        attempt: number of this try, from 0: sets the baud rate.
        tell: where progress goes.
        erase: the whole flash first, files and key with it.

    Raises:
        ImageError: no image is for this chip.
        BoardError: the chip is no board's, or refuses.
        SilentError: no boot loader answers.
        CableError: the line broke, or what was written is not what was sent.
    """
    esptool = _esptool()
    baud = BAUDS[min(attempt, len(BAUDS) - 1)]
    tell("connecting")
    with _telling(tell):
        try:
            rom = esptool.cmds.detect_chip(port, ROM_BAUD, connect_attempts=CONNECT_ATTEMPTS)
        except esptool.util.FatalError as error:
            raise _unreached(port, error, boards, asked) from error
        except (OSError, ValueError) as error:
            raise unopened(port, error) from error
        with rom:
            board, flash = _board_of(rom.CHIP_NAME, boards, asked, port)
            image = fitting(images, board, boards, port)
            try:
                mac = ":".join(f"{byte:02x}" for byte in rom.read_mac())
                esp = esptool.cmds.run_stub(rom)
                if baud > ROM_BAUD:
                    esp.change_baud(baud)
                esptool.cmds.attach_flash(esp)
                if erase:
                    tell("erasing")
                    esptool.cmds.erase_flash(esp)
                tell("writing", 0.0)
                # It compares the MD5 of what lies in flash with that of the image, too.
                esptool.cmds.write_flash(esp, [(flash.offset, image.data)])
                tell("starting")
                esptool.cmds.reset_chip(esp, "hard-reset")
            except (esptool.util.FatalError, OSError, struct.error) as error:
                raise _broken(port, error) from error
    return {
        "board": board.id,
        "chip": flash.chip,
        "mac": mac,
        "image": image.name,
        "sha256": image.sha256,
        "baud": baud,
        "erased": erase,
        "summary": f"{image.name} on {board.id} ({mac})",
    }


def _board_of(
    chip_name: str, boards: Mapping[str, Board], asked: str | None, port: str
) -> tuple[Board, EsptoolFlash]:
    chip = chip_name.lower().replace("-", "")
    fitting = {
        board.id: (board, board.flash)
        for board in boards.values()
        if isinstance(board.flash, EsptoolFlash) and board.flash.chip == chip
    }
    if not fitting:
        raise BoardError(
            f"{port}: the chip is an {chip_name}, which no board of hardware/boards/ has",
            "take another board",
        )
    if asked is None:
        return next(iter(fitting.values()))
    if asked not in fitting:
        raise BoardError(
            f"{port}: the chip is an {chip_name}, no {asked}",
            f"leave --board out, or say --board {next(iter(fitting))}",
        )
    return fitting[asked]


def _unreached(
    port: str, error: Exception, boards: Mapping[str, Board], asked: str | None
) -> DeviceError:
    hints = {
        board.flash.boot_hint
        for board in boards.values()
        if isinstance(board.flash, EsptoolFlash) and asked in (None, board.id)
    }
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "Could not open" in text or "port is busy" in text or "doesn't exist" in text:
        return unopened(port, error)
    return SilentError(
        f"{port}: no boot loader answers ({text})",
        " or ".join(sorted(hints)) + ", and try again; use a cable that carries data",
    )


def _broken(port: str, error: Exception) -> DeviceError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CableError(
        f"{port}: broke off ({text})",
        "plug the cable in again (a shorter one, no hub) and repeat the step; "
        "until then the board does not start",
    )


@contextmanager
def _telling(tell: Tell) -> Iterator[None]:
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def _esptool() -> Any:
    """Import esptool with a logger of ours in place; raises ToolError where it is missing."""
    try:
        from esp_pylib.logger import EspLog, EspLogBase

        with _importing:
            # Before esptool: parts of it hold on to the logger that they find.
            if getattr(EspLog.instance, "tells_per_thread", False) is not True:
                EspLog.instance = _make_logger(EspLogBase)
            import esptool
            import esptool.cmds
            import esptool.util
    except ImportError as error:
        raise ToolError(
            "esptool is not installed; pip install '.[boards]' in Fogline's folder"
        ) from error
    return esptool


_importing = threading.Lock()


def _make_logger(base: Any) -> Any:
    def drop(_self: Any, *_: Any, **__: Any) -> None:
        """Say nothing: what matters ends in an exception."""

    def progress_bar(_self: Any, done: int, of: int, *_: Any, **__: Any) -> None:
        tell = _tell.get()
        if tell is not None and of > 0:
            tell("writing", min(1.0, done / of))

    words = ("print", "err", "error", "warn", "warning", "note", "hint", "debug", "set_verbosity")
    members: dict[str, Any] = dict.fromkeys(words, drop)
    members |= {"progress_bar": progress_bar, "tells_per_thread": True}
    return type("PerThread", (base,), members)()
