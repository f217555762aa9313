"""Founding a consortium: keys, certificates and the founding file.

DIR/founding.cbor            give it to everyone who is to check proofs
DIR/authority/               key and certificate that issue TLS certificates; keep offline
DIR/members/NAME/            signing.key, tls.key, tls.crt; give each member its own
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fog_node.network import certificates
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import (
    MAX_FOUNDING_BYTES,
    Founding,
    Member,
    Parameters,
    parse_founding,
    validate_founding,
)
from fog_node.protocol.keys import SigningKey
from fog_node.small_files import read_small

from .errors import ToolError

if TYPE_CHECKING:
    from .membership_request import MembershipRequest

FOUNDING_FILE = "founding.cbor"
VALIDATOR_ROLES = frozenset({"validator", "gateway"})
LOCAL_HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Consortium:
    """A consortium's directory, as `create` lays it out."""

    directory: Path
    founding: Founding

    @classmethod
    def open(cls, directory: Path) -> Consortium:
        """Read the founding file in `directory`; raises ToolError."""
        return cls(directory, load_founding(directory / FOUNDING_FILE))

    @property
    def founding_file(self) -> Path:
        """Path of the founding file."""
        return self.directory / FOUNDING_FILE

    @property
    def authority_certificate(self) -> Path:
        """Path of the authority's certificate, PEM."""
        return self.directory / "authority" / "ca.crt"

    def member_directory(self, name: str) -> Path:
        """Where a member's keys and certificate are."""
        return self.directory / "members" / name

    def signing_key(self, name: str) -> SigningKey:
        """A member's signing key; raises ToolError."""
        return load_key(self.member_directory(name) / "signing.key")


def create(
    directory: Path,
    name: str,
    members: Mapping[str, frozenset[str]],
    *,
    quorum_rule: str = "majority",
    parameters: Parameters | None = None,
    hosts: Sequence[str] = (),
) -> Consortium:
    """Found a consortium in a new or empty directory.

    Args:
        directory: is made; must hold nothing yet, so that no key is ever overwritten.
        name: of the consortium.
        members: roles by member name, in the order in which validators are numbered.
        quorum_rule: "majority" (more than 51 %) or "two-thirds".
        parameters: chain parameters; the defaults where None.
        hosts: further names and addresses under which the members' nodes may serve.

    Raises:
        ToolError: the directory is not empty, or the members make no consortium.
        ConfigurationError: a host is none.
    """
    if directory.exists() and any(directory.iterdir()):
        raise ToolError(f"{directory}: is not empty; name a new directory, keys are never replaced")
    now = dt.datetime.now(dt.UTC)
    keys = {member: SigningKey.generate() for member in members}
    authority_key = SigningKey.generate()
    authority = certificates.make_authority(authority_key, name, now)
    founding = Founding(
        name=name,
        time=time.time_ns() // 1_000_000,
        quorum_rule=quorum_rule,
        parameters=parameters or Parameters(),
        authority=authority.public_bytes(serialization.Encoding.DER),
        members=tuple(
            Member(member, keys[member].public, roles) for member, roles in members.items()
        ),
    )
    try:
        validate_founding(founding)
    except ProtocolError as error:
        raise ToolError(f"consortium {name}: {error}") from error
    consortium = Consortium(directory, parse_founding(founding.raw))
    tls_keys = {member: SigningKey.generate() for member in members}
    issued = {
        member: certificates.issue(
            authority,
            authority_key,
            tls_keys[member],
            member,
            now,
            member=key.kid,
            hosts=(*LOCAL_HOSTS, *hosts),
        )
        for member, key in keys.items()
    }
    write_secret(directory / "authority" / "ca.key", authority_key.to_pem())
    write_file(consortium.authority_certificate, _pem(authority))
    for member, key in keys.items():
        own = consortium.member_directory(member)
        write_secret(own / "signing.key", key.to_pem())
        write_secret(own / "tls.key", tls_keys[member].to_pem())
        write_file(own / "tls.crt", _pem(issued[member]))
    write_file(consortium.founding_file, founding.raw)
    return consortium


def issue_certificate(
    consortium: Consortium,
    name: str,
    out: Path,
    *,
    hosts: Sequence[str] = (),
    days: int = certificates.MEMBER_DAYS,
) -> Path:
    """Issue a TLS certificate to a member, or to a server such as the broker.

    Writes `tls.key` and `tls.crt` into `out`, which must not hold them yet; returns the
    certificate's path. A name of the founding file gets a certificate that names the
    member's key id.
    """
    authority_key = load_key(consortium.directory / "authority" / "ca.key")
    authority = x509.load_der_x509_certificate(consortium.founding.authority)
    member = _founder(consortium, name)
    tls_key = SigningKey.generate()
    certificate = certificates.issue(
        authority,
        authority_key,
        tls_key,
        name,
        dt.datetime.now(dt.UTC),
        member=member.kid if member else None,
        hosts=tuple(dict.fromkeys((*LOCAL_HOSTS, *hosts))),
        days=days,
    )
    if (out / "tls.crt").exists():  # before there is a key that does not go with it
        raise ToolError(f"{out / 'tls.crt'}: exists; move it away first, nothing is overwritten")
    write_secret(out / "tls.key", tls_key.to_pem())
    write_file(out / "tls.crt", _pem(certificate))
    return out / "tls.crt"


def certificate_for(consortium: Consortium, name: str) -> str:
    """Whose certificate `issue_certificate` makes of a name, in words."""
    if _founder(consortium, name) is not None:
        return f"the member {name}"
    names = ", ".join(member.name for member in consortium.founding.members)
    return (
        f"a server named {name}: it is not one of the founding members ({names}), to whom alone "
        "nodes open; one that joined later asks with --request"
    )


def issue_requested(
    consortium: Consortium,
    request: MembershipRequest,
    out: Path,
    *,
    hosts: Sequence[str] = (),
    days: int = certificates.MEMBER_DAYS,
) -> Path:
    """Issue the TLS certificate that a membership request asks for, whose key stays there.

    Writes `tls.crt` into `out`; returns its path. The certificate names the request's key id,
    so it opens nothing before the validators have decided that the key is a member's.
    """
    authority_key = load_key(consortium.directory / "authority" / "ca.key")
    authority = x509.load_der_x509_certificate(consortium.founding.authority)
    certificate = certificates.issue(
        authority,
        authority_key,
        request.tls_key,
        request.name,
        dt.datetime.now(dt.UTC),
        member=request.key.kid,
        hosts=tuple(dict.fromkeys((*LOCAL_HOSTS, *request.hosts, *hosts))),
        days=days,
    )
    write_file(out / "tls.crt", _pem(certificate))
    return out / "tls.crt"


def describe(founding: Founding) -> dict[str, Any]:
    """What the founding file says, for people and for JSON."""
    return {
        "name": founding.name,
        "chain_id": founding.chain_id.hex(),
        "founded": dt.datetime.fromtimestamp(founding.time / 1000, dt.UTC).isoformat(),
        "quorum": f"{founding.quorum} of {len(founding.validators)} ({founding.quorum_rule})",
        "parameters": asdict(founding.parameters),
        "members": [
            {"name": m.name, "kid": m.kid.hex(), "roles": sorted(m.roles)} for m in founding.members
        ],
    }


def load_founding(path: Path) -> Founding:
    """Read and check a founding file; raises ToolError."""
    try:
        return parse_founding(read_small(path, MAX_FOUNDING_BYTES))
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; give the consortium's founding file") from error
    except ProtocolError as error:
        raise ToolError(f"{path}: is not a founding file: {error}") from error


def load_key(path: Path) -> SigningKey:
    """Read a private key, PEM; raises ToolError."""
    try:
        return SigningKey.from_pem(read_small(path), str(path))
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; give the path of a private key") from error
    except ProtocolError as error:
        raise ToolError(str(error)) from error


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read; raises ToolError where it exists."""
    _write(path, data, 0o600)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file that everybody may read; raises ToolError where it exists."""
    _write(path, data, 0o644)


def _founder(consortium: Consortium, name: str) -> Member | None:
    return next((m for m in consortium.founding.members if m.name == name), None)


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise ToolError(f"{path}: exists; move it away first, nothing is overwritten") from error
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key is none
        raise ToolError(f"{path}: {error.strerror}; make room, and do it again") from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
