"""Proofs of single transactions, ranges and enrolments, across changes of the validators."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.small_chain import CHANNELS, DEVICE_TYPE, START_MS, SmallChain

from fog_node.protocol import governance
from fog_node.protocol.errors import ProofError, ProtocolError
from fog_node.protocol.founding import parse_founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.proof import MAX_SUBJECTS, EnrolmentClaim, TransactionClaim, parse_proof
from fog_node.protocol.sealed_header import LightChain, SealedHeader
from fog_node.protocol.transactions import Enrol, Evidence, Gap, Revoke
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import PREVOTE, parse_certificate, sign_vote

BOARD = SigningKey.from_secret(7)
OTHER = SigningKey.from_secret(8)


@pytest.fixture
def chain(tmp_path):
    """Two boards, five packs of the first in three blocks, among packs of the second."""
    small = SmallChain(tmp_path / "ledger")
    small.enrol(BOARD, OTHER)
    small.seal(small.pack(BOARD, 1), small.pack(OTHER, 1), small.pack(BOARD, 2))
    small.seal(small.pack(BOARD, 3))
    small.seal(small.pack(OTHER, 2), small.pack(BOARD, 4), small.pack(BOARD, 5))
    yield small
    small.ledger.close()


@pytest.fixture
def founding(chain):
    """What an auditor has, and nothing else."""
    return parse_founding(chain.founding.raw)


def suspend(chain):
    """Make the third validator vote twice, and the others take it out: a handover."""
    offender, chain_id = chain.validators[2], chain.founding.chain_id
    votes = [sign_vote(offender, 1, 9, PREVOTE, bytes([n] * 32), chain_id) for n in (1, 2)]
    chain.seal(chain.sign(chain.validators[1], Evidence(*votes)))
    chain.validators = chain.validators[:2]
    return chain.ledger.height


def read_back(proof):
    """Encode, and parse as a stranger would."""
    return parse_proof(proof.encode())


def changed(proof, part, number, **fields):
    """Return the proof with one item of one of its parts changed."""
    items = list(getattr(proof, part))
    items[number] = replace(items[number], **fields)
    return replace(proof, **{part: tuple(items)})


class TestRange:
    def test_it_holds_all_between_two_numbers(self, chain, founding):
        proof = read_back(chain.ledger.prove_range(BOARD.kid, 2, 5))
        proof.verify(founding)
        assert [i.transaction.sequence for i in proof.subjects] == [2, 3, 4, 5]
        assert {i.transaction.signer for i in proof.subjects} == {BOARD.kid}
        # The enrolment's block, and each block that holds one of the four, once.
        assert [block.height for block in proof.blocks] == [1, 2, 3, 4]

    def test_one_number_is_a_range(self, chain, founding):
        read_back(chain.ledger.prove_range(BOARD.kid, 3, 3)).verify(founding)

    def test_a_members_transactions_are_a_range(self, chain, founding):
        proof = read_back(chain.ledger.prove_range(chain.operator.kid, 1, 2))
        proof.verify(founding)
        assert [i.transaction.kind for i in proof.subjects] == ["enrol", "enrol"]

    @pytest.mark.parametrize("left_out", range(4))
    def test_leaving_one_out_is_seen(self, chain, founding, left_out):
        proof = chain.ledger.prove_range(BOARD.kid, 2, 5)
        subjects = [i for n, i in enumerate(proof.subjects) if n != left_out]
        with pytest.raises(ProofError, match=r"where . is needed|end before the number 5"):
            replace(proof, subjects=tuple(subjects)).verify(founding)

    def test_one_more_than_claimed_is_seen(self, chain, founding):
        proof = chain.ledger.prove_range(BOARD.kid, 2, 5)
        with pytest.raises(ProofError, match=r"subjects\[3\]: has the number 5"):
            replace(proof, claim=replace(proof.claim, last=4)).verify(founding)

    def test_another_signers_is_seen(self, chain, founding):
        proof = chain.ledger.prove_range(BOARD.kid, 1, 1)
        with pytest.raises(ProofError, match="is not of the claimed signer"):
            replace(proof, claim=replace(proof.claim, signer=OTHER.kid)).verify(founding)

    def test_what_is_not_final_yet_is_not_proven(self, chain):
        assert chain.ledger.prove_range(BOARD.kid, 4, 6) is None
        assert chain.ledger.prove_range(bytes(8), 1, 1) is None

    @pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, MAX_SUBJECTS + 1)])
    def test_ranges_are_bounded(self, chain, first, last):
        with pytest.raises(ValueError, match="first, last"):
            chain.ledger.prove_range(BOARD.kid, first, last)


class TestEnrolment:
    def test_it_shows_key_and_standing(self, chain, founding):
        proof = read_back(chain.ledger.prove_enrolment(BOARD.kid))
        proof.verify(founding)
        assert proof.subject.transaction.body.key == BOARD.public
        assert (proof.standing().status, proof.standing().next) == ("active", 6)
        assert proof.blocks[-1].height == chain.ledger.height

    def test_a_revocation_shows(self, chain, founding):
        chain.seal(chain.sign(chain.operator, Revoke(BOARD.kid, "stolen", START_MS)))
        proof = read_back(chain.ledger.prove_enrolment(BOARD.kid))
        proof.verify(founding)
        assert proof.standing().status == "revoked"
        # What it signed before stays proven.
        chain.ledger.prove_range(BOARD.kid, 1, 5).verify(founding)

    def test_another_devices_record_is_refused(self, chain, founding):
        ours, theirs = (chain.ledger.prove_enrolment(key.kid) for key in (BOARD, OTHER))
        with pytest.raises(ProofError, match=r"record\.entry: is not that of the device"):
            replace(ours, record=replace(theirs.record, block=ours.blocks[-1])).verify(founding)
        with pytest.raises(ProofError, match="does not enrol the claimed device"):
            replace(ours, claim=EnrolmentClaim(OTHER.kid)).verify(founding)

    def test_a_changed_record_is_refused(self, chain, founding):
        proof = chain.ledger.prove_enrolment(BOARD.kid)
        entry = proof.record.entry.replace(b"active", b"closed")
        with pytest.raises(ProofError, match="does not lead to the state's root"):
            replace(proof, record=replace(proof.record, entry=entry)).verify(founding)
        with pytest.raises(ProofError, match=r"proof\.record: is missing"):
            replace(proof, record=None).verify(founding)

    def test_an_older_record_is_refused(self, chain, founding):
        proof = chain.ledger.prove_enrolment(BOARD.kid)
        older = replace(proof.record, block=proof.blocks[0])
        with pytest.raises(ProofError, match="is not of the last block's state"):
            replace(proof, record=older).verify(founding)

    def test_unknown_devices_have_none(self, chain):
        assert chain.ledger.prove_enrolment(bytes(8)) is None


class TestHandover:
    def test_proofs_hold_before_and_after(self, chain, founding):
        handover = suspend(chain)
        chain.seal(chain.pack(BOARD, 6))
        before = read_back(chain.ledger.prove_range(BOARD.kid, 1, 5))
        before.verify(founding)
        assert all(block.next is None for block in before.blocks)
        after = read_back(chain.ledger.prove_range(BOARD.kid, 1, 6))
        after.verify(founding)
        assert [b.height for b in after.blocks if b.next is not None] == [handover]
        voters = after.voters(founding)
        assert [len(voters[height].keys) for height in (1, handover, handover + 1)] == [3, 3, 2]

    def test_without_the_handover_it_does_not_hold(self, chain, founding):
        handover = suspend(chain)
        chain.seal(chain.pack(BOARD, 6))
        proof = chain.ledger.prove_range(BOARD.kid, 6, 6)
        blocks = tuple(block for block in proof.blocks if block.height != handover)
        with pytest.raises(ProofError, match="is another set than the blocks before lead to"):
            replace(proof, blocks=blocks).verify(founding)

    def test_who_follows_is_what_the_coinbase_says(self, chain, founding):
        suspend(chain)
        chain.seal(chain.pack(BOARD, 6))
        proof = chain.ledger.prove_range(BOARD.kid, 6, 6)
        number = next(n for n, block in enumerate(proof.blocks) if block.next is not None)
        mine = ValidatorSet(1, (SigningKey.from_secret(666).public,))
        with pytest.raises(ProofError, match="is not the set that the coinbase names"):
            changed(proof, "blocks", number, next=mine).verify(founding)
        with pytest.raises(ProofError, match="is missing, although the set changes here"):
            changed(proof, "blocks", number, next=None).verify(founding)
        with pytest.raises(ProofError, match="is given, although the set does not change"):
            changed(proof, "blocks", -1, next=mine).verify(founding)

    def test_a_suspended_validators_vote_counts_no_more(self, chain, founding):
        offender = chain.validators[2]
        suspend(chain)
        pack = chain.pack(BOARD, 6)
        chain.admit(pack)
        block, _ = chain.next_block()
        votes = chain.certify(block, [chain.validators[0], offender])
        chain.ledger.commit(block, chain.certify(block, chain.validators))
        proof = chain.ledger.prove(pack.id)
        with pytest.raises(ProofError, match="is no validator here whose vote counts"):
            changed(proof, "blocks", -1, certificate=votes).verify(founding)


class TestWrongProofs:
    """Each says what is wrong with it, and where."""

    @pytest.fixture
    def proof(self, chain):
        return chain.ledger.prove_range(BOARD.kid, 1, 5)

    @pytest.mark.parametrize(
        ("break_it", "said"),
        [
            (lambda p: replace(p, blocks=p.blocks[::-1]), r"blocks\[1\]: blocks are not in order"),
            (lambda p: replace(p, chain_id=bytes(32)), r"proof\.chain: 0{64} is another ledger"),
            (lambda p: replace(p, introductions=()), "neither in the founding file nor introduced"),
            (
                lambda p: replace(p, introductions=p.introductions * 2),
                r"introductions\[1\]: does not stand behind the one before it",
            ),
            (
                lambda p: replace(p, introductions=p.subjects[:1]),
                r"introductions\[0\]: the key of|of the kind pack brings in no key",
            ),
            (lambda p: changed(p, "subjects", 0, index=0), r"subjects\[0\]\.index: 0 is the coin"),
            (
                lambda p: changed(p, "subjects", 0, index=2),
                r"subjects\[0\]\.inclusion\.path: leads to another root",
            ),
            (
                lambda p: changed(p, "subjects", 1, path=()),
                r"subjects\[1\]\.inclusion\.path: ends below the root",
            ),
            (
                lambda p: changed(p, "blocks", 1, certificate=p.blocks[2].certificate),
                r"blocks\[1\]\.block 2\.certificate: is for another block",
            ),
            (
                lambda p: changed(p, "blocks", 1, coinbase=p.blocks[2].coinbase),
                r"blocks\[1\]\..*inclusion\.path: leads to another root|not in order",
            ),
            (
                lambda p: replace(p, claim=TransactionClaim(bytes(32))),
                r"subjects: are 5, the claim is about one",
            ),
        ],
    )
    def test_says_what_is_wrong(self, proof, founding, break_it, said):
        with pytest.raises(ProtocolError, match=said):
            break_it(proof).verify(founding)

    def test_a_block_without_work_is_refused(self, proof, founding):
        header = proof.blocks[0].header
        for nonce in range(2**16):
            lazy = replace(header, nonce=nonce)
            if lazy.hash[-1] >= 0x80:
                break
        with pytest.raises(ProofError, match=r"blocks\[0\]\.header\.nonce: the hash does not meet"):
            changed(proof, "blocks", 0, header=lazy).verify(founding)

    def test_blocks_that_show_nothing_are_refused(self, proof):
        idle = replace(proof, subjects=proof.subjects[:2], claim=replace(proof.claim, last=2))
        with pytest.raises(ProtocolError, match=r"blocks\[2\]: shows nothing"):
            parse_proof(idle.encode())

    def test_an_older_format_says_what_to_do(self):
        with pytest.raises(ProtocolError, match="is not format 2; get the proof anew"):
            parse_proof(b"\xa1\x6dfogline-proof\x01")


class TestLightChain:
    def follow(self, chain):
        ledger = chain.ledger
        for height in range(1, ledger.height + 1):
            raw, certificate = ledger.block(height)
            next_ = ledger.validator_set_at(height + 1)
            sealed = SealedHeader.of_block(
                ledger.parse_block(raw), parse_certificate(certificate), next_
            )
            yield SealedHeader.decode(sealed.encode())

    def test_it_follows_without_bodies(self, chain, founding):
        suspend(chain)
        chain.seal(chain.pack(BOARD, 6))
        light = LightChain.at_founding(founding)
        for sealed in self.follow(chain):
            light = LightChain.from_value(light.after(sealed).value())
        head = chain.ledger.head
        assert (light.height, light.head, light.state) == (head.height, head.hash, head.state)
        assert light.validators == chain.ledger.state.validator_set
        assert len(light.validators.keys) == 2

    def test_it_refuses_gaps_and_other_histories(self, chain, founding):
        light = LightChain.at_founding(founding)
        first, second, *_ = self.follow(chain)
        with pytest.raises(ProofError, match=r"block 2\.coinbase\.height: follows on height 0"):
            light.after(second)
        after = light.after(first)
        forged = replace(second, header=replace(second.header, previous=bytes(32)))
        with pytest.raises(ProofError, match="is not the hash of the block before"):
            after.after(forged)
        few = replace(second.certificate, votes=second.certificate.votes[:1])
        with pytest.raises(ProofError, match="has 1 votes, 2 are needed"):
            after.after(replace(second, certificate=few))


class TestVotes:
    """Who came in by vote is known to nobody who holds the founding file alone."""

    def added(self, chain, name, key, *roles):
        proof, _ = governance.parse_key_proof(
            governance.prove_key(key, name, chain.founding.chain_id), key.public, "proof"
        )
        return governance.AddMember(name, key.public, frozenset(roles), proof)

    def test_a_board_enrolled_by_a_newcomer(self, chain, founding):
        newcomer, board = SigningKey.from_secret(300), SigningKey.from_secret(301)
        chain.decide(self.added(chain, "ulsan", newcomer, "operator"))
        body = Enrol(board.public, "ulsan", DEVICE_TYPE, "unix", CHANNELS, START_MS)
        chain.seal(chain.sign(newcomer, body))
        chain.seal(chain.pack(board, 1))
        proof = read_back(chain.ledger.prove_range(board.kid, 1, 1))
        proof.verify(founding)
        assert [i.transaction.kind for i in proof.introductions] == ["propose", "enrol"]
        with pytest.raises(
            ProofError, match=rf"introductions\[0\]: the key of {newcomer.kid.hex()}"
        ):
            replace(proof, introductions=proof.introductions[1:]).verify(founding)
        read_back(chain.ledger.prove_enrolment(board.kid)).verify(founding)

    def test_none_of_the_founding_validators_is_left(self, chain, founding):
        newcomers = [SigningKey.from_secret(310 + i) for i in range(3)]
        for number, key in enumerate(newcomers):
            gone = chain.validators[0]
            chain.decide(
                self.added(chain, f"new-{number}", key, "validator"),
                governance.RemoveMember(gone.kid),
            )
            chain.validators = [*chain.validators[1:], key]
        chain.seal(chain.pack(BOARD, 6))
        proof = read_back(chain.ledger.prove_range(BOARD.kid, 1, 6))
        proof.verify(founding)
        assert sum(block.next is not None for block in proof.blocks) == 3
        voters = proof.voters(founding)[proof.blocks[-1].height]
        assert set(voters.by_kid) == {key.kid for key in newcomers}
        assert not set(voters.by_kid) & set(founding.validator_set.by_kid)
        light = LightChain.at_founding(founding)
        for height in range(1, chain.ledger.height + 1):
            light = light.after(SealedHeader.decode(chain.ledger.sealed_header(height).encode()))
        assert light.validators == voters

    def test_a_rotated_key(self, chain, founding):
        old, new = chain.operator, SigningKey.from_secret(320)
        proof, name = governance.parse_key_proof(
            governance.prove_key(new, "operator", chain.founding.chain_id), new.public, "proof"
        )
        chain.decide(governance.RotateKey(old.kid, new.public, name, proof))
        revoke = chain.sign(new, Revoke(OTHER.kid, "stolen", START_MS))
        chain.seal(revoke)
        shown = read_back(chain.ledger.prove(revoke.id))
        shown.verify(founding)
        assert [i.transaction.kind for i in shown.introductions] == ["propose"]
        # What the old key signed stays proven, by the founding file.
        read_back(chain.ledger.prove_range(old.kid, 1, 2)).verify(founding)

    def test_a_range_over_numbers_that_the_board_declared_lost(self, chain, founding):
        chain.seal(chain.sign(BOARD, Gap(6, "flash was erased"), 9, dropped=9))
        chain.seal(chain.pack(BOARD, 10))
        for first, last in ((5, 10), (6, 6), (7, 8), (8, 10), (9, 9)):
            proof = read_back(chain.ledger.prove_range(BOARD.kid, first, last))
            proof.verify(founding)
            assert proof.lost() == [(max(first, 6), min(last, 8))][: first <= 8]
        whole = chain.ledger.prove_range(BOARD.kid, 5, 10)
        without = tuple(i for i in whole.subjects if i.transaction.kind != "gap")
        with pytest.raises(
            ProofError, match=r"subjects\[1\]: has the number 10, where 6 is needed"
        ):
            replace(whole, subjects=without).verify(founding)
