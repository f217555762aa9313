"""A chain of many blocks in the data directories of nodes that are still to be started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fog_node.ledger import Ledger
from fog_node.pow import best, mine
from fog_node.protocol.block import Block, target_from_bits
from fog_node.protocol.transactions import Transaction
from fog_node.protocol.votes import PRECOMMIT, make_certificate, sign_vote
from tools.consortium import Consortium

from .consortium import enrolment


def founded_earlier(consortium: Consortium, age_ms: int) -> Consortium:
    """The same consortium, founded so long before; nothing may be signed for it yet."""
    founding = replace(consortium.founding, time=consortium.founding.time - age_ms)
    consortium.founding_file.write_bytes(founding.raw)
    return Consortium(consortium.directory, founding)


def fill(consortium: Consortium, directories: Sequence[Path], blocks: int) -> list[Transaction]:
    """Begin the same chain in these, as if their nodes had been running for long.

    Each block enrols a board; the first validators sign. Returns the enrolments.
    """
    founding = consortium.founding
    keys = [consortium.signing_key(member.name) for member in founding.validators]
    ledgers = [Ledger.open(directory, founding) for directory in directories]
    enrolments = [enrolment(consortium, number) for number in range(1, blocks + 1)]
    for transaction in enrolments:
        ledgers[0].admit([transaction], durable=False)
        block = _mined(ledgers[0].template(keys[0], 0, ledgers[0].earliest_ms()))
        slot = (block.height, 0, PRECOMMIT, block.hash, founding.chain_id)
        certificate = make_certificate([sign_vote(key, *slot) for key in keys[: founding.quorum]])
        for ledger in ledgers:
            ledger.commit(block, certificate)
    for ledger in ledgers:
        ledger.stop_asking(0)  # they have long done so
        ledger.close()
    return enrolments


def _mined(block: Block) -> Block:
    nonce = mine(block.header.encode(), target_from_bits(block.header.bits), kernel=best()).nonce
    assert nonce is not None
    return Block(replace(block.header, nonce=nonce), block.coinbase, block.transactions)
