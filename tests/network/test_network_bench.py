"""`fogline bench network`: that it measures real fog nodes and accounts for every pack."""

from __future__ import annotations

import json

import pytest

from tools.bench import network
from tools.errors import UsageError


def test_every_pack_is_accounted_for(tmp_path, capsys):
    file, figure = tmp_path / "network.json", tmp_path / "network.svg"
    options = network.Options([1], [1, 8], seconds=3.0, warm_up_s=2.0, signed_share=0.3)
    result = network.run(options, tmp_path, file, figure)
    assert json.loads(file.read_text(encoding="utf-8")) == result
    assert [(row["validators"], row["readings"]) for row in result["runs"]] == [(1, 1), (1, 8)]
    for row in result["runs"]:
        assert (row["lost"], row["doubled"], row["heads"]) == (0, 0, 1)
        assert 0 < row["p50_s"] <= row["p99_s"]
        assert row["packs_per_s"] > 0
        assert row["ratio"] == pytest.approx(row["packs_per_s"] / row["limit_per_s"])
    assert "grow as readings^" in result["growth"][0]
    assert "p99 s" in capsys.readouterr().out
    assert b"<svg" in figure.read_bytes()


def test_nonsense_is_wrong_usage():
    for options in (network.Options([0], [1]), network.Options([1], [9999])):
        with pytest.raises(UsageError):
            network.run(options)
