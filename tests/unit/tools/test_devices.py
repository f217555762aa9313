"""Boards on the chain, as `fogline device` puts them there, against a node's real API."""

from __future__ import annotations

import pytest

from fog_node.client import RefusedError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Revoke
from tools import submit as submitting
from tools.devices import enrolment as devices
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes

BOARD = SigningKey.from_secret(7)
CHANNELS = ("pressure,bar,-1,10", "flow,L/min,0,200")
APIS = Nodes(("http://localhost",))


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


async def test_boards_of_a_report_are_enrolled_and_again_nothing_is_sent(chain, node) -> None:
    records = [
        {
            "public_key": SigningKey.from_secret(secret).public.xy.hex(),
            "device_type": "pump",
            "board": "pico-w",
            "channels": [["pressure", "bar", -1.0, 10.0]],
        }
        for secret in (7, 8, 9)
    ]
    bodies = [devices.of_record(record, "operator") for record in records]
    await devices.enroll_all(APIS, chain.founding, chain.operator, bodies[:1])
    rows = await devices.enroll_all(APIS, chain.founding, chain.operator, bodies)
    assert [row["enrolled"] for row in rows] == [body.device.hex() for body in bodies]
    assert [row["transaction"] == "was enrolled before" for row in rows] == [True, False, False]
    before = chain.ledger.height
    await devices.enroll_all(APIS, chain.founding, chain.operator, bodies)
    assert chain.ledger.height == before
    assert chain.ledger.state.devices[bodies[2].device].board == "pico-w"
    other = devices.of_record({**records[0], "device_type": "valve"}, "operator")
    with pytest.raises(ToolError, match="is on the chain as active pump of operator"):
        await devices.enroll_all(APIS, chain.founding, chain.operator, [other])
    for damage in ({"public_key": "00"}, {"channels": [["flow"]]}, {"board": None}):
        with pytest.raises(UsageError, match=r"a board in it cannot be enrolled|enrol\.board"):
            devices.of_record({**records[0], **damage}, "operator")


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
