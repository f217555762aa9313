"""Builds MicroPython for QEMU from sources, once: `make qemu`, python -m tools.hil.build.

Sources come from the folder that FOGLINE_MICROPYTHON_SOURCES names, else from Debian's source
package (checked against Debian's signature by apt), else from MicroPython's git. What is built is
kept in FOGLINE_CACHE (else ~/.cache/fogline), under a key of everything that goes into it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.errors import ToolError

__all__ = [
    "MACHINES",
    "Machine",
    "apt_options",
    "cache_folder",
    "elf",
    "lock",
    "micropython",
    "run",
    "say",
]

PORT = Path(__file__).resolve().parents[2] / "hardware" / "qemu"
LEAST = (1, 26)
GIT_REPOSITORY = "https://github.com/micropython/micropython"
GIT_TAG = "v1.26.1"
DEBIAN_SUITE = "sid"  # the only one whose package is recent enough; unsigned it is not taken
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TIMEOUT_S = 1200
INSTALL = "tools/system.sh qemu"


@dataclass(frozen=True, slots=True)
class Machine:
    """One of QEMU's machines: its board in boards/, compiler, and extra settings."""

    name: str
    board: str
    compiler: str
    make: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


MACHINES = {
    "arm": Machine("arm", "FOGLINE_ARM", "arm-none-eabi-gcc"),
    # Debian's compiler has no libraries for rv32imac_zicsr. In version 2.2 of the instruction set
    # the CSR instructions belong to the base, so rv32imac covers what MicroPython's code uses.
    "rv32": Machine(
        "rv32",
        "FOGLINE_RV32",
        "riscv64-unknown-elf-gcc",
        make=("RV32_ARCH=rv32imac",),
        environment=(("AFLAGS", "-misa-spec=2.2"),),
    ),
}


def cache_folder() -> Path:
    """Where builds are kept."""
    chosen = os.environ.get("FOGLINE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fogline"


def elf(name: str) -> Path:
    """Give the image for a machine, `arm` or `rv32`, after building it if need be.

    Raises ToolError when sources or compilers are not to be had, or the build fails.
    """
    machine = MACHINES[name]
    with lock():
        sources = micropython()
        image = cache_folder() / "qemu" / _key(machine, sources) / "firmware.elf"
        if not image.exists():
            _build(machine, sources, image)
        return image


@contextmanager
def lock() -> Iterator[None]:
    """Several runs of the tests may want the same build at the same time."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """Tell how the build goes on."""
    print(f"qemu: {text}", file=sys.stderr, flush=True)


def run(
    command: list[str], *, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    """Run a program; raises ToolError with the end of what it said."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError as error:
        raise ToolError(f"{command[0]} is not installed; run {INSTALL}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{' '.join(command)}: no end within {TIMEOUT_S} s") from error
    if done.returncode:
        raise ToolError(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
    return done.stdout


# Sources


def micropython() -> Path:
    """Give the folder of MicroPython's sources, fetched if need be. Raises ToolError."""
    chosen = os.environ.get("FOGLINE_MICROPYTHON_SOURCES")
    if chosen:
        folder = Path(chosen)
        if not (folder / "ports" / "qemu" / "Makefile").is_file():
            raise ToolError(
                f"FOGLINE_MICROPYTHON_SOURCES={chosen} holds no MicroPython with ports/qemu"
            )
        return folder
    kept = cache_folder() / "micropython"
    have = [folder for folder in kept.glob("*") if _version(folder.name) >= LEAST]
    if have:
        return max(have, key=lambda folder: _version(folder.name))
    kept.mkdir(parents=True, exist_ok=True)
    fetch = kept / "fetching"
    shutil.rmtree(fetch, ignore_errors=True)
    fetch.mkdir()
    try:
        try:
            fetched = _from_debian(fetch)
        except ToolError as debian:
            say("no sources from Debian; trying git")
            try:
                fetched = _from_git(fetch)
            except ToolError as git:
                raise ToolError(
                    "MicroPython's sources are not to be had; name a folder with them in "
                    f"FOGLINE_MICROPYTHON_SOURCES.\nDebian: {debian}\ngit: {git}"
                ) from git
        return fetched.rename(kept / fetched.name)
    finally:
        shutil.rmtree(fetch, ignore_errors=True)


def _version(name: str) -> tuple[int, ...]:
    """The version in the name of a source folder: micropython-1.26.1+ds is (1, 26, 1)."""
    found = re.fullmatch(r"micropython-(\d+(?:\.\d+)+).*", name)
    return tuple(map(int, found[1].split("."))) if found else (0,)


def apt_options(folder: Path, kind: str, suite: str) -> list[str]:
    """Give what has apt fetch and check packages of a suite, leaving the system's own lists alone.

    kind: `deb` or `deb-src`. Raises ToolError where this system does not know Debian.
    """
    mirrors = run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)|$(CREATED_BY)"])
    uris = {
        uri
        for origin, uri, by in (
            line.split("|") for line in mirrors.splitlines() if line.count("|") == 2
        )
        if origin == "Debian" and by == "Packages" and "security" not in uri
    }
    if not uris:
        raise ToolError("apt knows no mirror of Debian; run apt-get update if this is one")
    if not DEBIAN_KEYRING.exists():
        raise ToolError(f"{DEBIAN_KEYRING} is missing; install debian-archive-keyring")
    lists, archives = folder / "lists" / "partial", folder / "cache" / "archives" / "partial"
    lists.mkdir(parents=True)
    archives.mkdir(parents=True)
    # Files of our own, and no others; apt drops its rights to a user who may not read them.
    entry = f"{kind} [signed-by={DEBIAN_KEYRING}] {min(uris)} {suite} main\n"
    (folder / "debian.list").write_text(entry)
    return [
        f"-oDir::Etc::SourceList={folder / 'debian.list'}",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={folder / 'lists'}",
        f"-oDir::Cache={folder / 'cache'}",
        "-oAPT::Sandbox::User=root",
        "-oAcquire::Retries=3",
    ]


def _from_debian(folder: Path) -> Path:
    """Have apt fetch and check the source package."""
    options = apt_options(folder, "deb-src", DEBIAN_SUITE)
    say(f"fetching MicroPython's source package ({DEBIAN_SUITE})")
    run(["apt-get", *options, "update"])
    run(["apt-get", *options, "source", "--only-source", "micropython"], cwd=folder)
    for unpacked in folder.glob("micropython-*/"):
        if _version(unpacked.name) < LEAST:
            raise ToolError(f"Debian's {unpacked.name} is older than {'.'.join(map(str, LEAST))}")
        return unpacked
    raise ToolError("apt-get source left no folder micropython-*")


def _from_git(folder: Path) -> Path:
    name = folder / f"micropython-{GIT_TAG.removeprefix('v')}"
    run(["git", "clone", "--depth", "1", "--branch", GIT_TAG, GIT_REPOSITORY, str(name)])
    for module in ("lib/micropython-lib", "lib/berkeley-db-1.xx"):
        run(["git", "submodule", "update", "--init", "--depth", "1", module], cwd=name)
    return name


# Build


def _key(machine: Machine, sources: Path) -> str:
    digest = hashlib.sha256(repr((sources.name, machine)).encode())
    for path in sorted(PORT.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(PORT)}\0".encode() + path.read_bytes())
    version = sources.name.removeprefix("micropython-")
    return f"{version}-{machine.name}-{digest.hexdigest()[:12]}"


def _build(machine: Machine, sources: Path, image: Path) -> None:
    compiler = run([machine.compiler, "-dumpfullversion"]).strip()
    say(f"building {machine.board}, {sources.name}, {machine.compiler} {compiler}")
    jobs = f"-j{os.cpu_count() or 1}"
    if not (sources / "mpy-cross" / "build" / "mpy-cross").exists():
        run(["make", "-C", str(sources / "mpy-cross"), jobs])
    port = sources / "ports" / "fogline"
    shutil.rmtree(port, ignore_errors=True)
    shutil.copytree(sources / "ports" / "qemu", port, ignore=shutil.ignore_patterns("build-*"))
    shutil.copytree(PORT, port, dirs_exist_ok=True)
    board = port / "boards" / machine.board
    board.mkdir()
    (port / f"{machine.name}.mk").rename(board / "mpconfigboard.mk")
    build = port / "build"
    settings = [f"BOARD={machine.board}", f"BUILD={build.name}", *machine.make]
    run(["make", "-C", str(port), jobs, *settings], environment=dict(machine.environment))
    image.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(build / "firmware.elf", image.with_suffix(".part"))
    image.with_suffix(".part").rename(image)
    shutil.rmtree(port)


def main() -> int:
    """Build both images and print what they are made of."""
    for machine in MACHINES.values():
        print(f"{machine.name}: {elf(machine.name)}")
    for program in ("qemu-system-arm", "qemu-system-riscv32", "arm-none-eabi-gcc",
                    "riscv64-unknown-elf-gcc"):  # fmt: skip
        print(run([program, "--version"]).splitlines()[0])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolError as problem:
        print(f"refused: {problem}", file=sys.stderr)
        sys.exit(1)
