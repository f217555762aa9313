"""Writes the firmware's table of boards from `hardware/boards/*.toml`.

`python -m tools.board_tables` writes `firmware/fogline/board_table.py`; `--check` compares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.boards import Board, load_boards
from tools.errors import ToolError

TABLE = Path(__file__).resolve().parents[1] / "firmware" / "fogline" / "board_table.py"
COMMAND = "python -m tools.board_tables"

_HEAD = f'''"""What each board can do, and which pins its buses have.

Made by `{COMMAND}` from hardware/boards/*.toml: edit those.
i2c: (id, sda, scl, largest Hz); spi: (id, sck, mosi, miso, largest Hz); uart: (id, tx, rx);
adc and pin: the GPIO's number.
"""

BOARDS = '''


def table_text(boards: Mapping[str, Board]) -> str:
    """Return the module's text, formatted as ruff formats."""
    table = {board_id: _entry(board) for board_id, board in sorted(boards.items())}
    return _HEAD + "\n".join(_literal(table, "")) + "\n"


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


def _literal(value: Any, indent: str) -> Iterator[str]:
    """The lines of a literal; maps take a line for each item."""
    if not isinstance(value, dict) or not value:
        text = repr(value).replace("'", '"')
        yield text
        return
    yield "{"
    for key, item in value.items():
        lines = list(_literal(item, indent + "    "))
        lines[0] = f'{indent}    "{key}": {lines[0]}'
        lines[-1] += ","
        yield from lines
    yield indent + "}"


def problem(table: Path = TABLE) -> str | None:
    """Say what is wrong with the table in the checkout and how to mend it; None if nothing is."""
    try:
        text = table_text(load_boards())
    except ToolError as error:
        return str(error)
    if not table.exists() or table.read_text(encoding="utf-8") != text:
        return f"{table}: is not what hardware/boards says; run make fix ({COMMAND})"
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
        TABLE.write_text(table_text(load_boards()), encoding="utf-8")
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
