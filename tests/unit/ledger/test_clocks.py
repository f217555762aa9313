"""Packs of boards that did not know the time, and what gives them theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.small_chain import START_MS, SmallChain

from fog_node.ledger import Ledger
from fog_node.ledger.records import parse_entry
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.clocks import MAX_STARTS, Start, corrected_s, start_of, starts_after
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.senml import BY_NTP, Clock

BOARD = SigningKey.from_secret(7)
START_S = START_MS // 1000
GATEWAY = bytes(range(8))


def unknown(boot: int, up_s: int, before_s: int = 1) -> Clock:
    return Clock(-before_s, boot, up_s * 1000, None)


def known(boot: int, up_s: int, by: bytes | int = GATEWAY) -> Clock:
    """It started `up_s` before START_S."""
    return Clock(START_S, boot, up_s * 1000, by)


@pytest.fixture
def chain(tmp_path):
    small = SmallChain(tmp_path / "ledger")
    small.enrol(BOARD)
    yield small
    small.ledger.close()


def starts(chain) -> tuple[Start, ...]:
    return chain.ledger.state.devices[BOARD.kid].starts


def test_the_first_pack_with_time_of_a_start_tells_it(chain, tmp_path):
    chain.seal(chain.pack(BOARD, 1, clock=unknown(3, 50)))
    assert starts(chain) == ()
    chain.seal(chain.pack(BOARD, 2, clock=known(3, 100)), chain.pack(BOARD, 3, clock=known(3, 150)))
    assert starts(chain) == (Start(3, START_MS - 100_000, GATEWAY, 2),)
    chain.seal(chain.pack(BOARD, 4, clock=unknown(4, 7)), chain.pack(BOARD, 5))
    chain.seal(chain.pack(BOARD, 6, clock=known(4, 9, BY_NTP)))
    assert starts(chain)[1:] == (Start(4, START_MS - 9000, BY_NTP, 6),)
    # The state's root stands for them, and they come back from the disk.
    device = chain.ledger.state.devices[BOARD.kid]
    assert parse_entry(device.entry()) == device
    chain.ledger.close()
    chain.ledger = Ledger.open(tmp_path / "ledger", chain.founding)
    assert chain.ledger.state.devices[BOARD.kid] == device


def test_what_is_kept_is_bounded():
    kept: tuple[Start, ...] = ()
    for boot in range(20):
        kept = starts_after(kept, known(boot, 1), boot + 1)
    assert [start.boot for start in kept] == list(range(20 - MAX_STARTS, 20))


def test_a_number_of_a_start_that_comes_again_means_another_start():
    """The count begins anew where the flash was lost."""
    kept: tuple[Start, ...] = ()
    for sequence, clock in ((5, known(2, 10)), (9, known(7, 20)), (20, known(2, 30))):
        kept = starts_after(kept, clock, sequence)
    for sequence, expected in ((4, 10), (5, 30), (19, 30)):
        found = start_of(kept, unknown(2, 3), sequence)
        assert found is not None
        assert found.time == START_MS - expected * 1000
    assert start_of(kept, unknown(2, 3), 20) is None
    assert start_of(kept, unknown(8, 3), 1) is None


def test_the_corrected_time():
    start = Start(3, START_MS - 100_000, GATEWAY, 2)
    assert corrected_s(start, unknown(3, 50), -0.5) == START_S - 100 + 50 - 0.5


def test_an_entry_without_starts_is_as_it_always_was(chain):
    device = chain.ledger.state.devices[BOARD.kid]
    assert len(decode(device.entry(), 2**16, "entry")[2]) == 7
    with_starts = replace(device, starts=(Start(3, -5, 0, 2),))
    kind, name, fields = decode(with_starts.entry(), 2**16, "entry")
    assert parse_entry(with_starts.entry()) == with_starts
    for wrong in (
        [],
        [[3, 5, 0, 2]] * (MAX_STARTS + 1),
        [[3, 5, 0]],
        [[3, 5, 2, 2]],
        [[3, 5, bytes(7), 2]],
        [[2**32, 5, 0, 2]],
        [[3, 2**63, 0, 2]],
        [[3, 5, 0, 0]],
    ):
        with pytest.raises(ProtocolError, match=r"entry\.starts"):
            parse_entry(encode([kind, name, [*fields[:7], wrong]]))
    with pytest.raises(ProtocolError, match="entry"):
        parse_entry(encode([kind, name, fields[:6]]))
