"""What validators decide by vote: proposing, approving, and how things stand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cryptography import x509

from fog_node.api.governance_views import change_view
from fog_node.api.models import MemberView, ProposalView
from fog_node.client import Client
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding, Parameters
from fog_node.protocol.governance import (
    AddMember,
    Approve,
    Change,
    Propose,
    Reinstate,
    RemoveMember,
    RevokeCertificate,
    RotateKey,
    SetParameters,
    SetRoles,
    Withdraw,
    parse_serial,
    serial_bytes,
)
from fog_node.protocol.keys import KID_BYTES, SigningKey
from fog_node.protocol.members import parse_roles
from fog_node.protocol.merkle import HASH_BYTES, leaf_hash
from fog_node.protocol.transactions import parse_transaction
from fog_node.small_files import read_small

from .errors import ToolError, UsageError
from .membership_request import MembershipRequest, load_request
from .nodes import Nodes
from .submit import submit

DAY_MS = 24 * 3_600_000
# How much of a proposal's id must be typed.
MIN_ID_DIGITS = 8


@dataclass(frozen=True)
class Wishes:
    """What was typed at `consortium propose`, one list per option."""

    add_member: Sequence[str] = ()
    remove_member: Sequence[str] = ()
    set_roles: Sequence[str] = ()
    rotate_key: Sequence[str] = ()
    parameter: Sequence[str] = ()
    revoke_certificate: Sequence[str] = ()
    reinstate: Sequence[str] = field(default=())


def read_changes(
    wishes: Wishes, founding: Founding, members: Callable[[str, str], bytes]
) -> tuple[Change, ...]:
    """Make the changes of a proposal, in the order of the options in `Wishes`.

    Args:
        wishes: as typed.
        founding: of the consortium.
        members: finds the key id for a name or a key id, and the option it stands at.

    Raises:
        UsageError: names the option.
        ToolError: a file cannot be read, or is not what it should be.
    """
    changes: list[Change] = []
    for text in wishes.add_member:
        request, roles = _added(text, founding)
        changes.append(AddMember(request.name, request.key, roles, request.proof))
    changes += [RemoveMember(members(name, "--remove-member")) for name in wishes.remove_member]
    for text in wishes.set_roles:
        name, listed = _split(text, "--set-roles", "NAME=ROLE[,ROLE]")
        changes.append(SetRoles(members(name, "--set-roles"), _roles(listed, "--set-roles")))
    for text in wishes.rotate_key:
        name, path = _split(text, "--rotate-key", "NAME=REQUEST")
        request = load_request(Path(path), founding)
        if request.name != name:
            raise UsageError(f"--rotate-key {text}: the request is for {request.name}")
        member = members(name, "--rotate-key")
        changes.append(RotateKey(member, request.key, request.name, request.proof))
    if wishes.parameter:
        changes.append(_parameters(wishes.parameter))
    changes += [RevokeCertificate(_serial(text)) for text in wishes.revoke_certificate]
    changes += [Reinstate(members(name, "--reinstate")) for name in wishes.reinstate]
    if not changes:
        raise UsageError("nothing to propose: give --add-member, --remove-member or another change")
    return tuple(changes)


async def propose(
    nodes: Nodes, founding: Founding, key: SigningKey, wishes: Wishes, note: str, days: float
) -> dict[str, Any]:
    """Propose changes and wait until the proposal is on the chain."""
    async with nodes.client() as client:
        known = await client.members()
        changes = read_changes(wishes, founding, lambda name, at: _member(known, name, at))
        until = _now_ms() + round(days * DAY_MS)
        body = Propose(changes, note, until)
        try:
            Propose.decode(body.encode())
        except ProtocolError as error:
            raise UsageError(str(error)) from error
        transaction = await submit(client, key, body, founding)
        return describe_proposal(await client.proposal(transaction.id))


async def approve(
    nodes: Nodes, founding: Founding, key: SigningKey, proposal: str
) -> dict[str, Any]:
    """Approve a proposal and say what became of it; see `look_up` for what is checked."""
    async with nodes.client() as client:
        id_, _ = await look_up(client, founding, proposal)
        await submit(client, key, Approve(id_), founding)
        return describe_proposal(await client.proposal(id_))


async def withdraw(
    nodes: Nodes, founding: Founding, key: SigningKey, proposal: str
) -> dict[str, Any]:
    """Take back an approval, or one's own proposal."""
    async with nodes.client() as client:
        id_, _ = await look_up(client, founding, proposal)
        await submit(client, key, Withdraw(id_), founding)
        return describe_proposal(await client.proposal(id_))


async def preview(nodes: Nodes, founding: Founding, proposal: str) -> list[dict[str, Any]]:
    """What a proposal would change, from its own signed bytes."""
    async with nodes.client() as client:
        _, body = await look_up(client, founding, proposal)
        return [change_view(change) for change in body.changes]


async def look_up(client: Client, founding: Founding, typed: str) -> tuple[bytes, Propose]:
    """Find the open proposal whose id begins with what was typed, and read its own bytes.

    Its id covers the bytes, so that a node cannot have one thing read and another approved.

    Raises:
        UsageError: none, or several, begin so.
        ToolError: what the node gives is not that proposal.
    """
    text = typed.strip().lower()
    if len(text) < MIN_ID_DIGITS or not set(text) <= set("0123456789abcdef"):
        raise UsageError(f"{typed}: is no proposal's id; give {MIN_ID_DIGITS} hex digits or more")
    listed = (await client.proposals()).proposals
    found = [item.id for item in listed if item.outcome == "open" and item.id.startswith(text)]
    if len(found) != 1:
        what = "no open proposal" if not found else f"{len(found)} open proposals"
        raise UsageError(f"{typed}: {what} begin so; see fogline consortium show --api URL")
    id_ = bytes.fromhex(found[0])
    if len(id_) != HASH_BYTES:
        raise ToolError(f"proposal {found[0]}: a node gives what is no id; ask another")
    raw = await client.raw_transaction(id_)
    try:
        transaction = parse_transaction(raw)
        if leaf_hash(raw) != id_ or not isinstance(transaction.body, Propose):
            raise ToolError(f"proposal {found[0]}: a node gives something else; ask another")
        transaction.body.verify_keys(founding.chain_id)
    except ProtocolError as error:
        raise ToolError(f"proposal {found[0]}: {error}; ask another node") from error
    return id_, transaction.body


async def show(nodes: Nodes) -> dict[str, Any]:
    """How the consortium stands now, by what a node says."""
    async with nodes.client() as client:
        consortium = await client.consortium()
        members = await client.members()
        proposals = await client.proposals()
    voters = set(consortium.voters)
    return {
        "name": consortium.name,
        "height": consortium.height,
        "quorum": f"{consortium.quorum} of {consortium.validators} ({consortium.quorum_rule})",
        "parameters": consortium.parameters,
        "revoked_certificates": consortium.revoked_certificates,
        "members": [
            {
                "name": member.name,
                "kid": member.kid,
                "roles": member.roles,
                "status": member.status,
                "votes": member.kid in voters,
            }
            for member in members
        ],
        "proposals": [describe_proposal(proposal) for proposal in proposals.proposals],
    }


def describe_proposal(view: ProposalView) -> dict[str, Any]:
    """A proposal for people: what it changes, who is for it, and what is missing."""
    return {
        "proposal": view.id,
        "outcome": view.outcome,
        "by": view.proposer,
        "until": view.until,
        "approved_by": view.approvals,
        "missing": view.missing,
        "note": view.note,
        "changes": view.changes,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _split(text: str, option: str, shape: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not name or not equals or not rest:
        raise UsageError(f"{option} {text}: is not {shape}")
    return name, rest


def _added(text: str, founding: Founding) -> tuple[MembershipRequest, frozenset[str]]:
    name, rest = _split(text, "--add-member", "NAME=ROLE[,ROLE]:REQUEST")
    roles, colon, path = rest.partition(":")
    if not colon or not path:
        raise UsageError(f"--add-member {text}: is not NAME=ROLE[,ROLE]:REQUEST")
    request = load_request(Path(path), founding)
    if request.name != name:
        raise UsageError(f"--add-member {text}: the request is for {request.name}")
    return request, _roles(roles, "--add-member")


def _roles(text: str, option: str) -> frozenset[str]:
    roles = sorted({role for role in text.split(",") if role and role != "none"})
    try:
        return parse_roles(roles, option)
    except ProtocolError as error:
        raise UsageError(str(error)) from error


def _parameters(texts: Sequence[str]) -> SetParameters:
    names = [item.name for item in fields(Parameters)]
    values: dict[str, int] = {}
    quorum = None
    for text in texts:
        name, value = _split(text, "--parameter", "NAME=VALUE")
        if name == "quorum":
            quorum = value
        elif name not in names:
            raise UsageError(f"--parameter {text}: is none of {', '.join((*names, 'quorum'))}")
        else:
            try:
                values[name] = int(value, 0)
            except ValueError as error:
                raise UsageError(f"--parameter {text}: is not a whole number") from error
    return SetParameters(tuple(sorted(values.items())), quorum)


def _serial(text: str) -> bytes:
    """Read a serial number, hex, or take it from a certificate's file."""
    path = Path(text)
    if path.exists():
        try:
            certificate = x509.load_pem_x509_certificate(read_small(path))
        except (OSError, ValueError) as error:
            raise ToolError(f"{path}: is no certificate, PEM: {error}") from error
        return serial_bytes(certificate.serial_number)
    digits = text.replace(":", "")
    try:
        return parse_serial(bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2)), "serial")
    except (ProtocolError, ValueError) as error:
        raise UsageError(
            f"--revoke-certificate {text}: is neither a file nor a serial number, hex"
        ) from error


def _member(known: Sequence[MemberView], typed: str, option: str) -> bytes:
    found = [member for member in known if typed in (member.name, member.kid)]
    if len(found) != 1:
        names = ", ".join(member.name for member in known)
        raise UsageError(f"{option} {typed}: is no member; there are {names}")
    kid = bytes.fromhex(found[0].kid)
    if len(kid) != KID_BYTES:
        raise ToolError(f"member {found[0].name}: a node gives what is no key id; ask another")
    return kid
