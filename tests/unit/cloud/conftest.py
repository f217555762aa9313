"""A short chain by fixed keys, mined on the easiest target, with certificates."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.trained import train_small

from fog_node.client import SealedBlock
from fog_node.protocol import block as blocks
from fog_node.protocol import senml, votes
from fog_node.protocol import transactions as tx
from fog_node.protocol.errors import ProofError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.merkle import root
from fog_node.protocol.validators import ValidatorSet
from tools.vectors.hub import EASY_BITS, TIME_MS, TIME_S, World

CHANNELS = (
    tx.Channel("current", "A", -5.0, 5.0),
    tx.Channel("flow", "L/min", 0.0, 200.0),
)
UNITS = {channel.name: channel.unit for channel in CHANNELS}
PUMP = "water-circulation"
MODEL = b"\xaa" * 8

Row = tuple[float, dict[str, float]]


class Chain(World):
    """Seals transactions into certified blocks, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.head = self.founding.genesis.hash
        self.sealed: list[SealedBlock] = []
        self.suspended: set[bytes] = set()
        self._numbers: dict[bytes, int] = {}

    @property
    def boards(self) -> tuple[SigningKey, SigningKey]:
        """Two boards; the first one is World.board."""
        return self.board, SigningKey.from_secret(4001)

    @property
    def voters(self) -> ValidatorSet:
        """Who votes on the next block."""
        keys = (key for key in self.founding.validator_set.keys if key.kid not in self.suspended)
        return ValidatorSet(self.founding.quorum, tuple(keys))

    def _after(self, content: Sequence[tx.Transaction]) -> ValidatorSet:
        """Who votes once `content` is sealed: evidence suspends who can be spared."""
        before = self.voters
        gone = {item.body.offender for item in content if isinstance(item.body, tx.Evidence)}
        if len(before.keys) <= before.quorum:
            return before
        return ValidatorSet(before.quorum, tuple(k for k in before.keys if k.kid not in gone))

    def sign(self, key: SigningKey, body: tx.Body) -> tx.Transaction:
        """The signer's next transaction."""
        number = self._numbers.get(key.kid, 0) + 1
        self._numbers[key.kid] = number
        dropped = 0 if body.kind in {"pack", "alert"} else None
        return tx.sign_transaction(key, body, self.chain_id, number, dropped)

    def enrolment(
        self, board: SigningKey, device_type: str = PUMP, channels=CHANNELS
    ) -> tx.Transaction:
        body = tx.Enrol(board.public, "validator-0", device_type, "unix", channels, TIME_MS)
        return self.sign(self.operator, body)

    def readings(
        self,
        board: SigningKey,
        rows: Sequence[Row],
        start_s: int = TIME_S,
        verdicts: Sequence[senml.Verdict] = (),
        units: dict[str, str] = UNITS,
        faults: Sequence[senml.Fault] = (),
    ) -> tx.Transaction:
        """A pack of rows of (offset in s, {channel: value})."""
        listed = [(t, [(n, units[n], v) for n, v in row.items()]) for t, row in rows]
        payload = senml.encode_pack(
            32473, board.kid, start_s, listed, verdicts, MODEL if verdicts else None, faults=faults
        )
        return self.sign(board, tx.PackBody.decode(payload))

    def block(self, *content: tx.Transaction, **header) -> blocks.Block:
        """The next block, mined; `header` fields replace the right ones."""
        height = len(self.sealed) + 1
        coinbase = blocks.sign_coinbase(
            self.validators[height % 3],
            height,
            0,
            hashlib.sha256(b"state").digest(),
            (self.voters.hash, self._after(content).hash),
            TIME_MS + 2000 * height,
            self.chain_id,
        )
        leaves = root(blocks.block_leaves(coinbase, content))
        mined = blocks.Header(self.head, leaves, TIME_S + 2 * height, EASY_BITS, nonce=0)
        mined = replace(mined, **header)
        while True:
            try:
                mined.check_work()
            except ProofError:
                mined = replace(mined, nonce=mined.nonce + 1)
            else:
                return blocks.Block(mined, coinbase, content)

    def certify(self, block: blocks.Block, keys: Iterable[SigningKey] | None = None) -> SealedBlock:
        cast = [
            votes.sign_vote(key, block.height, 0, votes.PRECOMMIT, block.hash, self.chain_id)
            for key in keys or self.validators[:2]
        ]
        return SealedBlock(block.height, block.raw, votes.make_certificate(cast).encode())

    def seal(
        self, *content: tx.Transaction, keys: Iterable[SigningKey] | None = None
    ) -> SealedBlock:
        """Make the next block final, by the votes of `keys`."""
        block = self.block(*content)
        self.head = block.hash
        self.sealed.append(self.certify(block, keys))
        return self.sealed[-1]

    async def stream(self, first: int) -> AsyncIterator[SealedBlock]:
        """What a node would give; it ends with the last block."""
        for piece in self.sealed[first - 1 :]:
            yield piece


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def pumps(chain: Chain) -> Chain:
    """Three blocks: two boards are enrolled, then send readings on both sides of midnight."""
    first, second = chain.boards
    chain.seal(chain.enrolment(first), chain.enrolment(second))
    verdict = senml.Verdict(TIME_S + 1, 4711, True, bytes(range(8)))
    rows = [(0, {"current": 1.25, "flow": 32.0}), (1, {"current": 1.5})]
    chain.seal(
        chain.readings(second, [(0, {"current": 7 / 8, "flow": 30.0})]),
        chain.readings(first, rows, verdicts=[verdict]),
    )
    chain.seal(chain.readings(first, rows, start_s=TIME_S - 1))
    return chain


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The directory of a model of two channels, trained for a moment with seed 1."""
    out = tmp_path_factory.mktemp("trained")
    train_small(out, seed=1)
    return out
