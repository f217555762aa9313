"""How one decision of a run is brought about: its proposal, its approvals, until it is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fog_node.ledger import Ledger
from fog_node.protocol.governance import Approve, Propose
from fog_node.protocol.transactions import Body, Transaction

from .consortium import START_MS

if TYPE_CHECKING:
    from .decisions import Decision
    from .world import World

# A clock that is ahead by minutes must not end it.
TERM_MS = 24 * 3_600_000


class Ballot:
    """Members who take their numbers from the ledger that is farthest, and do not give up.

    What is lost they hand to another node, and sign anew where their number was used up.
    """

    def __init__(self, world: World, decision: Decision) -> None:
        """Begin it."""
        self._world = world
        self._decision = decision
        self._proposal: Transaction | None = None
        self._approvals: dict[bytes, Transaction] = {}

    def go_on(self) -> bool:
        """Do what can be done now; returns whether it is settled."""
        ledger = self._world.farthest_ledger()
        if ledger is None:
            return False
        proposal = self._propose(ledger)
        if proposal is None:
            return True
        record = ledger.state.membership.proposals.get(proposal.id)
        if record is None:
            self._world.offer(proposal)
            return False
        if record.outcome in ("applied", "failed"):
            return True
        if not record.is_open:  # its proposer was removed before it came to that
            self._proposal = None
            self._approvals.clear()
            return False
        for kid in ledger.state.voters():
            if kid not in record.approvals:
                self._world.offer(self._approve(ledger, kid, proposal.id))
        return False

    def _propose(self, ledger: Ledger) -> Transaction | None:
        if self._proposal is None or _is_lost(ledger, self._proposal):
            body = self._wish(ledger)
            if body is None:
                return None
            kid = self._world.rng.choice(list(ledger.state.voters()))
            self._proposal = self._signed(ledger, kid, body)
            self._approvals.clear()
        return self._proposal

    def _wish(self, ledger: Ledger) -> Propose | None:
        """Return what to propose; None where that is out of date."""
        world, decision = self._world, self._decision
        membership = ledger.state.membership
        kid = world.consortium.keys[decision.node].kid
        if kid in membership.retired:
            kid = membership.retired[kid].successor
        is_validator = kid in {record.kid for record in membership.validators}
        is_done = {"add": is_validator, "remove": not is_validator}
        if is_done.get(decision.kind.split()[0], False):
            return None
        change = world.consortium.change(decision, kid)
        return Propose((change,), decision.kind, START_MS + TERM_MS)

    def _approve(self, ledger: Ledger, kid: bytes, proposal: bytes) -> Transaction:
        known = self._approvals.get(kid)
        if known is None or _is_lost(ledger, known):
            known = self._approvals[kid] = self._signed(ledger, kid, Approve(proposal))
        return known

    def _signed(self, ledger: Ledger, kid: bytes, body: Body) -> Transaction:
        consortium = self._world.consortium
        number = ledger.state.next_sequence(kid)
        return consortium.sign(consortium.key_of(kid), body, number)


def _is_lost(ledger: Ledger, transaction: Transaction) -> bool:
    """Whether its number was used for something else, or its signer's key was replaced."""
    used = ledger.state.next_sequence(transaction.signer) > transaction.sequence
    is_retired = transaction.signer in ledger.state.membership.retired
    return (used or is_retired) and ledger.find(transaction.id) is None
