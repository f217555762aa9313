"""Checks the firmware's types against the stubs of each MicroPython port that it runs on.

    python -m tools.board_types            checks; part of `make check`
    python -m tools.board_types install    puts the stubs into .venv/stubs, a folder for each port

The stubs replace Python's own standard library, so that they must not lie where other code is
checked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tools.firmware_files import ASSEMBLER, FIRMWARE

__all__ = ["PORTS", "check", "main"]

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
        print(f"firmware on {port}: {len(sources())} files checked")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
