"""The operations of the BCmfg paper's table 3, with real nodes: each is done, and measured."""

from __future__ import annotations

import json

import pytest

from tools.bench import table3
from tools.errors import UsageError


def test_each_operation_is_done_with_payloads_in_and_beside_the_chain(tmp_path, capsys) -> None:
    result = table3.run([2], [500, 100_000], tmp_path / "table3.json")
    (network,) = result["networks"]
    assert set(network["seconds"]) == {*table3.BEFORE, *table3.AFTER}
    assert [row["payload"] for row in network["blocks"]] == [500, 100_000]
    assert json.loads((tmp_path / "table3.json").read_text()) == result
    out = capsys.readouterr().out
    for operation in (*network["seconds"], "block create, 100 kB", "distribute to users, 0.5 kB"):
        assert operation in out


@pytest.mark.parametrize(("users", "payloads"), [([0], [500]), ([5], [0]), ([5], [2**20 + 1])])
def test_what_cannot_be_is_refused(users, payloads) -> None:
    with pytest.raises(UsageError):
        table3.run(users, payloads)
