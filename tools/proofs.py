"""Checking a proof file with the founding file alone, offline."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fog_node.protocol import hash_hex, parse_proof
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.proof import MAX_PROOF_BYTES
from fog_node.protocol.transactions import PackBody

from .consortium import load_founding
from .errors import ToolError


def verify(proof_file: Path, founding_file: Path) -> dict[str, Any]:
    """Check a proof and say what it shows; raises ToolError naming what does not hold."""
    founding = load_founding(founding_file)
    try:
        if proof_file.stat().st_size > MAX_PROOF_BYTES:
            raise ToolError(f"{proof_file}: is larger than {MAX_PROOF_BYTES} bytes; not a proof")
        data = proof_file.read_bytes()
    except OSError as error:
        raise ToolError(f"{proof_file}: {error.strerror}; give a proof file") from error
    try:
        proof = parse_proof(data)
        proof.verify(founding)
    except ProtocolError as error:
        raise ToolError(f"{proof_file}: does not hold: {error}") from error
    subject = proof.subject
    transaction = subject.transaction
    member = founding.member(transaction.signer)
    sealed = datetime.fromtimestamp(subject.coinbase.time / 1000, UTC)
    shown: dict[str, Any] = {
        "holds": True,
        "consortium": founding.name,
        "transaction": transaction.id.hex(),
        "kind": transaction.kind,
        "signer": member.name if member else transaction.signer.hex(),
        "sequence": transaction.sequence,
        "block": hash_hex(subject.header.hash),
        "height": subject.coinbase.height,
        "sealed": sealed.isoformat(),
        "agreed_by": sorted(
            voter.name
            for vote in subject.certificate.votes
            if (voter := founding.member(vote.validator)) is not None
        ),
        "quorum": founding.quorum,
    }
    if isinstance(transaction.body, PackBody):
        pack = transaction.body.pack
        shown["readings"] = [
            {
                "time": datetime.fromtimestamp(r.time, UTC).isoformat(),
                "name": r.name,
                "value": r.value,
                "unit": r.unit,
            }
            for r in pack.readings
        ]
        shown["verdicts"] = [
            {
                "time": datetime.fromtimestamp(v.time, UTC).isoformat(),
                "score": v.score,
                "anomaly": v.anomaly,
            }
            for v in pack.verdicts
        ]
    return shown
