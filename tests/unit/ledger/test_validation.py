"""Which transactions may wait, and which blocks may follow on the head."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from fog_node.errors import LedgerError
from fog_node.ledger import MAX_FUTURE_MS, MAX_SEQUENCE_AHEAD, BlockInfo, State, check_proposal
from fog_node.ledger.template import make_template
from fog_node.ledger.validation import (
    check_transaction,
    eligible,
    next_bits,
    validate_block,
)
from fog_node.ledger.verifier import Verifier
from fog_node.protocol.block import Block, sign_coinbase, target_from_bits
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.member_records import Settings
from fog_node.protocol.merkle import root
from fog_node.protocol.transactions import Transaction, parse_transaction
from fog_node.protocol.votes import NO_ROUND, sign_proposal


@dataclass
class Chain:
    """A chain made of nothing but times and miners."""

    head: BlockInfo
    block_times: list[int] = field(default_factory=list)
    block_miners: list[bytes] = field(default_factory=list)

    def times(self, first: int, last: int) -> list[int]:
        return self.block_times[first : last + 1]

    def miners(self, count: int) -> tuple[bytes, ...]:
        return tuple(self.block_miners[-count:]) if count else ()


@pytest.fixture
def state(consortium, device) -> State:
    state = State.at_founding(consortium.founding)
    state.apply(consortium.enrol(device), 1)
    state.root()
    return state


@pytest.fixture
def verifier(consortium) -> Verifier:
    return Verifier(consortium.chain_id)


@pytest.fixture
def chain(consortium) -> Chain:
    genesis = BlockInfo.of_genesis(consortium.founding)
    return Chain(genesis, [genesis.time])


def damaged(transaction: Transaction) -> Transaction:
    """The same content under a signature that does not fit."""
    return parse_transaction(transaction.raw[:-1] + bytes([transaction.raw[-1] ^ 1]))


class TestTransaction:
    def refusal(self, transaction, state, verifier):
        with pytest.raises(LedgerError) as caught:
            check_transaction(transaction, state, 2, verifier)
        return caught.value.cause

    def test_next_and_later_ones_may_wait(self, consortium, state, verifier, device):
        check_transaction(consortium.pack(device, 1), state, 2, verifier)
        check_transaction(consortium.pack(device, MAX_SEQUENCE_AHEAD), state, 2, verifier)

    def test_signature(self, consortium, state, verifier, device):
        assert self.refusal(damaged(consortium.pack(device)), state, verifier) == "bad_signature"

    def test_signature_comes_before_what_is_held_against_the_signer(
        self, consortium, state, verifier, device
    ):
        forged = damaged(consortium.pack(device, value=1e6))
        assert self.refusal(forged, state, verifier) == "bad_signature"

    def test_signature_for_another_ledger(
        self, make_consortium, consortium, state, verifier, device
    ):
        other = make_consortium(rest_ms=1)
        assert self.refusal(other.pack(device), state, verifier) == "bad_signature"

    def test_unknown_signer(self, consortium, state, verifier):
        pack = consortium.pack(SigningKey.from_secret(77))
        assert self.refusal(pack, state, verifier) == "unknown_device"

    def test_implausible_one_does_not_wait_for_its_turn(self, consortium, state, verifier, device):
        pack = consortium.pack(device, 5, value=1e6)
        assert self.refusal(pack, state, verifier) == "implausible"

    @pytest.mark.parametrize("sequence", [MAX_SEQUENCE_AHEAD + 1, 2**40])
    def test_too_far_ahead(self, consortium, state, verifier, device, sequence):
        assert self.refusal(consortium.pack(device, sequence), state, verifier) == "sequence"

    def test_evidence_needs_both_votes_to_verify(self, consortium, state, verifier):
        offender, witness = consortium.validators[:2]
        check_transaction(consortium.evidence(offender, by=witness), state, 2, verifier)
        first = consortium.evidence(offender, by=witness)
        raw = first.raw
        vote = first.body.second.raw
        forged_vote = vote[:-1] + bytes([vote[-1] ^ 1])
        forged = consortium.sign(
            witness, replace(first.body, second=replace(first.body.second, raw=forged_vote)), 1
        )
        assert forged.raw != raw
        assert self.refusal(forged, state, verifier) == "rule"

    def test_each_is_verified_once(self, consortium, state, device, monkeypatch):
        verified = []
        verify = Transaction.verify
        monkeypatch.setattr(
            Transaction, "verify", lambda *args: verified.append(args[0].id) or verify(*args)
        )
        verifier = Verifier(consortium.chain_id, limit=2)
        packs = [consortium.pack(device) for _ in range(3)]
        for _ in range(2):
            check_transaction(packs[0], state, 2, verifier)
        assert verified == [packs[0].id]
        for pack in packs[1:]:
            check_transaction(pack, state, 2, verifier)
        check_transaction(packs[0], state, 2, verifier)  # forgotten: two others came since
        assert verified.count(packs[0].id) == 2


class TestBlock:
    @pytest.fixture
    def block(self, consortium, chain, state, device, mine) -> Block:
        template, _ = make_template(
            consortium.validators[0],
            0,
            chain.head.time + 1500,
            chain,
            state,
            [consortium.pack(device), consortium.pack(device)],
        )
        return mine(template)

    def remade(self, consortium, block, mine, transactions=None, miner=0, header=None, **coinbase):
        """The block with some fields of its coinbase or header changed, sealed again."""
        old = block.coinbase
        fields = {
            name: coinbase.get(name, getattr(old, name))
            for name in ("height", "round", "state", "validators", "next", "time")
        }
        key = consortium.validators[miner]
        new = sign_coinbase(
            key,
            fields["height"],
            fields["round"],
            fields["state"],
            (fields["validators"], fields["next"]),
            fields["time"],
            consortium.chain_id,
        )
        chosen = block.transactions if transactions is None else tuple(transactions)
        unmined = Block(block.header, new, chosen)
        changes = {
            "merkle_root": root(unmined.leaves),
            "time": fields["time"] // 1000,
            **(header or {}),
        }
        return mine(replace(unmined, header=replace(block.header, **changes)))

    def refusal(self, block, chain, state, verifier, now_ms=None) -> str:
        before = state.root()
        with pytest.raises(LedgerError) as caught:
            validate_block(block, chain, state, verifier, now_ms)
        assert caught.value.cause == "block"
        assert state.root() == before
        return str(caught.value)

    def test_a_good_one_makes_the_next_state(self, block, chain, state, verifier, device):
        after = validate_block(block, chain, state, verifier, block.coinbase.time)
        assert after.root() == block.coinbase.state
        assert after.next_sequence(device.kid) == 3
        assert state.next_sequence(device.kid) == 1

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"height": 2}, "coinbase.height"),
            ({"state": bytes(32)}, "coinbase.state"),
            ({"validators": bytes(32)}, "coinbase.validators"),
            ({"next": bytes(32)}, "coinbase.next"),
            ({"header": {"previous": bytes(32)}}, "header.previous"),
            ({"header": {"version": 2}}, "header.version"),
            ({"header": {"bits": 0x207FFFFE}}, "header.bits"),
            ({"header": {"time": 1_700_000_002}}, "header.time"),
            ({"header": {"merkle_root": bytes(32)}}, "header.merkle_root"),
            ({"time": 1_700_000_000_000}, "coinbase.time"),
        ],
    )
    def test_names_the_field_at_fault(
        self, consortium, block, chain, state, verifier, mine, changes, field
    ):
        bad = self.remade(consortium, block, mine, **changes)
        assert field in self.refusal(bad, chain, state, verifier)

    def test_work(self, block, chain, state, verifier):
        nonce = next(
            n
            for n in range(1000)
            if replace(block.header, nonce=n).hash[-1] >= 0x80  # above the easy target
        )
        bad = Block(replace(block.header, nonce=nonce), block.coinbase, block.transactions)
        assert "header.nonce" in self.refusal(bad, chain, state, verifier)

    def test_coinbase_signature(self, consortium, block, chain, state, verifier, mine):
        message = block.coinbase.message
        flipped = message.signature[:-1] + bytes([message.signature[-1] ^ 1])
        forged = replace(block.coinbase, message=message._replace(signature=flipped))
        bad = mine(Block(block.header, forged, block.transactions))
        assert "coinbase: signature" in self.refusal(bad, chain, state, verifier)

    def test_miner_must_be_a_voter(self, consortium, block, chain, state, verifier, mine):
        for transaction in consortium.decision(consortium.removing(consortium.validators[0])):
            state.apply(transaction, 1)
        assert "coinbase.validators" in self.refusal(block, chain, state, verifier)
        known = self.remade(consortium, block, mine, validators=state.validator_set.hash)
        assert "coinbase.miner" in self.refusal(known, chain, state, verifier)

    def test_transactions_are_checked_in_order(
        self, consortium, block, chain, state, verifier, mine
    ):
        swapped = self.remade(consortium, block, mine, transactions=reversed(block.transactions))
        reason = self.refusal(swapped, chain, state, verifier)
        assert "block.transactions[1]" in reason
        assert "(sequence)" in reason

    def test_revocation_works_within_the_block(
        self, consortium, block, chain, state, verifier, mine, device
    ):
        first, second = block.transactions
        mixed = [first, consortium.revoke(device.kid), second]
        bad = self.remade(consortium, block, mine, transactions=mixed)
        reason = self.refusal(bad, chain, state, verifier)
        assert "block.transactions[3]" in reason
        assert "(revoked_device)" in reason

    def test_a_forged_transaction(self, consortium, block, chain, state, verifier, mine):
        forged = [block.transactions[0], damaged(block.transactions[1])]
        bad = self.remade(consortium, block, mine, transactions=forged)
        assert "(bad_signature)" in self.refusal(bad, chain, state, verifier)

    def test_limits(self, make_consortium, device, verifier, mine):
        small = make_consortium(max_block_transactions=1, max_block_bytes=64 * 1024)
        state = State.at_founding(small.founding)
        state.apply(small.enrol(device), 1)
        genesis = BlockInfo.of_genesis(small.founding)
        chain, checker = Chain(genesis, [genesis.time]), Verifier(small.chain_id)
        for packs, word in (
            ([small.pack(device, 1), small.pack(device, 2)], "at most 1"),
            ([small.pack(device, i, rows=120) for i in range(1, 25)], "at most 65536"),
        ):
            made = make_template(small.validators[0], 0, genesis.time + 9, chain, state, packs)[0]
            assert word in self.refusal(mine(made), chain, state, checker)

    def test_time_ahead_of_our_clock(self, block, chain, state, verifier):
        time = block.coinbase.time
        validate_block(block, chain, state, verifier, time - MAX_FUTURE_MS)
        reason = self.refusal(block, chain, state, verifier, time - MAX_FUTURE_MS - 1)
        assert "ahead of our clock" in reason
        validate_block(block, chain, state, verifier, None)

    @pytest.mark.parametrize(
        ("after_parent_ms", "ahead_ms", "voted", "certified"),
        [
            (-1000, 0, False, False),  # back
            (0, 0, False, False),  # stands still
            (699, 0, False, False),  # before the rest is over
            (700, 0, True, True),
            (700, -(10**9), True, True),  # long ago by our clock: miners rest
            (10**9, 0, True, True),
            (700, MAX_FUTURE_MS, True, True),
            (700, MAX_FUTURE_MS + 1, False, True),  # others' clocks have let it pass
            (10**9, 10**9, False, True),
        ],
    )
    def test_the_rules_of_time(
        self, make_consortium, mine, after_parent_ms, ahead_ms, voted, certified
    ):
        resting = make_consortium(rest_ms=700)
        state = State.at_founding(resting.founding)
        genesis = BlockInfo.of_genesis(resting.founding)
        chain, checker = Chain(genesis, [genesis.time]), Verifier(resting.chain_id)
        good = mine(make_template(resting.validators[0], 0, 0, chain, state, [])[0])
        time = genesis.time + after_parent_ms
        block = self.remade(resting, good, mine, time=time)
        for now_ms, valid in ((time - ahead_ms, voted), (None, certified)):
            if valid:
                validate_block(block, chain, state, checker, now_ms)
            else:
                assert "coinbase.time" in self.refusal(block, chain, state, checker, now_ms)

    def test_rest_between_blocks(self, make_consortium, mine):
        resting = make_consortium(rest_ms=700)
        state = State.at_founding(resting.founding)
        genesis = BlockInfo.of_genesis(resting.founding)
        chain, checker = Chain(genesis, [genesis.time]), Verifier(resting.chain_id)
        block = mine(make_template(resting.validators[0], 0, 0, chain, state, [])[0])
        assert block.coinbase.time == genesis.time + 700
        validate_block(block, chain, state, checker, None)
        hasty = self.remade(resting, block, mine, time=genesis.time + 699)
        assert "coinbase.time" in self.refusal(hasty, chain, state, checker)


class TestProposal:
    @pytest.fixture
    def block(self, consortium, chain, state, mine) -> Block:
        key = consortium.validators[0]
        return mine(make_template(key, 2, chain.head.time + 9, chain, state, [])[0])

    def proposal(self, consortium, block, by=0, round_=2, pol_round=NO_ROUND, height=1):
        key = consortium.validators[by]
        return sign_proposal(key, height, round_, pol_round, block.hash, consortium.chain_id)

    def test_new_block(self, consortium, block):
        check_proposal(self.proposal(consortium, block), block)

    def test_proposed_again(self, consortium, block):
        check_proposal(self.proposal(consortium, block, by=1, round_=5, pol_round=2), block)

    @pytest.mark.parametrize(
        "wrong",
        [{"by": 1}, {"round_": 3}, {"height": 2}, {"round_": 2, "pol_round": 1}],
    )
    def test_refuses_another_blocks(self, consortium, block, wrong):
        with pytest.raises(LedgerError):
            check_proposal(self.proposal(consortium, block, **wrong), block)


class TestDifficulty:
    INTERVAL = 2000
    BITS = 0x1F00FFFF

    def chain(self, founding, count: int, step_ms: int, bits: int) -> Chain:
        times = [founding.time + i * step_ms for i in range(count)]
        head = replace(BlockInfo.of_genesis(founding), height=count - 1, time=times[-1], bits=bits)
        return Chain(head, times)

    def founding(self, make_consortium, retarget_blocks=10):
        return make_consortium(
            bits=self.BITS, retarget_blocks=retarget_blocks, block_interval_ms=self.INTERVAL
        ).founding

    @pytest.mark.parametrize(
        ("step_ms", "factor"),
        [
            (2000, 1),
            (1000, 1 / 2),
            (4000, 2),
            (10, 1 / 4),  # no faster than that
            (7999, 4),
            (3_600_000, 4),  # idle time counts as four intervals
        ],
    )
    def test_follows_the_interval(self, make_consortium, step_ms, factor):
        founding = self.founding(make_consortium)
        bits = 0x1E00FFFF
        chain = self.chain(founding, 20, step_ms, bits)
        target = target_from_bits(next_bits(chain, Settings.of(founding)))
        assert target == pytest.approx(target_from_bits(bits) * factor, rel=0.001)

    def test_is_never_easier_than_at_the_founding(self, make_consortium):
        founding = self.founding(make_consortium)
        chain = self.chain(founding, 20, 8000, self.BITS)
        assert next_bits(chain, Settings.of(founding)) == self.BITS

    def test_stays_between_retargets(self, make_consortium):
        founding = self.founding(make_consortium)
        assert (
            next_bits(self.chain(founding, 19, 10, 0x1E00FFFF), Settings.of(founding)) == 0x1E00FFFF
        )

    def test_follows_a_vote_on_the_easiest_target(self, make_consortium):
        founding = self.founding(make_consortium)
        chain = self.chain(founding, 19, 2000, self.BITS)

        def decided(**changes):
            return Settings("majority", replace(founding.parameters, **changes), 5)

        assert next_bits(chain, decided(bits=0x1E00FFFF)) == 0x1E00FFFF  # at once
        assert next_bits(chain, decided(bits=0x2000FFFF)) == self.BITS  # at the next retarget
        assert next_bits(chain, decided(bits=0x2000FFFF, retarget_blocks=0)) == 0x2000FFFF

    @pytest.mark.parametrize(("since", "factor"), [(0, 1), (9, 1), (14, 2), (18, 4), (19, 1)])
    def test_counts_times_since_the_parameters_were_decided(self, make_consortium, since, factor):
        """Intervals grow: the last nine take 2 s on average, the last five 4, the last one 8."""
        founding = self.founding(make_consortium)
        bits = 0x1E00FFFF
        chain = self.chain(founding, 20, 2000, bits)
        steps = [0, *[2000] * 9, 400, 400, 400, 400, 0, 2000, 2000, 3000, 5000, 8000]
        assert len(steps) == 20
        chain = replace(chain, block_times=[founding.time + sum(steps[: i + 1]) for i in range(20)])
        settings = replace(Settings.of(founding), since=since)
        observed = [min(step, 8000) for step in steps[max(since, 9) + 1 :]]
        expected = sum(observed) / (2000 * len(observed)) if observed else 1
        assert expected == pytest.approx(factor, rel=0.25)
        target = target_from_bits(next_bits(chain, settings))
        assert target == pytest.approx(target_from_bits(bits) * expected, rel=0.001)

    def test_fixed(self, make_consortium):
        founding = self.founding(make_consortium, retarget_blocks=0)
        assert (
            next_bits(self.chain(founding, 20, 10, self.BITS), Settings.of(founding)) == self.BITS
        )

    @pytest.mark.parametrize("count", [1, 2])
    def test_of_every_block(self, make_consortium, count):
        founding = self.founding(make_consortium, retarget_blocks=1)
        bits = next_bits(self.chain(founding, count, 1000, self.BITS), Settings.of(founding))
        halved = target_from_bits(self.BITS) // 2 if count == 2 else target_from_bits(self.BITS)
        assert target_from_bits(bits) == pytest.approx(halved, rel=0.001)


class TestMiningDiversity:
    @pytest.mark.parametrize(
        ("permille", "mined_ago", "round_", "may"),
        [
            (0, 1, 0, True),
            (400, 1, 0, False),  # 400 permille of 5 miners: two take turns, so 1 block
            (400, 2, 0, True),
            (1000, 2, 0, False),  # at most the quorum less one, so 2
            (1000, 3, 0, True),
            (1000, 2, 1, True),  # a failed round forgives one
            (1000, 1, 1, False),
        ],
    )
    def test_spacing(self, make_consortium, permille, mined_ago, round_, may):
        consortium = make_consortium(mining_diversity=permille)
        state = State.at_founding(consortium.founding)
        miner, *others = [key.kid for key in consortium.validators]
        miners = others[:4]
        miners[-mined_ago] = miner
        chain = Chain(BlockInfo.of_genesis(consortium.founding), [], miners)
        assert eligible(miner, round_, chain, state) is may
