"""Who a node is: founding file, member and signing key, checked before anything starts."""

from __future__ import annotations

from pathlib import Path

from fog_node.errors import ConfigurationError
from fog_node.ledger import State
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import MAX_FOUNDING_BYTES, Founding, parse_founding
from fog_node.protocol.keys import SigningKey
from fog_node.small_files import read_small

# Permissions on a key file that others than its owner must not have.
OTHERS = 0o077


def load_founding(path: Path) -> Founding:
    """Read the founding file; raises ConfigurationError."""
    try:
        return parse_founding(read_small(path, MAX_FOUNDING_BYTES))
    except OSError as error:
        raise ConfigurationError(
            f"[node] founding {path}: {error.strerror}; give the consortium's founding.cbor"
        ) from error
    except ProtocolError as error:
        raise ConfigurationError(
            f"[node] founding {path}: is not a founding file ({error}); "
            "ask the consortium for founding.cbor"
        ) from error


def load_key(path: Path) -> SigningKey:
    """Read the member's signing key, which nobody else may read; raises ConfigurationError."""
    where = f"[node] key {path}"
    check_secret(path, where)
    try:
        return SigningKey.from_pem(read_small(path))
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror}") from error
    except ProtocolError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def check_secret(path: Path, where: str) -> None:
    """Check that nobody but its owner may read a key file; raises ConfigurationError."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(
            f"{where}: {error.strerror}; give the path of the member's key"
        ) from error
    if mode & OTHERS:
        raise ConfigurationError(
            f"{where}: others may read it (mode {mode & 0o777:o}); run: chmod 600 {path}"
        )


def check_member(state: State, name: str, key: SigningKey) -> str | None:
    """Check the member that the configuration names against what is on the chain here.

    Its TLS certificate, by which the authority has said whose key this is, is checked
    elsewhere; so a key that the chain does not know (yet) is no error: a block that this
    node lacks may have added it.

    Returns:
        Why the node can only follow for now; None where it is a member.

    Raises:
        ConfigurationError: the key is another member's, or was replaced.
    """
    record = state.members.get(key.kid)
    if record is not None:
        if record.name != name:
            raise ConfigurationError(
                f"[node] member: is {name!r}, but the key is that of {record.name}; correct the "
                "name, or use the key that was made for it"
            )
        return "it was removed from the consortium" if record.status == "revoked" else None
    if (retired := state.membership.retired.get(key.kid)) is not None:
        raise ConfigurationError(
            f"[node] key: is {key.kid.hex()}, which {retired.successor.hex()} replaced in block "
            f"{retired.height}; use the new key, and a certificate for it"
        )
    known = state.member_named(name)
    if known is not None:
        return f"the chain here knows {name} by another key, {known.kid.hex()}"
    return "the chain here does not list it"
