"""The `board.json` that provisioning writes: the user's, completed from the founding file.

What a board checks is `firmware/fogline/config.py`, and it checks it itself, before the settings
take the place of the old ones; nothing of that is repeated here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fog_node.protocol.founding import Founding
from tools.boards import Board
from tools.errors import ToolError, UsageError

__all__ = ["Settings", "load_settings"]

MAX_SETTINGS_BYTES = 32 * 1024
MAX_FILE_BYTES = 1024 * 1024
# As many as a board takes; config.py says the same.
MAX_GATEWAYS = 8
MAX_RELEASE_KEYS = 3
_TAKEN = ("board.json", "boot.py", "main.py", "key.bin", "seed.bin", "p256.comb")


@dataclass(frozen=True)
class Settings:
    """What makes a board ours, apart from its firmware.

    Attributes:
        values: of board.json, without `board`.
        files: further files of the flash root by name, such as the broker's CA.
    """

    values: Mapping[str, Any]
    files: Mapping[str, bytes]

    def board_json(self, board: Board) -> bytes:
        """The file for a board of this kind."""
        return (json.dumps({**self.values, "board": board.id}, sort_keys=True) + "\n").encode()


def load_settings(
    path: Path, founding: Founding | None, files: list[Path], board: str | None = None
) -> Settings:
    """Read the settings and the files that they name.

    Args:
        path: of a JSON file with what `board.json` is to hold.
        founding: gives chain_id, enterprise_number, gateways and release_keys where they are left
            out, and must not contradict them.
        files: further files for the flash root.
        board: the kind of board that is asked for, if one is.

    Raises:
        UsageError: two of these contradict each other.
        ToolError: a file cannot be read.
    """
    try:
        values = json.loads(_read(path, MAX_SETTINGS_BYTES))
    except ValueError as error:
        raise ToolError(f"{path}: is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ToolError(f"{path}: is not a JSON object")
    named = values.pop("board", None)
    if board is not None and named is not None and named != board:
        raise UsageError(f"--board {board}: {path} says that it is for {named}")
    if founding is not None:
        for key, value in _of(founding).items():
            if values.setdefault(key, value) != value and key == "chain_id":
                raise UsageError(f"{path}: chain_id is not that of the founding file; leave it out")
    paths = {file.name: file for file in files}
    mqtt = values.get("mqtt")
    authority = mqtt.get("ca") if isinstance(mqtt, dict) else None
    if isinstance(authority, str):
        paths.setdefault(authority, path.parent / authority)
    for name in paths:
        if name != Path(name).name or name in _TAKEN:
            raise UsageError(f"{name}: is no name for a further file in a board's flash root")
    held = {name: _read(file, MAX_FILE_BYTES) for name, file in paths.items()}
    return Settings(values, held)


def _of(founding: Founding) -> dict[str, Any]:
    gateways = [m for m in founding.members if "gateway" in m.roles]
    trainers = [m for m in founding.members if "trainer" in m.roles]
    return {
        "chain_id": founding.chain_id.hex(),
        "enterprise_number": founding.parameters.enterprise_number,
        "gateways": [{"name": m.name, "key": m.key.xy.hex()} for m in gateways[:MAX_GATEWAYS]],
        "release_keys": [m.key.xy.hex() for m in trainers[:MAX_RELEASE_KEYS]],
    }


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ToolError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise ToolError(f"{path}: is larger than {most} bytes")
    return data
