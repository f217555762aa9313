"""A consortium with known keys, and the shortest way to sign, mine and vote in it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from support.rig_reports import rig_report
from support.training_rounds import training_round

from fog_node.ledger import Admission, Committed, Ledger
from fog_node.protocol import governance, senml
from fog_node.protocol.block import Block, block_leaves, sign_coinbase
from fog_node.protocol.cose import Sign1
from fog_node.protocol.errors import ProofError
from fog_node.protocol.founding import Founding, Member, Parameters
from fog_node.protocol.governance import Change
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.labels import Image, Labelled, Target
from fog_node.protocol.merkle import root
from fog_node.protocol.predictions import Measure, Subject, Verdict
from fog_node.protocol.requests import Content
from fog_node.protocol.rollouts import Group, Named
from fog_node.protocol.transactions import (
    BOARD_KINDS,
    Alert,
    Body,
    Channel,
    Clone,
    DatasetReference,
    Drift,
    Enrol,
    Evidence,
    Gap,
    Incident,
    Label,
    PackBody,
    Prediction,
    ReinstateDevice,
    Release,
    Request,
    Response,
    Revoke,
    Rollout,
    Transaction,
    sign_transaction,
)
from fog_node.protocol.votes import (
    PRECOMMIT,
    PREVOTE,
    Certificate,
    make_certificate,
    sign_vote,
)

EASY_BITS = 0x207FFFFF
START_MS = 1_700_000_000_000
# SHA-256 of a `.tflite`, as rollouts name it.
MODEL = bytes(range(32))
CHANNELS = (Channel("pressure", "bar", -1.0, 10.0), Channel("flow", "L/min", 0.0, 200.0))


class Consortium:
    """Members `v0`.. (validators and gateways), `operator`, `trainer`, `owner`, `customer`."""

    def __init__(self, validators: int = 5, **parameters: int) -> None:
        self.validators = [SigningKey.from_secret(100 + i) for i in range(validators)]
        self.operator = SigningKey.from_secret(200)
        self.second_operator = SigningKey.from_secret(201)
        self.trainer = SigningKey.from_secret(202)
        self.owner = SigningKey.from_secret(203)
        self.customer = SigningKey.from_secret(204)
        roles = [
            *((f"v{i}", key, {"validator", "gateway"}) for i, key in enumerate(self.validators)),
            ("operator", self.operator, {"operator"}),
            ("operator-2", self.second_operator, {"operator"}),
            ("trainer", self.trainer, {"trainer"}),
            ("owner", self.owner, {"provider"}),
            ("customer", self.customer, {"customer"}),
        ]
        self.founding = Founding(
            name="test",
            time=START_MS,
            quorum_rule="majority",
            parameters=Parameters(**{"bits": EASY_BITS, "rest_ms": 0, **parameters}),
            authority=b"",
            members=tuple(Member(name, key.public, frozenset(r)) for name, key, r in roles),
        )
        self._numbers: dict[bytes, itertools.count] = {}

    @property
    def chain_id(self) -> bytes:
        return self.founding.chain_id

    def sign(
        self, key: SigningKey, body: Body, sequence: int | None = None, dropped: int = 0
    ) -> Transaction:
        """Sign as the key's next transaction, or under a number of the test's choice."""
        if sequence is None:
            sequence = next(self._numbers.setdefault(key.kid, itertools.count(1)))
        by_board = body.kind in BOARD_KINDS
        return sign_transaction(key, body, self.chain_id, sequence, dropped if by_board else None)

    def enrol(
        self, device: SigningKey, by: SigningKey | None = None, owner: str = "owner", **other: int
    ) -> Transaction:
        body = Enrol(device.public, owner, "water-circulation", "unix", CHANNELS, START_MS)
        return self.sign(by or self.operator, body, **other)

    def request(
        self, provider: bytes | None, by: SigningKey | None = None, sequence: int | None = None
    ) -> Transaction:
        content = Content.of(b"twelve housings")
        body = Request(provider, "casting", content, START_MS + 60_000, START_MS)
        return self.sign(by or self.customer, body, sequence)

    def response(self, request: bytes, by: SigningKey | None = None) -> Transaction:
        return self.sign(by or self.owner, Response(request, "done", None, START_MS + 1))

    def revoke(self, subject: bytes, by: SigningKey | None = None, **other: int) -> Transaction:
        return self.sign(by or self.operator, Revoke(subject, "lost", START_MS), **other)

    def pack(
        self,
        device: SigningKey,
        sequence: int | None = None,
        value: float = 1.5,
        name: str = "pressure",
        unit: str = "bar",
        rows: int = 1,
        enterprise_number: int = 32473,
        dropped: int = 0,
    ) -> Transaction:
        readings = [(i, [(name, unit, value)]) for i in range(rows)]
        payload = senml.encode_pack(enterprise_number, device.kid, START_MS // 1000, readings)
        return self.sign(device, PackBody.decode(payload), sequence, dropped)

    def incident(self, by: SigningKey, **other: int) -> Transaction:
        body = Incident("malformed", None, None, bytes(32), 3, "", START_MS)
        return self.sign(by, body, **other)

    def release(
        self, version: int, by: SigningKey | None = None, last: int = 0, **other: int
    ) -> Transaction:
        dataset = DatasetReference(bytes(32), 0, 0, last)
        body = Release(
            "anomaly", version, "water-circulation", bytes(32), bytes(32), 9, (), dataset, START_MS
        )
        return self.sign(by or self.trainer, body, **other)

    def evidence(
        self, offender: SigningKey, by: SigningKey, signer: SigningKey | None = None
    ) -> Transaction:
        """Two prevotes of `offender`, the second one signed by `signer` where given."""
        first = sign_vote(offender, 7, 0, PREVOTE, None, self.chain_id)
        second = sign_vote(signer or offender, 7, 0, PREVOTE, bytes(32), self.chain_id)
        return self.sign(by, Evidence(first, second))

    def member_key(self, name: str) -> SigningKey:
        """A key that no member has yet, always the same for a name."""
        return SigningKey.from_secret(int.from_bytes(name.encode(), "big") + 10**6)

    def proof(self, key: SigningKey, name: str) -> Sign1:
        raw = governance.prove_key(key, name, self.chain_id)
        return governance.parse_key_proof(raw, key.public, "proof")[0]

    def adding(self, name: str, *roles: str, key: SigningKey | None = None) -> Change:
        key = key or self.member_key(name)
        return governance.AddMember(name, key.public, frozenset(roles), self.proof(key, name))

    def rotating(self, old: SigningKey, name: str, key: SigningKey) -> Change:
        return governance.RotateKey(old.kid, key.public, name, self.proof(key, name))

    def removing(self, key: SigningKey) -> Change:
        return governance.RemoveMember(key.kid)

    def propose(
        self, by: SigningKey, *changes: Change, until: int = START_MS + 10**9, **other: int
    ) -> Transaction:
        return self.sign(by, governance.Propose(changes, "why", until), **other)

    def approve(self, by: SigningKey, proposal: Transaction, **other: int) -> Transaction:
        return self.sign(by, governance.Approve(proposal.id), **other)

    def withdraw(self, by: SigningKey, proposal: Transaction, **other: int) -> Transaction:
        return self.sign(by, governance.Withdraw(proposal.id), **other)

    def decision(
        self, *changes: Change, by: list[SigningKey] | None = None, count: int | None = None
    ) -> list[Transaction]:
        """A proposal and the approvals that decide it, the last one included."""
        first, *others = (by or self.validators)[: count or self.founding.quorum]
        proposal = self.propose(first, *changes)
        return [proposal, *(self.approve(key, proposal) for key in others)]

    def alert(self, device: SigningKey, pack: int, sequence: int | None = None) -> Transaction:
        return self.sign(device, Alert(START_MS // 1000, bytes(32), 9, 8, pack), sequence)

    def clone(self, by: SigningKey, one: Transaction, other: Transaction, **n: int) -> Transaction:
        return self.sign(by, Clone.of(one, other), **n)

    def reinstate(self, device: bytes, by: SigningKey | None = None, **other: int) -> Transaction:
        return self.sign(by or self.operator, ReinstateDevice(device, "found", START_MS), **other)

    def test_report(
        self, by: SigningKey | None = None, sequence: int | None = None, **other: object
    ) -> Transaction:
        return self.sign(by or self.operator, rig_report(**other), sequence)

    def prediction(
        self, *subjects: Subject, by: SigningKey | None = None, sequence: int | None = None
    ) -> Transaction:
        """Of an image where no subjects are given."""
        verdicts = tuple(
            Verdict(subject, "defect", 0.5) for subject in subjects or (Image(bytes(32)),)
        )
        body = Prediction("castings", bytes(32), None, verdicts, START_MS)
        return self.sign(by or self.trainer, body, sequence)

    def drift(self, by: SigningKey | None = None, sequence: int | None = None) -> Transaction:
        body = Drift(
            "test", None, "psi", (Measure("flow", 1.0, 0.25),), 0, START_MS, "none", "", START_MS
        )
        return self.sign(by or self.trainer, body, sequence)

    def label(
        self,
        *targets: Target,
        by: SigningKey | None = None,
        value: str | None = "normal",
        sequence: int | None = None,
    ) -> Transaction:
        """Of an image where no targets are given."""
        labels = tuple(Labelled(target, value) for target in targets or (Image(bytes(32)),))
        return self.sign(by or self.trainer, Label(labels, "", START_MS), sequence)

    def rollout(
        self, by: SigningKey | None = None, sequence: int | None = None, **other: object
    ) -> Transaction:
        """Of `release(1)`, as the first of its device type, to all boards."""
        fields = {
            "device_type": "water-circulation",
            "release": Named("anomaly", 1, bytes(32)),
            "model": MODEL,
            "back": None,
            "groups": (Group(100, (), 80, 20),),
            "verdicts": 4,
            "soak_s": 0,
            "anomalies": 50,
            "silent_s": 3600,
            "note": "",
            "time": START_MS,
        }
        return self.sign(by or self.trainer, Rollout(**(fields | other)), sequence)

    def training_round(
        self, by: SigningKey | None = None, sequence: int | None = None, **other: object
    ) -> Transaction:
        return self.sign(by or self.trainer, training_round(**other), sequence)

    def gap(
        self, device: SigningKey, first: int, sequence: int, dropped: int | None = None
    ) -> Transaction:
        body = Gap(first, "flash was erased")
        return self.sign(device, body, sequence, sequence if dropped is None else dropped)

    def certify(
        self, block: Block, voters: list[SigningKey] | None = None, count: int | None = None
    ) -> Certificate:
        """Precommits of just a quorum."""
        chosen = (self.validators if voters is None else voters)[: count or self.founding.quorum]
        return make_certificate(
            [
                sign_vote(
                    key, block.height, block.coinbase.round, PRECOMMIT, block.hash, self.chain_id
                )
                for key in chosen
            ]
        )

    def next_block(
        self, ledger: Ledger, miner: int = 0, round_: int = 0, now_ms: int | None = None
    ) -> Block:
        """A mined block of what waits."""
        time = ledger.head.time + 1000 if now_ms is None else now_ms
        return mined(ledger.template(self.validators[miner], round_, time))

    def seal(self, ledger: Ledger, *transactions: Transaction, miner: int = 0) -> Committed:
        """Admit, mine, certify and commit; the transactions must all be admitted."""
        refused = [item for item in self.admit(ledger, *transactions) if item.error]
        assert not refused, refused[0].error
        block = self.next_block(ledger, miner)
        return ledger.commit(block, self.certify(block))

    def rival(self, block: Block) -> Block:
        """Another block at the height of a final one, that would have been as good."""
        own = block.coinbase
        coinbase = sign_coinbase(
            self.validators[1], own.height, own.round, own.state, (own.validators, own.next),
            own.time, self.chain_id,
        )  # fmt: skip
        leaves = block_leaves(coinbase, block.transactions)
        header = replace(block.header, merkle_root=root(leaves))
        return mined(Block(header, coinbase, block.transactions))

    def admit(self, ledger: Ledger, *transactions: Transaction) -> list[Admission]:
        return ledger.admit(transactions, durable=False)


def mined(block: Block) -> Block:
    """Find a nonce for a block."""
    for nonce in range(2**32):
        header = replace(block.header, nonce=nonce)
        try:
            header.check_work()
        except ProofError:
            continue
        return Block(header, block.coinbase, block.transactions)
    raise AssertionError("no nonce meets the target")


@pytest.fixture
def consortium() -> Consortium:
    return Consortium()


@pytest.fixture
def make_consortium() -> type[Consortium]:
    return Consortium


@pytest.fixture
def mine():
    return mined


@pytest.fixture
def device() -> SigningKey:
    return SigningKey.from_secret(1000)


@pytest.fixture
def ledger(consortium, tmp_path):
    ledger = Ledger.open(tmp_path / "data", consortium.founding)
    yield ledger
    ledger.close()
