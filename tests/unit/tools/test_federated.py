"""What `fogline federated` asks for, and what it leaves on the chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloud.federated.network import initial, model_hash
from cloud.federated.run_files import Masks, RoundRecord, RunFiles, Settings, SiteRecord
from fog_node.client import RefusedError
from tools import federated, proofs
from tools.errors import UsageError
from tools.federated_choices import Choices
from tools.nodes import Nodes

NODES = Nodes(("http://localhost",))
CHOICES = Choices(rounds=3, epochs=2)


@pytest.fixture
def run(tmp_path):
    files = RunFiles(tmp_path / "run")
    files.begin(Settings("0f" * 16, "rul", "fedavg", 3, 1, 0, 2, 2, 1, 60.0))
    keep(files, 1)
    return files


def keep(files: RunFiles, number: int) -> None:
    before, after = initial(3, number - 1), initial(3, number)
    sites = tuple(SiteRecord(f"site-{at}", None, f"{at:02}" * 32, 9) for at in (1, 2))
    hashes = model_hash(before).hex(), model_hash(after).hex()
    record = RoundRecord(number, *hashes, sites, {}, 20.0, None, None, 1)
    files.keep_round(record, after)


@pytest.mark.usefixtures("node")
async def test_rounds_go_on_the_chain_once(chain, run, tmp_path):
    async def record():
        return await federated.record(NODES, chain.founding, chain.trainer, run.directory)

    first = await record()
    keep(run, 2)
    both = await record()
    assert (first["sent"], both["sent"]) == (1, 1)
    assert both["rounds"][0] == first["rounds"][0]
    assert (await record())["sent"] == 0
    async with NODES.client() as client:
        page = await client.transactions(kind="training-round")
        earlier, later = (view.body for view in reversed(page.transactions))
        assert later["before"] == earlier["after"]
    proof = chain.ledger.prove(bytes.fromhex(both["rounds"][1]["transaction"]))
    (tmp_path / "one.proof").write_bytes(proof.encode())
    (tmp_path / "founding.cbor").write_bytes(chain.founding.raw)
    proven = proofs.verify(tmp_path / "one.proof", tmp_path / "founding.cbor")
    assert proven["holds"]
    assert (proven["round"], proven["after"]) == (2, later["after"])


@pytest.mark.usefixtures("node")
async def test_only_a_trainer_can_record_a_run(chain, run):
    with pytest.raises(RefusedError, match="needs the role trainer"):
        await federated.record(NODES, chain.founding, chain.operator, run.directory)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": "median"}, "give one of fedavg, trimmed-mean, krum"),
        ({"dp_noise": 1.0}, "give both, or neither"),
        ({"strategy": "krum", "sites": 4}, "krum needs 5 for 1"),
        ({"strategy": "trimmed-mean", "liars": 2, "sites": 4}, "trimmed-mean needs 5 for 2"),
        ({"min_sites": 6}, "give 1 to 5"),
        ({"liars": 1}, "fedavg takes what each site sends"),
        ({"dp_steps": 5}, "wants --dp-noise and --dp-clip"),
        ({"num_shares": 3}, "--num-shares 3: wants --secure-aggregation"),
        ({"reconstruction_threshold": 3}, "wants --secure-aggregation"),
        ({"clipping_range": 8.0}, "wants --secure-aggregation"),
        ({"quantization_range": 2**22}, "wants --secure-aggregation"),
        ({"secure_aggregation": True, "strategy": "krum"}, "krum has to see each update"),
        ({"secure_aggregation": True, "strategy": "trimmed-mean"}, "has to see each update"),
        ({"secure_aggregation": True, "sites": 2}, "3 are needed"),
        ({"secure_aggregation": True, "num_shares": 4}, "or an odd number"),
        ({"secure_aggregation": True, "num_shares": 7}, "one for each site"),
        ({"secure_aggregation": True, "reconstruction_threshold": 2}, "more than half of 5"),
        ({"secure_aggregation": True, "reconstruction_threshold": 5}, "less than all"),
        ({"secure_aggregation": True, "quantization_range": 1000}, "no power of 2"),
    ],
)
def test_settings_that_do_not_fit_are_wrong_usage(changes, said):
    sites = changes.pop("sites", 5)
    with pytest.raises(UsageError, match=said):
        federated.settings_of(replace(CHOICES, **changes), sites, 20)


def test_settings_are_made_of_what_was_asked_for():
    assert federated.settings_of(replace(CHOICES, strategy="krum"), 5, 20).min_sites == 5
    private = replace(CHOICES, dp_noise=1.0, dp_clip=0.1)
    assert federated.settings_of(private, 5, 20).machines == 20


def test_masks_are_kept_with_the_run(tmp_path):
    settings = federated.settings_of(replace(CHOICES, secure_aggregation=True), 5, 20)
    assert settings.masks == Masks(5, 3, 8.0, 2**22)
    assert settings.min_sites == 3
    files = RunFiles(tmp_path / "run")
    files.begin(settings)
    assert files.settings() == settings
