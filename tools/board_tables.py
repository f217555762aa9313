"""Writes the firmware's table of boards from `hardware/boards/*.toml`.

`python -m tools.board_tables` writes `firmware/fogline/board_table.py` and the tables in
`hardware/README.md`; `--check` compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools import wiring
from tools.boards import Board, load_boards
from tools.errors import ToolError

TABLE = Path(__file__).resolve().parents[1] / "firmware" / "fogline" / "board_table.py"
PAGE = Path(__file__).resolve().parents[1] / "hardware" / "README.md"
COMMAND = "python -m tools.board_tables"

_HEAD = f'''"""What each board can do, and which pins its buses have.

Made by `{COMMAND}` from hardware/boards/*.toml: edit those.
Each is a text in JSON: names within it stay off the heap of a board that is another one.
i2c: [id, sda, scl, largest Hz]; spi: [id, sck, mosi, miso, largest Hz]; uart: [id, tx, rx];
adc and pin: the GPIO's number.
"""

TABLES = (
'''
_LINE_CHARS = 92


def table_text(boards: Mapping[str, Board]) -> str:
    """Return the module's text, formatted as ruff formats."""
    lines = []
    for board_id, board in sorted(boards.items()):
        text = json.dumps({"board": board_id, **_entry(board)}, separators=(",", ":"))
        if len(text) <= _LINE_CHARS:
            lines.append(f"    '{text}',")
        else:
            lines += ["    (", *(f"        {piece}" for piece in _pieces(text)), "    ),"]
    return _HEAD + "\n".join([*lines, ")"]) + "\n"


def _pieces(text: str) -> Iterator[str]:
    """The literals that make up a text, each on a line."""
    rest = text
    while rest:
        end = len(rest)
        if end > _LINE_CHARS - 10:
            end = rest.rfind(",", 0, _LINE_CHARS - 10) + 1
        yield f"'{rest[:end]}'"
        rest = rest[end:]


def _entry(board: Board) -> dict[str, Any]:
    capabilities = board.capabilities
    can = [name for name in type(capabilities).model_fields if getattr(capabilities, name)]
    entry: dict[str, Any] = {
        "capabilities": " ".join(sorted(can)),
        "board_class": board.inference.board_class,
        "arena_bytes": board.inference.arena_bytes,
    }
    if board.gpio is not None:
        entry |= {
            "i2c": {n: (b.id, b.sda, b.scl, b.max_hz) for n, b in board.i2c.items()},
            "spi": {n: (b.id, b.sck, b.mosi, b.miso, b.max_hz) for n, b in board.spi.items()},
            "uart": {n: (b.id, b.tx, b.rx) for n, b in board.uart.items()},
            "adc": dict(board.adc),
            "pin": dict(board.pin),
        }
    return entry


_BEGIN = f"<!-- from here made by {COMMAND} -->"
_END = "<!-- to here -->"
_CAN = {"wifi": "Wi-Fi", "network": "network", "tls": "TLS"}


def page_text(boards: Mapping[str, Board], page: str) -> str:
    """Return the page with its tables anew; raises ToolError where their place is not marked."""
    head, begin, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ToolError(f"{PAGE}: has no place for the tables; put back the two marks")
    return "\n".join([head + begin, "", *_tables(boards), "", end + tail])


def _tables(boards: Mapping[str, Board]) -> Iterator[str]:
    yield "| `board` | is | can | heap | MicroPython's build |"
    yield "| --- | --- | --- | --- | --- |"
    for board_id, board in boards.items():
        can = [word for name, word in _CAN.items() if getattr(board.capabilities, name)]
        firmware = "" if board.flash is None else f"`{board.flash.firmware}`"
        heap = f"{board.memory.heap_bytes // 1024} KiB"
        cells = (f"`{board_id}`", board.name, ", ".join(can) or "serial", heap, firmware)
        yield f"| {' | '.join(cells)} |"
    wired = [board for board in boards.values() if board.gpio is not None]
    names = list(dict.fromkeys(name for board in wired for name in wiring.pads(board)))
    yield ""
    yield "| pin in drawings and settings | " + " | ".join(f"`{b.id}`" for b in wired) + " |"
    yield "| --- |" + " --- |" * len(wired)
    for name in names:
        found = [wiring.pads(board).get(name, "") for board in wired]
        yield f"| {name.replace('.', ' ')} | {' | '.join(found)} |"


def problem(table: Path = TABLE, page: Path = PAGE) -> str | None:
    """Say what is wrong with what is made from the boards, with the remedy; None if nothing is."""
    try:
        boards = load_boards()
        made = {table: table_text(boards), page: page_text(boards, page.read_text("utf-8"))}
    except ToolError as error:
        return str(error)
    for path, text in made.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            return f"{path}: is not what hardware/boards says; run make fix ({COMMAND})"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"example: {COMMAND} --check")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if parser.parse_args(arguments).check:
        found = problem()
        if found is not None:
            print(found, file=sys.stderr)
        return 0 if found is None else 1
    try:
        boards = load_boards()
        page = page_text(boards, PAGE.read_text("utf-8"))
        TABLE.write_text(table_text(boards), encoding="utf-8")
        PAGE.write_text(page, encoding="utf-8")
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
