"""What every target can do, however it is reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from tools.errors import ToolError

__all__ = ["About", "BoardError", "Capability", "Console", "Outcome", "Target", "TargetError"]


class TargetError(ToolError):
    """A target that was asked for is not there, or does not answer; the message has the remedy."""


class BoardError(ToolError):
    """Code on a board ended with an exception; its traceback is the message."""


class Capability:
    """What a test may ask of a target.

    littlefs   a flash of its own with littlefs, which `vfs` can mount
    network    sockets and TLS
    viper      native code emitters, so that the kernels run
    large_heap a heap of at least LARGE_HEAP_BYTES, or one that can be had on demand
    double     floats with 64 bits (a host's), not the 32 of a microcontroller
    fast       a host's speed, for tests that go through everything
    reset      `machine.reset` starts it anew
    watchdog   `machine.WDT`
    instructions  counts instructions exactly (hil_counter on the board)
    power      its power can be cut and given back
    loopback:A-B  pins A and B are wired together
    """

    LITTLEFS = "littlefs"
    NETWORK = "network"
    VIPER = "viper"
    LARGE_HEAP = "large_heap"
    DOUBLE = "double"
    FAST = "fast"
    RESET = "reset"
    WATCHDOG = "watchdog"
    INSTRUCTIONS = "instructions"
    POWER = "power"


@dataclass(frozen=True, slots=True)
class About:
    """What a target says of itself. mpy_arch is mpy-cross's name for its instructions, if any."""

    implementation: str  # micropython, cpython
    version: str
    machine: str
    heap_bytes: int | None  # None where there is no bound of its own
    mpy_arch: str | None
    mpy_version: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What code printed, and the traceback it ended with, if it did."""

    output: str
    error: str | None

    def checked(self) -> str:
        """Give the output; raises BoardError where there is a traceback."""
        if self.error is not None:
            raise BoardError(f"{self.error}\n(printed before: {self.output[-500:]!r})")
        return self.output


class Console(Protocol):
    """A program that runs on a target: its lines out, bytes in."""

    def lines(self, timeout_s: float) -> Iterator[str]:
        """Lines as they come; ends with the program. Raises TargetError after a silence."""

    def write(self, data: bytes) -> None:
        """Give it bytes on its standard input."""

    def stop(self) -> None:
        """End it, wherever it is. The target can be used again."""


class Target(Protocol):
    """A board that MicroPython runs on, or what stands for one."""

    name: str
    capabilities: frozenset[str]

    def about(self) -> About:
        """What it is."""

    def put(self, files: Mapping[str, bytes]) -> int:
        """Write files (path below the target's root: content); gives how many were not there yet.

        A `.py` file takes the place of a `.mpy` of the same stem, and the other way round.
        """

    def get(self, path: str) -> bytes:
        """Read a file. Raises BoardError where there is none."""

    def run(self, code: str, *, timeout_s: float = 60) -> Outcome:
        """Run code in a fresh interpreter, to its end. Raises TargetError when it has none."""

    def start(self, code: str) -> Console:
        """Run code in a fresh interpreter and give its console."""

    def power_cut(self) -> None:
        """Cut the power and give it back: what was in flash is there again. Needs `power`."""

    def close(self) -> None:
        """Let go of the target."""
