"""What a reader of the chain must remember to check the next block by itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fog_node.protocol.block import Block, parse_block, target_from_bits
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import PublicKey, parse_kid
from fog_node.protocol.transactions import Enrol, Evidence, Revoke, Transaction
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import parse_certificate, verify_vote

from .errors import ChainError


@dataclass(frozen=True)
class EnrolledDevice:
    """A board as its enrolment describes it; `channels` are names in the enrolled order."""

    key: PublicKey
    type: str
    channels: tuple[str, ...]

    @property
    def kid(self) -> bytes:
        """Key id."""
        return self.key.kid


@dataclass(frozen=True)
class ChainView:
    """The chain up to a height, as far as the block after it depends on it.

    Attributes:
        chain_id: SHA-256 of the founding file.
        height: of the latest block that was checked; 0 is the founding.
        head: its hash, internal byte order.
        devices: enrolled boards by key id, revoked ones included.
        sequences: number of each signer's latest transaction.
        revoked: key ids that may not sign any more.
        suspended: validators that evidence took out of the voting.
    """

    chain_id: bytes
    height: int
    head: bytes
    devices: dict[bytes, EnrolledDevice] = field(default_factory=dict, repr=False)
    sequences: dict[bytes, int] = field(default_factory=dict, repr=False)
    revoked: frozenset[bytes] = frozenset()
    suspended: frozenset[bytes] = frozenset()

    @classmethod
    def at_founding(cls, founding: Founding) -> ChainView:
        """The view before block 1."""
        return cls(founding.chain_id, 0, founding.genesis.hash)

    def after(
        self, raw_block: bytes, raw_certificate: bytes, founding: Founding
    ) -> tuple[Block, ChainView]:
        """Check the next block and its certificate.

        Whether the transactions were within their signers' rights and enrolled ranges is
        what the quorum answers for; that they signed them, and in this order, is seen here.

        Returns:
            The block and the view after it.

        Raises:
            ChainError: names the height and what does not hold.
        """
        height = self.height + 1
        try:
            block = parse_block(raw_block, founding.parameters.max_block_bytes)
            self._check_header(block, founding)
            self._check_certificate(block, raw_certificate, founding)
            view = replace(self, devices=dict(self.devices), sequences=dict(self.sequences))
            for transaction in block.transactions:
                view = view._take(transaction, founding)  # noqa: SLF001 - its own class
        except ProtocolError as error:
            raise ChainError(height, str(error)) from error
        return block, replace(view, height=height, head=block.hash)

    def voters(self, founding: Founding) -> dict[bytes, PublicKey]:
        """Return the validators whose votes count in the next block."""
        gone = self.revoked | self.suspended
        return {m.kid: m.key for m in founding.validators if m.kid not in gone}

    def value(self) -> dict[str, Any]:
        """What JSON can hold of it; `from_value` reads it."""
        return {
            "chain_id": self.chain_id.hex(),
            "height": self.height,
            "head": self.head.hex(),
            "devices": [
                {"key": d.key.xy.hex(), "type": d.type, "channels": list(d.channels)}
                for d in self.devices.values()
            ],
            "sequences": {kid.hex(): number for kid, number in self.sequences.items()},
            "revoked": sorted(kid.hex() for kid in self.revoked),
            "suspended": sorted(kid.hex() for kid in self.suspended),
        }

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> ChainView:
        """Read what `value` gave; raises KeyError, TypeError or ValueError on anything else."""
        devices = [
            EnrolledDevice(
                PublicKey(bytes.fromhex(item["key"])), str(item["type"]), tuple(item["channels"])
            )
            for item in value["devices"]
        ]
        return cls(
            chain_id=bytes.fromhex(value["chain_id"]),
            height=int(value["height"]),
            head=bytes.fromhex(value["head"]),
            devices={device.kid: device for device in devices},
            sequences={parse_kid(kid): int(n) for kid, n in value["sequences"].items()},
            revoked=frozenset(map(parse_kid, value["revoked"])),
            suspended=frozenset(map(parse_kid, value["suspended"])),
        )

    def _check_header(self, block: Block, founding: Founding) -> None:
        height = self.height + 1
        header, coinbase = block.header, block.coinbase
        if block.height != height:
            raise ChainError(height, f"coinbase.height: is {block.height}")
        if header.version != founding.genesis.version:
            raise ChainError(height, f"header.version: is {header.version}")
        if header.previous != self.head:
            raise ChainError(height, "header.previous: is not the hash of the block before")
        if target_from_bits(header.bits) > target_from_bits(founding.parameters.bits):
            raise ChainError(height, "header.bits: is easier than the founding file allows")
        header.check_work()
        if header.time != coinbase.time // 1000:
            raise ChainError(height, "header.time: is not the coinbase's")
        voters = self.voters(founding)
        if coinbase.validators != ValidatorSet(founding.quorum, tuple(voters.values())).hash:
            raise ChainError(height, "coinbase.validators: is not the set that votes here")
        miner = voters.get(coinbase.miner)
        if miner is None:
            raise ChainError(height, "coinbase.miner: is no validator that may mine")
        coinbase.message.verify(miner, founding.chain_id)

    def _check_certificate(self, block: Block, raw: bytes, founding: Founding) -> None:
        certificate = parse_certificate(raw)
        if (certificate.height, certificate.block_hash) != (block.height, block.hash):
            raise ChainError(block.height, "certificate: is for another block")
        certificate.verify(self.voters(founding), founding.quorum, founding.chain_id)

    def _take(self, transaction: Transaction, founding: Founding) -> ChainView:
        """Check one transaction; `devices` and `sequences` are changed in place."""
        height = self.height + 1
        signer = transaction.signer
        who = f"transaction {transaction.id.hex()}"
        key = self._key(signer, founding)
        if key is None:
            raise ChainError(height, f"{who}: {signer.hex()} is no member and not enrolled")
        if signer in self.revoked:
            raise ChainError(height, f"{who}: {signer.hex()} was revoked before")
        if transaction.sequence != self.sequences.get(signer, 0) + 1:
            raise ChainError(
                height, f"{who}: number {transaction.sequence} is not {signer.hex()}'s next"
            )
        try:
            transaction.verify(key, founding.chain_id)
        except ProtocolError as error:
            raise ChainError(height, f"{who}: {error}") from error
        self.sequences[signer] = transaction.sequence
        body = transaction.body
        if isinstance(body, Enrol):
            if self._key(body.device, founding) is not None:
                raise ChainError(height, f"{who}: {body.device.hex()} is enrolled already")
            names = tuple(channel.name for channel in body.channels)
            self.devices[body.device] = EnrolledDevice(body.key, body.type, names)
        elif isinstance(body, Revoke):
            return replace(self, revoked=self.revoked | {body.subject})
        elif isinstance(body, Evidence):
            return self._accused(body, founding)
        return self

    def _accused(self, evidence: Evidence, founding: Founding) -> ChainView:
        height = self.height + 1
        offender = self._key(evidence.offender, founding)
        if offender is None:
            raise ChainError(height, "evidence.votes: are by nobody who is known here")
        for vote in (evidence.first, evidence.second):
            verify_vote(vote, offender, founding.chain_id)
        # Evidence suspends nobody without whom there would be no quorum left.
        if len(self.voters(founding)) <= founding.quorum:
            return self
        return replace(self, suspended=self.suspended | {evidence.offender})

    def _key(self, kid: bytes, founding: Founding) -> PublicKey | None:
        member = founding.member(kid)
        if member is not None:
            return member.key
        device = self.devices.get(kid)
        return None if device is None else device.key
