"""The machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform
import ssl
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_UNNAMED = "unknown processor"


def describe() -> dict[str, str | int]:
    """Processor, cores this process may use, system, Python and OpenSSL."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
    }


def _processor() -> str:
    # x86 names the model of each core; a Raspberry Pi names the board, once.
    fields: dict[str, str] = {}
    for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields.get("model name") or fields.get("Model") or _UNNAMED
