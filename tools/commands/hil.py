"""`fogline hil ...`."""

from __future__ import annotations

import socket
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    OperatorKey,
    console,
    new_app,
    report,
    run,
)
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes
from tools.outputs import write_json, write_out

if TYPE_CHECKING:
    from tools.hil.suite import Result
    from tools.hil.target import Target

app = new_app("Run the firmware's tests on boards, real and emulated.")


@app.callback()
def hil() -> None:
    """Run the firmware's tests on boards, real and emulated."""


@app.command("run")
def hil_run(
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="mock, unix, qemu-arm, qemu-rv32, pico-emu (see make pico) or serial:PORT; "
            "repeatable.",
        ),
    ] = None,
    rig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A rig file: run on its places."),
    ] = None,
    place: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A place of the rig; repeatable. All if none."),
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A module of firmware/tests; repeatable. All if none."),
    ] = None,
    heap: Annotated[
        int | None, typer.Option(min=65536, help="Bytes of heap of an emulated board.")
    ] = None,
    firmware: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.uf2", help="The image that pico-emu runs. \\[what `make pico` built]"
        ),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Run the suite on each target; print every test, the heap before and after, and a matrix.

    On the QEMU targets, the whole suite is followed by a board's life: the heap that lives while it
    samples, signs and judges, against two thirds of a Pico W's.

    Example: fogline hil run --target qemu-arm --json report.json
    Example: fogline hil run --target serial:/dev/ttyACM0 --module test_p256
    Example: fogline hil run --rig hardware/rig/example.toml --place pico-1
    Example: fogline hil run --target pico-emu --firmware RPI_PICO-20250911-v1.26.1.uf2
    """
    from tools.hil import life, suite
    from tools.hil.payload import firmware_sha256, suite_sha256
    from tools.hil.place import open_place
    from tools.hil.rig_file import read_rig
    from tools.hil.targets import open_target

    ways: list[Callable[[], Target]] = [
        partial(open_target, name, heap_bytes=heap, firmware=firmware) for name in target or ()
    ]
    if rig is not None:
        bench = read_rig(rig)
        ways += [partial(open_place, bench.name, one) for one in bench.places(tuple(place or ()))]
    elif place:
        raise UsageError("--place is one of a rig; name its file with --rig")
    if not ways:
        raise UsageError("name a --target, or a --rig file")
    wanted = suite.modules(module or ())
    sha256 = firmware_sha256()
    tests = {
        "sha256": suite_sha256(),
        "tests": sum(len(one.tests) for one in suite.modules()),
    }
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    runs = []
    for way in ways:
        opened = way()
        try:
            about = opened.about()
            console.print(
                suite.describe(opened.name, about), highlight=False, markup=False, soft_wrap=True
            )
            done = suite.run(opened, wanted, sha256, partial(_tell, opened.name))
        finally:
            opened.close()
        if done.target in life.TARGETS and not module:
            done.life = life.run(done.target)
            console.print(f"{done.target}: {done.life.line()}", highlight=False, markup=False)
        runs.append(done)
    result = {
        "firmware": sha256,
        "suite": tests,
        "rig": None if rig is None else bench.name,
        "time": started,
        "runs": [one.as_json() for one in runs],
    }
    if json_file is not None:
        write_json(json_file, result)
    for line in suite.matrix(runs):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    bad = [one.target for one in runs if not one.good]
    if bad:
        raise ToolError(f"tests failed on {', '.join(bad)}; the lines above say which and why")


@app.command("submit")
def hil_submit(
    report_file: Annotated[
        Path, typer.Argument(metavar="REPORT", help="What `hil run --json` wrote, at most 1 MiB.")
    ],
    founding: FoundingFile,
    key: OperatorKey,
    rig: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the rig. \\[as reported, else this machine's]"),
    ] = None,
    kid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET=KID", help="Key id of the board at a target, enrolled; repeatable."
        ),
    ] = None,
    released: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Say that this firmware is the latest released for this class of boards, as "
            "pico-w's rp2040w; compared with the released files.",
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Also when it lacks tests of the suite.")
    ] = False,
    other_checkout: Annotated[
        bool, typer.Option("--other-checkout", help="Also when it is not of this checkout.")
    ] = False,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Sign a report and put it on the chain, one transaction for each target, failures included.

    The JSON file itself goes beside the chain. That it says what happened is your word.

    Example: fogline hil submit report.json --founding founding.cbor --key plant/signing.key
    --as plant --api https://fog1.example:7480 --rig bench-1 --kid serial:/dev/ttyACM0=b6f0...
    """
    from tools.hil import rig_reports

    read = rig_reports.load(report_file)
    checkout = rig_reports.Checkout.here()
    nodes = Nodes.of(api, member)
    release = None
    if released is not None:
        if read.file.firmware != checkout.firmware:
            raise ToolError(
                "--released: only this checkout's firmware can be compared with a release, and the "
                "report is of another; check out what was tested"
            )
        release = run(rig_reports.released_as(nodes, released))
    made = rig_reports.bodies(
        read,
        checkout,
        rig or read.file.rig or socket.gethostname(),
        kids=rig_reports.parse_kids(kid or ()),
        release=release,
        partial=partial,
        other=other_checkout,
    )
    signer = consortiums.load_key(key)
    sending = rig_reports.send(nodes, consortiums.load_founding(founding), signer, made, read.data)
    sent = run(sending)
    report({"reports": sent}, json_file, show=False)
    for one in sent:
        how = rig_reports.counted(one)
        line = f"{one['board']}: {one['machine']}: {how}  {one['transaction']}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("reports")
def hil_reports(
    firmware: Annotated[
        str | None, typer.Option(metavar="HASH", help="Of this firmware alone; 8 digits will do.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, latest first.")] = 50,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """List the reports on the chain: which firmware passed how many tests on which board.

    Example: fogline hil reports --firmware 1f0c2a9e --as plant --api https://fog1.example:7480
    """
    from tools.hil import rig_reports

    rows = run(rig_reports.listing(Nodes.of(api, member), firmware, limit))
    report({"reports": rows}, json_file, show=False)
    for row in rows:
        console.print(rig_reports.line(row), highlight=False, markup=False, soft_wrap=True)
    if not rows:
        console.print("no report", highlight=False)


@app.command("show")
def hil_show(
    transaction: Annotated[str, typer.Argument(help="Id of the report: 64 hex digits.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the whole JSON report here.")
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Show a report on the chain, test by test, and check the JSON file beside it.

    Example: fogline hil show 6e340b9c... --out report.json --api http://127.0.0.1:7480
    """
    from tools.hil import rig_reports
    from tools.requests import read_id

    shown, data = run(rig_reports.show(Nodes.of(api, member), read_id(transaction)))
    if out is not None:
        write_out(out, data)
    report(shown, json_file, show=False)
    tests = shown.pop("tests")
    report(shown, None)
    for result, names in tests.items():
        for name in names:
            console.print(f"{result:8}{name}", highlight=False, markup=False, soft_wrap=True)


def _tell(target: str, one: Result) -> None:
    line = f"{target}  {one.result:7} {one.module}.{one.test}"
    if one.before_bytes is not None and one.heap_bytes is not None:
        line += f"  {one.before_bytes} -> {one.after_bytes} of {one.heap_bytes}"
    if one.why and one.result == "skipped":
        line += f"  {one.why}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    if one.why and one.result in ("failed", "memory"):
        text = textwrap.indent(one.why.rstrip(), "    ")
        console.print(text, highlight=False, markup=False, soft_wrap=True)
