"""Checks the firmware's types against the stubs of each MicroPython port that it runs on.

    python -m tools.board_types            checks; part of `make check`
    python -m tools.board_types install    puts the stubs into .venv/stubs, a folder for each port

The stubs replace Python's own standard library, so that they must not lie where other code is
checked.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.firmware_compact import compact
from tools.firmware_files import ASSEMBLER, FIRMWARE

__all__ = ["PORTS", "check", "foreign", "main", "mistaken"]

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "tools" / "board_types.ini"
CONSTRAINTS = ROOT / "requirements.txt"
STUBS = Path(sys.prefix) / "stubs"
# Package micropython-PORT-stubs.
PORTS = ("esp32", "rp2")
TIMEOUT_S = 300
# The compiler knows `@micropython.viper` without an import; the stubs' built-ins do not.
_BUILT_IN = "from typing import Any as _AnyDecorator\nmicropython: _AnyDecorator\n"


def sources(firmware: Path = FIRMWARE) -> list[Path]:
    """The files that go on a board, without those that hold assembler in Python's dress."""
    inside = [
        path for folder in ("fogline", "drivers") for path in (firmware / folder).glob("*.py")
    ]
    found = [*firmware.glob("*.py"), *inside]
    return sorted(path for path in found if path.name not in ASSEMBLER)


def check(port: str, firmware: Path = FIRMWARE, stubs: Path = STUBS) -> list[str]:
    """Run mypy over the firmware as that port sees it; returns a line for each finding.

    Raises:
        FileNotFoundError: the stubs are not installed.
    """
    folder = stubs / port
    if not (folder / "stdlib" / "builtins.pyi").is_file():
        raise FileNotFoundError(f"{folder}: no stubs; make check installs them")
    command = [sys.executable, "-m", "mypy", "--config-file", str(CONFIGURATION)]
    command += ["--custom-typeshed-dir", str(folder), "--no-site-packages", "--no-error-summary"]
    command += ["--cache-dir", str(ROOT / ".mypy_cache" / f"board-{port}")]
    command += map(str, sources(firmware))
    done = subprocess.run(
        command,
        env={**os.environ, "MYPYPATH": f"{folder}{os.pathsep}{firmware}"},
        cwd=firmware,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode != 0 and not lines:
        lines = [f"mypy ended with {done.returncode}"]
    return lines if done.returncode != 0 else []


def foreign(port: str, firmware: Path = FIRMWARE, stubs: Path = STUBS) -> set[str]:
    """Names of built-ins, and of the modules of MicroPython that the firmware imports."""
    folder = stubs / port
    modules = {"builtins", "_asyncio"}
    for source in sources(firmware):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules.add(node.module.partition(".")[0])
    found: set[str] = set()
    for module in modules:
        for place in (folder, folder / "stdlib"):
            package = place / module
            files = [package.with_suffix(".pyi"), *package.rglob("*.pyi")]
            for path in files:
                if path.is_file():
                    found.update(_defined(ast.parse(path.read_text("utf-8"))))
    return found


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def mistaken(port: str, firmware: Path = FIRMWARE, stubs: Path = STUBS) -> list[str]:
    """Names of the firmware that boards know by another and that MicroPython has as well.

    tools/firmware_names.py cannot tell whose name it is where it stands, so these must stay.
    """
    renamed = {
        name
        for source in sources(firmware)
        for name in compact(source, firmware).shared
        if not name.startswith("_")
    }
    return sorted(renamed & foreign(port, firmware, stubs))


def install(stubs: Path = STUBS) -> None:
    """Install the stubs of every port."""
    for port in PORTS:
        folder = stubs / port
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--upgrade", "--target", str(folder)]
        command += ["-c", str(CONSTRAINTS), f"micropython-{port}-stubs"]
        subprocess.run(command, check=True)
        builtins = folder / "stdlib" / "builtins.pyi"
        text = builtins.read_text(encoding="utf-8")
        if not text.endswith(_BUILT_IN):
            builtins.write_text(text + "\n" + _BUILT_IN, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Check or install; 1 where something is to be mended, 2 for wrong usage."""
    if arguments == ["install"]:
        install()
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    found = 0
    for port in PORTS:
        for line in check(port):
            found += ": error:" in line
            print(f"{port}: {line}", file=sys.stderr)
        for name in mistaken(port):
            found += 1
            print(f"{port}: {name} is MicroPython's, too; put it into FOREIGN in", file=sys.stderr)
            print("    tools/firmware_names.py", file=sys.stderr)
        print(f"firmware on {port}: {len(sources())} files checked")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
