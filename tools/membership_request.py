"""What somebody hands to the consortium to be added, or to have a key replaced.

OUT/signing.key, tls.key     private; never leave the machine
OUT/request.json             public: name, key, the key's own signature, and a request for a
                             TLS certificate (PKCS #10, RFC 2986)
OUT/founding.cbor            a copy, for the commands that look for it there
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fog_node.protocol.cose import Sign1
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.governance import parse_key_proof, prove_key
from fog_node.protocol.keys import PublicKey, SigningKey
from fog_node.protocol.members import check_name
from fog_node.small_files import read_small

from .consortium import FOUNDING_FILE, write_file, write_secret
from .errors import ToolError, UsageError

REQUEST_FILE = "request.json"
FORMAT = "fogline membership request 1"
MAX_REQUEST_BYTES = 16 * 1024
_KEYS = {"format", "chain", "name", "key", "proof", "hosts", "tls_request"}
# What Python and `cryptography` raise on JSON and on requests that are not as they should be.
_UNREADABLE = (
    ValueError, TypeError, AttributeError, RecursionError, UnsupportedAlgorithm,
    x509.InvalidVersion,
)  # fmt: skip


@dataclass(frozen=True)
class MembershipRequest:
    """A request that was read and checked.

    Attributes:
        name: of the member.
        key: that it is to sign with; `proof`, that its holder asks.
        hosts: names and addresses under which its node is to serve.
        tls_key: that it is to use for TLS, and has signed its request with.
    """

    name: str
    key: PublicKey
    proof: Sign1
    hosts: tuple[str, ...]
    tls_key: ec.EllipticCurvePublicKey


def make_request(founding: Founding, name: str, out: Path, hosts: Sequence[str] = ()) -> Path:
    """Make keys and request in `out`, which must hold none of them yet.

    Returns:
        The request's path.

    Raises:
        UsageError: the name can be no member's.
        ToolError: a file exists, or cannot be written.
    """
    try:
        check_name(name, "--name")
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    key, tls_key = SigningKey.generate(), SigningKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = asked.sign(tls_key.private_key, hashes.SHA256())
    request = {
        "format": FORMAT,
        "chain": founding.chain_id.hex(),
        "name": name,
        "key": key.public.xy.hex(),
        "proof": prove_key(key, name, founding.chain_id).hex(),
        "hosts": list(hosts),
        "tls_request": signed.public_bytes(serialization.Encoding.PEM).decode(),
    }
    path = out / REQUEST_FILE
    write_secret(out / "signing.key", key.to_pem())
    write_secret(out / "tls.key", tls_key.to_pem())
    write_file(out / FOUNDING_FILE, founding.raw)
    write_file(path, (json.dumps(request, indent=1) + "\n").encode())
    return path


def load_request(path: Path, founding: Founding) -> MembershipRequest:
    """Read a request and check both signatures; raises ToolError."""
    try:
        data = read_small(path, MAX_REQUEST_BYTES)
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; give a {REQUEST_FILE}") from error
    remedy = "have it made anew: fogline consortium request-membership"
    try:
        return _read(json.loads(data), founding)
    except (ProtocolError, *_UNREADABLE) as error:
        raise ToolError(f"{path}: {error}; {remedy}") from error


def _read(value: Any, founding: Founding) -> MembershipRequest:
    """Check what stands in a request; raises ProtocolError, or what Python raises."""
    if not isinstance(value, dict) or set(value) != _KEYS or value["format"] != FORMAT:
        raise ValueError(f"is not of the format {FORMAT!r}")
    if value["chain"] != founding.chain_id.hex():
        raise ValueError("is for another consortium")
    key = PublicKey(bytes.fromhex(value["key"]))
    proof, name = parse_key_proof(bytes.fromhex(value["proof"]), key, "proof")
    proof.verify(key, founding.chain_id)
    if name != value["name"]:
        raise ValueError(f"name: the key has signed for {name}")
    hosts = value["hosts"]
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise ValueError("hosts: are not a list of names")
    asked = x509.load_pem_x509_csr(value["tls_request"].encode())
    tls_key = asked.public_key()
    if not isinstance(tls_key, ec.EllipticCurvePublicKey) or not asked.is_signature_valid:
        raise ValueError("tls_request: is not signed by an elliptic-curve key of its own")
    return MembershipRequest(name, key, proof, tuple(hosts), tls_key)
