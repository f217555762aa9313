"""What was mined on the Bitcoin chain, found again by every kernel."""

from __future__ import annotations

import pytest
from support.real_blocks import BLOCKS

from fog_node import pow as proof_of_work
from fog_node.pow import python_twin

pytestmark = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"block-{block.height}")


@pytest.mark.parametrize("double_sha256", [proof_of_work.double_sha256, python_twin.double_sha256])
def test_double_sha256_gives_the_block_hash(block, double_sha256):
    assert double_sha256(block.header)[::-1].hex() == block.hash


@pytest.mark.parametrize("before", [0, 1, 7, 511, 512, 1023, 1024, 1500, 4095, 4096])
def test_mine_finds_the_nonce_that_was_mined(kernel, block, before):
    result = proof_of_work.mine(
        block.header, block.target, kernel=kernel, start=block.nonce - before, count=5000
    )
    assert result == proof_of_work.MineResult(block.nonce, before + 1, cancelled=False)


def test_a_hash_equal_to_the_target_meets_it(kernel, block):
    block_hash = int(block.hash, 16)
    work = {"kernel": kernel, "start": block.nonce, "count": 1}
    assert proof_of_work.mine(block.header, block_hash, **work).nonce == block.nonce
    assert proof_of_work.mine(block.header, block_hash - 1, **work).nonce is None
