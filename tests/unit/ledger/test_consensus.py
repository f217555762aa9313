"""The rules of CONSENSUS.md, one by one, on a single machine."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from fog_node.ledger.consensus import MAX_WANTED_BLOCKS, Consensus, Step
from fog_node.ledger.consensus_messages import (
    Block,
    CastVote,
    Commit,
    HeightSetting,
    Lock,
    Mine,
    Mined,
    PeerAhead,
    Proposal,
    Propose,
    ReportEquivocation,
    RequestBlock,
    SaveLock,
    SetTimer,
    StopMining,
    Timer,
    TimerExpired,
    Timing,
    WorkAvailable,
)
from fog_node.ledger.mining_order import MiningOrder
from fog_node.ledger.vote_book import MAX_ROUNDS_AHEAD
from fog_node.protocol.founding import QUORUM_RULES, quorum_of
from fog_node.protocol.votes import NO_ROUND, PRECOMMIT, PREVOTE, Vote

ME, B, C, D, E = VALIDATORS = (b"me", b"b", b"c", b"d", b"e")
OTHERS = VALIDATORS[1:]
HEIGHT = 5
PARENT = b"p" * 32
TIMING = Timing(propose_ms=4000, vote_ms=1000, stagger_ms=200, growth_ms=500, limit_ms=9000)


def setting(**changes):
    """Five validators, three of them a quorum."""
    fields = {"height": HEIGHT, "parent": PARENT, "validators": VALIDATORS, "quorum": 3}
    return HeightSetting(**(fields | changes))


def machine(me=ME, **changes):
    return Consensus(me, TIMING, setting(**changes))


def block(name):
    content = name.encode()
    return hashlib.sha256(content).digest(), content


X, Y = block("x")[0], block("y")[0]
BLOCKS = {X: b"x", Y: b"y"}


def vote(validator, step, block_hash=X, round_=0, height=HEIGHT):
    return Vote(validator, height, round_, step, block_hash, b"")


def prevotes(validators, block_hash=X, round_=0):
    return [vote(validator, PREVOTE, block_hash, round_) for validator in validators]


def precommits(validators, block_hash=X, round_=0):
    return [vote(validator, PRECOMMIT, block_hash, round_) for validator in validators]


def proposal(validator=B, block_hash=X, round_=0, pol_round=NO_ROUND, justification=()):
    return Proposal(
        validator, HEIGHT, round_, pol_round, block_hash, BLOCKS[block_hash], justification, b""
    )


def expired(kind, round_=0):
    return TimerExpired(kind, HEIGHT, round_)


def lock(block_hash=X, round_=0):
    held = BLOCKS[block_hash]
    return Lock(HEIGHT, round_, block_hash, held, tuple(prevotes((ME, B, C), block_hash, round_)))


def feed(node, *events):
    """Hand in events the way a driver does: own votes and proposals come back at once.

    So do turns, so that a proposal's rank only matters where a test is about that.
    """
    done = []
    for event in events:
        todo = node.handle(event)
        while todo:
            action = todo.pop(0)
            done.append(action)
            if isinstance(action, CastVote):
                own = vote(ME, action.step, action.block_hash, action.round, action.height)
                todo += node.handle(own)
            elif isinstance(action, SetTimer) and action.kind is Timer.TURN:
                todo += node.handle(expired(Timer.TURN, action.round))
            elif isinstance(action, Propose):
                todo += node.handle(
                    proposal(
                        ME, action.block_hash, action.round, action.pol_round, action.justification
                    )
                )
    return done


def of(kind, actions):
    return [action for action in actions if isinstance(action, kind)]


def cast(actions):
    return [(action.round, action.step, action.block_hash) for action in of(CastVote, actions)]


def timers(actions):
    """Waits that were begun, turns left out."""
    return [
        (action.kind, action.round, action.delay_ms)
        for action in of(SetTimer, actions)
        if action.kind is not Timer.TURN
    ]


def in_round(round_, node=None):
    """A machine that was taken to a round by two others' votes."""
    node = node or machine()
    feed(node, *prevotes((D, E), None, round_))
    assert (node.round, node.step) == (round_, Step.PROPOSE)
    return node


class TestRest:
    def test_nothing_runs_while_there_is_nothing_to_seal(self):
        node = machine()
        assert node.handle(WorkAvailable(available=False)) == []
        assert node.restore([], None) == []

    def test_work_starts_mining_and_the_wait_for_a_proposal(self):
        node = machine()
        done = feed(node, WorkAvailable(available=True))
        assert timers(done) == [(Timer.PROPOSE, 0, 4000)]
        assert [(m.round, m.parent) for m in of(Mine, done)] == [(0, PARENT)]
        assert feed(node, WorkAvailable(available=True)) == []

    def test_work_that_goes_away_stops_both(self):
        node = machine()
        feed(node, WorkAvailable(available=True))
        assert feed(node, WorkAvailable(available=False)) == [StopMining()]
        assert feed(node, expired(Timer.PROPOSE)) == []
        assert timers(feed(node, WorkAvailable(available=True))) == [(Timer.PROPOSE, 0, 4000)]

    def test_votes_of_others_wake(self):
        done = feed(machine(), vote(B, PREVOTE, None))
        assert timers(done) == [(Timer.PROPOSE, 0, 4000)]
        assert not of(Mine, done)

    def test_next_height_rests_again(self):
        node = machine()
        feed(node, WorkAvailable(available=True))
        assert node.advance(setting(height=HEIGHT + 1)) == [StopMining()]
        assert node.handle(vote(B, PREVOTE)) == []


class TestVoting:
    def test_first_proposal_of_the_round_gets_the_prevote(self):
        node = machine()
        assert cast(feed(node, proposal(B, X), proposal(C, Y))) == [(0, PREVOTE, X)]

    def test_own_block_is_proposed_then_prevoted(self):
        node = machine()
        feed(node, WorkAvailable(available=True))
        done = feed(node, Mined(HEIGHT, 0, X, BLOCKS[X]))
        assert [type(action) for action in done] == [Propose, CastVote]
        assert (done[0].pol_round, done[0].block_hash) == (NO_ROUND, X)
        assert cast(done) == [(0, PREVOTE, X)]

    def test_a_proposal_stops_mining_and_a_late_find_is_dropped(self):
        node = machine()
        feed(node, WorkAvailable(available=True))
        assert StopMining() in feed(node, proposal(B, X))
        assert feed(node, Mined(HEIGHT, 0, Y, BLOCKS[Y])) == []

    def test_find_of_an_earlier_round_is_dropped(self):
        node = in_round(2)
        feed(node, WorkAvailable(available=True))
        assert feed(node, Mined(HEIGHT, 1, Y, BLOCKS[Y])) == []

    def test_quorum_of_prevotes_locks_on_disk_before_the_precommit(self):
        node = machine()
        done = feed(node, proposal(), *prevotes((B, C)))
        assert cast(done) == [(0, PREVOTE, X), (0, PRECOMMIT, X)]
        saved = of(SaveLock, done)[0].lock
        assert (saved.round, saved.block_hash, saved.block) == (0, X, BLOCKS[X])
        assert {v.validator for v in saved.prevotes} == {ME, B, C}
        assert done.index(SaveLock(saved)) < done.index(CastVote(HEIGHT, 0, PRECOMMIT, X))

    def test_prevotes_without_the_block_lock_nothing(self):
        node = machine()
        done = feed(node, *prevotes((B, C, D)))
        assert of(RequestBlock, done) == [RequestBlock(HEIGHT, X)]
        assert cast(done) == []
        assert cast(feed(node, Block(HEIGHT, X, BLOCKS[X]))) == [
            (0, PREVOTE, X),
            (0, PRECOMMIT, X),
        ]

    def test_a_split_that_cannot_be_mended_is_given_up_at_once(self):
        node = machine()
        done = feed(node, proposal(), *prevotes((B, C), Y), vote(D, PREVOTE, None))
        assert cast(done) == [(0, PREVOTE, X)]
        assert cast(feed(node, vote(E, PREVOTE, None))) == [(0, PRECOMMIT, None)]

    def test_a_split_that_can_be_mended_gets_time(self):
        node = machine()
        done = feed(node, proposal(), vote(B, PREVOTE, Y), vote(C, PREVOTE, Y))
        assert timers(done)[-1] == (Timer.PREVOTE, 0, 1000)
        assert cast(feed(node, expired(Timer.PREVOTE))) == [(0, PRECOMMIT, None)]

    def test_no_proposal_in_time(self):
        node = machine()
        feed(node, WorkAvailable(available=True))
        done = feed(node, expired(Timer.PROPOSE))
        assert cast(done) == [(0, PREVOTE, None)]
        assert StopMining() in done

    @pytest.mark.parametrize("step", [PREVOTE, PRECOMMIT])
    def test_fewer_than_a_quorum_starts_no_wait(self, step):
        node = machine()
        done = feed(node, proposal(), vote(B, step, Y))
        assert not {Timer.PREVOTE, Timer.PRECOMMIT} & {kind for kind, _, _ in timers(done)}

    def test_after_a_quorum_of_precommits_the_next_round_comes(self):
        node = machine()
        done = feed(node, *precommits((B, C, D), None))
        assert (Timer.PRECOMMIT, 0, 1000) in timers(done)
        feed(node, expired(Timer.PRECOMMIT))
        assert (node.round, node.step) == (1, Step.PROPOSE)

    def test_stale_timers_do_nothing(self):
        node = in_round(2)
        before = (node.round, node.step)
        stale = [expired(kind, 1) for kind in Timer]
        assert feed(node, *stale, TimerExpired(Timer.PRECOMMIT, HEIGHT - 1, 2)) == []
        assert (node.round, node.step) == before


class TestCommit:
    @pytest.mark.parametrize("round_", [0, 2])
    def test_quorum_of_precommits_of_any_round_is_final(self, round_):
        node = machine()
        feed(node, proposal(B, X, round_))
        done = feed(node, *precommits((C, B, D), X, round_), vote(C, PRECOMMIT, X, round_))
        (commit,) = of(Commit, done)
        assert (commit.round, commit.block_hash, commit.block) == (round_, X, BLOCKS[X])
        assert [v.validator for v in commit.certificate.votes] == [B, C, D]
        assert node.step is Step.COMMIT

    def test_final_block_that_is_not_here_is_asked_for(self):
        node = machine()
        done = feed(node, *precommits((B, C, D)))
        assert RequestBlock(HEIGHT, X) in done
        assert node.status().wanted == (X,)
        assert of(Commit, feed(node, Block(HEIGHT, X, BLOCKS[X])))

    def test_blocks_nobody_asked_for_are_not_kept(self):
        node = machine()
        feed(node, Block(HEIGHT, X, BLOCKS[X]))
        assert not of(Commit, feed(node, *precommits((B, C, D))))

    def test_nothing_happens_after_the_decision(self):
        node = machine()
        feed(node, proposal(), *precommits((B, C, D)))
        late = [proposal(C, Y), *prevotes(OTHERS, Y, 3), WorkAvailable(available=True)]
        assert feed(node, *late, expired(Timer.PRECOMMIT)) == []
        assert node.round == 0

    def test_a_single_validator_is_its_own_quorum(self):
        node = machine(validators=(ME,), quorum=1)
        feed(node, WorkAvailable(available=True))
        done = feed(node, Mined(HEIGHT, 0, X, BLOCKS[X]))
        assert cast(done) == [(0, PREVOTE, X), (0, PRECOMMIT, X)]
        assert of(Commit, done)


class TestLock:
    def locked(self):
        """A machine that precommitted X in round 0, and what it did on entering round 1."""
        node = machine()
        feed(node, proposal(), *prevotes((B, C)))
        assert node.step is Step.PRECOMMIT
        return node, feed(node, *precommits((D, E), None), expired(Timer.PRECOMMIT))

    def test_next_round_prevotes_the_lock_and_mines_nothing(self):
        node = machine()
        feed(node, WorkAvailable(available=True), proposal(), *prevotes((B, C)))
        done = feed(node, *precommits((D, E), None), expired(Timer.PRECOMMIT))
        assert cast(done) == [(1, PREVOTE, X)]
        assert not of(Mine, done)

    def test_a_new_block_does_not_move_it(self):
        node, _ = self.locked()
        assert cast(feed(node, proposal(C, Y, 1), *prevotes((C, D), Y, 1))) == []

    def test_it_is_proposed_again_with_its_justification(self):
        node, done = self.locked()
        (again,) = of(Propose, done + feed(node, expired(Timer.REPROPOSE, 1)))
        assert (again.round, again.pol_round, again.block_hash) == (1, 0, X)
        assert {v.validator for v in again.justification} == {ME, B, C}

    def test_it_is_not_proposed_again_where_somebody_did(self):
        asked = []
        for round_ in range(1, MAX_ROUNDS_AHEAD + 1):
            node = machine()
            node.restore([*prevotes((ME,)), *precommits((ME,))], lock())
            done = feed(node, proposal(B, X, round_, 0, tuple(prevotes((B, C, D)))))
            done += feed(node, *prevotes((D, E), None, round_))
            asked += of(Propose, done + feed(node, expired(Timer.REPROPOSE, round_)))
        assert not asked

    def test_a_later_polka_moves_it(self):
        node, _ = self.locked()
        later = proposal(C, Y, 2, 1, tuple(prevotes((C, D, E), Y, 1)))
        feed(node, later)
        done = feed(node, *precommits((C, D, E), None, 1), expired(Timer.PRECOMMIT, 1))
        assert cast(done)[-1] == (2, PREVOTE, Y)

    def test_an_earlier_polka_does_not(self):
        node = machine()
        node.restore([*prevotes((ME,), X, 3), *precommits((ME,), X, 3)], lock(X, 3))
        feed(node, proposal(C, Y, 4, 1, tuple(prevotes((C, D, E), Y, 1))))
        done = feed(node, *prevotes((C, D), Y, 4))
        assert cast(done) == [(4, PREVOTE, X)]

    @pytest.mark.parametrize(
        "justification",
        [
            (),
            prevotes((C, D), Y, 1),
            prevotes((C, D, D), Y, 1),
            prevotes((C, D, b"stranger"), Y, 1),
            prevotes((C, D, E), Y, 0),
            prevotes((C, D, E), X, 1),
            precommits((C, D, E), Y, 1),
        ],
    )
    def test_what_is_no_polka_moves_nothing(self, justification):
        node, _ = self.locked()
        feed(node, proposal(C, Y, 2, 1, tuple(justification)))
        done = feed(node, *prevotes((C, D), None, 2))
        assert cast(done) == [(2, PREVOTE, X)]

    def test_an_unlocked_node_takes_a_justified_block_of_any_round(self):
        node = in_round(2)
        done = feed(node, proposal(C, X, 2, 0, tuple(prevotes((B, C, D)))))
        assert cast(done) == [(2, PREVOTE, X)]

    def test_a_polka_that_completes_a_round_later_gets_the_prevote(self):
        node = machine()
        feed(node, proposal(B, X))
        in_round(1, node)
        assert cast(feed(node, *prevotes((B, C)))) == [(1, PREVOTE, X)]

    def test_a_polka_seen_too_late_to_lock_still_counts_in_the_next_round(self):
        node = machine()
        feed(node, proposal(B, X), vote(B, PREVOTE), vote(C, PREVOTE, None))
        feed(node, expired(Timer.PREVOTE))
        assert node.step is Step.PRECOMMIT
        feed(node, vote(D, PREVOTE))
        done = feed(node, *precommits((B, C), None), expired(Timer.PRECOMMIT))
        assert cast(done) == [(1, PREVOTE, X)]


class TestRounds:
    @pytest.mark.parametrize("rule", QUORUM_RULES)
    @pytest.mark.parametrize("count", [3, 4, 5, 6, 7])
    def test_enough_others_ahead_pull_a_node_after_them(self, rule, count):
        validators = tuple(b"%d" % i for i in range(count))
        quorum = quorum_of(rule, count)
        node = Consensus(validators[0], TIMING, setting(validators=validators, quorum=quorum))
        needed = min(count - quorum + 1, quorum - 1)
        ahead = [vote(who, PREVOTE, None, 3 + i) for i, who in enumerate(validators[1:], start=0)]
        feed(node, *ahead[-needed + 1 :] if needed > 1 else [])
        assert node.round == 0
        feed(node, *ahead[-needed:])
        assert node.round == ahead[-needed].round

    def test_far_rounds_are_not_stored_but_reached(self):
        node = machine()
        far = 1000
        feed(node, *prevotes((B, C), X, far))
        assert node.round == far
        lacking = feed(node, *prevotes((B, C, D), X, far))
        assert RequestBlock(HEIGHT, X) in lacking

    def test_votes_of_many_rounds_take_bounded_room(self):
        node = machine()
        feed(node, *(vote(B, PREVOTE, X, round_) for round_ in range(5000)))
        assert sum(len(votes) for votes in node._book._votes.values()) <= MAX_ROUNDS_AHEAD + 1

    def test_waits_grow_and_are_bounded(self):
        assert [TIMING.propose(r) for r in (0, 1, 2, 100)] == [4000, 4500, 5000, 9000]
        assert [TIMING.vote(r) for r in (0, 1, 2, 100)] == [1000, 1500, 2000, 9000]

    def test_a_later_height_may_have_other_voters_and_waits(self):
        """As a vote has it: who is in the set votes, whoever was not before."""
        node = machine(validators=VALIDATORS[1:], quorum=3)
        proposal_here = feed(node, WorkAvailable(available=True))
        assert not of(Mine, proposal_here)  # it only follows
        slower = replace(TIMING, propose_ms=8000, limit_ms=20_000)
        node.advance(setting(height=HEIGHT + 1, parent=X), slower)
        actions = feed(node, WorkAvailable(available=True))
        (mine,) = of(Mine, actions)
        assert mine.height == HEIGHT + 1
        (timer,) = (item for item in of(SetTimer, actions) if item.kind is Timer.PROPOSE)
        assert timer.delay_ms == 8000
        node.advance(setting(height=HEIGHT + 2, parent=Y, validators=VALIDATORS[1:]))
        actions = feed(node, WorkAvailable(available=True))
        assert not of(Mine, actions)
        (timer,) = (item for item in of(SetTimer, actions) if item.kind is Timer.PROPOSE)
        assert timer.delay_ms == 8000

    @pytest.mark.parametrize("round_", [0, 1, 5, 1000])
    def test_last_miner_in_the_draw_starts_within_the_wait(self, round_):
        assert 4 * TIMING.stagger(round_, 5) < TIMING.propose(round_)
        assert TIMING.stagger(round_ + 1, 5) >= TIMING.stagger(round_, 5)

    def test_a_chains_timing_leaves_time_to_mine_for_the_last_in_the_draw(self):
        timing = Timing.of_chain(block_interval_ms=2000, stagger_ms=250, validators=7)
        assert timing.propose(0) - 6 * timing.stagger(0, 7) >= 10 * 2000
        assert timing.limit_ms >= timing.propose(0)


class TestMining:
    def ranks(self, round_=0):
        nodes = {who: machine(who) for who in VALIDATORS}
        for node in nodes.values():
            if round_:
                feed(node, *prevotes([who for who in VALIDATORS if who != node._me], None, round_))
        mines = {
            who: of(Mine, feed(node, WorkAvailable(available=True))) for who, node in nodes.items()
        }
        return sorted(mine[0].delay_ms for mine in mines.values())

    def test_one_starts_at_once_and_the_others_stand_by(self):
        assert self.ranks() == [0, 200, 400, 600, 800]

    def test_later_rounds_keep_miners_further_apart(self):
        assert self.ranks(1) == [0, 700, 1400, 2100, 2800]

    def test_a_recent_miner_stands_back(self):
        node = machine(recent_miners=(ME,), spacing=1)
        assert not of(Mine, feed(node, WorkAvailable(available=True)))

    def test_and_mines_when_the_round_fails(self):
        node = in_round(1, machine(recent_miners=(ME,), spacing=1))
        assert of(Mine, feed(node, WorkAvailable(available=True)))

    def test_block_of_a_recent_miner_gets_no_vote(self):
        node = machine(recent_miners=(B,), spacing=1)
        assert cast(feed(node, proposal(B))) == []
        assert cast(feed(node, proposal(C, Y))) == [(0, PREVOTE, Y)]


class TestTurns:
    def by_rank(self):
        """All validators, the first in the draw of round 0 first."""
        order = MiningOrder(PARENT, VALIDATORS, (), 0)
        return sorted(VALIDATORS, key=lambda validator: order.rank(validator, 0))

    def follower(self):
        return machine(b"observer")

    def turn(self, node):
        return node.handle(expired(Timer.TURN))

    def test_the_first_in_the_draw_is_voted_for_at_once(self):
        node = self.follower()
        node.handle(proposal(self.by_rank()[0]))
        assert node.step is Step.PREVOTE

    @pytest.mark.parametrize("rank", [1, 2, 4])
    def test_others_wait_for_their_turn(self, rank):
        node = self.follower()
        done = node.handle(proposal(self.by_rank()[rank]))
        for _ in range(rank):
            assert node.step is Step.PROPOSE
            assert SetTimer(Timer.TURN, HEIGHT, 0, 200) in done
            done = self.turn(node)
        assert node.step is Step.PREVOTE

    def test_of_those_whose_turn_has_come_the_first_in_the_draw_is_taken(self):
        ranked = [who for who in self.by_rank() if who != ME]
        node = machine()
        done = node.handle(proposal(ranked[2], Y)) + node.handle(proposal(ranked[1], X))
        while not cast(done):
            done = self.turn(node)
        assert cast(done) == [(0, PREVOTE, X)]

    def test_turns_end_with_the_last_in_the_draw(self):
        node = machine()
        node.handle(WorkAvailable(available=True))
        begun = [of(SetTimer, self.turn(node)) for _ in range(6)]
        assert [len(timers) for timers in begun] == [1, 1, 1, 0, 0, 0]

    def test_without_stagger_there_are_no_turns(self):
        timing = Timing(propose_ms=4000, vote_ms=1000, stagger_ms=0, growth_ms=0, limit_ms=9000)
        node = Consensus(ME, timing, setting())
        last = [who for who in self.by_rank() if who != ME][-1]
        assert cast(node.handle(proposal(last))) == [(0, PREVOTE, X)]


class TestRestart:
    def test_no_vote_is_cast_twice(self):
        node = machine()
        assert cast(node.restore(prevotes((ME,)), None)) == []
        assert (node.round, node.step) == (0, Step.PREVOTE)
        assert cast(feed(node, proposal(C, Y))) == []

    def test_the_latest_vote_counts_in_whatever_order(self):
        node = machine()
        votes = [*precommits((ME,), None, 2), *prevotes((ME,), X, 0), *prevotes((ME,), None, 2)]
        assert cast(node.restore(votes, None)) == []
        assert (node.round, node.step) == (2, Step.PRECOMMIT)

    def test_a_restored_lock_holds(self):
        node = machine()
        node.restore([*prevotes((ME,)), *precommits((ME,))], lock())
        done = feed(node, *precommits((D, E), None), expired(Timer.PRECOMMIT), proposal(C, Y, 1))
        assert cast(done) == [(1, PREVOTE, X)]

    def test_a_lock_whose_precommit_was_not_cast_is_precommitted(self):
        node = machine()
        done = node.restore(prevotes((ME,)), lock())
        assert cast(done) == [(0, PRECOMMIT, X)]

    def test_a_vote_lost_from_disk_that_a_peer_still_has_is_not_contradicted(self):
        node = machine()
        feed(node, vote(ME, PREVOTE, X, 1))
        assert (node.round, node.step) == (1, Step.PREVOTE)
        assert cast(feed(node, proposal(C, Y, 1))) == []

    @pytest.mark.parametrize(
        ("votes", "held"),
        [
            ([vote(ME, PREVOTE, height=HEIGHT - 1)], None),
            ([], Lock(HEIGHT + 1, 0, X, b"x", ())),
        ],
    )
    def test_what_belongs_to_another_height_is_refused(self, votes, held):
        with pytest.raises(ValueError, match="restored height"):
            machine().restore(votes, held)

    def test_validators_restarted_in_different_rounds_find_together(self):
        """Three of five, all that is left; each knows only its own votes, of rounds 1, 4, 5."""
        names = (ME, B, C)
        nodes = {who: machine(who) for who in names}
        for who, round_ in zip(names, (1, 4, 5), strict=True):
            nodes[who].restore(precommits((who,), None, round_), None)
        bag = []
        for _ in range(40):
            for who, node in nodes.items():
                actions = node.handle(WorkAvailable(available=True))
                for peer, other in nodes.items():
                    if peer != who:
                        bag += [(peer, message) for message in node.answer(other.status())]
                for kind in (Timer.PREVOTE, Timer.PRECOMMIT, Timer.PROPOSE):
                    actions += node.handle(expired(kind, node.round))
                for action in of(CastVote, actions):
                    own = vote(who, action.step, action.block_hash, action.round)
                    node.handle(own)
            while bag:
                peer, message = bag.pop()
                for action in of(CastVote, nodes[peer].handle(message)):
                    nodes[peer].handle(vote(peer, action.step, action.block_hash, action.round))
        rounds = [node.round for node in nodes.values()]
        assert min(rounds) > 5
        assert max(rounds) - min(rounds) <= 1


class TestEquivocation:
    def test_two_votes_for_one_slot_are_reported_once(self):
        node = machine()
        feed(node, vote(B, PREVOTE, X))
        done = feed(node, vote(B, PREVOTE, Y), vote(B, PREVOTE, Y), vote(B, PREVOTE, None))
        assert of(ReportEquivocation, done) == [
            ReportEquivocation(vote(B, PREVOTE, X), vote(B, PREVOTE, Y))
        ]

    def test_the_same_vote_again_is_none(self):
        done = feed(machine(), vote(B, PREVOTE), vote(B, PREVOTE), vote(B, PRECOMMIT))
        assert not of(ReportEquivocation, done)

    def test_votes_inside_a_justification_are_checked_too(self):
        node = in_round(2)
        feed(node, vote(C, PREVOTE, Y, 0))
        done = feed(node, proposal(B, X, 2, 0, tuple(prevotes((B, C, D)))))
        assert len(of(ReportEquivocation, done)) == 1

    def test_the_height_before_is_still_watched(self):
        node = machine()
        feed(node, proposal(), *precommits((B, C, D)))
        node.advance(setting(height=HEIGHT + 1, parent=X))
        done = feed(node, vote(B, PRECOMMIT, Y))
        assert of(ReportEquivocation, done) == [
            ReportEquivocation(vote(B, PRECOMMIT, X), vote(B, PRECOMMIT, Y))
        ]

    def test_peers_that_hold_different_votes_find_out(self):
        here, there = machine(), machine(B)
        feed(here, vote(E, PREVOTE, X))
        there.handle(vote(E, PREVOTE, Y))
        done = [action for m in there.answer(here.status()) for action in here.handle(m)]
        assert of(ReportEquivocation, done)

    def test_peers_find_out_after_the_height_too(self):
        here, there = machine(), machine(B)
        for node, lie in ((here, X), (there, None)):
            for event in (proposal(), *precommits((B, C, D)), vote(E, PREVOTE, lie)):
                node.handle(event)
            node.advance(setting(height=HEIGHT + 1, parent=X))
        done = [action for m in there.answer(here.status()) for action in here.handle(m)]
        assert of(ReportEquivocation, done)


class TestWhoCounts:
    def test_suspended_validators_do_not_and_the_quorum_stays(self):
        node = machine(suspended=frozenset({D, E}))
        assert not of(Commit, feed(node, proposal(), *precommits((B, D, E))))
        assert of(Commit, feed(node, *precommits((C,)), *prevotes((B, C))))

    @pytest.mark.parametrize("validator", [b"stranger", E])
    def test_proposals_of_strangers_and_suspended_are_ignored(self, validator):
        node = machine(suspended=frozenset({E}))
        assert feed(node, proposal(validator)) == []

    @pytest.mark.parametrize("me", [None, b"observer", E])
    def test_who_does_not_count_follows_in_silence(self, me):
        node = machine(me, suspended=frozenset({E}))
        done = node.handle(WorkAvailable(available=True))
        for event in (proposal(), *prevotes((B, C, D)), *precommits((B, C, D))):
            done += node.handle(event)
        assert not of(CastVote | Propose | Mine | SaveLock, done)
        assert len(of(Commit, done)) == 1

    def test_who_abstains_follows_in_silence_and_votes_at_the_next_height(self):
        """It may have voted here already, and does not know how."""
        node = machine(abstains=True)
        done = node.handle(WorkAvailable(available=True))
        for event in (proposal(), *prevotes((B, C, D)), *precommits((B, C, D))):
            done += node.handle(event)
        assert of(Commit, done)
        assert not of(CastVote | Propose | Mine | SaveLock, done)
        node.advance(setting(height=HEIGHT + 1, parent=X))
        assert of(Mine, feed(node, WorkAvailable(available=True)))

    @pytest.mark.parametrize(("count", "quorum"), [(5, 2), (4, 2), (5, 6), (0, 0)])
    def test_a_quorum_that_is_unsafe_or_out_of_reach_is_refused(self, count, quorum):
        with pytest.raises(ValueError, match="quorum"):
            setting(validators=VALIDATORS[:count], quorum=quorum)


class TestPeers:
    def test_a_vote_for_a_later_height_is_told_once(self):
        node = machine()
        done = feed(node, *(vote(B, PREVOTE, height=HEIGHT + 3) for _ in range(3)))
        assert done == [PeerAhead(HEIGHT + 3)]
        assert feed(node, vote(C, PREVOTE, height=HEIGHT + 2)) == []
        assert feed(node, vote(b"stranger", PREVOTE, height=HEIGHT + 9)) == []

    def test_old_votes_are_nothing(self):
        assert feed(machine(), vote(B, PREVOTE, height=HEIGHT - 3)) == []

    def test_a_peer_gets_the_votes_and_the_proposal_it_lacks_and_no_others(self):
        node, peer = machine(), machine(B)
        feed(node, proposal(), vote(C, PREVOTE))
        messages = node.answer(peer.status())
        assert set(messages) == {vote(ME, PREVOTE), vote(C, PREVOTE), proposal()}
        for message in messages:
            peer.handle(message)
        peer.handle(vote(B, PREVOTE))
        assert node.answer(peer.status()) == []

    def test_a_peer_behind_gets_the_latest_votes(self):
        node, peer = in_round(3), machine(B)
        for message in node.answer(peer.status()):
            peer.handle(message)
        assert peer.round == 3

    def test_a_peer_gets_the_block_that_it_wants(self):
        node, peer = machine(), machine(B)
        feed(node, proposal())
        for one in precommits((C, D, E)):
            peer.handle(one)
        assert Block(HEIGHT, X, BLOCKS[X]) in node.answer(peer.status())

    def test_a_peer_without_the_polka_gets_the_proposal_that_shows_it(self):
        node, peer = in_round(2), in_round(2, machine(B))
        shown = proposal(C, X, 2, 0, tuple(prevotes((C, D, E))))
        peer.handle(proposal(D, Y, 2))
        feed(node, shown)
        assert shown in node.answer(peer.status())

    def test_another_height_or_chain_gets_no_answer(self):
        node = machine()
        feed(node, proposal(), *prevotes((B, C)))
        assert node.answer(machine(B, height=HEIGHT + 1).status()) == []
        assert node.answer(machine(B, parent=b"q" * 32).status()) == []

    def test_answers_are_bounded_whatever_the_peer_claims(self):
        node = machine()
        for round_ in range(MAX_ROUNDS_AHEAD + 1):
            votes = [vote(who, step, X, round_) for who in (D, E) for step in (PREVOTE, PRECOMMIT)]
            feed(node, proposal(B, X, round_), *votes)
        status = machine(B).status()
        claim = type(status)(**(vars(status) | {"wanted": (X,) * 50, "votes": status.votes * 50}))
        messages = node.answer(claim)
        assert len(of(Block, messages)) <= MAX_WANTED_BLOCKS
        assert len(of(Vote, messages)) <= 5 * len(VALIDATORS)
        assert len(of(Proposal, messages)) <= 1
