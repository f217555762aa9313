"""Boards on the chain, as `fogline device` puts them there, against a node's real API."""

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
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Revoke
from tools import devices
from tools import nodes as node_tools
from tools import submit as submitting
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes

BOARD = SigningKey.from_secret(7)
CHANNELS = ("pressure,bar,-1,10", "flow,L/min,0,200")
APIS = Nodes(("http://localhost",))


@pytest.fixture
def chain(tmp_path):
    small = SmallChain(tmp_path / "ledger")
    yield small
    small.ledger.close()


class Seals:
    """Seals at once what is admitted; `rival` signs with the same key just before."""

    def __init__(self, chain: SmallChain) -> None:
        self._chain = chain
        self.rivals: list[Revoke] = []
        self.is_sealing = True

    async def submit(self, transaction):
        if self.rivals:
            self._chain.seal(self._chain.sign(self._chain.operator, self.rivals.pop()))
        (result,) = self._chain.ledger.admit([transaction])
        if result.status == "admitted" and self.is_sealing:
            block, certificate = self._chain.next_block()
            self._chain.ledger.commit(block, certificate)
        return result


@pytest.fixture
def node(chain, tmp_path, monkeypatch):
    """An API over the chain; `devices` talks to it wherever it is told to."""
    seals = Seals(chain)
    services = Services(
        member="seoul",
        version="0",
        ledger=chain.ledger,
        blobs=BlobStore(tmp_path / "blobs", 2**20),
        payloads=PayloadStore(tmp_path / "payloads", 2**20, 2**20),
        feed=BlockFeed(chain.ledger.height),
        submit=seals.submit,
        stored=lambda: None,
        want=lambda payload: None,
        condition=lambda: Condition(0),
    )
    transport = httpx.ASGITransport(create_app(services))
    monkeypatch.setattr(node_tools, "Client", functools.partial(Client, transport=transport))
    return seals


def board_body(*channels: str, key: str = BOARD.public.xy.hex()):
    return devices.enrolment(key, "operator", "pump", "unix", channels or CHANNELS)


async def test_a_board_is_enrolled_and_revoked_for_good(chain, node) -> None:
    shown = await devices.enroll(APIS, chain.founding, chain.operator, board_body())
    assert shown["enrolled"] == BOARD.kid.hex()
    device = chain.ledger.state.devices[BOARD.kid]
    assert (device.owner, device.type, device.board, device.status) == (
        "operator", "pump", "unix", "active",
    )  # fmt: skip
    assert [(c.name, c.unit, c.minimum, c.maximum) for c in device.channels] == [
        ("pressure", "bar", -1.0, 10.0), ("flow", "L/min", 0.0, 200.0),
    ]  # fmt: skip
    assert chain.ledger.find(bytes.fromhex(shown["transaction"])) is not None
    kid = BOARD.kid.hex()
    shown = await devices.revoke(APIS, chain.founding, chain.operator, kid, "stolen")
    assert shown["revoked"] == kid
    assert chain.ledger.state.devices[BOARD.kid].status == "revoked"
    with pytest.raises(RefusedError):
        await devices.enroll(APIS, chain.founding, chain.operator, board_body())


async def test_a_key_that_is_no_operators_is_refused(chain, node) -> None:
    with pytest.raises(RefusedError, match="role"):
        await devices.enroll(APIS, chain.founding, chain.trainer, board_body())


async def test_a_number_that_was_taken_meanwhile_is_replaced(chain, node) -> None:
    other = SigningKey.from_secret(8)
    chain.enrol(other)
    node.rivals = [Revoke(other.kid, "lost", 1)]
    await devices.enroll(APIS, chain.founding, chain.operator, board_body())
    assert chain.ledger.state.devices[BOARD.kid].status == "active"
    assert chain.ledger.state.devices[other.kid].status == "revoked"


async def test_what_does_not_become_final_is_said(chain, node, monkeypatch) -> None:
    monkeypatch.setattr(submitting, "FINAL_TIMEOUT_S", 0.2)
    node.is_sealing = False
    with pytest.raises(ToolError, match="is not final after 0 s; see `fogline fog status`"):
        await devices.enroll(APIS, chain.founding, chain.operator, board_body())


@pytest.mark.parametrize(
    "channel", ["", "flow", "flow,L/min", "flow,L/min,0", "flow,L/min,low,high", "a,b,0,1,2"]
)
def test_a_channel_that_is_none_is_named(channel) -> None:
    with pytest.raises(UsageError, match=f"--channel {channel}: is not NAME,UNIT,MIN,MAX"):
        board_body("flow,L/min,0,200", channel)


@pytest.mark.parametrize("key", ["", "zz", "00" * 64, "ab" * 63])
def test_a_public_key_that_is_none_is_named(key) -> None:
    with pytest.raises(UsageError, match=r"--public-key: .*give x and y as 128 hex digits"):
        board_body(key=key)


def test_an_enrolment_that_the_chain_would_refuse_is_refused_before(chain) -> None:
    for channels in (("flow,L/min,5,1",), ("flow,L/min,0,1", "flow,bar,0,1")):
        with pytest.raises(UsageError, match="channels"):
            board_body(*channels)


async def test_a_key_id_that_is_none_is_named(chain) -> None:
    with pytest.raises(UsageError):
        await devices.revoke(APIS, chain.founding, chain.operator, "xyz", "why")
