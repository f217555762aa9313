"""What holds in the consortium, and what is proposed, over HTTP."""

from __future__ import annotations

import pytest

from fog_node.client import Client
from fog_node.protocol.cose import parse_sign1
from fog_node.protocol.governance import (
    AddMember,
    Approve,
    Propose,
    RemoveMember,
    RevokeCertificate,
    RotateKey,
    SetParameters,
    SetRoles,
    prove_key,
)
from fog_node.protocol.keys import SigningKey

HOUR_MS = 3_600_000


@pytest.fixture
async def client(world):
    async with world.served() as url, Client([url]) as client:
        yield client


def proof(chain, key: SigningKey, name: str):
    return parse_sign1(prove_key(key, name, chain.founding.chain_id), 1024)


def propose(chain, *changes, by: int = 0):
    until = chain.ledger.head.time + HOUR_MS
    transaction = chain.sign(chain.validators[by], Propose(changes, "why not", until))
    chain.seal(transaction)
    return transaction


async def test_the_consortium_as_it_was_founded(client, chain):
    view = await client.consortium()
    assert (view.quorum_rule, view.quorum, view.validators) == ("majority", 2, 3)
    assert view.voters == [key.kid.hex() for key in chain.validators]
    assert view.parameters["block_interval_ms"] == 2000
    assert view.revoked_certificates == []


async def test_and_as_it_was_changed(client, chain):
    chain.decide(
        SetParameters((("block_interval_ms", 3000),), "two-thirds"),
        RevokeCertificate(b"\x0b\xad"),
    )
    view = await client.consortium()
    assert (view.quorum_rule, view.quorum, view.height) == ("two-thirds", 3, chain.ledger.height)
    assert view.parameters["block_interval_ms"] == 3000
    assert view.revoked_certificates == ["0bad"]


async def test_an_open_proposal_says_what_is_missing(client, chain):
    new, fresh = SigningKey.from_secret(7000), SigningKey.from_secret(7001)
    trainer = chain.trainer.kid
    transaction = propose(
        chain,
        AddMember("ulsan", new.public, frozenset({"trainer"}), proof(chain, new, "ulsan")),
        RotateKey(trainer, fresh.public, "trainer", proof(chain, fresh, "trainer")),
        SetRoles(chain.operator.kid, frozenset({"operator", "regulator"})),
    )
    page = await client.proposals()
    assert page.quorum == 2
    (view,) = page.proposals
    assert view == await client.proposal(transaction.id)
    assert (view.proposer, view.approvals, view.missing) == ("seoul", ["seoul"], 1)
    assert (view.outcome, view.closed, view.note) == ("open", None, "why not")
    assert [change["change"] for change in view.changes] == [
        "add-member", "rotate-key", "set-roles",
    ]  # fmt: skip
    assert view.changes[0]["kid"] == new.kid.hex()
    assert view.changes[1]["member"] == trainer.hex()
    assert view.changes[2]["roles"] == ["operator", "regulator"]


async def test_a_decided_one_says_what_became_of_it(client, chain):
    transaction = propose(chain, RemoveMember(chain.trainer.kid))
    open_one = propose(chain, SetParameters((("stagger_ms", 3),)), by=1)
    chain.seal(chain.sign(chain.validators[1], Approve(transaction.id)))
    view = await client.proposal(transaction.id)
    assert (view.outcome, view.closed, view.missing) == ("applied", chain.ledger.height, 0)
    assert view.approvals == sorted(view.approvals, key=lambda name: kid_of(chain, name))
    listed = (await client.proposals()).proposals
    assert [item.id for item in listed] == [open_one.id.hex(), transaction.id.hex()]
    statuses = {member.name: member.status for member in await client.members()}
    assert statuses["trainer"] == "revoked"


def kid_of(chain, name: str) -> bytes:
    return next(member.kid for member in chain.founding.members if member.name == name)


async def test_blocks_name_a_miner_whose_key_was_replaced(client, chain):
    first, fresh = chain.validators[0], SigningKey.from_secret(7001)
    change = RotateKey(first.kid, fresh.public, "seoul", proof(chain, fresh, "seoul"))
    chain.decide(change)
    assert (await client.block(1)).miner_name == "seoul"
    member = next(m for m in await client.members() if m.name == "seoul")
    assert (member.kid, member.next) == (fresh.kid.hex(), 1)


@pytest.mark.parametrize("path", ["/v1/proposals/00", "/v1/proposals/" + "0" * 63 + "g"])
async def test_what_is_no_id_is_refused(http, path):
    response = await http.get(path)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "id"


async def test_an_unknown_proposal(http):
    response = await http.get("/v1/proposals/" + "00" * 32)
    assert response.status_code == 404
    assert "/v1/transactions/" in response.json()["error"]["remedy"]
