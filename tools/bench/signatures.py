"""The limit that signatures set: how fast `cryptography` verifies them and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from fog_node.protocol.cose import sig_structure
from fog_node.protocol.keys import PublicKey
from fog_node.protocol.transactions import Transaction


def verify_bare_s(
    transactions: Sequence[Transaction],
    signers: Iterable[PublicKey],
    chain_id: bytes,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Seconds to verify these on this core: keys loaded, signatures in DER, messages whole."""
    keys = {
        key.kid: ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.xy)
        for key in signers
    }
    algorithm = ec.ECDSA(hashes.SHA256())
    ready = []
    for transaction in transactions:
        message = transaction.message
        signature = utils.encode_dss_signature(
            int.from_bytes(message.signature[:32], "big"),
            int.from_bytes(message.signature[32:], "big"),
        )
        content = sig_structure(message.protected, chain_id, message.payload)
        ready.append((keys[message.kid], signature, content))
    begin = clock()
    for key, signature, content in ready:
        key.verify(signature, content, algorithm)
    return clock() - begin
