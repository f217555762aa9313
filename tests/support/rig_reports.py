"""A test report for tests to change."""

from __future__ import annotations

from dataclasses import replace

from fog_node.protocol.requests import Content
from fog_node.protocol.rig_reports import ModuleResults, ReportedBoard
from fog_node.protocol.transactions import TestReport

CONTENT = b'{"runs": []}'


def rig_report(**changes: object) -> TestReport:
    """Three tests of four on an emulated board that is not enrolled."""
    report = TestReport(
        firmware=bytes([1]) * 32,
        suite=bytes([2]) * 32,
        of=4,
        release=None,
        board=ReportedBoard("qemu-arm", "mps2-an385 with Cortex-M3", None),
        micropython="micropython 1.26.1",
        rig="bench-1",
        modules=(ModuleResults("cbor", passed=("bytes", "maps"), failed=("tags",)),),
        report=Content(Content.of(CONTENT).sha256, len(CONTENT)),
        time=1_700_000_000_000,
    )
    return replace(report, **changes)  # type: ignore[arg-type]
