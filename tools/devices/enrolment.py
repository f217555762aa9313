"""Boards on the chain: enrolling, revoking and reinstating them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import PublicKey, SigningKey, parse_kid
from fog_node.protocol.transactions import Channel, Enrol, ReinstateDevice, Revoke
from tools.devices.labels import key_of_code
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes
from tools.submit import submit


def enrolment(
    public_key: str, owner: str, device_type: str, board: str, channels: Sequence[str]
) -> Enrol:
    """Make an enrolment from what was typed or scanned; raises UsageError naming the option."""
    key = parse_key("--public-key", key_of_code(public_key) or public_key)
    parsed = []
    for text in channels:
        parts = text.split(",")
        try:
            name, unit, minimum, maximum = parts
            parsed.append(Channel(name, unit, float(minimum), float(maximum)))
        except ValueError as error:
            raise UsageError(f"--channel {text}: is not NAME,UNIT,MIN,MAX") from error
    return _checked(key, owner, device_type, board, parsed)


def parse_key(option: str, text: str) -> PublicKey:
    """Read a public key as it is typed; raises UsageError naming the option."""
    try:
        return PublicKey(bytes.fromhex(text))
    except (ProtocolError, ValueError) as error:
        raise UsageError(f"{option}: {error}; give x and y as 128 hex digits") from error


def of_record(record: Mapping[str, Any], owner: str) -> Enrol:
    """Make an enrolment from a board of `device provision --json`; raises UsageError."""
    try:
        key = PublicKey(bytes.fromhex(record["public_key"]))
        channels = [Channel(c[0], c[1], float(c[2]), float(c[3])) for c in record["channels"]]
        return _checked(key, owner, record["device_type"], record["board"], channels)
    except (ProtocolError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UsageError(f"--from: a board in it cannot be enrolled: {error}") from error


def _checked(
    key: PublicKey, owner: str, device_type: str, board: str, channels: Sequence[Channel]
) -> Enrol:
    body = Enrol(key, owner, device_type, board, tuple(channels), time.time_ns() // 1_000_000)
    try:
        return Enrol.decode(body.encode())
    except ProtocolError as error:
        raise UsageError(str(error)) from error


async def enroll_all(
    nodes: Nodes, founding: Founding, key: SigningKey, bodies: Sequence[Enrol]
) -> list[dict[str, Any]]:
    """Enrol boards, and pass over those that are enrolled with the same key, owner and channels.

    Raises:
        ToolError: one is not final in time, or is on the chain as something else.
        ClientError: no node answers, or it refuses.
    """
    async with nodes.client() as client:
        there = {device.kid: device for device in await client.devices()}
    rows = []
    for body in bodies:
        kid = body.device.hex()
        known = there.get(kid)
        if known is None:
            rows.append(await enroll(nodes, founding, key, body))
        elif (known.owner, known.type, known.status) == (body.owner, body.type, "active"):
            rows.append({"enrolled": kid, "transaction": "was enrolled before"})
        else:
            raise ToolError(
                f"{kid}: is on the chain as {known.status} {known.type} of {known.owner}; "
                "provision it with a new key (delete key.bin), or leave it out"
            )
    return rows


async def enroll(nodes: Nodes, founding: Founding, key: SigningKey, body: Enrol) -> dict[str, Any]:
    """Enrol a board and wait until it is final; raises ToolError, ClientError."""
    async with nodes.client() as client:
        transaction = await submit(client, key, body, founding)
    return {"enrolled": body.device.hex(), "transaction": transaction.id.hex()}


async def revoke(
    nodes: Nodes, founding: Founding, key: SigningKey, kid: str, reason: str
) -> dict[str, Any]:
    """Revoke a board's key and wait until it is final."""
    try:
        subject = parse_kid(kid)
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    body = Revoke(subject, reason, time.time_ns() // 1_000_000)
    async with nodes.client() as client:
        transaction = await submit(client, key, body, founding)
    return {"revoked": kid, "transaction": transaction.id.hex()}


async def reinstate(
    nodes: Nodes, founding: Founding, key: SigningKey, kid: str, reason: str
) -> dict[str, Any]:
    """End a board's quarantine and wait until that is final."""
    try:
        device = parse_kid(kid)
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    body = ReinstateDevice(device, reason, time.time_ns() // 1_000_000)
    async with nodes.client() as client:
        transaction = await submit(client, key, body, founding)
    return {"reinstated": kid, "transaction": transaction.id.hex()}
