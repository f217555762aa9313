"""What all commands share: options, how results are shown, how coroutines are run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from tools.errors import UsageError
from tools.nodes import DEFAULT_API
from tools.outputs import check_output, write_json

# Where no terminal shows a bar, a line in so long.
PROGRESS_EVERY_S = 5.0
# No terminal is wider.
MAX_TABLE_CHARS = 10_000

console = Console()
errors = Console(stderr=True)


def new_app(help_: str) -> typer.Typer:
    """Make a command, or a group of them, that shows its help when called without arguments."""
    return typer.Typer(help=help_, no_args_is_help=True, rich_markup_mode="rich")


def _check_place(path: Path | None) -> Path | None:
    """Refuse before anything is done; raises ToolError."""
    if path is not None:
        check_output(path)
    return path


JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write the result here, as JSON.",
        callback=_check_place,
    ),
]
FoundingFile = Annotated[
    Path, typer.Option("--founding", metavar="FILE", help="The consortium's founding file.")
]
Api = Annotated[
    list[str] | None,
    typer.Option("--api", metavar="URL", help=f"A fog node's API; repeatable. \\[{DEFAULT_API}]"),
]
MemberDirectory = Annotated[
    Path | None,
    typer.Option(
        "--as",
        metavar="DIR",
        envvar="FOGLINE_MEMBER",
        help="Your directory with tls.crt, tls.key and founding.cbor, for an API over TLS.",
    ),
]
OperatorKey = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="Signing key of a member who is operator.")
]
ValidatorKey = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="Signing key of a member who is validator.")
]
DatasetDirectory = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Data set; what it lacks is collected.")
]
DatasetOrRecordings = Annotated[
    Path,
    typer.Option(
        "--data", metavar="PATH", help="Data set; what it lacks is collected. Or recordings."
    ),
]
DeviceType = Annotated[str, typer.Option("--device-type", help="Type of the boards, as enrolled.")]
FoundingFileIfSealed = Annotated[
    Path | None,
    typer.Option(
        "--founding", metavar="FILE", help="The consortium's founding file, for sealed readings."
    ),
]
DeviceTypeIfSealed = Annotated[
    str | None,
    typer.Option("--device-type", help="Type of the boards, as enrolled; for sealed readings."),
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="KID", help="Only this board; repeatable."),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Rows from then on: ISO 8601, or s since 1970."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Rows until then.")]
NoLabels = Annotated[
    bool, typer.Option("--no-labels", help="Look at nothing that engineers have said.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Ask no node for what the data set lacks.")
]
Quick = Annotated[bool, typer.Option("--quick", help="A first look, in two minutes or less.")]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N|ray://HOST:PORT",
        help="Spread what it does over N processes here, or a Ray cluster. Needs the extra `ray`.",
    ),
]
NoWorkers = Annotated[
    str | None, typer.Option("--workers", hidden=True, help="Refused, with what takes it.")
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
FalseAlarms = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=0.5,
        help="Share of windows of normal operation that may raise an alarm: less of them, and more "
        "is missed. [0.05]",
    ),
]
Sheet = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="CSV file of what engineers say of its things; see above.",
    ),
]
SheetSealedIn = Annotated[
    Path | None,
    typer.Option(
        "--dataset",
        metavar="DIR",
        help="Collected data set: refuse labels that no member stands by there, who seals the "
        "file with `fogline label add --image FILE --value labels`.",
    ),
]
Recordings = Annotated[Path, typer.Option("--data", metavar="PATH", help="See above.")]
ConsortiumDirectory = Annotated[
    Path, typer.Option("--consortium", metavar="DIR", help="What `consortium create` made.")
]


def numbers(option: str, text: str) -> list[int]:
    """Read integers separated by commas; raises UsageError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} {text}: give integers separated by commas") from error


def report(result: Any, json_file: Path | None, *, show: bool = True) -> None:
    """Print a result for people and, where asked for, write it as JSON."""
    if show:  # first: what was done is known then, though the disk be full
        _show(result)
    if json_file is not None:
        write_json(json_file, result)


def say(line: str) -> None:
    """Show a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show(result: Any) -> None:
    if isinstance(result, list):
        for item in result:
            _show(item)
            console.print()
        return
    for key, value in result.items():
        label = key.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], dict):
            _show_rows(label, value)
        else:
            _show_value(label, value)


def _show_rows(label: str, rows: list[dict[str, Any]]) -> None:
    """A table; where its words do not fit beside each other, a paragraph for each row."""
    columns = [Column(str(column), overflow="fold") for column in rows[0]]
    table = Table(*columns, title=label, title_justify="left")
    for row in rows:
        table.add_row(*(escape(_cell(cell)) for cell in row.values()))
    wide = console.options.update(width=MAX_TABLE_CHARS)
    if console.measure(table, options=wide).minimum <= console.width:
        console.print(table)
        return
    console.print(f"{label}:", highlight=False)
    for row in rows:
        for column, cell in row.items():
            _show_value(f"  {column}", cell)
        console.print()


def _show_value(label: str, value: Any) -> None:
    shown = escape(_cell(value))  # a unit may be "[g]"
    console.print(f"{label}: [bold]{shown}[/]", highlight=False, soft_wrap=True)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many of how many are done: a bar on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, of: bar.update(task, completed=done, total=of)
        return
    told = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told
        if time.monotonic() - told >= PROGRESS_EVERY_S:
            told = time.monotonic()
            errors.print(f"{what}: {done} of {of}", highlight=False)

    yield tell


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine of a command."""
    return asyncio.run(coroutine)
