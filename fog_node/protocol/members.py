"""Members of a consortium: their names, keys and roles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import FormatError
from .keys import PublicKey
from .validate import array, text

MAX_MEMBERS = 1024
MAX_NAME_CHARS = 32
ROLES = ("customer", "gateway", "operator", "provider", "regulator", "trainer", "validator")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@dataclass(frozen=True)
class Member:
    """An organisation or person of the consortium."""

    name: str
    key: PublicKey
    roles: frozenset[str]

    @property
    def kid(self) -> bytes:
        """Key id of the member."""
        return self.key.kid


def check_name(name: str, field: str) -> None:
    """Raise FormatError unless this can name a member."""
    if not name or not _NAME.issuperset(name):
        raise FormatError(field, "may hold a-z, 0-9 and '-' only")
    if len(name) > MAX_NAME_CHARS:
        raise FormatError(field, f"is longer than {MAX_NAME_CHARS} characters")


def check_roles(roles: Iterable[str], field: str) -> None:
    """Raise FormatError unless all of these are roles."""
    if unknown := set(roles) - set(ROLES):
        raise FormatError(field, f"{min(unknown)!r} is not a role", f"choose of {', '.join(ROLES)}")


def parse_name(value: Any, field: str) -> str:
    """Read a member's name; raises FormatError."""
    name = text(value, field, MAX_NAME_CHARS)
    check_name(name, field)
    return name


def parse_roles(value: Any, field: str) -> frozenset[str]:
    """Read an array of roles, which must be in order; raises FormatError."""
    roles = array(value, field, at_most=len(ROLES))
    if not all(isinstance(role, str) for role in roles) or roles != sorted(set(roles)):
        raise FormatError(field, "are not text, in order, each once")
    check_roles(roles, field)
    return frozenset(roles)
