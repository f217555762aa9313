"""Checkpoints: what a node needs to go on from a block without all that came before.

The founding file alone verifies one: from the validators that it names, each handover leads to
the next set, and the last block, certified by more than half of those who vote then, names the
root of the state that is in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .cbor import decode, encode
from .errors import FormatError, ProofError
from .founding import Founding
from .merkle import HASH_BYTES
from .sealed_header import SealedHeader
from .validate import array, octets, text_map
from .validators import ValidatorSet

FORMAT = 1
MAX_CHECKPOINT_BYTES = 256 * 1024 * 1024
MAX_BLOCKS = 256 * 1024
MAX_ENTRIES = 1024 * 1024


@dataclass(frozen=True)
class Checkpoint:
    """A block, the state after it, and the way to it.

    Attributes:
        chain_id: SHA-256 of the founding file.
        blocks: in order of height: the handovers, and the latest blocks without a gap.
        entries: of the state after the last block, those that differ from the founding's.
    """

    chain_id: bytes
    blocks: tuple[SealedHeader, ...] = field(repr=False)
    entries: tuple[bytes, ...] = field(repr=False)

    @property
    def head(self) -> SealedHeader:
        """The block whose state it holds."""
        return self.blocks[-1]

    @property
    def first(self) -> int:
        """Height of the first of the latest blocks without a gap."""
        first = self.head.height
        for block in reversed(self.blocks[:-1]):
            if block.height != first - 1:
                break
            first = block.height
        return first

    def verify(self, founding: Founding) -> ValidatorSet:
        """Raise ProofError or SignatureError unless the blocks follow from the founding file.

        That the entries make the state that the last block names is left to the ledger.

        Returns:
            Who votes on the block after it.
        """
        if self.chain_id != founding.chain_id:
            raise ProofError(
                "checkpoint.chain",
                f"{self.chain_id.hex()} is another ledger than the founding file's",
                "take one of the consortium whose founding file you have",
            )
        validators = founding.validator_set
        height, previous = 0, founding.genesis.hash
        for block in self.blocks:
            where = f"checkpoint: block {block.height}"
            if block.height <= height:
                raise ProofError(where, "is not above the one before it")
            if block.height == height + 1 and block.header.previous != previous:
                raise ProofError(where, "does not follow on the block before it")
            validators = block.verify(validators, founding.chain_id)
            height, previous = block.height, block.hash
        return validators

    def encode(self) -> bytes:
        """The file's bytes."""
        return encode(
            {
                "fogline-checkpoint": FORMAT,
                "chain": self.chain_id,
                "blocks": [block.value() for block in self.blocks],
                "state": list(self.entries),
            }
        )


def parse_checkpoint(data: bytes) -> Checkpoint:
    """Parse a checkpoint file; raises EncodingError, FormatError, ProofError."""
    names = {"fogline-checkpoint", "chain", "blocks", "state"}
    value = text_map(decode(data, MAX_CHECKPOINT_BYTES, "checkpoint"), names, "checkpoint")
    if value["fogline-checkpoint"] != FORMAT:
        raise FormatError("checkpoint.fogline-checkpoint", f"is not format {FORMAT}")
    blocks = array(value["blocks"], "checkpoint.blocks", at_most=MAX_BLOCKS)
    entries = array(value["state"], "checkpoint.state", at_most=MAX_ENTRIES)
    if not blocks:
        raise FormatError("checkpoint.blocks", "are none")
    if not all(isinstance(entry, bytes) for entry in entries):
        raise FormatError("checkpoint.state", "holds what is not a byte string")
    return Checkpoint(
        chain_id=octets(value["chain"], "checkpoint.chain", HASH_BYTES),
        blocks=tuple(
            SealedHeader.from_value(item, f"checkpoint.blocks[{index}]")
            for index, item in enumerate(blocks)
        ),
        entries=tuple(entries),
    )
