"""Which fog nodes a command talks to, and as whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fog_node.client import Client
from fog_node.credentials import Credentials
from tools.consortium import FOUNDING_FILE, load_founding
from tools.errors import UsageError

DEFAULT_API = "http://127.0.0.1:7480"
TLS_CERTIFICATE = "tls.crt"
TLS_KEY = "tls.key"


@dataclass(frozen=True)
class Nodes:
    """Addresses of fog nodes' APIs, and what to show them.

    Attributes:
        urls: in order of preference.
        credentials: for addresses that begin with `https`.
    """

    urls: tuple[str, ...] = (DEFAULT_API,)
    credentials: Credentials | None = None

    @classmethod
    def of(cls, urls: Sequence[str] | None, member: Path | None) -> Nodes:
        """From what was typed: addresses, and the directory of the member who asks.

        Raises:
            ToolError: the directory's founding file cannot be read.
            UsageError: an address speaks TLS, and no directory was given.
        """
        chosen = tuple(urls or (DEFAULT_API,))
        if member is None:
            if secure := [url for url in chosen if url.startswith("https:")]:
                raise UsageError(
                    f"--api {secure[0]}: wants to see a member's certificate; give --as DIR"
                )
            return cls(chosen)
        return cls(chosen, credentials_in(member))

    def client(self, patience_s: float = 0.0) -> Client:
        """Make a client; see `fog_node.client.Client`."""
        return Client(self.urls, credentials=self.credentials, patience_s=patience_s)

    def clients(self) -> list[Client]:
        """Make a client for each address, to compare what the nodes say."""
        return [Client([url], credentials=self.credentials) for url in self.urls]


def credentials_in(member: Path) -> Credentials:
    """What a member's directory holds for TLS.

    The founding file lies in it too, or where `consortium create` put it; raises ToolError.
    """
    own = member / FOUNDING_FILE
    founding = own if own.exists() else member.resolve().parent.parent / FOUNDING_FILE
    if not founding.exists():
        raise UsageError(f"--as {member}: holds no {FOUNDING_FILE}; put a copy of it there")
    authority = load_founding(founding).authority
    return Credentials(member / TLS_CERTIFICATE, member / TLS_KEY, authority)
