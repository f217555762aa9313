"""Who a node is: founding file, member and signing key, checked before anything starts."""

from __future__ import annotations

from pathlib import Path

from fog_node.errors import ConfigurationError
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding, Member, parse_founding
from fog_node.protocol.keys import SigningKey

# Permissions on a key file that others than its owner must not have.
OTHERS = 0o077


def load_founding(path: Path) -> Founding:
    """Read the founding file; raises ConfigurationError."""
    try:
        return parse_founding(path.read_bytes())
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
        return SigningKey.from_pem(path.read_bytes())
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


def find_member(founding: Founding, name: str, key: SigningKey) -> Member:
    """Return the member that the configuration names; raises ConfigurationError."""
    member = next((m for m in founding.members if m.name == name), None)
    if member is None:
        names = ", ".join(m.name for m in founding.members)
        raise ConfigurationError(
            f"[node] member: {name!r} is not in the founding file, which lists {names}; "
            "correct the name, or use the founding file that lists it"
        )
    if member.kid != key.kid:
        raise ConfigurationError(
            f"[node] key: is {key.kid.hex()}, the founding file says {member.kid.hex()} for "
            f"{name}; use the key that was made for this consortium"
        )
    return member
