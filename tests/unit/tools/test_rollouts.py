"""Rollouts as the commands do them, against a node's API."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.small_chain import DEVICE_TYPE

from cloud import way_back
from fog_node.client import RefusedError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import parse_bundle
from fog_node.protocol.rollouts import Group, Named
from fog_node.protocol.transactions import Rollout
from tools import rollouts
from tools.at_work import ask_offer, at_work
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes
from tools.rollout_wishes import Wishes

APIS = Nodes(("http://localhost",))
OLD, NEW = b"the old model", b"the new model"
BOARDS = [SigningKey.from_secret(1000 + i) for i in range(4)]
WISHES = Wishes(
    name="anomaly",
    device_type=None,
    version=None,
    percentages=(25, 100),
    first=(),
    success=100,
    errors=50,
    verdicts=2,
    soak_s=0,
    anomalies=50,
    silent_s=3600,
    note="why",
)


@pytest.fixture
async def staged(chain, node):
    """A chain where releases are staged, and four boards that run version 1."""
    chain.enrol(*BOARDS)
    chain.stage_releases()
    await release(chain, 1, OLD)
    await propose(chain)
    await rollouts.approve(APIS, chain.founding, chain.operator, DEVICE_TYPE)
    do_well(chain, OLD)
    (now,) = await rollouts.status(APIS, None)
    assert (now["status"], now["all_boards_run"]) == ("finished", "anomaly 1")
    return chain


async def release(chain, version, payload):
    transaction, data = chain.bundle(version, payload)
    chain.seal(transaction)
    async with APIS.client() as client:
        await client.put_blob(data)
    return transaction


def do_well(chain, payload):
    records = chain.ledger.state.rollout_boards
    for board in sorted(BOARDS, key=lambda board: records[board.kid].group):
        chain.seal(chain.judged_pack(board, payload))


async def propose(chain, by=None, **changes):
    wishes = replace(WISHES, **changes)
    return await rollouts.propose(APIS, chain.founding, by or chain.trainer, wishes)


async def approve(chain, by=None, which=DEVICE_TYPE):
    return await rollouts.approve(APIS, chain.founding, by or chain.operator, which)


async def control(chain, action, reason="why", which=DEVICE_TYPE):
    return await rollouts.control(APIS, chain.founding, chain.operator, which, action, reason)


async def test_from_proposal_to_the_end(staged):
    chain = staged
    await release(chain, 2, NEW)
    proposed = await propose(chain)
    assert (proposed["status"], proposed["approver"]) == ("proposed", None)
    assert (proposed["release"], proposed["way_back"]) == ("anomaly 2", "anomaly-back 3")
    shown = await rollouts.preview(APIS, chain.founding, proposed["rollout"][:12])
    assert shown["way_back"] == "anomaly-back 3, what boards run now"
    assert shown["groups"][0] == {
        "boards": "25 %",
        "next_begins_at": "100 % done",
        "stops_at": "50 % failed",
    }
    running = await approve(chain)
    assert (running["status"], running["approver"]) == ("running", "operator")
    assert [group["boards"] for group in running["groups"]] == [1, 3]
    assert (await control(chain, "pause"))["status"] == "paused"
    assert (await control(chain, "resume"))["status"] == "running"
    do_well(chain, NEW)
    (done,) = await rollouts.status(APIS, DEVICE_TYPE)
    assert (done["status"], done["all_boards_run"]) == ("finished", "anomaly 2")
    assert done["counts"] == {"done": 4}


async def test_the_way_back_is_the_same_model_under_a_higher_version(staged):
    chain = staged
    first = await release(chain, 2, NEW)
    await propose(chain)
    back = chain.ledger.state.releases[DEVICE_TYPE, "anomaly-back"].release
    stable = chain.ledger.state.releases[DEVICE_TYPE, "anomaly"].release
    assert stable == first.body
    async with APIS.client() as client:
        bundle = parse_bundle(await client.get_blob(back.bundle))
    assert bundle.payload == OLD
    assert bundle.manifest.version == back.version == 3
    assert back.metrics == (("f1", 0.5),)
    await approve(chain)
    stopped = await control(chain, "rollback", "false alarms")
    assert (stopped["status"], stopped["reason"]) == ("stopped", "false alarms")
    assert (stopped["all_boards_run"], stopped["way_back_in_force"]) == (
        "anomaly 1",
        "anomaly-back 3",
    )


async def test_an_operator_proposes_once_a_trainer_has_made_the_way_back(staged):
    chain = staged
    await release(chain, 2, NEW)
    with pytest.raises(ToolError, match="a trainer makes it by proposing"):
        await propose(chain, by=chain.operator)
    await propose(chain)
    await control(chain, "rollback")
    numbers = chain.ledger.next_sequence(chain.trainer.kid)
    await propose(chain, by=chain.operator)
    assert chain.ledger.next_sequence(chain.trainer.kid) == numbers
    with pytest.raises(RefusedError, match="was proposed by operator"):
        await approve(chain)
    assert (await approve(chain, by=chain.trainer))["status"] == "running"


async def test_boards_may_be_named_first(staged):
    chain = staged
    await release(chain, 2, NEW)
    chosen = BOARDS[2].kid.hex()
    await propose(chain, first=(chosen,), percentages=(100,))
    running = await approve(chain)
    assert [group["of"] for group in running["groups"]] == ["1 named", "100 %"]
    chain.seal(chain.judged_pack(BOARDS[2], NEW, verdicts=1))
    (now,) = await rollouts.status(APIS, None)
    assert [(b["board"], b["state"]) for b in now["boards"]] == [(chosen, "trying")]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "quality"}, "no such release"),
        ({"device_type": "fan"}, "no such release"),
        ({"version": 1}, "the latest of anomaly is 2"),
        ({"percentages": (5, 25)}, "do not end with one of 100 percent"),
        ({"percentages": (25, 5, 100)}, "do not rise"),
        ({"first": ("12",)}, "16 hex digits"),
        ({"first": ("zz",)}, "give key ids"),
    ],
)
async def test_what_was_typed_wrong(staged, changes, match):
    await release(staged, 2, NEW)
    with pytest.raises(UsageError, match=match):
        await propose(staged, **changes)


async def test_a_rollout_that_is_not_what_it_says_is_not_approved(staged):
    chain = staged
    new = await release(chain, 2, NEW)
    other, data = chain.bundle(3, b"no way back", "anomaly-back")
    chain.seal(other)
    async with APIS.client() as client:
        await client.put_blob(data)

    def sealed(model, back):
        body = Rollout(
            DEVICE_TYPE,
            Named("anomaly", 2, new.body.bundle),
            model,
            Named("anomaly-back", 3, back),
            (Group(100, (), 80, 20),),
            verdicts=2,
            soak_s=0,
            anomalies=50,
            silent_s=3600,
            note="",
            time=0,
        )
        chain.seal(chain.sign(chain.trainer, body))

    payload = parse_bundle(data).manifest.payload_sha256
    sealed(payload, other.body.bundle)
    with pytest.raises(ToolError, match=r"rollout\.model: is not that of the release's bundle"):
        await approve(chain)
    await control(chain, "rollback")
    async with APIS.client() as client:
        held = parse_bundle(await client.get_blob(new.body.bundle)).manifest.payload_sha256
    sealed(held, other.body.bundle)
    with pytest.raises(ToolError, match=r"rollout\.back: is not what boards run now"):
        await approve(chain)


async def running(chain):
    """Release by release, the boards that run it, as the chain has it."""
    async with APIS.client() as client:
        offer, boards = await ask_offer(client, DEVICE_TYPE)
        newest = chain.ledger.state.releases[DEVICE_TYPE, "anomaly"].release
    works = at_work(offer, boards, newest)
    kids = [board.kid for board in BOARDS]
    return {f"{work.name} {work.version}": work.among(kids, works) for work in works}


async def test_what_boards_run_follows_the_rollout(staged):
    chain, kids = staged, [board.kid for board in BOARDS]
    one, two, *_ = kids
    await release(chain, 2, NEW)
    await propose(chain, first=(f"{one.hex()},{two.hex()}",), percentages=(100,), errors=100)
    assert await running(chain) == {"anomaly 1": kids}
    await approve(chain)
    # Offered is not taken.
    assert await running(chain) == {"anomaly 1": kids}
    chain.seal(chain.judged_pack(BOARDS[0], NEW, verdicts=1))
    assert await running(chain) == {"anomaly 2": [one], "anomaly 1": kids[1:]}
    # It gives it up, and is not counted with those that have it.
    chain.seal(chain.judged_pack(BOARDS[0], OLD), chain.judged_pack(BOARDS[1], NEW, verdicts=1))
    assert await running(chain) == {"anomaly 2": [two], "anomaly 1": [one, *kids[2:]]}
    await control(chain, "rollback")
    assert await running(chain) == {"anomaly 2": [two], "anomaly-back 3": [one, *kids[2:]]}
    chain.seal(chain.judged_pack(BOARDS[1], OLD))
    assert await running(chain) == {"anomaly-back 3": kids}


async def test_which_rollout(staged):
    for which in ("fan", "0000000000", "12"):
        with pytest.raises(UsageError, match="0 rollouts fit"):
            await approve(staged, which=which)


async def test_where_releases_are_for_all_at_once(chain, node):
    assert await rollouts.status(APIS, None) == []
    await release(chain, 1, OLD)
    assert await running(chain) == {"anomaly 1": [board.kid for board in BOARDS]}
    with pytest.raises(RefusedError, match="staged_releases"):
        await propose(chain)


def test_a_long_name_has_a_way_back_too():
    assert way_back.name_of("n" * 64) == "n" * 59 + "-back"
