"""Boards on the chain: enrolling, revoking and reinstating them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import PublicKey, SigningKey, parse_kid
from fog_node.protocol.transactions import Channel, Enrol, ReinstateDevice, Revoke
from tools.errors import UsageError
from tools.nodes import Nodes
from tools.submit import submit


def enrolment(
    public_key: str, owner: str, device_type: str, board: str, channels: Sequence[str]
) -> Enrol:
    """Make an enrolment from what was typed; raises UsageError naming the option."""
    try:
        key = PublicKey(bytes.fromhex(public_key))
    except (ProtocolError, ValueError) as error:
        raise UsageError(f"--public-key: {error}; give x and y as 128 hex digits") from error
    parsed = []
    for text in channels:
        parts = text.split(",")
        try:
            name, unit, minimum, maximum = parts
            parsed.append(Channel(name, unit, float(minimum), float(maximum)))
        except ValueError as error:
            raise UsageError(f"--channel {text}: is not NAME,UNIT,MIN,MAX") from error
    body = Enrol(key, owner, device_type, board, tuple(parsed), time.time_ns() // 1_000_000)
    try:
        return Enrol.decode(body.encode())
    except ProtocolError as error:
        raise UsageError(str(error)) from error


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
