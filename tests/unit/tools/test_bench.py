"""`fogline bench`: that it measures and reports, not how fast anything is."""

from __future__ import annotations

import json

import pytest

from tools.bench import admission
from tools.errors import UsageError


def test_admission_reports_ratio_limit_and_where_the_time_goes(tmp_path, capsys):
    file = tmp_path / "admission.json"
    result = admission.run([1, 20], 64, tmp_path, file)
    assert json.loads(file.read_text(encoding="utf-8")) == result
    assert result["limit"] == 1.0
    assert list(result["packs"]) == ["1", "20"]
    for row in result["packs"].values():
        assert row["ratio"] > 0
        assert row["cpu_ratio"] > 0
        parts = row["cpu_us_per_pack"]
        assert set(parts) == {"verify", "parse", "checks", "mempool", "disk", "other"}
        assert sum(parts.values()) > parts["verify"] > 0
    assert "bare signature checks" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("readings", "packs"), [([0], 64), ([10_000], 64), ([1], 1)])
def test_admission_takes_no_nonsense(readings, packs):
    with pytest.raises(UsageError):
        admission.run(readings, packs)
