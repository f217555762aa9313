"""`fogline hil ...`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tools.commands.common import JsonFile, console, new_app, report, write_out
from tools.errors import ToolError, UsageError

if TYPE_CHECKING:
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
            help="mock, unix, qemu-arm, qemu-rv32, pico-emu or serial:PORT; repeatable.",
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
        typer.Option(metavar="FILE.uf2", help="The MicroPython image that pico-emu runs."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Run the suite on each target; print every test, the heap before and after, and a matrix.

    Example: fogline hil run --target qemu-arm --json report.json
    Example: fogline hil run --target serial:/dev/ttyACM0 --module test_p256
    Example: fogline hil run --rig hardware/rig/example.toml --place pico-1
    Example: fogline hil run --target pico-emu --firmware RPI_PICO-20250911-v1.26.1.uf2
    """
    from tools.hil import suite
    from tools.hil.payload import firmware_sha256
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
    runs = []
    for way in ways:
        opened = way()
        try:
            about = opened.about()
            console.print(
                f"{opened.name}: {about.machine}, {about.implementation} {about.version}, "
                f"{about.heap_bytes or 'unbounded'} bytes of heap",
                highlight=False,
                markup=False,
            )
            runs.append(suite.run(opened, wanted, sha256, _tell))
        finally:
            opened.close()
    result = {"firmware": sha256, "runs": [run.as_json() for run in runs]}
    if json_file is not None:
        write_out(json_file, (json.dumps(result, indent=1) + "\n").encode())
    report({"passed": suite.matrix(runs)}, None)
    nowhere = suite.not_run_anywhere(runs)
    if nowhere:
        console.print(f"ran on no target asked for: {', '.join(nowhere)}", highlight=False)
    bad = [run.target for run in runs if not run.good]
    if bad:
        raise ToolError(f"tests failed on {', '.join(bad)}; the lines above say which and why")


def _tell(one: object) -> None:
    from tools.hil.suite import Result

    assert isinstance(one, Result)
    heap = f"{one.before_bytes} -> {one.after_bytes}" if one.before_bytes is not None else ""
    line = f"{one.result:8}{one.module}.{one.test}  {heap}"
    if one.heap_bytes is not None and heap:
        line += f" of {one.heap_bytes}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    if one.result == "failed" or (one.result == "skipped" and one.why):
        console.print(f"        {one.why}", highlight=False, markup=False, soft_wrap=True)
