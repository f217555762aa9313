"""Checking a proof file with the founding file alone, offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fog_node.api.prediction_views import drift_body, prediction_body
from fog_node.light_client import LightClient
from fog_node.protocol import Founding, hash_hex, parse_proof
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.labels import Image, Label, PackSpan, TimeSpan
from fog_node.protocol.proof import (
    MAX_PROOF_BYTES,
    EnrolmentClaim,
    Proof,
    RangeClaim,
)
from fog_node.protocol.rig_reports import RESULTS
from fog_node.protocol.senml import Pack
from fog_node.protocol.transactions import (
    Drift,
    Enrol,
    PackBody,
    Prediction,
    TestReport,
    TrainingRound,
)
from fog_node.small_files import read_small

from .consortium import load_founding
from .errors import ToolError
from .nodes import Nodes

if TYPE_CHECKING:
    from fog_node.archive import ArchiveReader


def verify(proof_file: Path, founding_file: Path) -> dict[str, Any]:
    """Check a proof and say what it shows; raises ToolError naming what does not hold."""
    founding = load_founding(founding_file)
    try:
        data = read_small(proof_file, MAX_PROOF_BYTES)
    except OSError as error:
        raise ToolError(f"{proof_file}: {error.strerror}; give a proof file") from error
    try:
        proof = parse_proof(data)
        proof.verify(founding)
    except ProtocolError as error:
        raise ToolError(f"{proof_file}: does not hold: {error}") from error
    return {"holds": True, "consortium": founding.name, **_shown(proof, founding)}


def from_archive(
    archive: Path, founding_file: Path, make: Callable[[ArchiveReader], Proof]
) -> bytes:
    """Make a proof from an archive, and check it; raises ToolError, ArchiveError."""
    from fog_node.archive import ArchiveReader

    founding = load_founding(founding_file)
    proof = make(ArchiveReader(archive, founding))
    try:
        proof.verify(founding)
    except ProtocolError as error:
        raise ToolError(
            f"{archive}: a proof from it does not hold: {error}; put the files of all blocks from "
            "the first one into it, and give the founding file of their ledger"
        ) from error
    return proof.encode()


async def follow(nodes: Nodes, founding_file: Path, kept: Path) -> dict[str, Any]:
    """Follow the chain without bodies, and say where it stands.

    Raises:
        ClientError: no node answers, or what one says does not hold.
        ForkError: two certified blocks stand at one height.
    """
    founding = load_founding(founding_file)
    async with LightClient(nodes.clients(), founding, kept) as light:
        chain = await light.sync()
    return {
        "consortium": founding.name,
        "height": chain.height,
        "head": hash_hex(chain.head),
        "time": _iso(chain.time / 1000),
        "state": chain.state.hex(),
        "validators": [_name(kid, founding) for kid in chain.validators.by_kid],
        "quorum": chain.validators.quorum,
        "kept": str(kept),
    }


def _shown(proof: Proof, founding: Founding) -> dict[str, Any]:
    match proof.claim:
        case RangeClaim():
            return _shown_range(proof, proof.claim, founding)
        case EnrolmentClaim():
            return _shown_enrolment(proof, founding)
        case _:
            return _shown_transaction(proof, founding)


def _shown_transaction(proof: Proof, founding: Founding) -> dict[str, Any]:
    transaction = proof.subject.transaction
    shown: dict[str, Any] = {
        "transaction": transaction.id.hex(),
        "kind": transaction.kind,
        "signer": _name(transaction.signer, founding, proof),
        "sequence": transaction.sequence,
        **_shown_block(proof, founding),
    }
    if isinstance(transaction.body, PackBody):
        shown |= _shown_pack(transaction.body.pack)
    if isinstance(body := transaction.body, TrainingRound):
        shown |= {
            "run": body.run.hex(),
            "round": body.round,
            "before": body.before.hex(),
            "after": body.after.hex(),
        }
    if isinstance(transaction.body, TestReport):
        shown |= _shown_report(transaction.body)
    if isinstance(transaction.body, Label):
        shown |= _shown_label(transaction.body)
    if isinstance(transaction.body, Prediction):
        shown |= prediction_body(transaction.body)
    if isinstance(transaction.body, Drift):
        shown |= drift_body(transaction.body)
    return shown


def _shown_pack(pack: Pack) -> dict[str, Any]:
    """What a pack says; of one whose board did not know the time, how long before its signature."""

    def when(seconds: float) -> dict[str, Any]:
        return {"time": _iso(seconds)} if pack.has_time else {"before_signature_s": -seconds}

    return {
        "model": "none" if pack.model is None else pack.model.hex(),
        "readings": [
            {**when(r.time), "name": r.name, "value": r.value, "unit": r.unit}
            for r in pack.readings
        ],
        "verdicts": [
            {**when(v.time), "score": v.score, "anomaly": v.anomaly} for v in pack.verdicts
        ],
        "faults": [{**when(f.time), "sensor": f.sensor, "code": f.code} for f in pack.faults],
    }


def _shown_report(report: TestReport) -> dict[str, Any]:
    """Which firmware passed which tests on which board, in its operator's words."""
    release, board = report.release, report.board
    return {
        "firmware": report.firmware.hex(),
        "suite": report.suite.hex(),
        "released_as": "not said"
        if release is None
        else f"{release.name} {release.version} for {release.device_type}, "
        f"bundle {release.bundle.hex()}",
        "board": f"{board.id}: {board.machine}",
        "device": "not enrolled" if board.kid is None else board.kid.hex(),
        "micropython": report.micropython,
        "rig": report.rig,
        "time": _iso(report.time / 1000),
        "counts": {**report.counts, "of": report.of},
        **{result: report.tests(result) for result in RESULTS},
        "report": f"SHA-256 {report.report.sha256.hex()}, {report.report.size} bytes",
    }


def _shown_label(label: Label) -> dict[str, Any]:
    """What is said of what, in its signer's words."""
    listed = []
    for item in label.labels:
        match item.target:
            case Image(sha256):
                what = f"image {sha256.hex()}"
            case TimeSpan(device, first, last):
                what = f"{device.hex()}, {_iso(first / 1000)} to {_iso(last / 1000)}"
            case PackSpan(device, first, last):
                what = f"{device.hex()}, packs {first} to {last}"
        listed.append({"what": what, "value": item.value or "taken back"})
    return {"labels": listed, "note": label.note, "said": _iso(label.time / 1000)}


def _shown_range(proof: Proof, claim: RangeClaim, founding: Founding) -> dict[str, Any]:
    blocks = [inclusion.block for inclusion in proof.subjects]
    transactions = [inclusion.transaction for inclusion in proof.subjects]
    packs = [t.body.pack for t in transactions if isinstance(t.body, PackBody)]
    return {
        "signer": _name(claim.signer, founding, proof),
        "first": claim.first,
        "last": claim.last,
        "complete": "nothing is left out between the two",
        "lost": [
            f"{first} to {last}, by the signer's own statement" for first, last in proof.lost()
        ],
        "transactions": len(transactions),
        "kinds": dict(sorted(Counter(t.kind for t in transactions).items())),
        "readings": sum(len(pack.readings) for pack in packs),
        "heights": f"{blocks[0].height} to {blocks[-1].height}",
        "sealed": f"{_iso(blocks[0].coinbase.time / 1000)} to "
        f"{_iso(blocks[-1].coinbase.time / 1000)}",
    }


def _shown_enrolment(proof: Proof, founding: Founding) -> dict[str, Any]:
    enrol = proof.subject.transaction.body
    standing = proof.standing()
    assert isinstance(enrol, Enrol)  # both are so where the proof holds
    assert standing is not None
    return {
        "device": enrol.device.hex(),
        "key": enrol.key.xy.hex(),
        "owner": enrol.owner,
        "type": enrol.type,
        "channels": [
            {"name": c.name, "unit": c.unit, "minimum": c.minimum, "maximum": c.maximum}
            for c in enrol.channels
        ],
        "enrolled_by": _name(proof.subject.transaction.signer, founding, proof),
        **_shown_block(proof, founding),
        "status": standing.status,
        "next_sequence": standing.next,
        "as_of_height": proof.blocks[-1].height,
        "as_of": _iso(proof.blocks[-1].coinbase.time / 1000),
    }


def _shown_block(proof: Proof, founding: Founding) -> dict[str, Any]:
    block = proof.subject.block
    votes = block.certificate.votes
    voters = proof.voters(founding)[block.height]
    return {
        "block": hash_hex(block.hash),
        "height": block.height,
        "sealed": _iso(block.coinbase.time / 1000),
        "agreed_by": sorted(_name(vote.validator, founding, proof) for vote in votes),
        "quorum": voters.quorum,
        "validators": len(voters.keys),
    }


def _name(kid: bytes, founding: Founding, proof: Proof | None = None) -> str:
    """Return a member's name as the founding file or the proof says, or the key id."""
    member = founding.member(kid)
    if member is not None:
        return member.name
    return (proof.introduced() if proof else {}).get(kid, kid.hex())


def _iso(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.3f} s since 1970"  # a signer's clock may say anything
