"""A chain with one board on it, and a clock that stands still."""

from __future__ import annotations

import pytest
from support.small_chain import SmallChain

from fog_node.protocol.keys import SigningKey


class Clock:
    """A monotonic clock that only a test moves on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board() -> SigningKey:
    return SigningKey.from_secret(1000)


@pytest.fixture
def other_board() -> SigningKey:
    return SigningKey.from_secret(1001)


@pytest.fixture
def chain(tmp_path, board, other_board):
    """`board` and `other_board` are enrolled."""
    chain = SmallChain(tmp_path / "ledger")
    chain.enrol(board, other_board)
    yield chain
    chain.ledger.close()
