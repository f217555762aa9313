"""A chain that grows as fast as one process can make it, for benchmarks of what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

from fog_node.ledger import Ledger
from fog_node.pow import best, mine
from fog_node.protocol.block import Block, target_from_bits
from fog_node.protocol.founding import Founding, Member, Parameters
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Transaction, parse_transaction
from fog_node.protocol.votes import PRECOMMIT, Certificate, make_certificate, sign_vote
from tools.bench.workload import Board, enrolments

VALIDATORS = 4
BOARDS = 16
EASY_BITS = 0x207FFFFF
START_MS = 1_700_000_000_000


class GrowingChain:
    """One node's ledger, the keys of all validators, and boards; a context manager.

    Attributes:
        ledger: through which everything goes that a node's blocks go through.
    """

    def __init__(self, directory: Path, validators: int = VALIDATORS, boards: int = BOARDS) -> None:
        """Found a consortium in an empty directory and enrol the boards."""
        self._validators = [SigningKey.generate() for _ in range(validators)]
        self._operator = SigningKey.generate()
        both = frozenset({"gateway", "validator"})
        members = [Member(f"v{i}", key.public, both) for i, key in enumerate(self._validators)]
        members.append(Member("works", self._operator.public, frozenset({"operator"})))
        parameters = Parameters(
            bits=EASY_BITS, rest_ms=0, retarget_blocks=0, max_block_transactions=16384
        )
        self.founding = Founding("bench", START_MS, "majority", parameters, b"", tuple(members))
        self.boards = [Board.make() for _ in range(boards)]
        self.ledger = Ledger.open(directory, self.founding)
        self.seal(enrolments(self._operator, "works", self.boards, self.founding.chain_id))

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the ledger."""
        self.ledger.close()

    def packs(self, count: int, readings: int) -> list[Transaction]:
        """Sign so many packs, the boards in turn."""
        number, chain_id = self.founding.parameters.enterprise_number, self.founding.chain_id
        return [
            parse_transaction(
                self.boards[index % len(self.boards)].sign_pack(readings, number, chain_id)
            )
            for index in range(count)
        ]

    def seal(self, transactions: list[Transaction]) -> Block:
        """Make these final in one block."""
        ledger = self.ledger
        for result in ledger.admit(transactions, durable=False):
            if result.error is not None:
                raise result.error
        block = _mined(ledger.template(self._validators[0], 0, ledger.head.time + 1))
        ledger.commit(block, self.certify(block))
        return block

    def certify(self, block: Block) -> Certificate:
        """Precommits of just a quorum."""
        slot = (block.height, 0, PRECOMMIT, block.hash, self.founding.chain_id)
        chosen = self._validators[: self.founding.quorum]
        return make_certificate([sign_vote(key, *slot) for key in chosen])

    def grow(self, packs: int, readings: int, per_block: int, tell: Callable[[int], None]) -> int:
        """Seal so many packs; returns the sum of their bytes.

        Args:
            packs: how many.
            readings: in each.
            per_block: packs in a block.
            tell: is told after each block how many packs of these are sealed.
        """
        total = 0
        for first in range(0, packs, per_block):
            batch = self.packs(min(per_block, packs - first), readings)
            self.seal(batch)
            total += sum(len(item.raw) for item in batch)
            tell(first + len(batch))
        return total


def _mined(block: Block) -> Block:
    target = target_from_bits(block.header.bits)
    nonce = mine(block.header.encode(), target, kernel=best()).nonce
    assert nonce is not None
    return Block(replace(block.header, nonce=nonce), block.coinbase, block.transactions)
