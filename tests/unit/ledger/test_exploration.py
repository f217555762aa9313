"""All that can happen in small networks, within bounds that CONSENSUS.md states."""

from __future__ import annotations

import pytest

from fog_node.ledger.consensus import Consensus
from fog_node.ledger.explorer import BrokenRuleError, Network, UnfairError, explore, told
from fog_node.ledger.explorer.search import check_conviction
from fog_node.ledger.vote_book import VoteBook

HONEST = [
    Network(3, "majority", rounds=1, blocks=2),
    Network(3, "two-thirds", rounds=1, blocks=2),
    Network(3, "two-thirds", rounds=2, blocks=1),
    Network(3, "majority", rounds=1, blocks=1, restarts=1),
    Network(4, "two-thirds", rounds=1, blocks=1, liar=True),
]


@pytest.mark.parametrize("network", HONEST, ids=str)
def test_nothing_that_can_happen_forks(network):
    result = explore(network)
    print(f"{result.states} states, {result.transitions} transitions")
    assert result.is_complete
    assert result.decided
    assert not result.forks


def test_one_liar_forks_a_majority_and_is_convicted():
    network = Network(3, "majority", rounds=1, blocks=2, liar=True)
    result = explore(network)
    print("\n".join(told(result.fork)))
    assert result.is_complete
    # `explore` fails where a fork of one round does not convict the liar, and nobody else.
    assert result.forks == result.same_round > 0
    pairs = check_conviction(network, result.fork_state.certificates)
    assert {vote.validator for pair in pairs for vote in pair} == {network.liar_name}


def test_what_a_validator_leaves_for_later_makes_no_difference():
    """The bound on what it takes in at once loses no state."""
    network = Network(3, "majority", rounds=1, blocks=1)
    quick, thorough = explore(network), explore(network, is_thorough=True)
    found = {(r.states, r.decided, r.forks) for r in (quick, thorough)}
    assert len(found) == 1


def a_vote_less(monkeypatch):
    build = VoteBook.__init__
    monkeypatch.setattr(
        VoteBook, "__init__", lambda self, voters, quorum: build(self, voters, quorum - 1)
    )


def forget_own_votes(monkeypatch):
    restore = Consensus.restore
    monkeypatch.setattr(Consensus, "restore", lambda self, votes, lock: restore(self, [], lock))
    monkeypatch.setattr(Consensus, "_resume_after", lambda self, vote: None)


@pytest.mark.parametrize(
    ("break_it", "network"),
    [
        (a_vote_less, Network(3, "majority", rounds=1, blocks=2)),
        (forget_own_votes, Network(3, "majority", rounds=1, blocks=2, restarts=1)),
    ],
)
def test_a_broken_rule_is_found(monkeypatch, break_it, network):
    break_it(monkeypatch)
    try:
        result = explore(network, max_states=20_000)
    except (BrokenRuleError, UnfairError) as error:
        print(f"found: {error}")
        return
    assert result.forks
