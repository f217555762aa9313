"""`fogline bench pow`: that it measures and reports, not how fast anything is."""

from __future__ import annotations

import json

import pytest

from tools.bench import pow as bench
from tools.errors import ToolError, UsageError


def test_the_report_holds_machine_ratios_and_limits(tmp_path, capsys):
    file = tmp_path / "pow.json"
    result = bench.run(0.1, ["portable", "python"], file)
    assert json.loads(file.read_text(encoding="utf-8")) == result
    assert set(result["machine"]) == {"processor", "cores", "system", "python", "openssl"}
    assert list(result["kernels"]) == ["portable", "python"]
    for row in result["kernels"].values():
        assert row["ratio"] > 0
        assert row["hashes_per_s"] > 0
        assert row["all_cores"]["hashes_per_s"] > 0
        assert row["all_cores"]["ratio_to_one_core"] > 0
        assert 0 < row["cancel_ms"]["p50"] <= row["cancel_ms"]["max"]
        assert row["cancel_ms"]["limit"] == 5.0
        assert row["cancel_ms"]["cancels"] == 100
    printed = capsys.readouterr().out
    assert "portable" in printed
    assert "x hashlib" in printed
    assert "x one thread" in printed
    assert "p50" in printed


def test_a_missing_kernel_and_no_time_are_wrong_usage():
    with pytest.raises(UsageError, match="absent"):
        bench.run(0.1, ["absent"])
    with pytest.raises(UsageError, match="seconds"):
        bench.run(0)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ToolError, match="absent"):
        bench.run(0.1, ["portable"], tmp_path / "absent" / "pow.json")
