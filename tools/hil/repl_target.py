"""A target at the other end of a raw REPL: what emulated and real boards have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from tools.hil.raw_repl import Line, RawRepl
from tools.hil.target import About, Capability, Outcome, TargetError

__all__ = [
    "ABOUT_CODE",
    "LARGE_HEAP_BYTES",
    "PROBE_CODE",
    "ReplConsole",
    "ReplTarget",
    "about_from",
]

LARGE_HEAP_BYTES = 300 * 1024

# The names of sys.implementation._mpy >> 10 & 15, as mpy-cross takes them.
ARCHITECTURES = (
    None, "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp",
    "xtensa", "xtensawin", "rv32imc", "rv64imc",
)  # fmt: skip

ABOUT_CODE = """
import gc, json, sys
i = sys.implementation
print(json.dumps([
    i.name, ".".join(str(n) for n in i.version[:3]), getattr(i, "_machine", sys.platform),
    gc.mem_alloc() + gc.mem_free(), getattr(i, "_mpy", 0)]))
"""
# Finds out what a board that nothing else is known of can do.
PROBE_CODE = """
found = []
try:
    import vfs
    vfs.VfsLfs2
    found.append("littlefs")
except (ImportError, AttributeError):
    pass
try:
    import socket, ssl
    found.append("network")
except ImportError:
    pass
try:
    import machine
    machine.reset
    found.append("reset")
    machine.WDT
    found.append("watchdog")
except (ImportError, AttributeError):
    pass
if 1.0 + 2.0**-40 != 1.0:
    found.append("double")
print(" ".join(found))
"""


def about_from(answer: list[Any]) -> About:
    """Read the answer to ABOUT_CODE."""
    name, version, machine, heap, mpy = answer
    architecture = mpy >> 10 & 15
    known = architecture < len(ARCHITECTURES)
    return About(
        implementation=name,
        version=version,
        machine=machine,
        heap_bytes=heap,
        mpy_arch=ARCHITECTURES[architecture] if known else None,
        mpy_version=mpy & 0xFF,
    )


class ClosableLine(Line, Protocol):
    """A line that can be let go of."""

    def close(self) -> None:
        """Let go of it."""


class ReplConsole:
    """A program begun on a raw REPL."""

    def __init__(self, repl: RawRepl) -> None:
        self._repl = repl

    def lines(self, timeout_s: float) -> Iterator[str]:
        """As Console."""
        return self._repl.lines(timeout_s)

    def write(self, data: bytes) -> None:
        """As Console."""
        self._repl.write(data)

    def stop(self) -> None:
        """As Console: Ctrl-C, which a board takes wherever it is."""
        self._repl.enter()


class ReplTarget:
    """A board that is reached by its raw REPL.

    patience: how many times longer than a board's its answers may take.
    """

    patience: float = 1.0

    def __init__(self, name: str, line: ClosableLine, remedy: str) -> None:
        self.name = name
        self._line = line
        self._repl = RawRepl(line, name, remedy, self.patience)
        self._about: About | None = None
        self.capabilities: frozenset[str] = frozenset()

    def probe(self, *known: str) -> None:
        """Ask the board for its capabilities; `known` are those that it cannot know of."""
        found = set(self.run(PROBE_CODE).checked().split()) | set(known)
        about = self.about()
        if about.mpy_arch is not None:
            found.add(Capability.VIPER)
        if about.heap_bytes is not None and about.heap_bytes >= LARGE_HEAP_BYTES:
            found.add(Capability.LARGE_HEAP)
        self.capabilities = frozenset(found)

    def about(self) -> About:
        """As Target; asked once."""
        if self._about is None:
            self._about = about_from(json.loads(self.run(ABOUT_CODE).checked()))
        return self._about

    def put(self, files: Mapping[str, bytes]) -> int:
        """As Target."""
        return self._repl.put(files)

    def get(self, path: str) -> bytes:
        """As Target."""
        return self._repl.get(path)

    def run(self, code: str, *, timeout_s: float = 60) -> Outcome:
        """As Target."""
        self._repl.soft_reset()
        self._repl.begin(code)
        return self._repl.finish(timeout_s * self.patience)

    def start(self, code: str) -> ReplConsole:
        """As Target."""
        self._repl.soft_reset()
        self._repl.begin(code)
        return ReplConsole(self._repl)

    def power_cut(self) -> None:
        """As Target; a board alone on a cable has no switch."""
        raise TargetError(
            f"{self.name}: nothing here can cut its power; name a rig file whose board has power"
        )

    def close(self) -> None:
        """As Target."""
        self._line.close()
