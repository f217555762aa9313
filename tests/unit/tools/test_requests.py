"""Requests and responses as `fogline request` sends them, against a node's real API."""

from __future__ import annotations

import functools

import httpx
import pytest
from support.small_chain import SmallChain

from fog_node.api.app import create_app
from fog_node.api.feed import BlockFeed
from fog_node.api.services import Condition, Services
from fog_node.blobs import BlobStore
from fog_node.client import Client, RefusedError
from fog_node.payloads import PayloadStore
from fog_node.protocol.requests import Content, Request
from tools import nodes as node_tools
from tools import requests
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes

NODES = Nodes(("http://localhost",))
OTHERS = {
    "buyer": frozenset({"customer"}),
    "foundry": frozenset({"provider"}),
    "forge": frozenset({"provider"}),
}
LARGE = bytes(range(256)) * 400


@pytest.fixture
def chain(tmp_path):
    small = SmallChain(tmp_path / "ledger", others=OTHERS)
    yield small
    small.ledger.close()


@pytest.fixture(autouse=True)
def _node(chain, tmp_path, monkeypatch):
    """A node that makes final what waits as soon as somebody asks for it again."""

    async def submit(transaction):
        (result,) = chain.ledger.admit([transaction])
        return result

    def seal():
        if chain.ledger.waiting:
            chain.ledger.commit(*chain.next_block())
        return Condition(0)

    services = Services(
        member="seoul",
        version="0",
        ledger=chain.ledger,
        blobs=BlobStore(tmp_path / "blobs", 2**20),
        payloads=PayloadStore(tmp_path / "payloads", 2**21, 2**20),
        feed=BlockFeed(chain.ledger.height),
        submit=submit,
        stored=lambda: None,
        want=lambda payload: None,
        condition=seal,
    )
    transport = httpx.ASGITransport(create_app(services))
    monkeypatch.setattr(node_tools, "Client", functools.partial(Client, transport=transport))

    async def wait_final(client, transaction):
        await client.status()
        assert (await client.transaction(transaction.id)).status == "final"

    monkeypatch.setattr(requests, "wait_final", wait_final)


@pytest.fixture
def sender(chain):
    return lambda name: requests.Sender(NODES, chain.founding, chain.others[name])


async def ask(sender, provider="foundry", data=b"12 housings", hours=1.0) -> bytes:
    sent = await requests.send(sender("buyer"), "casting", provider, data, hours)
    return bytes.fromhex(sent["request"])


def saved(directory) -> list[bytes]:
    return [path.read_bytes() for path in directory.iterdir()]


async def test_a_request_is_answered_and_all_of_it_shown(chain, sender, tmp_path):
    request = await ask(sender, data=LARGE)
    await requests.answer(sender("foundry"), request, "accepted", None)
    await requests.answer(sender("foundry"), request, "done", b"12 pieces")
    shown = await requests.show(NODES, request, tmp_path / "order")
    assert (shown["customer"], shown["provider"], shown["status"]) == ("buyer", "foundry", "final")
    assert [one["outcome"] for one in shown["answers"]] == ["accepted", "done"]
    assert sorted(saved(tmp_path / "order")) == sorted([LARGE, b"12 pieces"])
    assert len(shown["saved"]) == 2
    assert f"{len(LARGE)} bytes beside the chain" in shown["content"]


async def test_the_list_says_what_came_of_each(sender):
    first = await ask(sender)
    second = await ask(sender, provider=None)
    await requests.answer(sender("forge"), second, "declined", None)
    listed = await requests.listing(NODES, 10)
    assert [(row["request"], row["provider"], row["outcome"]) for row in listed] == [
        (second.hex(), "any", "declined"),
        (first.hex(), "foundry", "open"),
    ]
    assert len(await requests.listing(NODES, 1)) == 1


@pytest.mark.parametrize(("after_ms", "in_time"), [(500, False), (60_000, True)])
async def test_an_answer_is_late_by_its_blocks_time(chain, sender, after_ms, in_time):
    now = chain.ledger.head.time
    body = Request(None, "casting", Content.of(b"12 housings"), now + after_ms, now)
    request = chain.sign(chain.others["buyer"], body)
    chain.seal(request)
    await requests.answer(sender("foundry"), request.id, "done", None)
    (answer,) = (await requests.show(NODES, request.id, None))["answers"]
    assert answer["in_time"] is in_time


async def test_what_cannot_be_asked_is_refused_before_it_is_sent(chain, sender, tmp_path):
    with pytest.raises(UsageError, match="no member"):
        await ask(sender, provider="nobody")
    with pytest.raises(UsageError, match=r"request\.service"):
        await requests.send(sender("buyer"), "", None, b"", 1)
    request = await ask(sender)
    with pytest.raises(UsageError, match="another provider"):
        await requests.answer(sender("forge"), request, "done", None)
    with pytest.raises(UsageError, match="outcome"):
        await requests.answer(sender("foundry"), request, "perhaps", None)
    with pytest.raises(RefusedError, match="role"):
        await requests.answer(sender("buyer"), await ask(sender, provider=None), "done", None)
    large = tmp_path / "large"
    large.write_bytes(bytes(2**20 + 1))
    with pytest.raises(ToolError, match="is larger than 1048576 bytes"):
        requests.read_content(large)
    with pytest.raises(ToolError, match="cannot be read"):
        requests.read_content(tmp_path / "absent")
    with pytest.raises(UsageError, match="64 hex digits"):
        requests.read_id("abc")
