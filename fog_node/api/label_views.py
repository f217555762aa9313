"""Labels as the API shows them."""

from __future__ import annotations

from typing import Any

from fog_node.protocol.keys import kid_hex
from fog_node.protocol.labels import Image, Label, PackSpan, Target, TimeSpan

from .times import iso


def label_body(body: Label) -> dict[str, Any]:
    """Everything in it; `value` is null where the signer takes back what was said."""
    return {
        "labels": [{**target_view(item.target), "value": item.value} for item in body.labels],
        "note": body.note,
        "time": iso(body.time),
    }


def target_view(target: Target) -> dict[str, Any]:
    """What is labelled, or judged."""
    match target:
        case Image(sha256):
            return {"image": sha256.hex()}
        case TimeSpan(device, first, last):
            return {"device": kid_hex(device), "from": iso(first), "until": iso(last)}
        case PackSpan(device, first, last):
            return {"device": kid_hex(device), "first": first, "last": last}
