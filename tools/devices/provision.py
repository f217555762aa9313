"""Makes a board with MicroPython one of ours: firmware, settings, key.

The order is what makes it safe to unplug at any moment:

1. `main.py` goes first, so that a board never starts half of one version and half of another;
2. each file is written beside the old one, compared by hash on the board, and takes its place;
3. the settings are checked by the board's own firmware before they take their place;
4. the key is made on the board, which mixes our entropy with its own, and proves that it has it;
5. `main.py` comes back last, and behind it only the lock, where one is asked for: from the next
   start on nobody reads the flash, nor provisions the board, over its serial line.

Whatever was cut short, the same command goes on from there: it compares hashes, and copies only
what differs.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import PublicKey
from tools.boards import Board
from tools.devices.compiler import MODULES, PACKAGES, built
from tools.devices.errors import BoardError
from tools.devices.flash_files import PART, FlashFiles, OnBoard
from tools.devices.identity import Identity
from tools.devices.progress import Tell
from tools.devices.repl import Repl
from tools.devices.settings import Settings
from tools.firmware_files import FIRMWARE

__all__ = ["Provisioned", "provision"]

SETTINGS = "board.json"
KEY = "key.bin"
# firmware/fogline/lock.py
LOCK = "locked"
SEED = "seed.bin"
SEED_BYTES = 32
# firmware/launcher.py: without it, what we provision runs and no update.
LAUNCHER_STATE = ("firmware.state", "firmware.state.new")
CHALLENGE_BYTES = 32
CHALLENGE_DOMAIN = b"fogline provision\0"
# Self-test, key and signature take a Pico some seconds.
KEY_TIMEOUT_S = 180.0
# Beside what is new: a file system's own records, and room for the outbox to begin.
SPARE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Provisioned:
    """A board that is ready: what enrolling it and labelling it take, and what was done.

    Attributes:
        kid, public_key: hex; public_key is x and y.
        channels: [name, unit, minimum, maximum] each.
        is_new_key: whether the key was made just now.
        is_locked: whether the serial line shows no prompt any more, so that nobody reads the key
            there.
        copied, removed, unchanged: files.
    """

    board: str
    unique_id: str
    micropython: str
    device_type: str
    enterprise_number: int
    kid: str
    public_key: str
    channels: list[list[Any]]
    is_new_key: bool
    is_locked: bool
    copied: int
    removed: int
    unchanged: int

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


def provision(
    repl: Repl,
    identity: Identity,
    board: Board,
    settings: Settings,
    tell: Tell,
    source: Path = FIRMWARE,
    *,
    lock: bool = False,
) -> Provisioned:
    """Provision a board whose REPL we have; it is not started.

    Raises:
        BoardError: it refuses the settings or its self-test, or has no room.
        CableError, SilentError: the line broke; the same call repairs it.
        ToolError: our firmware cannot be compiled for it.
    """
    tell("compiling")
    code = dict(built(identity, source))
    root = {**settings.files, SETTINGS: settings.board_json(board)}
    flash = FlashFiles(repl)
    tell("comparing")
    there = flash.compare(("", *PACKAGES), {**code, **root})
    changed = {p: data for p, data in code.items() if not _is_same(there.get(p), data)}
    files = {p: data for p, data in root.items() if not _is_same(there.get(p), data)}
    stale = [path for path in there if _is_stale(path, code)]
    if changed:
        stale += [path for path in LAUNCHER_STATE if path in there]
    _check_room(repl, identity, {**changed, **files}, there)

    bar = _Bar(tell, sum(map(len, changed.values())) + sum(map(len, files.values())))
    start = code["main.py"]
    if (changed or files or stale) and "main.py" in there:
        flash.remove("main.py")
        changed["main.py"] = start
    for path in stale:
        flash.remove(path)
    for path, data in changed.items():
        if path != "main.py":
            flash.put(path, data, bar.add)
    for path, data in files.items():
        if path != SETTINGS:
            flash.put(path, data, bar.add)
    if SETTINGS in files:
        flash.put(SETTINGS, files[SETTINGS], bar.add, lambda part: _check_settings(repl, part))
    tell("making the key" if KEY not in there else "asking for the key")
    if KEY not in there:
        flash.put(SEED, secrets.token_bytes(SEED_BYTES))
    # With a heap as empty as at the start of its own program: the key's table is large.
    repl.fresh()
    key, channels, is_new = _key(repl)
    if "main.py" in changed or (lock and LOCK not in there):
        flash = FlashFiles(repl)
    if "main.py" in changed:
        flash.put("main.py", start, bar.add)
    if lock and LOCK not in there:
        flash.put(LOCK, b"")
    values = settings.values
    return Provisioned(
        board=board.id,
        unique_id=identity.unique_id,
        micropython=".".join(map(str, identity.version)),
        device_type=str(values.get("device_type", "")),
        enterprise_number=int(values.get("enterprise_number", 0)),
        kid=key.kid.hex(),
        public_key=key.xy.hex(),
        channels=channels,
        is_new_key=is_new,
        is_locked=lock or LOCK in there,
        copied=len(changed) + len(files),
        removed=len(stale),
        unchanged=len(code) + len(root) - len(changed) - len(files),
    )


class _Bar:
    def __init__(self, tell: Tell, total: int) -> None:
        self._tell = tell
        self._total = total
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        self._tell("copying", min(1.0, self._done / max(1, self._total)))


def _is_same(found: OnBoard | None, data: bytes) -> bool:
    return found is not None and found.sha256 == sha256(data).hexdigest()


def _is_stale(path: str, code: Mapping[str, bytes]) -> bool:
    """Whether a file is a rest of an earlier firmware, or of a cut."""
    if path in code:
        return False
    if path.endswith(PART):
        return True
    top, _, below = path.partition("/")
    # MicroPython prefers x.py to x.mpy, so that an old source would hide the new code.
    shadows = {name.removesuffix(".py") + end for name in MODULES for end in (".py", ".mpy")}
    return path in shadows if not below else top in PACKAGES


def _check_room(
    repl: Repl, identity: Identity, new: Mapping[str, bytes], there: Mapping[str, OnBoard]
) -> None:
    """Before anything is touched: each file lies there twice while it is replaced."""
    if identity.free_bytes is None or not new:
        return
    block = max(1, identity.block_bytes)
    needed = sum(-(-len(data) // block) * block for data in new.values()) + SPARE_BYTES
    room = identity.free_bytes + sum(found.size for path, found in there.items() if path in new)
    if needed > room:
        raise BoardError(
            f"{repl.name}: its flash has room for {room // 1024} KiB, we need {needed // 1024} KiB",
            "delete what else lies in it (mpremote fs ls), or flash it with --erase "
            "(which deletes its key)",
        )


def _check_settings(repl: Repl, part: str) -> None:
    event = _event(repl, f"import provision\nprovision.check({part!r})", ("settings", "refused"))
    if event["event"] == "refused":
        raise BoardError(
            f"{repl.name}: the board refuses the settings: {event.get('error')}",
            "mend the --settings file, and repeat the step",
        )


def _key(repl: Repl) -> tuple[PublicKey, list[list[Any]], bool]:
    challenge = secrets.token_bytes(CHALLENGE_BYTES)
    script = f"import provision\nprovision.main({challenge!r})"
    event = _event(repl, script, ("key", "refused"))
    if event["event"] == "refused":
        error = str(event.get("error"))
        raise BoardError(
            f"{repl.name}: the board refuses to sign: {error}",
            "if its key is damaged: delete key.bin, provision it anew and enrol the new key; "
            "if its self-test fails: take the board out of service",
        )
    try:
        key = PublicKey(bytes.fromhex(event["x"]) + bytes.fromhex(event["y"]))
        key.verify(bytes.fromhex(event["proof"]), CHALLENGE_DOMAIN + challenge)
        channels = [[str(c[0]), str(c[1]), float(c[2]), float(c[3])] for c in event["channels"]]
        return key, channels, bool(event["new"])
    except (ProtocolError, ValueError, TypeError, KeyError, IndexError) as error:
        raise BoardError(
            f"{repl.name}: what it shows of its key does not hold: {error}",
            "repeat the step; if it happens again, take the board out of service",
        ) from error


def _event(repl: Repl, script: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Run a script; returns the last of its console events that has one of these names."""
    output = repl.run(script, KEY_TIMEOUT_S)
    for line in reversed(output.splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") in names:
            return event
    raise BoardError(
        f"{repl.name}: says nothing of {' or '.join(names)}: {output.strip()[-200:]!r}",
        "press RESET (EN) on the board and repeat the step",
    )
