"""One ledger with a board and a trainer on it, sealed without peers, clocks or mining time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from fog_node.ledger import Ledger
from fog_node.protocol import senml
from fog_node.protocol.block import Block
from fog_node.protocol.errors import ProofError
from fog_node.protocol.founding import Founding, Member, Parameters
from fog_node.protocol.governance import Approve, Change, Propose, SetParameters
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import Manifest, encode_bundle, sign_manifest
from fog_node.protocol.rollouts import Group, Named
from fog_node.protocol.transactions import (
    BOARD_KINDS,
    Alert,
    Body,
    Channel,
    DatasetReference,
    Enrol,
    Incident,
    PackBody,
    Release,
    Revoke,
    Rollout,
    RolloutApprove,
    Transaction,
    sign_transaction,
)
from fog_node.protocol.votes import PRECOMMIT, Certificate, make_certificate, sign_vote

EASY_BITS = 0x207FFFFF
START_MS = 1_700_000_000_000
ENTERPRISE_NUMBER = 32473
DEVICE_TYPE = "water-circulation"
GATEWAY_NAME = "seoul"
CHANNELS = (Channel("pressure", "bar", -1.0, 10.0), Channel("flow", "L/min", 0.0, 200.0))


class SmallChain:
    """Validators and gateways (`seoul` and others), `operator`, `trainer`, whom `others` names."""

    def __init__(
        self,
        directory: Path,
        authority: bytes = b"",
        others: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        self.validators = [SigningKey.from_secret(100 + i) for i in range(3)]
        self.operator = SigningKey.from_secret(200)
        self.trainer = SigningKey.from_secret(201)
        both = frozenset({"gateway", "validator"})
        names = (GATEWAY_NAME, "busan", "daegu")
        members = [
            Member(name, key.public, both) for name, key in zip(names, self.validators, strict=True)
        ]
        members.append(Member("operator", self.operator.public, frozenset({"operator"})))
        members.append(Member("trainer", self.trainer.public, frozenset({"trainer"})))
        self.others = {name: SigningKey.from_secret(300 + i) for i, name in enumerate(others)}
        members += [Member(n, key.public, others[n]) for n, key in self.others.items()]
        self.founding = Founding(
            "test",
            START_MS,
            "majority",
            Parameters(bits=EASY_BITS, rest_ms=0, retarget_blocks=0),
            authority,
            tuple(members),
        )
        self.ledger = Ledger.open(directory, self.founding)

    @property
    def gateway(self) -> SigningKey:
        return self.validators[0]

    def sign(
        self, key: SigningKey, body: Body, sequence: int | None = None, dropped: int = 0
    ) -> Transaction:
        """Sign as the key's next transaction, or under another number."""
        if sequence is None:
            sequence = self.ledger.next_sequence(key.kid)
        by_board = body.kind in BOARD_KINDS
        chain_id = self.founding.chain_id
        return sign_transaction(key, body, chain_id, sequence, dropped if by_board else None)

    def enrol(self, *boards: SigningKey, owner: str = "operator") -> Block:
        """Put boards on the chain."""
        first = self.ledger.next_sequence(self.operator.kid)
        return self.seal(
            *(
                self.sign(
                    self.operator,
                    Enrol(board.public, owner, DEVICE_TYPE, "unix", CHANNELS, START_MS),
                    first + i,
                )
                for i, board in enumerate(boards)
            )
        )

    def revoke(self, subject: bytes) -> Block:
        return self.seal(self.sign(self.operator, Revoke(subject, "lost", START_MS)))

    def decide(self, *changes: Change) -> Block:
        """Have the validators decide on changes; returns the block that did."""
        first, second, _ = self.validators
        until = self.ledger.head.time + 3_600_000
        proposal = self.sign(first, Propose(changes, "why", until))
        self.seal(proposal)
        return self.seal(self.sign(second, Approve(proposal.id)))

    def pack(
        self,
        board: SigningKey,
        sequence: int | None = None,
        value: float = 1.5,
        dropped: int = 0,
        rows: int = 2,
        enterprise_number: int = ENTERPRISE_NUMBER,
        clock: senml.Clock | None = None,
    ) -> Transaction:
        """Rows a second apart; a pack without time where the clock's base time says so."""
        readings = [(i, [("pressure", "bar", value)]) for i in range(rows)]
        base_time = START_MS // 1000 if clock is None else clock.base_time
        payload = senml.encode_pack(enterprise_number, board.kid, base_time, readings, clock=clock)
        return self.sign(board, PackBody.decode(payload), sequence, dropped)

    def alert(self, board: SigningKey, sequence: int) -> Transaction:
        body = Alert(START_MS // 1000, bytes(32), 7, 5, sequence - 1)
        return self.sign(board, body, sequence)

    def incident(self, cause: str = "malformed", sequence: int | None = None) -> Transaction:
        body = Incident(cause, None, None, bytes(32), 3, "why", START_MS)
        return self.sign(self.gateway, body, sequence)

    def bundle(
        self, version: int = 1, payload: bytes = bytes(9000), name: str = "anomaly"
    ) -> tuple[Transaction, bytes]:
        """A release transaction and its bundle file."""
        body, data = bundle_of(self.trainer, self.founding.chain_id, version, payload, name)
        return self.sign(self.trainer, body), data

    def stage_releases(self) -> Block:
        """Have the validators decide that boards get models by rollouts only."""
        return self.decide(SetParameters((("staged_releases", 1),)))

    def rollout(
        self,
        release: Transaction,
        payload: bytes,
        back: Transaction | None = None,
        groups: Sequence[Group] = (Group(100, (), 80, 20),),
        verdicts: int = 2,
    ) -> Transaction:
        """Roll a release of this payload out: proposed by the trainer, approved by the operator."""

        def named(transaction: Transaction) -> Named:
            body = transaction.body
            assert isinstance(body, Release)
            return Named(body.name, body.version, body.bundle)

        transaction = self.sign(
            self.trainer,
            Rollout(
                device_type=DEVICE_TYPE,
                release=named(release),
                model=hashlib.sha256(payload).digest(),
                back=None if back is None else named(back),
                groups=tuple(groups),
                verdicts=verdicts,
                soak_s=0,
                anomalies=50,
                silent_s=3600,
                note="",
                time=START_MS,
            ),
        )
        self.seal(transaction)
        self.seal(self.sign(self.operator, RolloutApprove(transaction.id)))
        return transaction

    def judged_pack(self, board: SigningKey, payload: bytes, verdicts: int = 2) -> Transaction:
        """A pack with verdicts of the model of this payload."""
        time = START_MS // 1000
        judged = [senml.Verdict(time, 1, False, bytes(8))] * verdicts
        rows = [(0, [("pressure", "bar", 1.5)])]
        model = hashlib.sha256(payload).digest()[:8]
        pack = senml.encode_pack(ENTERPRISE_NUMBER, board.kid, time, rows, judged, model)
        return self.sign(board, PackBody.decode(pack))

    def seal(self, *transactions: Transaction) -> Block:
        """Admit these and make all that waits final in one block."""
        self.admit(*transactions)
        block, certificate = self.next_block()
        self.ledger.commit(block, certificate)
        return block

    def admit(self, *transactions: Transaction) -> None:
        for result in self.ledger.admit(transactions, durable=False):
            assert result.error is None, result.error

    def next_block(self) -> tuple[Block, Certificate]:
        ledger = self.ledger
        miner = self.validators[0]
        block = _mined(ledger.template(miner, 0, ledger.head.time + 1000))
        counted = ledger.state.voters()
        return block, self.certify(block, [key for key in self.validators if key.kid in counted])

    def certify(self, block: Block, voters: Sequence[SigningKey]) -> Certificate:
        chain_id = self.founding.chain_id
        return make_certificate(
            [sign_vote(key, block.height, 0, PRECOMMIT, block.hash, chain_id) for key in voters]
        )


def bundle_of(
    trainer: SigningKey,
    chain_id: bytes,
    version: int = 1,
    payload: bytes = bytes(9000),
    name: str = "anomaly",
) -> tuple[Release, bytes]:
    """A release and its bundle file, which no board can run: the payload is no model."""
    manifest = Manifest(
        name=name,
        version=version,
        min_version=0,
        device_type=DEVICE_TYPE,
        payload_sha256=hashlib.sha256(payload).digest(),
        payload_size=len(payload),
        ops=("CONV_2D",),
        arena=1024,
        window=2,
        stride=1,
        channels=("pressure",),
        max_gap_s=5,
        calibrate=0,
        input=((0, 1, 0),),
        score=(0, 0, 256),
        threshold=5,
        of=1,
        need=1,
        selftest=((b"12", b"12"),),
        time=START_MS,
    )
    signature = sign_manifest(trainer, manifest, chain_id)
    data = encode_bundle([signature], payload)
    body = Release(
        name=name,
        version=version,
        device_type=DEVICE_TYPE,
        manifest=hashlib.sha256(signature).digest(),
        bundle=hashlib.sha256(data).digest(),
        size=len(data),
        metrics=(("f1", 0.5),),
        dataset=DatasetReference(bytes(32), 0, 0, 0),
        time=START_MS,
    )
    return body, data


def _mined(block: Block) -> Block:
    for nonce in range(2**20):
        header = replace(block.header, nonce=nonce)
        try:
            header.check_work()
        except ProofError:
            continue
        return Block(header, block.coinbase, block.transactions)
    raise AssertionError("no nonce meets an easy target")
