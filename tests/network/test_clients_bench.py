"""Request nodes, each with a certificate of its own, against real fog nodes: none may fail."""

from __future__ import annotations

import json

from tools.bench import clients

CLIENTS = 40


def test_every_client_submits_and_proves(tmp_path, capsys) -> None:
    options = clients.Options(CLIENTS, controllers=3, processes=2, concurrency=CLIENTS)
    result = clients.run(options, tmp_path / "clients.json")
    assert (result["failures"], result["proved"]) == (0, CLIENTS)
    assert len(result["latencies"]["final"]) == CLIENTS
    assert result["memory"].keys() == {"controller-1", "controller-2", "controller-3"}
    assert json.loads((tmp_path / "clients.json").read_text()) == result
    assert f"{CLIENTS} proofs verified" in capsys.readouterr().out
