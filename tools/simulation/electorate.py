"""Who votes on each block, worked out from the blocks alone and apart from the nodes' own state.

It knows the changes that `decisions` draws and no others, and follows every branch of a fork.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fog_node.ledger.simulator.judge import Voters
from fog_node.protocol.block import Block
from fog_node.protocol.founding import Founding, quorum_of
from fog_node.protocol.governance import (
    AddMember,
    Approve,
    Change,
    Propose,
    RemoveMember,
    RotateKey,
    SetParameters,
    SetRoles,
)
from fog_node.protocol.keys import PublicKey
from fog_node.protocol.transactions import Evidence, Transaction
from fog_node.protocol.validators import ValidatorSet


@dataclass(frozen=True)
class _Open:
    """A proposal, and who is for it."""

    height: int
    id: bytes
    proposer: bytes
    changes: tuple[Change, ...]
    approvals: frozenset[bytes]


@dataclass(frozen=True)
class Roll:
    """What the blocks up to one have decided.

    Attributes:
        rule: of the quorum.
        keys: of the validators in order, suspended ones included.
        members: the other members' keys by their ids.
        struck: who was convicted by evidence, and whether its votes still count.
        proposals: those that are open.
        applied: changes that the latest block brought about.
    """

    rule: str
    keys: tuple[PublicKey, ...]
    members: dict[bytes, PublicKey] = field(default_factory=dict)
    struck: dict[bytes, bool] = field(default_factory=dict)
    proposals: tuple[_Open, ...] = ()
    applied: tuple[Change, ...] = ()

    @property
    def quorum(self) -> int:
        """Votes that make a block final, approvals that decide."""
        return quorum_of(self.rule, len(self.keys))

    @property
    def set(self) -> ValidatorSet:
        """Who votes on the next block."""
        voting = tuple(key for key in self.keys if self.struck.get(key.kid, True))
        return ValidatorSet(self.quorum, voting)

    @property
    def voters(self) -> Voters:
        """The same for the judge."""
        found = self.set
        return Voters(found.quorum, frozenset(found.by_kid))

    def after(self, block: Block) -> Roll:
        """Return what holds after one more block."""
        if not any(isinstance(t.body, Propose | Approve | Evidence) for t in block.transactions):
            return self if not self.applied else replace(self, applied=())
        roll = replace(self, applied=())
        for transaction in block.transactions:
            roll = roll.take(transaction, block.height)
        return roll

    def take(self, transaction: Transaction, height: int) -> Roll:
        """Take in one transaction of the block at a height."""
        body, signer = transaction.body, transaction.signer
        match body:
            case Propose():
                new = _Open(height, transaction.id, signer, body.changes, frozenset({signer}))
                return replace(self, proposals=(*self.proposals, new)).decide()
            case Approve():
                proposals = tuple(
                    replace(item, approvals=item.approvals | {signer})
                    if item.id == body.proposal
                    else item
                    for item in self.proposals
                )
                return replace(self, proposals=proposals).decide()
            case Evidence():
                still_counts = len(self.set.keys) <= self.quorum
                return replace(self, struck={**self.struck, body.offender: still_counts})
        return self

    def decide(self) -> Roll:
        """Apply what has its approvals, and what has them by the quorum that follows."""
        for item in sorted(self.proposals, key=lambda item: (item.height, item.id)):
            if not self.voters.suffice(item.approvals):
                continue
            rest = tuple(other for other in self.proposals if other.id != item.id)
            before = replace(self, proposals=rest)
            after = before.changed(item.changes)
            if len(after.set.keys) < after.quorum:
                return before.decide()  # it fails
            return after.without_former().decide()
        return self

    def without_former(self) -> Roll:
        """Forget what was proposed or approved by who is no validator now."""
        kids = {key.kid for key in self.keys}
        return replace(
            self,
            proposals=tuple(
                replace(item, approvals=item.approvals & kids)
                for item in self.proposals
                if item.proposer in kids
            ),
        )

    def changed(self, changes: Sequence[Change]) -> Roll:
        """Make all the changes of a proposal."""
        rule, keys, members = self.rule, list(self.keys), self.members
        for change in changes:
            match change:
                case AddMember():
                    keys.append(change.key)
                case SetRoles() if "validator" in change.roles:
                    keys.append(members[change.member])
                case SetRoles() | RemoveMember():
                    gone = next(key for key in keys if key.kid == change.member)
                    keys.remove(gone)
                    members = {**members, gone.kid: gone}
                case RotateKey():
                    keys = [change.key if key.kid == change.member else key for key in keys]
                case SetParameters():
                    rule = change.quorum or rule
        applied = (*self.applied, *changes)
        return replace(self, rule=rule, keys=tuple(keys), members=members, applied=applied)


class Electorate:
    """The roll after each final block of a run, whichever branch it is on."""

    def __init__(self, founding: Founding) -> None:
        """Begin with the founding file."""
        others = {m.kid: m.key for m in founding.members if m not in founding.validators}
        keys = tuple(member.key for member in founding.validators)
        self._rolls = {founding.genesis.hash: Roll(founding.quorum_rule, keys, others)}

    def after(self, block_hash: bytes) -> Roll:
        """Return what holds after a final block."""
        return self._rolls[block_hash]

    def take(self, block: Block) -> tuple[Roll, Roll, bool]:
        """Return what holds before and after a final block, and whether it is new here."""
        before = self._rolls[block.header.previous]
        is_new = block.hash not in self._rolls
        if is_new:
            self._rolls[block.hash] = before.after(block)
        return before, self._rolls[block.hash], is_new
