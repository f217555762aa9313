"""A target at the other end of a raw REPL: what emulated and real boards have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from tools.devices import errors
from tools.devices.flash_files import FlashFiles
from tools.devices.identity import ARCHITECTURES
from tools.devices.line import Line
from tools.devices.repl import Repl
from tools.hil.target import About, BoardError, Capability, Outcome, TargetError

__all__ = [
    "ABOUT_CODE",
    "LARGE_HEAP_BYTES",
    "PROBE_CODE",
    "ReplConsole",
    "ReplTarget",
    "about_from",
]

LARGE_HEAP_BYTES = 300 * 1024

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


@contextmanager
def _told_as_targets() -> Iterator[None]:
    """Turn what the line and the board are accused of into what is said of targets."""
    try:
        yield
    except errors.BoardError as error:
        raise BoardError(str(error)) from error
    except errors.DeviceError as error:
        raise TargetError(str(error)) from error


class ReplConsole:
    """A program begun on a raw REPL."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl

    def lines(self, timeout_s: float) -> Iterator[str]:
        """As Console."""
        try:
            yield from self._repl.lines(timeout_s)
        except errors.DeviceError as error:  # a BoardError, too: more of a line than is held
            raise TargetError(str(error)) from error

    def write(self, data: bytes) -> None:
        """As Console."""
        with _told_as_targets():
            self._repl.line.write(data)

    def stop(self) -> None:
        """As Console: Ctrl-C, which a board takes wherever it is."""
        with _told_as_targets():
            self._repl.enter()


class ReplTarget:
    """A board that is reached by its raw REPL.

    patience: how many times longer than a board's its answers may take.
    """

    patience: float = 1.0

    def __init__(self, name: str, line: Line, remedy: str) -> None:
        self.name = name
        self._line = line
        self._repl = Repl(line, name, remedy=remedy, patience=self.patience)
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
        return self._put(files, None)

    def _put(self, files: Mapping[str, bytes], write: Callable[[bytes], None] | None) -> int:
        """Write what differs; `write` as FlashFiles.put has it."""
        with _told_as_targets():
            flash = self._files()
            folders = {path.partition("/")[0] for path in files if "/" in path}
            there = flash.compare(("", *sorted(folders)), files)
            changed = [
                path
                for path, content in files.items()
                if path not in there or there[path].sha256 != sha256(content).hexdigest()
            ]
            for path in changed:
                flash.put(path, files[path], write=write)
                stem, _, ending = path.rpartition(".")
                twin = stem + "." + {"py": "mpy", "mpy": "py"}.get(ending, "")
                if twin in there:
                    flash.remove(twin)
            return len(changed)

    def get(self, path: str) -> bytes:
        """As Target."""
        with _told_as_targets():
            return self._files().get(path)

    def _files(self) -> FlashFiles:
        self._repl.fresh()
        return FlashFiles(self._repl)

    def run(self, code: str, *, timeout_s: float = 60) -> Outcome:
        """As Target."""
        with _told_as_targets():
            self._repl.fresh()
            self._repl.begin(code)
            ended = self._repl.finish(timeout_s)
        return Outcome(ended.output, ended.trouble or None)

    def start(self, code: str) -> ReplConsole:
        """As Target."""
        with _told_as_targets():
            self._repl.fresh()
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
