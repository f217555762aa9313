"""What a reader of the chain must remember to check the next block by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from fog_node.protocol import decisions
from fog_node.protocol.block import Block, parse_block, target_from_bits
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.clocks import MAX_STARTS, Start, parse_start, start_value, starts_after
from fog_node.protocol.errors import ProtocolError, RuleError
from fog_node.protocol.founding import Founding
from fog_node.protocol.governance import Approve, Propose, Withdraw
from fog_node.protocol.keys import PublicKey, parse_kid
from fog_node.protocol.member_records import MemberRecord
from fog_node.protocol.membership import Changed, Membership
from fog_node.protocol.transactions import Enrol, Evidence, PackBody, Revoke, Transaction
from fog_node.protocol.validate import array
from fog_node.protocol.votes import parse_certificate, verify_vote

from .errors import ChainError


@dataclass(frozen=True)
class EnrolledDevice:
    """A board as its enrolment describes it; `channels` are names in the enrolled order.

    `starts`: when its latest starts were, for packs that it made without time.
    """

    key: PublicKey
    type: str
    channels: tuple[str, ...]
    starts: tuple[Start, ...] = ()

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
        revoked: boards that may not sign any more.
        membership: members, settings and proposals; says whose votes make the next block
            final.
    """

    chain_id: bytes
    height: int
    head: bytes
    membership: Membership = field(repr=False)
    devices: dict[bytes, EnrolledDevice] = field(default_factory=dict, repr=False)
    sequences: dict[bytes, int] = field(default_factory=dict, repr=False)
    revoked: frozenset[bytes] = frozenset()

    @classmethod
    def at_founding(cls, founding: Founding) -> ChainView:
        """The view before block 1."""
        membership = Membership.at_founding(founding)
        return cls(founding.chain_id, 0, founding.genesis.hash, membership)

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
            block = parse_block(raw_block, self.membership.parameters.max_block_bytes)
            self._check_header(block, founding)
            self._check_certificate(block, raw_certificate, founding)
            view = replace(
                self,
                devices=dict(self.devices),
                sequences=dict(self.sequences),
                membership=self.membership.copy(),
            )
            view._put(decisions.expired(view.membership, height, block.coinbase.time))  # noqa: SLF001 - its own class
            for transaction in block.transactions:
                view = view._take(transaction, block, founding)  # noqa: SLF001 - its own class
            if view.membership.validator_set.hash != block.coinbase.next:
                raise ChainError(height, "coinbase.next: is not the set that votes after it")
        except ProtocolError as error:
            raise ChainError(height, str(error)) from error
        return block, replace(view, height=height, head=block.hash)

    @property
    def suspended(self) -> frozenset[bytes]:
        """Validators whose votes do not count in the next block."""
        return frozenset(v.kid for v in self.membership.validators if not v.votes)

    def value(self) -> dict[str, Any]:
        """What JSON can hold of it; `from_value` reads it."""
        return {
            "chain_id": self.chain_id.hex(),
            "height": self.height,
            "head": self.head.hex(),
            "devices": [
                {
                    "key": d.key.xy.hex(),
                    "type": d.type,
                    "channels": list(d.channels),
                    "starts": encode([start_value(start) for start in d.starts]).hex(),
                }
                for d in self.devices.values()
            ],
            "sequences": {kid.hex(): number for kid, number in self.sequences.items()},
            "revoked": sorted(kid.hex() for kid in self.revoked),
            "membership": [record.entry().hex() for record in self.membership.records()],
        }

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> ChainView:
        """Read what `value` gave; raises KeyError, TypeError or ValueError on anything else."""
        devices = [
            EnrolledDevice(
                PublicKey(bytes.fromhex(item["key"])),
                str(item["type"]),
                tuple(item["channels"]),
                _starts(bytes.fromhex(item["starts"])),
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
            membership=Membership.from_entries(map(bytes.fromhex, value["membership"])),
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
        easiest = target_from_bits(self.membership.parameters.bits)
        if target_from_bits(header.bits) > easiest:
            raise ChainError(height, "header.bits: is easier than the consortium allows")
        header.check_work()
        if header.time != coinbase.time // 1000:
            raise ChainError(height, "header.time: is not the coinbase's")
        voters = self.membership.validator_set
        if coinbase.validators != voters.hash:
            raise ChainError(height, "coinbase.validators: is not the set that votes here")
        miner = voters.by_kid.get(coinbase.miner)
        if miner is None:
            raise ChainError(height, "coinbase.miner: is no validator that may mine")
        coinbase.message.verify(miner, founding.chain_id)

    def _check_certificate(self, block: Block, raw: bytes, founding: Founding) -> None:
        certificate = parse_certificate(raw)
        if (certificate.height, certificate.block_hash) != (block.height, block.hash):
            raise ChainError(block.height, "certificate: is for another block")
        self.membership.validator_set.verify(certificate, founding.chain_id)

    def _take(self, transaction: Transaction, block: Block, founding: Founding) -> ChainView:
        """Check one transaction; what the view holds, but `revoked`, is changed in place."""
        height = self.height + 1
        signer = transaction.signer
        who = f"transaction {transaction.id.hex()}"
        member = self.membership.members.get(signer)
        device = self.devices.get(signer)
        if member is None and device is None:
            raise ChainError(height, f"{who}: {signer.hex()} is no member and not enrolled")
        if signer in self.revoked or (member is not None and member.status == "revoked"):
            raise ChainError(height, f"{who}: {signer.hex()} was revoked before")
        if transaction.first != self.sequences.get(signer, 0) + 1:
            raise ChainError(
                height, f"{who}: number {transaction.sequence} is not {signer.hex()}'s next"
            )
        known = member or device
        assert known is not None
        try:
            transaction.verify(known.key, founding.chain_id)
            if member is not None:
                counted = replace(member, next=transaction.sequence + 1)
                self._decide(counted, transaction, block, founding)
        except ProtocolError as error:
            raise ChainError(height, f"{who}: {error}") from error
        self.sequences[signer] = transaction.sequence
        body = transaction.body
        if isinstance(body, PackBody) and body.clock is not None and device is not None:
            starts = starts_after(device.starts, body.clock, transaction.sequence)
            self.devices[signer] = replace(device, starts=starts)
        elif isinstance(body, Enrol):
            if body.device in self.devices or self.membership.key_of(body.device) is not None:
                raise ChainError(height, f"{who}: {body.device.hex()} is enrolled already")
            names = tuple(channel.name for channel in body.channels)
            self.devices[body.device] = EnrolledDevice(body.key, body.type, names)
        elif isinstance(body, Revoke):
            return replace(self, revoked=self.revoked | {body.subject})
        return self

    def _decide(
        self, member: MemberRecord, transaction: Transaction, block: Block, founding: Founding
    ) -> None:
        """Take what changes the membership; raises ProtocolError where it does not fit.

        `member` is the signer as it is after the transaction.
        """
        height, time = block.height, block.coinbase.time
        match transaction.body:
            case Propose():
                self._put(
                    decisions.proposed(
                        self.membership, member, transaction, height, time, self.devices
                    )
                )
            case Approve() as approve:
                self._put(
                    decisions.approved(self.membership, member, approve, height, self.devices)
                )
            case Withdraw() as withdraw:
                self._put(decisions.withdrawn(self.membership, member, withdraw, height))
            case Evidence() as evidence:
                offender = self.membership.key_of(evidence.offender)
                if offender is None:
                    raise RuleError("evidence.votes", "are by nobody who is known here")
                for vote in (evidence.first, evidence.second):
                    verify_vote(vote, offender, founding.chain_id)
                self._put(decisions.accused(self.membership, member, evidence))
            case _:
                self.membership.put(member)

    def _put(self, changes: Iterable[Changed]) -> None:
        for change in changes:
            self.membership.put(change)


def _starts(data: bytes) -> tuple[Start, ...]:
    starts = array(decode(data, len(data), "starts"), "starts", at_most=MAX_STARTS)
    return tuple(parse_start(start, "starts") for start in starts)
