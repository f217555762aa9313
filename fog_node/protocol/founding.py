"""The founding file: what a consortium agreed on at its start, and the anchor of all trust."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from .block import MAX_BLOCK_BYTES, MAX_BLOCK_TRANSACTIONS, Header, target_from_bits
from .cbor import decode, encode
from .errors import FormatError
from .keys import PublicKey
from .members import (
    MAX_MEMBERS,
    MAX_NAME_CHARS,
    ROLES,
    Member,
    check_name,
    check_roles,
    parse_roles,
)
from .merkle import leaf_hash
from .validate import array, integers, text, text_map, time_ms, uint
from .validators import ValidatorSet
from .votes import MAX_VALIDATORS

FORMAT = 1
MAX_FOUNDING_BYTES = 1024 * 1024
MAX_CERTIFICATE_BYTES = 4096
QUORUM_RULES = ("majority", "two-thirds")
# Parameters that founding files of before do not have.
LATER_PARAMETERS = frozenset({"staged_releases"})


def quorum_of(rule: str, validators: int) -> int:
    """Votes that make a block final: more than 51 %, or more than two thirds."""
    if rule == "majority":
        return validators * 51 // 100 + 1
    if rule == "two-thirds":
        return validators * 2 // 3 + 1
    raise FormatError("founding.quorum", f"is not one of {', '.join(QUORUM_RULES)}")


@dataclass(frozen=True)
class Parameters:
    """Chain parameters; times in ms.

    Attributes:
        block_interval_ms: what difficulty and miners aim at between two blocks.
        heartbeat_ms: an empty block is mined when there was none for this long; 0 = never.
        bits: compact target at the start, and the easiest one allowed.
        retarget_blocks: difficulty is set anew after so many blocks; 0 = never.
        rest_ms: least time between a block and the next one.
        stagger_ms: by courtesy a miner waits this much per rank in the round's draw.
        mining_diversity: in permille of the quorum: how many of the latest blocks must be
            another's before a validator may mine again.
        max_block_bytes, max_block_transactions: limits of one block.
        enterprise_number: IANA private enterprise number in the device URNs.
        staged_releases: 1: boards get a model only by a rollout that a second member approved;
            0: a released model is for all boards of its type at once. Left out where 0.
    """

    block_interval_ms: int = 2000
    heartbeat_ms: int = 600_000
    bits: int = 0x1F00FFFF
    retarget_blocks: int = 120
    rest_ms: int = 1000
    stagger_ms: int = 250
    mining_diversity: int = 0
    max_block_bytes: int = 2 * 1024 * 1024
    max_block_transactions: int = 4096
    enterprise_number: int = 32473
    staged_releases: int = 0

    def validate(self, field: str = "founding.parameters") -> None:
        """Raise FormatError where a parameter is out of range."""
        hour = 3_600_000
        limits = {
            "block_interval_ms": (50, hour),
            "heartbeat_ms": (0, 24 * hour),
            "bits": (1, 2**32 - 1),
            "retarget_blocks": (0, 100_000),
            "rest_ms": (0, hour),
            "stagger_ms": (0, hour),
            "mining_diversity": (0, 1000),
            "max_block_bytes": (64 * 1024, MAX_BLOCK_BYTES),
            "max_block_transactions": (1, MAX_BLOCK_TRANSACTIONS),
            "enterprise_number": (0, 2**32 - 1),
            "staged_releases": (0, 1),
        }
        for name, (least, most) in limits.items():
            uint(getattr(self, name), f"{field}.{name}", most, least)
        if self.rest_ms > self.block_interval_ms:
            raise FormatError(f"{field}.rest_ms", "is longer than block_interval_ms")
        target_from_bits(self.bits)

    def value(self) -> dict[str, int]:
        """The map that stands for them; one that came later is left out where it is 0."""
        return {
            name: number
            for name, number in asdict(self).items()
            if number or name not in LATER_PARAMETERS
        }

    @classmethod
    def parse(cls, value: Any, field: str) -> Parameters:
        """Read what `value` gave, whatever the ranges are; raises FormatError."""
        names = {item.name for item in fields(cls)}
        later = {name for name in LATER_PARAMETERS if isinstance(value, dict) and name in value}
        listed = text_map(value, names - LATER_PARAMETERS | later, field)
        found = cls(**{k: uint(v, f"{field}.{k}") for k, v in listed.items()})
        if zeros := sorted(name for name in later if not listed[name]):
            raise FormatError(f"{field}.{zeros[0]}", "is 0; it is left out then")
        return found


@dataclass(frozen=True)
class Founding:
    """The parsed founding file.

    Attributes:
        name: of the consortium.
        time: ms since 1970.
        quorum_rule: one of QUORUM_RULES.
        authority: DER of the X.509 certificate that signs the members' TLS certificates.
        members: in file order; the validators among them are numbered in this order.
    """

    name: str
    time: int
    quorum_rule: str
    parameters: Parameters
    authority: bytes = field(repr=False)
    members: tuple[Member, ...]

    @cached_property
    def raw(self) -> bytes:
        """The file's bytes."""
        return encode(
            {
                "fogline": FORMAT,
                "name": self.name,
                "time": self.time,
                "quorum": self.quorum_rule,
                "parameters": self.parameters.value(),
                "authority": self.authority,
                "members": [
                    {"name": m.name, "key": m.key.cose_key, "roles": sorted(m.roles)}
                    for m in self.members
                ],
            }
        )

    @cached_property
    def chain_id(self) -> bytes:
        """SHA-256 of the file: the external additional data of every signature."""
        return hashlib.sha256(self.raw).digest()

    @cached_property
    def genesis(self) -> Header:
        """Header of block 0, which follows from the file and is neither mined nor voted on."""
        return Header(
            previous=bytes(32),
            merkle_root=leaf_hash(self.raw),
            time=self.time // 1000,
            bits=self.parameters.bits,
            nonce=0,
        )

    @cached_property
    def validators(self) -> tuple[Member, ...]:
        """Members with the role validator, in file order."""
        return tuple(m for m in self.members if "validator" in m.roles)

    @property
    def quorum(self) -> int:
        """Votes that make a block final."""
        return quorum_of(self.quorum_rule, len(self.validators))

    @cached_property
    def validator_set(self) -> ValidatorSet:
        """Who votes on block 1."""
        return ValidatorSet(self.quorum, tuple(m.key for m in self.validators))

    def member(self, kid: bytes) -> Member | None:
        """The member with this key id."""
        return self._by_kid.get(kid)

    @cached_property
    def _by_kid(self) -> dict[bytes, Member]:
        return {m.kid: m for m in self.members}


def parse_founding(data: bytes) -> Founding:
    """Parse a founding file strictly; raises EncodingError, FormatError."""
    names = {"fogline", "name", "time", "quorum", "parameters", "authority", "members"}
    value = text_map(decode(data, MAX_FOUNDING_BYTES, "founding"), names, "founding")
    if not integers((value["fogline"],)) or value["fogline"] != FORMAT:
        raise FormatError("founding.fogline", f"is not format {FORMAT}", "use a matching release")
    parameters = Parameters.parse(value["parameters"], "founding.parameters")
    authority = value["authority"]
    if not isinstance(authority, bytes) or len(authority) > MAX_CERTIFICATE_BYTES:
        raise FormatError("founding.authority", "is not a DER certificate of a sane size")
    members = []
    for index, item in enumerate(
        array(value["members"], "founding.members", at_most=MAX_MEMBERS),
    ):
        where = f"founding.members[{index}]"
        entry = text_map(item, {"name", "key", "roles"}, where)
        members.append(
            Member(
                name=text(entry["name"], f"{where}.name", MAX_NAME_CHARS),
                key=PublicKey.from_cose_key(entry["key"], f"{where}.key"),
                roles=parse_roles(entry["roles"], f"{where}.roles"),
            )
        )
    founding = Founding(
        name=text(value["name"], "founding.name", 64),
        time=time_ms(value["time"], "founding.time"),
        quorum_rule=text(value["quorum"], "founding.quorum", 32),
        parameters=parameters,
        authority=authority,
        members=tuple(members),
    )
    validate_founding(founding)
    return founding


def validate_founding(founding: Founding) -> None:
    """Raise FormatError where the content does not make a consortium."""
    founding.parameters.validate()
    names: set[str] = set()
    kids: set[bytes] = set()
    for index, member in enumerate(founding.members):
        where = f"founding.members[{index}]"
        check_name(member.name, f"{where}.name")
        check_roles(member.roles, f"{where}.roles")
        if member.name in names or member.kid in kids:
            raise FormatError(where, "has a name or key id that another member has")
        names.add(member.name)
        kids.add(member.kid)
    if not 1 <= len(founding.validators) <= MAX_VALIDATORS:
        raise FormatError("founding.members", f"1 to {MAX_VALIDATORS} must be validators")
    quorum_of(founding.quorum_rule, len(founding.validators))


__all__ = [
    "MAX_FOUNDING_BYTES",
    "QUORUM_RULES",
    "ROLES",
    "Founding",
    "Member",
    "Parameters",
    "parse_founding",
    "quorum_of",
    "validate_founding",
]
