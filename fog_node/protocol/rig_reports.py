"""What a rig says of firmware on a board: which tests passed, which did not; a member's word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from .cbor import decode, encode
from .errors import FormatError
from .keys import KID_BYTES
from .manifest import FIRMWARE_PREFIX
from .merkle import HASH_BYTES
from .requests import MAX_CONTENT_BYTES, Content
from .validate import array, octets, text, text_map, time_ms, uint

# With the envelope it stays below what a transaction may have.
MAX_PAYLOAD_BYTES = 23 * 1024
MAX_NAME_CHARS = 64
MAX_TEXT_CHARS = 200
MAX_MODULES = 128
MAX_TESTS = 1024
# How a test can go, in the order of a module's lists. `memory`: the board's heap is too small for
# it; `skipped`: the board lacks what it needs. Neither ran to its end.
RESULTS = ("passed", "failed", "memory", "skipped")
# Modules' and tests' names are given without this.
NAME_PREFIX = "test_"
_NAME = re.compile(r"[a-z0-9_]{1,96}")


@dataclass(frozen=True)
class ReleasedAs:
    """The firmware's release: its latest version then, or an earlier one.

    Attributes:
        bundle: SHA-256 of the bundle's file.
    """

    name: str
    device_type: str
    version: int
    bundle: bytes


@dataclass(frozen=True)
class ReportedBoard:
    """Where the tests ran.

    Attributes:
        id: the rig's name for it: a target, as `qemu-arm` or `serial:/dev/ttyACM0`.
        machine: what MicroPython says that it is.
        kid: key id, where it is enrolled.
    """

    id: str
    machine: str
    kid: bytes | None


@dataclass(frozen=True)
class ModuleResults:
    """How a module's tests went, by RESULTS; names without NAME_PREFIX, in order."""

    name: str
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def lists(self) -> tuple[tuple[str, ...], ...]:
        """The tests of each of RESULTS."""
        return (self.passed, self.failed, self.memory, self.skipped)


@dataclass(frozen=True)
class TestReport:
    """The suite's results of one firmware on one board.

    Attributes:
        firmware: SHA-256 over the firmware's sources, as SPEC.md says.
        suite: the same over its tests; `of`: how many those are. What is in no module's list
            was not asked for.
        release: as what it was released; None where it was not, or the signer does not say.
        micropython: implementation and version.
        rig: who ran it, by a name that its owner gave it.
        report: the whole report, which lies beside the chain.
        time: ms since 1970, of the run's start.
    """

    __test__ = False  # for pytest: no class of tests
    kind: ClassVar[str] = "test-report"
    firmware: bytes
    suite: bytes
    of: int
    release: ReleasedAs | None
    board: ReportedBoard
    micropython: str
    rig: str
    modules: tuple[ModuleResults, ...]
    report: Content
    time: int

    @property
    def device(self) -> bytes | None:
        """Key id of the board, where it is enrolled."""
        return self.board.kid

    def tests(self, result: str) -> list[str]:
        """Name the tests that went so, as `module.test`."""
        place = RESULTS.index(result)
        return [
            f"{NAME_PREFIX}{module.name}.{NAME_PREFIX}{test}"
            for module in self.modules
            for test in module.lists[place]
        ]

    @property
    def counts(self) -> dict[str, int]:
        """How many tests went how; `not_asked`: are in the suite, and in no list."""
        found = {result: len(self.tests(result)) for result in RESULTS}
        return found | {"not_asked": self.of - sum(found.values())}

    @classmethod
    def decode(cls, payload: bytes) -> TestReport:
        """Parse; raises EncodingError, FormatError."""
        names = {
            "firmware", "suite", "of", "release", "board", "micropython", "rig", "modules",
            "report", "time",
        }  # fmt: skip
        value = text_map(decode(payload, MAX_PAYLOAD_BYTES, "test-report"), names, "test-report")
        modules = _modules(value["modules"], "test-report.modules")
        of = uint(value["of"], "test-report.of", MAX_TESTS, at_least=1)
        if not 1 <= sum(len(tests) for one in modules for tests in one.lists) <= of:
            raise FormatError("test-report.modules", f"do not have 1 to {of} tests, as `of` says")
        where = "test-report.report"
        report = text_map(value["report"], {"sha256", "size"}, where)
        return cls(
            firmware=octets(value["firmware"], "test-report.firmware", HASH_BYTES),
            suite=octets(value["suite"], "test-report.suite", HASH_BYTES),
            of=of,
            release=_release(value["release"], "test-report.release"),
            board=_board(value["board"], "test-report.board"),
            micropython=text(value["micropython"], "test-report.micropython", MAX_NAME_CHARS),
            rig=text(value["rig"], "test-report.rig", MAX_NAME_CHARS),
            modules=modules,
            report=Content(
                octets(report["sha256"], f"{where}.sha256", HASH_BYTES),
                uint(report["size"], f"{where}.size", MAX_CONTENT_BYTES, at_least=1),
            ),
            time=time_ms(value["time"], "test-report.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        release, board = self.release, self.board
        return encode(
            {
                "firmware": self.firmware,
                "suite": self.suite,
                "of": self.of,
                "release": None
                if release is None
                else {
                    "name": release.name,
                    "device_type": release.device_type,
                    "version": release.version,
                    "bundle": release.bundle,
                },
                "board": {"id": board.id, "machine": board.machine, "kid": board.kid},
                "micropython": self.micropython,
                "rig": self.rig,
                "modules": [[one.name, *map(list, one.lists)] for one in self.modules],
                "report": {"sha256": self.report.sha256, "size": self.report.size},
                "time": self.time,
            }
        )


def _release(value: Any, where: str) -> ReleasedAs | None:
    if value is None:
        return None
    given = text_map(value, {"name", "device_type", "version", "bundle"}, where)
    device_type = text(given["device_type"], f"{where}.device_type", MAX_NAME_CHARS)
    if not device_type.startswith(FIRMWARE_PREFIX):
        raise FormatError(f"{where}.device_type", f"does not begin with {FIRMWARE_PREFIX}")
    return ReleasedAs(
        name=text(given["name"], f"{where}.name", MAX_NAME_CHARS),
        device_type=device_type,
        version=uint(given["version"], f"{where}.version", at_least=1),
        bundle=octets(given["bundle"], f"{where}.bundle", HASH_BYTES),
    )


def _board(value: Any, where: str) -> ReportedBoard:
    given = text_map(value, {"id", "machine", "kid"}, where)
    kid = given["kid"]
    return ReportedBoard(
        id=text(given["id"], f"{where}.id", MAX_TEXT_CHARS),
        machine=text(given["machine"], f"{where}.machine", MAX_TEXT_CHARS),
        kid=None if kid is None else octets(kid, f"{where}.kid", KID_BYTES),
    )


def _modules(value: Any, where: str) -> tuple[ModuleResults, ...]:
    modules = []
    for index, item in enumerate(array(value, where, at_most=MAX_MODULES)):
        field = f"{where}[{index}]"
        name, *lists = array(item, field, length=1 + len(RESULTS))
        tests = [_names(tests, field) for tests in lists]
        together = [test for some in tests for test in some]
        if not together or len(set(together)) != len(together):
            raise FormatError(field, "has no test, or one twice")
        modules.append(ModuleResults(_name(name, field), *tests))
    if not _is_rising(module.name for module in modules):
        raise FormatError(where, "are not in order of their names")
    return tuple(modules)


def _names(value: Any, field: str) -> tuple[str, ...]:
    names = tuple(_name(name, field) for name in array(value, field, at_most=MAX_TESTS))
    if not _is_rising(names):
        raise FormatError(field, "has tests that are not in order of their names")
    return names


def _name(value: Any, field: str) -> str:
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise FormatError(field, "has a name that is not 1 to 96 of a to z, 0 to 9 and _")
    return value


def _is_rising(names: Iterable[str]) -> bool:
    return all(one < other for one, other in pairwise(names))
