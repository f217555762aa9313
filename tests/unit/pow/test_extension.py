"""The C extension as a piece of C and as a Python module."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fog_node import pow as proof_of_work

ISOLATED = Path(__file__).parent / "isolated"
NATIVE = Path(proof_of_work.__file__).parent / "native"
COMPILER = shlex.split(os.environ.get("CC", "cc"))
STRICT = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror"]
PATIENCE_S = 120


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def test_the_fastest_kernel_comes_first_and_the_twin_last():
    names = proof_of_work.kernels()
    assert proof_of_work.best() == names[0]
    assert names[-2:] == ["portable", "python"]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="SIMD kernels are for x86-64")
def test_what_the_processor_can_is_what_is_offered():
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii").split("flags", 2)[1].split()
    expected = [
        kernel
        for kernel, flag in [("avx512", "avx512f"), ("sha_ni", "sha_ni"), ("avx2", "avx2")]
        if flag in flags
    ]
    assert proof_of_work.kernels()[:-2] == expected


def test_the_package_imports_nothing_of_the_project():
    program = (
        "import sys, fog_node.pow; print(*sorted("
        "name for name in sys.modules if name.split('.')[0] in ('fog_node', 'cloud', 'tools')))"
    )
    modules = run(sys.executable, "-c", program).stdout.split()
    assert [name for name in modules if not name.startswith("fog_node.pow")] == ["fog_node"]


@pytest.mark.parametrize("source", sorted(path.name for path in NATIVE.glob("*.c")))
def test_the_c_code_compiles_without_a_warning(source, tmp_path):
    headers = ["-isystem", sysconfig.get_paths()["include"]]
    run(*COMPILER, *STRICT, "-O3", *headers, "-c", NATIVE / source, "-o", tmp_path / "object.o")


def test_the_kernels_hold_under_the_sanitizers(tmp_path):
    program = tmp_path / "kernels"
    sources = sorted(path for path in NATIVE.glob("*.c") if path.name != "module.c")
    sanitize = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    run(
        *COMPILER,
        *STRICT,
        *sanitize,
        f"-I{NATIVE}",
        ISOLATED / "check_kernels.c",
        *sources,
        "-o",
        program,
    )
    checked = run(program).stdout.split()
    assert checked == proof_of_work.kernels()[:-1]


def test_searches_and_tokens_leave_no_memory_behind():
    print(run(sys.executable, ISOLATED / "check_leaks.py").stdout)
