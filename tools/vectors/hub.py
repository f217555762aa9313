"""Makes `tests/vectors/{messages,refusals}.json`: one example of each format of SPEC.md.

Keys are derived from fixed secrets and nonces follow RFC 6979, so the files are always the
same: `python -m tools.vectors.hub` writes them, `--check` says whether they are current.
They hold for any implementation; the board's are made by `tools/vectors/board.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2

from fog_node.protocol import block as blocks
from fog_node.protocol import cose, governance, manifest, receipt, senml, votes
from fog_node.protocol import transactions as tx
from fog_node.protocol.dataset_reference import DatasetQuery, LabelsReference
from fog_node.protocol.errors import ProofError, ProtocolError
from fog_node.protocol.founding import Founding, Member, Parameters
from fog_node.protocol.keys import ORDER, SigningKey
from fog_node.protocol.labels import Image, Labelled, PackSpan, TimeSpan
from fog_node.protocol.merkle import root
from fog_node.protocol.predictions import Measure, Thing, Verdict
from fog_node.protocol.proof import (
    Proof,
    RangeClaim,
    TransactionClaim,
    parse_proof,
    prove_inclusion,
)
from fog_node.protocol.requests import MAX_INLINE_BYTES, Content
from fog_node.protocol.rig_reports import ModuleResults, ReleasedAs, ReportedBoard
from fog_node.protocol.rollouts import Group, Named
from fog_node.protocol.sealed_header import SealedHeader
from fog_node.protocol.training_rounds import Privacy, SiteUpdate

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "vectors"
TIME_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
TIME_S = TIME_MS // 1000
EASY_BITS = 0x207FFFFF


class World:
    """A consortium of three validators, an operator, a trainer and a board, by fixed keys."""

    def __init__(self) -> None:
        self.validators = [SigningKey.from_secret(1000 + i) for i in range(3)]
        self.operator = SigningKey.from_secret(2000)
        self.trainer = SigningKey.from_secret(3000)
        self.board = SigningKey.from_secret(4000)
        self.customer = SigningKey.from_secret(5000)
        self.provider = SigningKey.from_secret(6000)
        members = [
            Member(f"validator-{i}", key.public, frozenset({"validator", "gateway"}))
            for i, key in enumerate(self.validators)
        ]
        members.append(Member("operator", self.operator.public, frozenset({"operator"})))
        members.append(Member("trainer", self.trainer.public, frozenset({"trainer"})))
        members.append(Member("customer", self.customer.public, frozenset({"customer"})))
        members.append(Member("provider", self.provider.public, frozenset({"provider"})))
        parameters = Parameters(bits=EASY_BITS, retarget_blocks=0)
        self.founding = Founding("vectors", TIME_MS, "majority", parameters, b"", tuple(members))
        self.chain_id = self.founding.chain_id

    def pack(self, sequence: int = 1, with_verdict: bool = True) -> tx.Transaction:
        """A pack of two rows; the third channel failed in the second row."""
        rows = [
            (0, [("current", "A", 1.25), ("flow", "L/min", 32.0), ("voltage", "V", 230.5)]),
            (1, [("current", "A", 1.3125), ("flow", "L/min", 31.5)]),
        ]
        judged = [senml.Verdict(TIME_S + 1, 4711, True, bytes(range(8)))] if with_verdict else []
        payload = senml.encode_pack(
            32473, self.board.kid, TIME_S, rows, judged, b"\xaa" * 8 if with_verdict else None
        )
        return tx.sign_transaction(
            self.board, tx.PackBody.decode(payload), self.chain_id, sequence, dropped=0
        )

    def untimed_pack(self, base_time: int = -9, clock: senml.Clock | None = None) -> bytes:
        """Payload of a pack of two rows whose board did not know the time."""
        rows = [(0, [("current", "A", 1.25)]), (1.5, [("current", "A", 1.375)])]
        clock = clock or senml.Clock(base_time, 17, 3_600_500, None)
        return senml.encode_pack(32473, self.board.kid, base_time, rows, clock=clock)

    def enrol(self) -> tx.Transaction:
        """The board's enrolment."""
        channels = (
            tx.Channel("current", "A", -5.0, 5.0),
            tx.Channel("flow", "L/min", 0.0, 200.0),
            tx.Channel("voltage", "V", 0.0, 400.0),
        )
        body = tx.Enrol(
            self.board.public, "validator-0", "water-circulation", "unix", channels, TIME_MS
        )
        return tx.sign_transaction(self.operator, body, self.chain_id, 1)

    def transactions(self) -> dict[str, tx.Transaction]:
        """One transaction of each kind."""
        model = hashlib.sha256(b"model").digest()
        incident = tx.Incident(
            "tampered", self.board.kid, 1, hashlib.sha256(b"x").digest(), 1, "payload", TIME_MS
        )
        release = tx.Release(
            name="anomaly",
            version=1,
            device_type="water-circulation",
            manifest=hashlib.sha256(b"manifest").digest(),
            bundle=hashlib.sha256(b"bundle").digest(),
            size=6,
            metrics=(("f1_float", 0.75), ("f1_int8", 0.5)),
            dataset=tx.DatasetReference(
                root([self.pack().id]),
                1,
                1,
                1,
                DatasetQuery(
                    height=2,
                    devices=(self.board.kid,),
                    since=TIME_MS,
                    until=None,
                    labels=LabelsReference(root([self.enrol().id]), 1),
                ),
            ),
            time=TIME_MS,
        )
        offender = self.validators[2]
        first, second = (
            votes.sign_vote(offender, 5, 0, votes.PREVOTE, choice, self.chain_id)
            for choice in (None, hashlib.sha256(b"block").digest())
        )
        sign = tx.sign_transaction
        gateway = self.validators[0]
        alert = tx.Alert(TIME_S + 1, model, 4711, 4000, 1)
        revoke = tx.Revoke(self.board.kid, "stolen", TIME_MS)
        order = tx.Request(
            self.provider.kid,
            "casting",
            Content.of(b"twelve housings"),
            TIME_MS + 60_000,
            TIME_MS,
        )
        request = sign(self.customer, order, self.chain_id, 1)
        drawing = Content(hashlib.sha256(b"drawing").digest(), 1024 * 1024)
        response = tx.Response(request.id, "accepted", drawing, TIME_MS + 1)
        propose = sign(self.validators[1], self.proposal(), self.chain_id, 1)
        gap = tx.Gap(3, "flash was erased")
        clone = tx.Clone.of(self.pack(), self.pack(with_verdict=False))
        reinstate = tx.ReinstateDevice(self.board.kid, "the copy was found", TIME_MS)
        return {
            "pack": self.pack(),
            "alert": sign(self.board, alert, self.chain_id, 2, dropped=1),
            "enrol": self.enrol(),
            "revoke": sign(self.operator, revoke, self.chain_id, 2),
            "incident": sign(gateway, incident, self.chain_id, 1),
            "release": sign(self.trainer, release, self.chain_id, 1),
            "evidence": sign(gateway, tx.Evidence(first, second), self.chain_id, 2),
            "request": request,
            "response": sign(self.provider, response, self.chain_id, 1),
            "propose": propose,
            "approve": sign(gateway, tx.Approve(propose.id), self.chain_id, 3),
            "withdraw": sign(self.validators[1], tx.Withdraw(propose.id), self.chain_id, 2),
            "gap": sign(self.board, gap, self.chain_id, 7, dropped=7),
            "clone": sign(gateway, clone, self.chain_id, 4),
            "reinstate-device": sign(self.operator, reinstate, self.chain_id, 3),
            "test-report": sign(self.operator, self.test_report(), self.chain_id, 4),
            "label": sign(self.operator, self.label(), self.chain_id, 5),
            "prediction": sign(gateway, self.prediction(), self.chain_id, 9),
            "drift": sign(gateway, self.drift(), self.chain_id, 10),
            **self.rollout_transactions(),
            "training-round": sign(self.trainer, self.training_round(), self.chain_id, 3),
        }

    def rollout_transactions(self) -> dict[str, tx.Transaction]:
        """A rollout with a group by name and two by percentage, and what is said of it."""
        sign = tx.sign_transaction
        body = tx.Rollout(
            device_type="water-circulation",
            release=Named("anomaly", 2, hashlib.sha256(b"bundle 2").digest()),
            model=hashlib.sha256(b"model").digest(),
            back=Named("anomaly-back", 3, hashlib.sha256(b"bundle 3").digest()),
            groups=(
                Group(None, (self.board.kid,), 100, 100),
                Group(25, (), 80, 20),
                Group(100, (), 80, 20),
            ),
            verdicts=16,
            soak_s=0,
            anomalies=50,
            silent_s=7200,
            note="the first plant first",
            time=TIME_MS,
        )
        rollout = sign(self.trainer, body, self.chain_id, 2)
        control = tx.RolloutControl(rollout.id, "rollback", "false alarms")
        report = tx.RolloutReport(
            rollout.id, self.board.kid, "refused", "update.selftest: vector 0", TIME_MS
        )
        return {
            "rollout": rollout,
            "rollout-approve": sign(self.operator, tx.RolloutApprove(rollout.id), self.chain_id, 6),
            "rollout-control": sign(self.operator, control, self.chain_id, 7),
            "rollout-report": sign(self.validators[0], report, self.chain_id, 5),
        }

    def prediction(self) -> tx.Prediction:
        """A verdict on each kind of subject."""
        return tx.Prediction(
            name="castings",
            model=hashlib.sha256(b"model").digest(),
            source=hashlib.sha256(b"table").digest(),
            verdicts=(
                Verdict(Image(hashlib.sha256(b"photograph").digest()), "defect", 0.9375),
                Verdict(TimeSpan(self.board.kid, TIME_MS, TIME_MS + 59_999), "normal", 12.0),
                Verdict(PackSpan(self.board.kid, 1, 1), None, -0.5),
                Verdict(Thing("unit 7"), None, 83.25),
            ),
            time=TIME_MS + 60_000,
        )

    def drift(self) -> tx.Drift:
        """One channel has moved, the other has not."""
        return tx.Drift(
            device_type="pump",
            model=hashlib.sha256(b"model").digest(),
            statistic="psi",
            measures=(Measure("flow", 0.5, 0.25), Measure("verdicts", 0.0, 0.25)),
            first=TIME_MS,
            last=TIME_MS + 59_999,
            action="retrain",
            note="flow has moved",
            time=TIME_MS + 60_000,
        )

    def label(self) -> tx.Label:
        """A label of each kind of target, and one that is taken back."""
        return tx.Label(
            (
                Labelled(TimeSpan(self.board.kid, TIME_MS, TIME_MS + 59_999), "normal"),
                Labelled(PackSpan(self.board.kid, 1, 2), "valve closed"),
                Labelled(Image(hashlib.sha256(b"photograph").digest()), "anomaly"),
                Labelled(TimeSpan(self.board.kid, TIME_MS, TIME_MS), None),
            ),
            "as the shift log says",
            TIME_MS + 60_000,
        )

    def test_report(self) -> tx.TestReport:
        """A report with a test of each result, and one that was not asked for."""
        json_file = b'{"firmware": "..."}'
        return tx.TestReport(
            firmware=hashlib.sha256(b"firmware").digest(),
            suite=hashlib.sha256(b"suite").digest(),
            of=6,
            release=ReleasedAs("fogline", "firmware/pico", 3, hashlib.sha256(b"bundle").digest()),
            board=ReportedBoard("qemu-arm", "mps2-an385 with Cortex-M3", self.board.kid),
            micropython="micropython 1.26.1",
            rig="bench-1",
            modules=(
                ModuleResults("cbor", passed=("bytes", "maps")),
                ModuleResults("p256", ("sign",), ("verify",), ("table",)),
            ),
            report=Content(hashlib.sha256(json_file).digest(), len(json_file)),
            time=TIME_MS,
        )

    def training_round(self) -> tx.TrainingRound:
        """A round with noise, of two sites out of three."""
        first, second = (hashlib.sha256(text).digest() for text in (b"before", b"after"))
        return tx.TrainingRound(
            run=bytes(range(16)),
            round=3,
            task="rul",
            strategy="trimmed-mean",
            secure=False,
            before=first,
            after=second,
            updates=(
                SiteUpdate("busan", self.validators[1].kid, hashlib.sha256(b"b").digest(), 4096),
                SiteUpdate("seoul", None, hashlib.sha256(b"s").digest(), None),
            ),
            absent=("jeju",),
            metrics=(("rmse_before", 14.5),),
            privacy=Privacy(1.5, 0.25, 12.5, 0.001),
            time=TIME_MS,
        )

    def proposal(self) -> tx.Propose:
        """A proposal with a change of each kind."""
        new, fresh = SigningKey.from_secret(6000), SigningKey.from_secret(6001)

        def proof(key: SigningKey, name: str) -> cose.Sign1:
            raw = governance.prove_key(key, name, self.chain_id)
            return governance.parse_key_proof(raw, key.public, "proof")[0]

        validator = frozenset({"gateway", "validator"})
        trainer = self.trainer.kid
        return tx.Propose(
            (
                governance.AddMember("ulsan", new.public, validator, proof(new, "ulsan")),
                governance.RemoveMember(self.validators[0].kid),
                governance.SetRoles(trainer, frozenset({"provider", "trainer"})),
                governance.RotateKey(trainer, fresh.public, "trainer", proof(fresh, "trainer")),
                governance.SetParameters((("heartbeat_ms", 60_000),), "two-thirds"),
                governance.RevokeCertificate(bytes.fromhex("0badcafe")),
                governance.Reinstate(self.validators[2].kid),
            ),
            "a change of each kind",
            TIME_MS + 86_400_000,
        )

    def manifest(self) -> manifest.Manifest:
        """A manifest for a payload of the bytes `model`."""
        return manifest.Manifest(
            name="anomaly",
            version=2,
            min_version=0,
            device_type="water-circulation",
            payload_sha256=hashlib.sha256(b"model").digest(),
            payload_size=5,
            ops=("CONV_2D", "FULLY_CONNECTED"),
            arena=4096,
            window=2,
            stride=1,
            channels=("current", "flow"),
            max_gap_s=10,
            calibrate=0,
            input=((8, 1200, -40000), (2, -7, 3)),
            score=(-3, 4, 256),
            threshold=4000,
            of=3,
            need=2,
            selftest=((b"\x01\x02\x03\x04", b"\x05\x06\x07\x08"),),
            time=TIME_MS,
        )

    def block(self) -> blocks.Block:
        """Block 1 with the enrolment and a pack, mined on the easiest target."""
        content = (self.enrol(), self.pack())
        coinbase = blocks.sign_coinbase(
            self.validators[0],
            1,
            0,
            hashlib.sha256(b"state").digest(),
            (self.founding.validator_set.hash,) * 2,
            TIME_MS + 2000,
            self.chain_id,
        )
        leaves = root(blocks.block_leaves(coinbase, content))
        header = blocks.Header(self.founding.genesis.hash, leaves, TIME_S + 2, EASY_BITS, nonce=0)
        while True:
            try:
                header.check_work()
            except ProofError:
                header = replace(header, nonce=header.nonce + 1)
            else:
                return blocks.Block(header, coinbase, content)


def messages() -> dict[str, Any]:
    """One valid example of each message."""
    world = World()
    block = world.block()
    precommits = [
        votes.sign_vote(key, 1, 0, votes.PRECOMMIT, block.hash, world.chain_id)
        for key in world.validators[:2]
    ]
    certificate = votes.make_certificate(precommits)
    enrol, pack = block.transactions
    sealed = SealedHeader.of_block(block, certificate, world.founding.validator_set)
    introduction = prove_inclusion(block, sealed, enrol.id)
    proof = Proof(
        chain_id=world.chain_id,
        claim=TransactionClaim(pack.id),
        blocks=(sealed,),
        introductions=(introduction,),
        subjects=(prove_inclusion(block, sealed, pack.id),),
    )
    proof.verify(world.founding)
    ranged = replace(proof, claim=RangeClaim(pack.signer, pack.sequence, pack.sequence))
    ranged.verify(world.founding)
    proposal = votes.sign_proposal(
        world.validators[0], 1, 0, votes.NO_ROUND, block.hash, world.chain_id
    )
    gateway = world.validators[0]
    key = receipt.receipt_key(
        gateway, world.board.public, gateway.kid, world.board.kid, world.chain_id
    )
    told = receipt.Receipt(world.board.kid, 3, 1, TIME_MS)
    signed = manifest.sign_manifest(world.trainer, world.manifest(), world.chain_id)
    kinds = {
        kind: {"id": value.id.hex(), "signer": value.signer.hex(), "sequence": value.sequence,
               "bytes": value.raw.hex()}
        for kind, value in world.transactions().items()
    }  # fmt: skip
    return {
        "chain_id": world.chain_id.hex(),
        "founding": world.founding.raw.hex(),
        "keys": {
            name: {"secret": secret, "xy": SigningKey.from_secret(secret).public.xy.hex()}
            for name, secret in (
                ("validator-0", 1000), ("validator-1", 1001), ("validator-2", 1002),
                ("operator", 2000), ("trainer", 3000), ("board", 4000),
                ("customer", 5000), ("provider", 6000),
            )
        },
        "transactions": kinds,
        "block": {"hash": blocks.hash_hex(block.hash), "bytes": block.raw.hex()},
        "vote": precommits[0].raw.hex(),
        "proposal": proposal.raw.hex(),
        "certificate": certificate.encode().hex(),
        "sealed_header": sealed.encode().hex(),
        "proof": proof.encode().hex(),
        "range_proof": ranged.encode().hex(),
        "receipt": {
            "key": key.hex(),
            "next": told.next,
            "bytes": receipt.encode_receipt(told, key, gateway.kid, world.chain_id).hex(),
        },
        "bundle": manifest.encode_bundle([signed], b"model").hex(),
    }  # fmt: skip


def _untimed(world: World) -> list[tuple[str, list[dict[int, Any]]]]:
    """Packs that do not say of their clock what they must, with the field at fault."""
    good = cbor2.loads(world.untimed_pack())
    boot, up = good[-2:]
    given = {0: "clock/by", 8: bytes(8)}
    at = len(good)

    def with_clock(*records: dict[int, Any], base: int = -9) -> list[dict[int, Any]]:
        first = {**good[0], -3: base}
        return [first, *good[1:-2], *records]

    return [
        ("pack", with_clock()),
        ("pack", with_clock(boot)),
        ("pack", with_clock(boot, up, given)),
        (f"pack[{at - 2}]", with_clock(up, boot)),
        (f"pack[{at - 1}]", with_clock(boot, {**up, 1: "s"})),
        (f"pack[{at - 1}]", with_clock(boot, {**up, 6: 1})),
        (f"pack[{at - 1}]", with_clock(boot, {**up, 2: 2**53})),
        (f"pack[{at - 2}]", with_clock({**boot, 2: 2**32}, up)),
        ("pack[0].bt", with_clock(boot, up, base=-(2**20) - 1)),
        ("pack[1].t", with_clock(boot, up, base=0)),
        ("pack", with_clock(boot, up, base=TIME_S)),
        (f"pack[{at}]", with_clock(boot, up, {0: "clock/by", 2: 2}, base=TIME_S)),
    ]


def _predictions_and_drift(
    signed: dict[str, tx.Transaction], filled: Callable[..., bytes]
) -> list[tuple[str, str, bytes]]:
    """What models say, and what has moved, not as it must be said."""
    said = cbor2.loads(signed["prediction"].message.payload)["verdicts"]
    subject = said[0][0]
    moved = cbor2.loads(signed["drift"].message.payload)["measures"]

    def with_verdict(verdict: Any) -> bytes:
        return filled("prediction", verdicts=[verdict])

    return [
        ("transaction", "prediction.name", filled("prediction", name="")),
        ("transaction", "prediction.model", filled("prediction", model=bytes(31))),
        ("transaction", "prediction.source", filled("prediction", source=bytes(31))),
        ("transaction", "prediction.verdicts", filled("prediction", verdicts=[])),
        ("transaction", "prediction.verdicts", filled("prediction", verdicts=[said[0]] * 129)),
        ("transaction", "prediction.verdicts[0]", with_verdict(said[0][:2])),
        ("transaction", "prediction.verdicts[0].subject", with_verdict([["row", 1], None, 0])),
        ("transaction", "prediction.verdicts[0].subject.name",
         with_verdict([["name", "n" * 65], None, 0])),
        ("transaction", "prediction.verdicts[0].subject.sha256",
         with_verdict([["image", bytes(31)], None, 0])),
        ("transaction", "prediction.verdicts[0].said", with_verdict([subject, " ok", 0])),
        ("transaction", "prediction.verdicts[0].score",
         with_verdict([subject, None, float("nan")])),
        ("transaction", "prediction.verdicts[0].score", with_verdict([subject, None, "1"])),
        ("transaction", "prediction", filled("prediction", name="n" * 23 * 1024)),
        ("transaction", "prediction.extra", filled("prediction", extra=1)),
        ("transaction", "drift.device_type", filled("drift", device_type="")),
        ("transaction", "drift.model", filled("drift", model=bytes(31))),
        ("transaction", "drift.statistic", filled("drift", statistic="s" * 65)),
        ("transaction", "drift.measures", filled("drift", measures=[])),
        ("transaction", "drift.measures", filled("drift", measures=moved[::-1])),
        ("transaction", "drift.measures",
         filled("drift", measures=[[f"{i:03}", 0, 1] for i in range(65)])),
        ("transaction", "drift.measures[0]", filled("drift", measures=[["flow", 0]])),
        ("transaction", "drift.measures[0].value",
         filled("drift", measures=[["flow", float("inf"), 1]])),
        ("transaction", "drift.measures[0].limit", filled("drift", measures=[["flow", 0, None]])),
        ("transaction", "drift.last", filled("drift", last=0)),
        ("transaction", "drift.action", filled("drift", action="stop")),
        ("transaction", "drift.note", filled("drift", note="n" * 201)),
        ("transaction", "drift", filled("drift", note="n" * 23 * 1024)),
        ("transaction", "drift.extra", filled("drift", extra=1)),
    ]  # fmt: skip


def _labels_and_data_sets(
    signed: dict[str, tx.Transaction], filled: Callable[..., bytes]
) -> list[tuple[str, str, bytes]]:
    """Labels, and what a release says of its data set, that are not as they must be."""
    asked = cbor2.loads(signed["release"].message.payload)["dataset"]
    said = cbor2.loads(signed["label"].message.payload)["labels"]

    def with_query(**changes: Any) -> bytes:
        return filled("release", dataset=asked | {"query": asked["query"] | changes})

    return [
        ("transaction", "release.dataset.extra",
         filled("release", dataset=asked | {"extra": 1})),
        ("transaction", "release.dataset.query",
         filled("release", dataset=asked | {"query": None})),
        ("transaction", "release.dataset.query.height", with_query(height=0)),
        ("transaction", "release.dataset.query.devices", with_query(devices=[])),
        ("transaction", "release.dataset.query.devices",
         with_query(devices=[bytes([2] * 8), bytes([1] * 8)])),
        ("transaction", "release.dataset.query.devices",
         with_query(devices=[i.to_bytes(8, "big") for i in range(257)])),
        ("transaction", "release.dataset.query.until", with_query(until=0)),
        ("transaction", "release.dataset.query.labels.count",
         with_query(labels={"root": bytes(32), "count": 0})),
        ("transaction", "release.dataset.query.extra", with_query(extra=1)),
        ("transaction", "label.labels", filled("label", labels=[])),
        ("transaction", "label.labels", filled("label", labels=[said[0]] * 129)),
        ("transaction", "label.labels[1]", filled("label", labels=[said[0], said[0][:1]])),
        ("transaction", "label.labels[0].target", filled("label", labels=[[[], "normal"]])),
        ("transaction", "label.labels[0].target",
         filled("label", labels=[[["row", bytes(8), 1, 2], "normal"]])),
        ("transaction", "label.labels[0].target",
         filled("label", labels=[[["image", bytes(32), 1], "normal"]])),
        ("transaction", "label.labels[0].target.device",
         filled("label", labels=[[["time", bytes(7), 1, 2], "normal"]])),
        ("transaction", "label.labels[0].target.last",
         filled("label", labels=[[["time", bytes(8), 2, 1], "normal"]])),
        ("transaction", "label.labels[0].target.first",
         filled("label", labels=[[["packs", bytes(8), 0, 1], "normal"]])),
        ("transaction", "label.labels[0].target.sha256",
         filled("label", labels=[[["image", bytes(31)], "normal"]])),
        ("transaction", "label.labels[0].value", filled("label", labels=[[said[0][0], ""]])),
        ("transaction", "label.labels[0].value",
         filled("label", labels=[[said[0][0], "normal "]])),
        ("transaction", "label.labels[0].value",
         filled("label", labels=[[said[0][0], "v" * 65]])),
        ("transaction", "label.note", filled("label", note="n" * 201)),
        ("transaction", "label", filled("label", note="n" * 23 * 1024)),
        ("transaction", "label.extra", filled("label", extra=1)),
    ]  # fmt: skip


def _rollouts(filled: Callable[..., bytes]) -> list[tuple[str, bytes]]:
    """Rollouts, and what is said of them, that are not as SPEC.md says; the field at fault."""
    last = [100, 80, 20]
    named = {"name": "anomaly", "version": 2, "bundle": bytes(32)}
    kids = [[i.to_bytes(8, "big") for i in range(j, j + 129)] for j in (0, 200)]
    groups = [
        ("rollout.groups", []),
        ("rollout.groups", [[50, 80, 20]]),
        ("rollout.groups", [last, [[bytes(8)], 80, 20]]),
        ("rollout.groups", [[50, 80, 20], [25, 80, 20], last]),
        ("rollout.groups", [[50, 80, 20], [50, 80, 20], last]),
        ("rollout.groups", [[[bytes(8)], 80, 20], [[bytes(8)], 80, 20], last]),
        ("rollout.groups", [*([listed, 80, 20] for listed in kids), last]),
        ("rollout.groups", [[i, 80, 20] for i in range(1, 17)] + [last]),
        ("rollout.groups[0]", [[[], 80, 20], last]),
        ("rollout.groups[0]", [[[bytes(7)], 80, 20], last]),
        ("rollout.groups[0]", [[50, 80], last]),
        ("rollout.groups[0].percent", [[0, 80, 20], last]),
        ("rollout.groups[0].percent", [[101, 80, 20]]),
        ("rollout.groups[0].percent", [["half", 80, 20], last]),
        ("rollout.groups[0].success", [[100, 0, 20]]),
        ("rollout.groups[0].errors", [[100, 80, 101]]),
    ]
    return [
        *((field, filled("rollout", groups=value)) for field, value in groups),
        ("rollout.device_type", filled("rollout", device_type="firmware/pico")),
        ("rollout.release.version", filled("rollout", release={**named, "version": 0})),
        ("rollout.release.extra", filled("rollout", release={**named, "extra": 1})),
        ("rollout.back.version", filled("rollout", back=named)),
        ("rollout.back.bundle", filled("rollout", back={**named, "bundle": b""})),
        ("rollout.model", filled("rollout", model=bytes(8))),
        ("rollout.verdicts", filled("rollout", verdicts=0)),
        ("rollout.verdicts", filled("rollout", verdicts=100_001)),
        ("rollout.soak_s", filled("rollout", soak_s=-1)),
        ("rollout.anomalies", filled("rollout", anomalies=101)),
        ("rollout.silent_s", filled("rollout", silent_s=0)),
        ("rollout.silent_s", filled("rollout", silent_s=30 * 24 * 3600 + 1)),
        ("rollout.note", filled("rollout", note="n" * 201)),
        ("rollout", filled("rollout", note="n" * 9000)),
        ("rollout.extra", filled("rollout", extra=1)),
        ("rollout-approve.rollout", filled("rollout-approve", rollout=bytes(31))),
        ("rollout-control.rollout", filled("rollout-control", rollout=None)),
        ("rollout-control.action", filled("rollout-control", action="stop")),
        ("rollout-control.reason", filled("rollout-control", reason="r" * 201)),
        ("rollout-report.device", filled("rollout-report", device=bytes(7))),
        ("rollout-report.outcome", filled("rollout-report", outcome="done")),
        ("rollout-report.reason", filled("rollout-report", reason="\n")),
        ("rollout-report.time", filled("rollout-report", time="absent")),
    ]


def refusals() -> list[dict[str, str]]:
    """Messages that must be refused: what they claim to be, the bytes, the field at fault."""
    world = World()
    pack = world.pack()
    cases: list[tuple[str, str, bytes]] = []

    def sign1_parts(parts: list[Any]) -> bytes:
        return cbor2.dumps(cbor2.CBORTag(cose.TAG_SIGN1, parts), canonical=True)

    protected, payload, signature = (
        pack.message.protected,
        pack.message.payload,
        (pack.message.signature),
    )

    def header(**changes: Any) -> bytes:
        labels = {"alg": 1, "type": 3, "kid": 4, "sequence": -65537, "dropped": -65538}
        value = cbor2.loads(protected)
        for name, new in changes.items():
            label = labels.get(name, name)
            value.pop(label, None)
            if new is not None:
                value[label] = new
        return cbor2.dumps(value, canonical=True)

    def with_header(**changes: Any) -> bytes:
        return sign1_parts([header(**changes), {}, payload, signature])

    def with_payload(records: Any) -> bytes:
        return sign1_parts([protected, {}, cbor2.dumps(records, canonical=True), signature])

    def changed(edit: Callable[[list[dict[int, Any]]], Any]) -> bytes:
        records = cbor2.loads(payload)
        edit(records)
        return with_payload(records)

    signed = world.transactions()
    ran = cbor2.loads(signed["test-report"].message.payload)["modules"]

    def filled(kind: str, **changes: Any) -> bytes:
        """A transaction of this kind with other values in its payload; "absent" leaves one out."""
        message = signed[kind].message
        value = cbor2.loads(message.payload) | changes
        value = {name: item for name, item in value.items() if item != "absent"}
        content = cbor2.dumps(value, canonical=True)
        return sign1_parts([message.protected, {}, content, message.signature])

    changes = [change.value() for change in world.proposal().changes]
    clone = signed["clone"].body
    assert isinstance(clone, tx.Clone)
    both = [clone.first.raw, clone.second.raw]
    high_s = signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    cases += [
        ("transaction", "transaction", b""),
        ("transaction", "transaction", pack.raw[:-1]),
        ("transaction", "transaction", pack.raw + b"\x00"),
        ("transaction", "transaction", b"\x00" * (tx.MAX_TRANSACTION_BYTES + 1)),
        ("transaction", "transaction", cbor2.dumps([protected, {}, payload, signature])),
        ("transaction", "transaction", b"\xd8\x12" + pack.raw[1:]),
        ("transaction", "transaction.unprotected",
         sign1_parts([protected, {4: b"x"}, payload, signature])),
        ("transaction", "transaction.signature",
         sign1_parts([protected, {}, payload, signature[:-1]])),
        ("transaction", "transaction.alg", with_header(alg=-8)),
        ("transaction", "transaction.kid", with_header(kid=b"1234567")),
        ("transaction", "transaction.protected", with_header(extra=1)),
        ("transaction", "transaction.sequence", with_header(sequence=None)),
        ("transaction", "transaction.sequence", with_header(sequence=0)),
        ("transaction", "transaction.sequence", with_header(sequence=2**63)),
        ("transaction", "transaction.dropped", with_header(dropped=None)),
        ("transaction", "transaction.content type", with_header(type="text/plain")),
        ("transaction", "pack[0].bn", with_header(kid=bytes(8))),
        ("signature", "signature", sign1_parts([protected, {}, payload, high_s])),
        ("signature", "signature", sign1_parts([protected, {}, payload, bytes(64)])),
        ("signature", "signature", changed(lambda r: r[0].update({2: 1.5}))),
        ("transaction", "pack", with_payload([])),
        ("transaction", "pack[0]", changed(lambda r: r[0].pop(-3))),
        ("transaction", "pack[0].bt", changed(lambda r: r[0].update({-3: 5}))),
        ("transaction", "pack[0].bn", changed(lambda r: r[0].update({-2: "urn:dev:ow:1_"}))),
        ("transaction", "pack[0].v", changed(lambda r: r[0].update({2: float("nan")}))),
        ("transaction", "pack[0].v", changed(lambda r: r[0].update({2: "1.5"}))),
        ("transaction", "pack[1]", changed(lambda r: r[1].update({-3: TIME_S}))),
        ("transaction", "pack[1]", changed(lambda r: r[1].update({5: 1}))),
        ("transaction", "pack[3].n", changed(lambda r: r[3].update({6: 0.0, 0: "flow"}))),
        ("transaction", "pack[2].t", changed(lambda r: r[2].update({6: -1}))),
        ("transaction", "pack[1].u", changed(lambda r: r[1].update({1: ""}))),
        ("transaction", "pack[0].n", changed(lambda r: r[0].update({0: "a b"}))),
        ("transaction", "pack", changed(lambda r: r.pop(-1))),
        ("transaction", "pack", changed(lambda r: r.pop(-2))),
        *(("transaction", field, with_payload(records)) for field, records in _untimed(world)),
        ("transaction", "request.provider", filled("request", provider=b"short")),
        ("transaction", "request.service", filled("request", service="")),
        ("transaction", "request.service", filled("request", service="s" * 65)),
        ("transaction", "request.content", filled("request", content="text")),
        ("transaction", "request.content",
         filled("request", content=bytes(MAX_INLINE_BYTES + 1))),
        ("transaction", "request.content.size",
         filled("request", content={"sha256": bytes(32), "size": 0})),
        ("transaction", "request.content.size",
         filled("request", content={"sha256": bytes(32), "size": 1024 * 1024 + 1})),
        ("transaction", "request.content.sha256",
         filled("request", content={"sha256": bytes(31), "size": 1})),
        ("transaction", "request.until", filled("request", until=TIME_MS)),
        ("transaction", "request.until", filled("request", until="absent")),
        ("transaction", "response.request", filled("response", request=bytes(31))),
        ("transaction", "response.outcome", filled("response", outcome="perhaps")),
        ("transaction", "response.content", filled("response", content=1)),
        ("transaction", "response.extra", filled("response", extra=1)),
        ("transaction", "propose.changes", filled("propose", changes=[])),
        ("transaction", "propose.changes", filled("propose", changes=[changes[1]] * 17)),
        ("transaction", "propose.changes[0].change",
         filled("propose", changes=[{"change": "abolish"}])),
        ("transaction", "propose.changes[0].proof.name",
         filled("propose", changes=[changes[0] | {"name": "jeju"}])),
        ("transaction", "propose.changes[0].proof.kid",
         filled("propose", changes=[changes[0] | {"key": changes[3]["key"]}])),
        ("transaction", "propose.changes[0].roles",
         filled("propose", changes=[changes[2] | {"roles": ["trainer", "provider"]}])),
        ("transaction", "propose.changes[0].serial",
         filled("propose", changes=[changes[5] | {"serial": bytes(2)}])),
        ("transaction", "propose.note", filled("propose", note="n" * 201)),
        ("transaction", "approve.proposal", filled("approve", proposal=bytes(31))),
        ("transaction", "withdraw.proposal", filled("withdraw", proposal=None)),
        ("transaction", "gap.from", filled("gap", **{"from": 0})),
        ("transaction", "gap.from", filled("gap", **{"from": 7})),
        ("transaction", "gap.reason", filled("gap", reason="")),
        ("transaction", "clone.messages", filled("clone", messages=[pack.raw, pack.raw])),
        ("transaction", "clone.messages", filled("clone", messages=both[::-1])),
        ("transaction", "clone.messages",
         filled("clone", messages=[both[0], signed["incident"].raw])),
        ("transaction", "reinstate-device.device",
         filled("reinstate-device", device=bytes(7))),
        ("transaction", "test-report.firmware", filled("test-report", firmware=bytes(31))),
        ("transaction", "test-report.suite", filled("test-report", suite=None)),
        ("transaction", "test-report.of", filled("test-report", of=1025)),
        ("transaction", "test-report.modules", filled("test-report", of=4)),
        ("transaction", "test-report.modules", filled("test-report", modules=[])),
        ("transaction", "test-report.modules", filled("test-report", modules=ran[::-1])),
        ("transaction", "test-report.modules",
         filled("test-report", modules=[[f"{i:03}", ["a"], [], [], []] for i in range(129)])),
        ("transaction", "test-report.modules[0]",
         filled("test-report", modules=[["a", [], [], [], []]])),
        ("transaction", "test-report.modules[0]",
         filled("test-report", modules=[["a", ["b"], ["b"], [], []]])),
        ("transaction", "test-report.modules[0]",
         filled("test-report", modules=[["a", ["c", "b"], [], [], []]])),
        ("transaction", "test-report.modules[0]",
         filled("test-report", modules=[["a", ["B"], [], [], []]])),
        ("transaction", "test-report.modules[0]",
         filled("test-report", modules=[["a", ["b" * 97], [], [], []]])),
        ("transaction", "test-report.modules[0]",
         filled("test-report", modules=[["a", ["b"], [], []]])),
        ("transaction", "test-report.board.kid",
         filled("test-report", board={"id": "a", "machine": "b", "kid": bytes(7)})),
        ("transaction", "test-report.board.id",
         filled("test-report", board={"id": "a\n", "machine": "b", "kid": None})),
        ("transaction", "test-report.release.device_type",
         filled("test-report", release={"name": "a", "device_type": "pump", "version": 1,
                                        "bundle": bytes(32)})),
        ("transaction", "test-report.release.version",
         filled("test-report", release={"name": "a", "device_type": "firmware/pico",
                                        "version": 0, "bundle": bytes(32)})),
        ("transaction", "test-report.rig", filled("test-report", rig="r" * 65)),
        ("transaction", "test-report.report", filled("test-report", report=b"{}")),
        ("transaction", "test-report.report.size",
         filled("test-report", report={"sha256": bytes(32), "size": 0})),
        ("transaction", "test-report.report.size",
         filled("test-report", report={"sha256": bytes(32), "size": 1024 * 1024 + 1})),
        ("transaction", "test-report", filled("test-report", rig="r" * 23 * 1024)),
        ("transaction", "test-report.extra", filled("test-report", extra=1)),
        *_labels_and_data_sets(signed, filled),
        *(("transaction", field, data) for field, data in _rollouts(filled)),
        *_predictions_and_drift(signed, filled),
        *_training_rounds(signed, filled),
        ("transaction", "transaction.dropped",
         sign1_parts([cbor2.dumps(cbor2.loads(signed["request"].message.protected)
                                  | {-65538: 0}, canonical=True),
                      {}, signed["request"].message.payload,
                      signed["request"].message.signature])),
    ]  # fmt: skip
    listed = []
    for kind, field, data in cases:
        try:
            transaction = tx.parse_transaction(data)
            transaction.verify(world.board.public, world.chain_id)
        except ProtocolError as error:
            if error.field != field:
                raise AssertionError(f"{data.hex()[:60]}: {error}, not {field}") from error
            listed.append({"kind": kind, "field": field, "bytes": data.hex()})
        else:
            raise AssertionError(f"accepted, though {field} is wrong")
    proof = bytearray.fromhex(messages()["proof"])
    proof[-1] ^= 1
    try:
        parse_proof(bytes(proof)).verify(world.founding)
    except ProtocolError as error:
        listed.append({"kind": "proof", "field": error.field, "bytes": proof.hex()})
    return listed


def _training_rounds(
    signed: dict[str, tx.Transaction], filled: Callable[..., bytes]
) -> list[tuple[str, str, bytes]]:
    training = cbor2.loads(signed["training-round"].message.payload)
    took, spent = training["updates"], training["privacy"]
    return [
        ("transaction", "training-round.run", filled("training-round", run=bytes(15))),
        ("transaction", "training-round.round", filled("training-round", round=0)),
        ("transaction", "training-round.task", filled("training-round", task="")),
        ("transaction", "training-round.strategy", filled("training-round", strategy="s" * 65)),
        ("transaction", "training-round.secure", filled("training-round", secure=1)),
        ("transaction", "training-round.before", filled("training-round", before=None)),
        ("transaction", "training-round.after", filled("training-round", after=bytes(31))),
        ("transaction", "training-round.updates", filled("training-round", updates=[])),
        ("transaction", "training-round.updates", filled("training-round", updates=took[::-1])),
        ("transaction", "training-round.updates",
         filled("training-round",
                updates=[[f"{i:03}", None, bytes(32), None] for i in range(129)])),
        ("transaction", "training-round.updates[0]",
         filled("training-round", updates=[took[0][:3]])),
        ("transaction", "training-round.updates[0]",
         filled("training-round", updates=[["busan", bytes(7), bytes(32), 1]])),
        ("transaction", "training-round.updates[0]",
         filled("training-round", updates=[["busan", None, None, 1]])),
        ("transaction", "training-round.updates[0]", filled("training-round", secure=True)),
        ("transaction", "training-round.updates[0]",
         filled("training-round", updates=[["busan", None, bytes(32), -1]])),
        ("transaction", "training-round.absent", filled("training-round", absent=["seoul"])),
        ("transaction", "training-round.absent", filled("training-round", absent=["b", "a"])),
        ("transaction", "training-round.absent[0]", filled("training-round", absent=[""])),
        ("transaction", "training-round.metrics",
         filled("training-round", metrics={f"{i}": 1.0 for i in range(17)})),
        ("transaction", "training-round.metrics.a",
         filled("training-round", metrics={"a": float("inf")})),
        ("transaction", "training-round.privacy.delta",
         filled("training-round", privacy=spent | {"delta": 1.0})),
        ("transaction", "training-round.privacy.epsilon",
         filled("training-round", privacy=spent | {"epsilon": 0})),
        ("transaction", "training-round.privacy.clip",
         filled("training-round", privacy={"noise": 1.0, "epsilon": 1.0, "delta": 0.1})),
        ("transaction", "training-round", filled("training-round", task="t" * 23 * 1024)),
        ("transaction", "training-round.extra", filled("training-round", extra=1)),
    ]  # fmt: skip


def files() -> dict[str, str]:
    """Content of each vector file by name."""
    return {
        "messages.json": json.dumps(messages(), indent=1) + "\n",
        "refusals.json": json.dumps(refusals(), indent=1) + "\n",
    }


def main() -> int:
    """Write the files, or check that they are current."""
    parser = argparse.ArgumentParser(
        description="test vectors of the formats",
        epilog="example: python -m tools.vectors.hub --check",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if outdated")
    arguments = parser.parse_args()
    outdated = []
    for name, content in files().items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != content:
            outdated.append(name)
            if not arguments.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
    if arguments.check and outdated:
        print(f"outdated: {', '.join(outdated)}; run: python -m tools.vectors.hub")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
