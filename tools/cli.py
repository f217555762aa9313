"""The `fogline` command: its groups, and what becomes of errors."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from cloud.errors import CloudError
from fog_node.errors import FogNodeError
from fog_node.protocol.errors import ProtocolError
from tools.commands import (
    bench,
    consortium,
    data,
    demo,
    device,
    evaluate,
    federated,
    fog,
    hil,
    label,
    model,
    predict,
    proof,
    request,
    train,
)
from tools.commands.common import errors, new_app
from tools.errors import ToolError, UsageError

EXIT_REFUSED = 1
EXIT_USAGE = 2

app = new_app("Readings signed on boards, sealed by a consortium, judged by models it can check.")
app.command("demo")(demo.demo)
for group in (
    consortium,
    fog,
    device,
    train,
    predict,
    evaluate,
    federated,
    model,
    data,
    label,
    request,
    proof,
    hil,
    bench,
):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


# Which extra brings a package that only some commands need.
_EXTRAS = {
    "ai_edge_litert": "inference",
    "PIL": "inference",
    "duckdb": "cloud",
    "keras": "cloud",
    "matplotlib": "cloud",
    "numpy": "cloud",
    "pyarrow": "cloud",
    "sklearn": "cloud",
    "skops": "cloud",
    "statsforecast": "cloud",
    "tensorflow": "cloud",
    "ray": "ray",
}


def main() -> None:
    """Entry point: 0 done, 1 refused with a reason, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal may lack what a note or a unit holds
            stream.reconfigure(errors="backslashreplace")
    try:
        _check_text(sys.argv[1:])
        app()
    except UsageError as error:
        errors.print(f"usage: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(EXIT_USAGE)
    except (ToolError, FogNodeError, CloudError, ProtocolError) as error:
        errors.print(f"refused: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(EXIT_REFUSED)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        said = f"{error.name} is not installed; pip install '.[{extra}]' in Fogline's folder"
        errors.print(f"refused: {said}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(EXIT_REFUSED)
    except OSError as error:  # of this machine: its disk, a file, a port
        where = f"{error.filename}: " if error.filename else ""
        said = f"{where}{error.strerror or error}"
        if error.filename:
            said += "; check its path, its permissions and the room on the disk"
        errors.print(f"refused: {said}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(EXIT_REFUSED)


def _check_text(arguments: list[str]) -> None:
    """Refuse bytes that no terminal, report or record could show; raises UsageError."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            said = f"{argument!a}: is not UTF-8; type it anew, or rename the file"
            raise UsageError(said) from error


if __name__ == "__main__":
    main()
