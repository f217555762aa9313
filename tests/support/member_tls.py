"""A consortium's authority and the TLS certificates that it issues, for tests of connections."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from fog_node.credentials import Credentials
from fog_node.network import certificates
from fog_node.protocol.keys import SigningKey


class MemberTls:
    """One authority; its certificates go to files in a directory."""

    def __init__(self, directory: Path, name: str = "test") -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        self._key = SigningKey.generate()
        now = dt.datetime.now(dt.UTC)
        self._certificate = certificates.make_authority(self._key, name, now)
        self.authority = self._certificate.public_bytes(Encoding.DER)
        self._count = 0

    def credentials(self, member: bytes | None, expired: bool = False) -> Credentials:
        """A certificate for the member with this key id; None: for a server that is none."""
        self._count += 1
        key = SigningKey.generate()
        now = dt.datetime.now(dt.UTC)
        issued = certificates.issue(
            self._certificate,
            self._key,
            key,
            f"number-{self._count}",
            now - dt.timedelta(days=9) if expired else now,
            member=member,
            days=1,
        )
        certificate = self._directory / f"{self._count}.crt"
        secret = self._directory / f"{self._count}.key"
        certificate.write_bytes(issued.public_bytes(Encoding.PEM))
        secret.write_bytes(key.to_pem())
        return Credentials(certificate, secret, self.authority)

    def server(self, member: bytes) -> ssl.SSLContext:
        """What this member's node listens with."""
        own = self.credentials(member)
        return certificates.server_context(self.authority, own.certificate, own.key)
