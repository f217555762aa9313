"""The C core without Python: on this machine under the sanitizers, and for aarch64 under QEMU."""

from __future__ import annotations

import os
import platform
import random
import shlex
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.real_blocks import BLOCKS

from fog_node import pow as proof_of_work
from fog_node.pow import python_twin

ISOLATED = Path(__file__).parent / "isolated"
NATIVE = Path(proof_of_work.__file__).parent / "native"
CORE = sorted(path for path in NATIVE.glob("*.c") if path.name != "module.c")
STRICT = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror"]
PATIENCE_S = 120
NONCES = 1 << 32

HERE = shlex.split(os.environ.get("CC", "cc"))
IS_AARCH64 = platform.machine() == "aarch64"
CROSS = HERE if IS_AARCH64 else ["aarch64-linux-gnu-gcc"]
EMULATOR = [] if IS_AARCH64 else ["qemu-aarch64", "-cpu", "cortex-a72"]
REMEDY = (
    "install what tools/system.sh test names: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
)

# Bits of AT_HWCAP (Linux, arch/arm64/include/uapi/asm/hwcap.h).
HWCAP_ASIMD = 1 << 1
HWCAP_SHA2 = 1 << 6


def run(*command: str | Path, **options: object) -> str:
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options
        )
    except FileNotFoundError as error:
        pytest.fail(f"{error.filename} is missing: {REMEDY}")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@dataclass(frozen=True)
class Platform:
    """A way to build a program from the core, and to start it."""

    compiler: list[str]
    options: list[str]
    emulator: list[str]
    kernels: list[str]
    """What is expected to run there."""


PLATFORMS = {
    "sanitizers": Platform(
        HERE,
        ["-g", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        [],
        proof_of_work.kernels()[:-1],
    ),
    "aarch64": Platform(
        CROSS,
        ["-O3", "-static"],
        EMULATOR,
        proof_of_work.kernels()[:-1] if IS_AARCH64 else ["armv8_sha2", "neon", "portable"],
    ),
}


class Builder:
    """Programs for one platform; the core is compiled once for all of them."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.platform = platform
        self.folder = folder
        self.core = [self._compile(source) for source in CORE]

    def build(self, name: str, *options: str | Path) -> Path:
        program = self.folder / name
        program_object = self._compile(ISOLATED / f"{name}.c")
        self._compiler(program_object, *self.core, *options, "-o", program)
        return program

    def run(self, program: Path, **options: object) -> str:
        return run(*self.platform.emulator, program, **options)

    def _compile(self, source: Path) -> Path:
        compiled = self.folder / f"{source.stem}.o"
        self._compiler(f"-I{NATIVE}", "-c", source, "-o", compiled)
        return compiled

    def _compiler(self, *arguments: str | Path) -> None:
        run(*self.platform.compiler, *STRICT, *self.platform.options, *arguments)


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Programs for a Raspberry Pi."""
    return Builder(PLATFORMS["aarch64"], tmp_path_factory.mktemp("aarch64"))


@pytest.fixture(scope="module", params=PLATFORMS)
def builder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Programs for each platform that the core is tried on."""
    if request.param == "aarch64":
        return request.getfixturevalue("aarch64")
    return Builder(PLATFORMS[request.param], tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("compiler", [HERE, CROSS], ids=["here", "aarch64"])
@pytest.mark.parametrize("source", [path.name for path in CORE])
def test_the_core_compiles_without_a_warning(compiler, source, tmp_path):
    run(*compiler, *STRICT, "-O3", "-c", NATIVE / source, "-o", tmp_path / "object.o")


def test_the_binding_compiles_without_a_warning(tmp_path):
    headers = ["-isystem", sysconfig.get_paths()["include"]]
    source = NATIVE / "module.c"
    run(*HERE, *STRICT, "-O3", *headers, "-c", source, "-o", tmp_path / "object.o")


def test_every_kernel_finds_what_plain_code_finds_and_stops_when_told(builder):
    program = builder.build("check_kernels")
    assert builder.run(program).split() == builder.platform.kernels


@dataclass(frozen=True)
class Order:
    """A search, and what the twin found."""

    header: bytes
    target: bytes
    first: int
    count: int

    def __str__(self) -> str:
        return f"{self.header.hex()} {self.target.hex()} {self.first} {self.count}"

    @property
    def answer(self) -> str:
        nonce, hashes = python_twin.search(
            self.header, self.target, self.first, self.count, lambda: False
        )
        return f"{'none' if nonce is None else nonce} {hashes}"


def random_orders(rng: random.Random) -> list[Order]:
    orders = []
    for _ in range(60):
        header = rng.randbytes(76)
        first = rng.randrange(NONCES)
        target = rng.randrange(1 << rng.choice((256, 252, 248, 246))).to_bytes(32, "little")
        orders.append(Order(header, target, first, min(rng.randrange(2000), NONCES - first)))
    return orders


def real_orders() -> list[Order]:
    return [
        Order(
            block.header[:76],
            (target - tighter).to_bytes(32, "little"),
            block.nonce - before,
            before + 50,
        )
        for block in BLOCKS
        for before in (0, 3, 1000, 5000)
        for target, tighter in (
            (block.target, 0),
            (int(block.hash, 16), 0),
            (int(block.hash, 16), 1),
        )
    ]


def test_every_kernel_answers_as_the_twin_does(builder, rng):
    orders = [*random_orders(rng), *real_orders()]
    program = builder.build("answer_orders")
    answers = builder.run(program, input="\n".join(map(str, orders))).splitlines()
    expected = [
        f"{kernel} {order.answer}" for order in orders for kernel in builder.platform.kernels
    ]
    assert answers == expected


@pytest.mark.parametrize(
    ("hwcap", "kernels"),
    [
        (HWCAP_ASIMD | HWCAP_SHA2, ["armv8_sha2", "neon", "portable"]),  # Raspberry Pi 5
        (HWCAP_ASIMD, ["neon", "portable"]),  # Raspberry Pi 3 and 4
        (0, ["portable"]),
    ],
)
def test_an_arm_processor_is_offered_what_its_hwcap_names(hwcap, kernels, aarch64):
    program = aarch64.build("check_kernels", ISOLATED / "hwcap.c", "-Wl,--wrap=getauxval")
    assert aarch64.run(program, env={**os.environ, "HWCAP": str(hwcap)}).split() == kernels


@pytest.mark.skipif(IS_AARCH64, reason="the processor here is a real one")
@pytest.mark.parametrize("processor", ["cortex-a53", "cortex-a72", "cortex-a76", "max"])
def test_the_kernels_run_on_every_core_that_qemu_models(processor, aarch64):
    program = aarch64.build("check_kernels")
    assert run("qemu-aarch64", "-cpu", processor, program).split() == aarch64.platform.kernels
