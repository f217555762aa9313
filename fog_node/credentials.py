"""What a member shows to a node's API over TLS, and what it wants to be shown."""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from .network.certificates import check_issued, client_context


@dataclass(frozen=True)
class Credentials:
    """A member's TLS certificate, for connections to nodes of its consortium.

    Attributes:
        certificate, key: PEM files; the key is the certificate's, never the signing key.
        authority: DER of the consortium's authority, as the founding file has it: nodes must
            show a certificate that it issued.
    """

    certificate: Path
    key: Path
    authority: bytes = field(repr=False)

    def context(self) -> ssl.SSLContext:
        """TLS context for such connections.

        A node would end the connection without a word, so the certificate is checked here first.

        Raises:
            ConfigurationError: the files cannot be used, or the certificate is not this
                authority's or not valid now.
        """
        now = dt.datetime.now(dt.UTC)
        check_issued(self.certificate, self.authority, now, f"TLS certificate {self.certificate}")
        return client_context(self.authority, self.certificate, self.key, where="TLS")
