"""The C extension as a piece of C and as a Python module."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from fog_node import pow as proof_of_work

ISOLATED = Path(__file__).parent / "isolated"
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


# How /proc/cpuinfo titles its list, and the kernels with the flag that each needs, fastest first.
NEEDS = {
    "x86_64": ("flags", [("avx512", "avx512f"), ("sha_ni", "sha_ni"), ("avx2", "avx2")]),
    "aarch64": ("Features", [("armv8_sha2", "sha2"), ("neon", "asimd")]),
}


def test_what_the_processor_can_is_what_is_offered():
    title, needs = NEEDS.get(platform.machine(), ("", []))
    flags: list[str] = []
    if needs:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split(title, 2)[1].split()
    expected = [kernel for kernel, flag in needs if flag in flags]
    assert proof_of_work.kernels()[:-2] == expected


def test_the_package_imports_nothing_of_the_project():
    program = (
        "import sys, fog_node.pow; print(*sorted("
        "name for name in sys.modules if name.split('.')[0] in ('fog_node', 'cloud', 'tools')))"
    )
    modules = run(sys.executable, "-c", program).stdout.split()
    assert [name for name in modules if not name.startswith("fog_node.pow")] == ["fog_node"]


def test_searches_and_tokens_leave_no_memory_behind():
    print(run(sys.executable, ISOLATED / "check_leaks.py").stdout)
