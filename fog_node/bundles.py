"""Which release bundles a node wants, and whether a file is one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from .blobs import BlobStore
from .ledger import Ledger, Offered, State
from .protocol.errors import ProofError
from .protocol.manifest import MAX_BUNDLE_BYTES, parse_bundle
from .protocol.transactions import Release

TRAINER = "trainer"
OPERATOR = "operator"


def _known(state: State) -> Iterator[Release | Offered]:
    """What boards may be offered: the latest releases, and those that rollouts go back to."""
    for record in state.releases.values():
        yield record.release
    for offer in state.offers.values():
        yield from offer.all_offered


def missing_bundles(state: State, blobs: BlobStore) -> list[Release | Offered]:
    """The releases that boards may be offered and whose bundles are not held here yet."""
    return [
        release
        for release in _known(state)
        if release.size <= MAX_BUNDLE_BYTES and not blobs.has(release.bundle)
    ]


def wanted_release(ledger: Ledger, sha256: bytes) -> Release | Offered | None:
    """The release that names this bundle: one that boards may be offered, or one that waits.

    Whatever waits was signed by a member with the role for it: the ledger has checked it.
    """
    state = ledger.state
    for release in _known(state):
        if release.bundle == sha256:
            return release
    for member in state.members.values():
        if not member.roles & {TRAINER, OPERATOR}:
            continue
        for sequence in range(member.next, ledger.next_sequence(member.kid)):
            transaction = ledger.transaction_at(member.kid, sequence)
            if transaction is None:
                break
            if isinstance(transaction.body, Release) and transaction.body.bundle == sha256:
                return transaction.body
    return None


def check_bundle(data: bytes, release: Release | Offered, state: State) -> None:
    """Raise ProtocolError unless `data` is what the release names, and signed by who may.

    Models by trainers alone, firmware by operators alone.
    """
    if len(data) != release.size:
        raise ProofError("bundle", f"has {len(data)} bytes, the release says {release.size}")
    if hashlib.sha256(data).digest() != release.bundle:
        raise ProofError("bundle", "has another SHA-256 than the release says")
    bundle = parse_bundle(data)
    if hashlib.sha256(bundle.signatures[0].raw).digest() != release.manifest:
        raise ProofError("bundle.manifest", "has another SHA-256 than the release says")
    for name in ("name", "version", "device_type"):
        if getattr(bundle.manifest, name) != getattr(release, name):
            raise ProofError(f"bundle.manifest.{name}", "is not what the release says")
    role = OPERATOR if release.is_firmware else TRAINER
    signers = [
        member.key
        for member in state.members.values()
        if role in member.roles and member.status != "revoked"
    ]
    bundle.verify(signers, state.founding.chain_id)
