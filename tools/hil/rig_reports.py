"""What `fogline hil run --json` has written, as transactions: see fog_node/protocol/SPEC.md.

A file has a run for each target; each becomes a transaction of its own, which names the file by
its hash, and the file itself goes beside the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from fog_node.client import Client
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey, kid_hex, parse_kid
from fog_node.protocol.manifest import FIRMWARE_PREFIX, FirmwareManifest, parse_bundle
from fog_node.protocol.requests import MAX_CONTENT_BYTES, Content
from fog_node.protocol.rig_reports import (
    MAX_TESTS,
    NAME_PREFIX,
    RESULTS,
    ModuleResults,
    ReleasedAs,
    ReportedBoard,
)
from fog_node.protocol.transactions import TestReport, Transaction, parse_transaction
from tools.boards import load_boards
from tools.devices.compiler import updates
from tools.devices.update import NAME as FIRMWARE_NAME
from tools.errors import ToolError, UsageError
from tools.hil import suite
from tools.hil.payload import firmware_sha256, suite_sha256
from tools.nodes import Nodes
from tools.submit import submit, wait_final

__all__ = [
    "Checkout",
    "Report",
    "bodies",
    "counted",
    "line",
    "listing",
    "load",
    "parse_kids",
    "released_as",
    "send",
    "show",
]

# How long to go on while no node answers or none has room.
PATIENCE_S = 30.0
MIN_PREFIX_CHARS = 8
# Of the latest reports, whether one has been sent before.
MAX_SEARCHED = 1000
_HASH = Field(pattern=r"^[0-9a-f]{64}$")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Test(_Strict):
    module: str
    test: str
    result: Literal["passed", "failed", "memory", "skipped"]
    heap: int | None
    before: int | None
    after: int | None
    why: str | None


class _Life(_Strict):
    # Reports from before these were told lack them.
    driver: str | None = Field(default=None, max_length=64)
    model_bytes: int | None = None
    held_bytes: int
    heap_bytes: int
    packs: int
    verdicts: int
    board: str
    board_heap_bytes: int
    limit_bytes: int
    ratio: float


class _Run(_Strict):
    target: str
    board: str
    micropython: str
    heap_bytes: int | None
    firmware_sha256: str = _HASH
    seconds: float
    passed: int
    failed: int
    memory: int
    skipped: int
    tests: list[_Test] = Field(min_length=1, max_length=MAX_TESTS)
    life: _Life | None = None


class _Suite(_Strict):
    sha256: str = _HASH
    tests: int = Field(ge=1, le=MAX_TESTS)


class _File(_Strict):
    firmware: str = _HASH
    suite: _Suite
    rig: str | None
    time: AwareDatetime
    runs: list[_Run] = Field(min_length=1, max_length=64)


@dataclass(frozen=True)
class Report:
    """A file that agrees with itself.

    Attributes:
        path, data: where it lies, and its bytes.
        file: what is in it.
    """

    path: Path
    data: bytes
    file: _File


@dataclass(frozen=True)
class Checkout:
    """The firmware and tests that are here: their hashes, and the tests by name."""

    firmware: str
    suite: str
    tests: frozenset[tuple[str, str]]

    @classmethod
    def here(cls) -> Checkout:
        """Read them."""
        tests = frozenset((one.name, test) for one in suite.modules() for test in one.tests)
        return cls(firmware_sha256(), suite_sha256(), tests)


def load(path: Path) -> Report:
    """Read a report; raises ToolError where it is none, or says two things."""
    try:
        size = path.stat().st_size
        if size > MAX_CONTENT_BYTES:
            raise ToolError(
                f"{path}: has {size} bytes, at most {MAX_CONTENT_BYTES} can be kept; run fewer "
                "targets for one report"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ToolError(
            f"{path}: cannot be read: {error.strerror}; make it with `fogline hil run --json`"
        ) from error
    try:
        file = _File.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ToolError(
            f"{path}: {where}: {first['msg']}; make it with `fogline hil run --json`"
        ) from error
    for run in file.runs:
        _agree(path, file, run)
    if len({run.target for run in file.runs}) < len(file.runs):
        raise ToolError(f"{path}: has two runs on one target; run each target once")
    return Report(path, data, file)


def _agree(path: Path, file: _File, run: _Run) -> None:
    where = f"{path}: {run.target}"
    if run.firmware_sha256 != file.firmware:
        raise ToolError(f"{where}: ran other firmware than the report's; run it again")
    if len({(one.module, one.test) for one in run.tests}) < len(run.tests):
        raise ToolError(f"{where}: has a test twice; run it again")
    if len(run.tests) > file.suite.tests:
        raise ToolError(f"{where}: has more tests than the suite; run it again")
    for result in RESULTS:
        counted = sum(one.result == result for one in run.tests)
        if counted != getattr(run, result):
            raise ToolError(
                f"{where}: says {getattr(run, result)} {result}, and lists {counted}; run it again"
            )


def bodies(
    report: Report,
    checkout: Checkout,
    rig: str,
    *,
    kids: Mapping[str, bytes] | None = None,
    release: ReleasedAs | None = None,
    partial: bool = False,
    other: bool = False,
) -> list[TestReport]:
    """One transaction's content for each run.

    Args:
        report: as loaded.
        checkout: what it is held against.
        rig: its name.
        kids: key ids of enrolled boards, by target.
        release: as what the firmware was released.
        partial: take a report that lacks tests of the suite.
        other: take a report of other firmware, or other tests, than the checkout's.

    Raises:
        ToolError: it is incomplete, of another checkout, or does not fit into a transaction.
        UsageError: a key id is for a target that is not in it.
    """
    file = report.file
    for name, hash_, here in (
        ("firmware", file.firmware, checkout.firmware),
        ("tests", file.suite.sha256, checkout.suite),
    ):
        if hash_ != here and not other:
            raise ToolError(
                f"{report.path}: is of {name} {hash_[:16]}, this checkout's are {here[:16]}; check "
                "out what was tested, run it again, or say --other-checkout"
            )
    kids = kids or {}
    if strangers := kids.keys() - {run.target for run in file.runs}:
        raise UsageError(f"--kid {min(strangers)}=...: the report has no run on this target")
    made = []
    for run in file.runs:
        where = f"{report.path}: {run.target}"
        ran = {(one.module, one.test) for one in run.tests}
        if file.suite.sha256 == checkout.suite:
            if strange := ran - checkout.tests:
                raise ToolError(f"{where}: {'.'.join(min(strange))} is no test of the suite")
            if file.suite.tests != len(checkout.tests):
                raise ToolError(f"{where}: the suite has {len(checkout.tests)} tests; run it again")
        if (lacking := file.suite.tests - len(ran)) and not partial:
            raise ToolError(
                f"{where}: lacks {lacking} of the suite's {file.suite.tests} tests; run it without "
                "--module, or say --partial"
            )
        body = TestReport(
            firmware=bytes.fromhex(file.firmware),
            suite=bytes.fromhex(file.suite.sha256),
            of=file.suite.tests,
            release=release,
            board=ReportedBoard(run.target, run.board, kids.get(run.target)),
            micropython=run.micropython,
            rig=rig,
            modules=_modules(run, where),
            report=Content(sha256(report.data).digest(), len(report.data)),
            time=int(file.time.timestamp() * 1000),
        )
        try:
            TestReport.decode(body.encode())
        except ProtocolError as error:
            raise ToolError(f"{where}: does not fit into a transaction: {error}") from error
        made.append(body)
    return made


def _modules(run: _Run, where: str) -> tuple[ModuleResults, ...]:
    found: dict[str, dict[str, list[str]]] = {}
    for one in run.tests:
        for name in (one.module, one.test):
            if not name.startswith(NAME_PREFIX):
                raise ToolError(f"{where}: {name[:80]!r} does not begin with {NAME_PREFIX}")
        lists = found.setdefault(
            one.module.removeprefix(NAME_PREFIX), {result: [] for result in RESULTS}
        )
        lists[one.result].append(one.test.removeprefix(NAME_PREFIX))
    return tuple(
        ModuleResults(name, *(tuple(sorted(lists[result])) for result in RESULTS))
        for name, lists in sorted(found.items())
    )


def parse_kids(given: Sequence[str]) -> dict[str, bytes]:
    """Read `TARGET=KID` each; raises UsageError."""
    kids = {}
    for text in given:
        target, equals, kid = text.rpartition("=")
        try:
            if not equals or target in kids:
                raise UsageError(f"--kid {text}: give TARGET=KID, each target once")
            kids[target] = parse_kid(kid)
        except ProtocolError as error:
            raise UsageError(f"--kid {text}: {error}") from error
    return kids


async def released_as(nodes: Nodes, board_class: str) -> ReleasedAs:
    """Name the latest release of firmware for a class of boards, if it is this checkout's.

    Raises:
        ToolError: none is released, or what mpy-cross makes of the checkout is something else.
        ClientError: no node answers, or none holds the bundle.
    """
    device_type = FIRMWARE_PREFIX + board_class
    arches = {
        board.mpy.arch
        for board in load_boards().values()
        if board.inference.board_class == board_class
    }
    async with nodes.client(PATIENCE_S) as client:
        found = [
            one
            for one in await client.releases()
            if (one.device_type, one.name) == (device_type, FIRMWARE_NAME)
        ]
        if not found or not arches:
            raise ToolError(
                f"--released {board_class}: no firmware is released for such boards; release it "
                "with `fogline device update`, or leave --released out"
            )
        (release,) = found
        data = await client.get_blob(bytes.fromhex(release.bundle))
    try:
        manifest = parse_bundle(data).manifest
    except ProtocolError as error:
        raise ToolError(f"--released {board_class}: its bundle is none: {error}") from error
    if isinstance(manifest, FirmwareManifest):
        held = {one.path: one.sha256 for one in manifest.files}
        for arch in sorted(arches):
            _, files = updates(arch)
            if held == {path: sha256(content).digest() for path, content in files.items()}:
                return ReleasedAs(
                    release.name, device_type, release.version, bytes.fromhex(release.bundle)
                )
    raise ToolError(
        f"--released {board_class}: version {release.version} holds other files than this "
        "checkout makes; check out what was released and run the tests on that"
    )


async def send(
    nodes: Nodes, founding: Founding, key: SigningKey, made: Sequence[TestReport], data: bytes
) -> list[dict[str, Any]]:
    """Put reports on the chain and the file beside it, and wait until all are final.

    What is among the latest already, by the same member, is not sent again: it may be repeated.

    Args:
        nodes: where to.
        founding: of the consortium.
        key: of a member who is operator.
        made: what `bodies` gave.
        data: the file that they name.

    Raises:
        ToolError: one is not final in time.
        ClientError: no node answers, or it refuses.
    """
    sent = []
    async with nodes.client(PATIENCE_S) as client:
        known = await _known(client, key, made)
        for body in made:
            transaction = known.get(body.board.id)
            if transaction is None or transaction.body != body:
                transaction = await submit(client, key, body, founding, wait=False)
            await client.put_content(transaction.id, data)
            sent.append((body, transaction))
        for _, transaction in sent:
            await wait_final(client, transaction)
    return [
        {
            "transaction": transaction.id.hex(),
            "board": body.board.id,
            "machine": body.board.machine,
            "firmware": body.firmware.hex(),
            **body.counts,
        }
        for body, transaction in sent
    ]


async def _known(
    client: Client, key: SigningKey, made: Sequence[TestReport]
) -> dict[str, Transaction]:
    """What `key` has signed of the same file: the latest, by the boards' names."""
    found: dict[str, Transaction] = {}
    sha256_hex, seen = made[0].report.sha256.hex(), 0
    async for view in client.all_transactions(kind="test-report"):
        if view.signer == kid_hex(key.kid) and view.body["report"]["sha256"] == sha256_hex:
            raw = await client.raw_transaction(bytes.fromhex(view.id))
            found.setdefault(view.body["board"]["id"], parse_transaction(raw))
        seen += 1
        if seen == MAX_SEARCHED:
            break
    return found


async def listing(nodes: Nodes, firmware: str | None, limit: int) -> list[dict[str, Any]]:
    """The latest reports that are open to who asks, latest first, of one firmware if named.

    Args:
        nodes: whom to ask.
        firmware: its SHA-256 in hex, or at least the first MIN_PREFIX_CHARS of it.
        limit: how many.
    """
    prefix = (firmware or "").lower()
    if firmware is not None and (
        not MIN_PREFIX_CHARS <= len(prefix) <= 64 or set(prefix) - set("0123456789abcdef")
    ):
        raise UsageError(
            f"--firmware {firmware[:80]}: give its SHA-256, or its first {MIN_PREFIX_CHARS} hex "
            "digits or more"
        )
    rows: list[dict[str, Any]] = []
    async with nodes.client() as client:
        names = {member.kid: member.name for member in await client.members()}
        async for view in client.all_transactions(kind="test-report"):
            body = view.body
            if not body["firmware"].startswith(prefix):
                continue
            release = body["release"]
            rows.append(
                {
                    "report": view.id,
                    "firmware": body["firmware"],
                    "release": release and f"{release['name']} {release['version']}",
                    "board": body["board"]["id"],
                    "machine": body["board"]["machine"],
                    "device": body["board"]["kid"],
                    "micropython": body["micropython"],
                    "rig": body["rig"],
                    "operator": names.get(view.signer, view.signer),
                    "time": body["time"],
                    **body["counts"],
                }
            )
            if len(rows) == limit:
                break
    return rows


def counted(row: Mapping[str, Any]) -> str:
    """How many tests went how, in words; what counts none is left out."""
    counts = ", ".join(f"{row[name]} {name}" for name in RESULTS if row[name])
    return counts + (f", {row['not_asked']} not asked" if row["not_asked"] else "")


def line(row: Mapping[str, Any]) -> str:
    """A row of `listing` for people: who, what, where, how it went."""
    released = f" ({row['release']})" if row["release"] else ""
    device = f", device {row['device']}" if row["device"] else ""
    return (
        f"{row['time']}  firmware {row['firmware'][:16]}{released} on {row['board']}: "
        f"{row['machine']}{device}, {row['micropython']}: {counted(row)}  "
        f"[{row['rig']}, {row['operator']}]  {row['report']}"
    )


async def show(nodes: Nodes, report: bytes) -> tuple[dict[str, Any], bytes]:
    """What a report says, and the file that lies beside it, checked.

    Raises:
        UsageError: the transaction is another kind.
        ClientError: no node answers, or the node has it not, or not yet.
    """
    async with nodes.client() as client:
        view = await client.transaction(report)
        if view.kind != "test-report":
            raise UsageError(f"{report.hex()}: is a {view.kind}, no test report")
        data = await client.content(report, bytes.fromhex(view.body["report"]["sha256"]))
        return {"transaction": view.id, "status": view.status, **view.body}, data
