"""A test report as the API shows it."""

from __future__ import annotations

from typing import Any

from fog_node.protocol.keys import kid_hex
from fog_node.protocol.rig_reports import RESULTS, TestReport

from .times import iso


def report_body(body: TestReport) -> dict[str, Any]:
    """Everything in it; its counts, and its tests by how they went, under their full names."""
    release, board = body.release, body.board
    return {
        "firmware": body.firmware.hex(),
        "suite": body.suite.hex(),
        "of": body.of,
        "release": None
        if release is None
        else {
            "name": release.name,
            "device_type": release.device_type,
            "version": release.version,
            "bundle": release.bundle.hex(),
        },
        "board": {
            "id": board.id,
            "machine": board.machine,
            "kid": None if board.kid is None else kid_hex(board.kid),
        },
        "micropython": body.micropython,
        "rig": body.rig,
        "counts": body.counts,
        "tests": {result: body.tests(result) for result in RESULTS},
        "report": {"sha256": body.report.sha256.hex(), "size": body.report.size},
        "time": iso(body.time),
    }
