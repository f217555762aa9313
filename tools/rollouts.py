"""Rollouts as the commands do them: proposed, approved after a look at the bundles, watched."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from fog_node.api.models import OfferView, ReleaseView, RolloutView
from fog_node.client import Client
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import KID_BYTES, PublicKey, SigningKey
from fog_node.protocol.manifest import Bundle, Manifest, parse_bundle
from fog_node.protocol.rollouts import MAX_GROUPS, Group, Named
from fog_node.protocol.transactions import (
    Release,
    Rollout,
    RolloutApprove,
    RolloutControl,
    parse_transaction,
)
from tools.at_work import ask_offer
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes
from tools.rollout_wishes import Wishes
from tools.submit import submit

MIN_ID_DIGITS = 8
# States of boards that are listed one by one; the others are counted.
SHOWN_STATES = ("failed", "trying", "returned")


async def propose(
    nodes: Nodes, founding: Founding, key: SigningKey, wishes: Wishes
) -> dict[str, Any]:
    """Propose a rollout, with its way back, and wait until that is on the chain.

    Raises:
        UsageError, ToolError: what was typed does not fit.
        CloudError: the way back cannot be made.
        ClientError: no node answers, or one refuses.
    """
    async with nodes.client() as client:
        release = await _release(client, wishes)
        offer, _ = await ask_offer(client, release.device_type)
        bundle = await _bundle(client, founding, release)
        back = None
        if offer is not None and offer.stable is not None:
            back = await _way_back(client, founding, key, release, offer)
        body = Rollout(
            device_type=release.device_type,
            release=_named(release),
            model=bundle.manifest.payload_sha256,
            back=back,
            groups=_groups(wishes),
            verdicts=wishes.verdicts,
            soak_s=wishes.soak_s,
            anomalies=wishes.anomalies,
            silent_s=wishes.silent_s,
            note=wishes.note,
            time=_now_ms(),
        )
        try:
            Rollout.decode(body.encode())
        except ProtocolError as error:
            raise UsageError(str(error)) from error
        await submit(client, key, body, founding)
        return await _describe(client, release.device_type)


async def preview(nodes: Nodes, founding: Founding, which: str) -> dict[str, Any]:
    """Show what a proposed rollout would do, from its own bytes, after checking its bundles.

    Raises:
        UsageError: there is no such rollout.
        ToolError: it is not what it says.
    """
    async with nodes.client() as client:
        offer, rollout = await _look_up(client, which)
        body = await _body(client, rollout)
        manifest = await _checked(client, founding, offer, body)
        return {
            "device_type": body.device_type,
            "release": f"{body.release.name} {body.release.version}",
            "model": body.model.hex(),
            "window": f"{manifest.window} rows of {', '.join(manifest.channels)}",
            "way_back": "none: the first release"
            if body.back is None
            else f"{body.back.name} {body.back.version}, what boards run now",
            "proposer": rollout.proposer,
            "groups": [_group(group) for group in body.groups],
            "verdicts": body.verdicts,
            "soak_s": body.soak_s,
            "anomalies": f"{body.anomalies} %",
            "silent_s": body.silent_s,
            "note": body.note,
        }


async def approve(nodes: Nodes, founding: Founding, key: SigningKey, which: str) -> dict[str, Any]:
    """Approve a rollout, as its second member; see `preview` for what is checked."""
    async with nodes.client() as client:
        offer, rollout = await _look_up(client, which)
        body = await _body(client, rollout)
        await _checked(client, founding, offer, body)
        await submit(client, key, RolloutApprove(bytes.fromhex(rollout.id)), founding)
        return await _describe(client, offer.device_type)


async def control(
    nodes: Nodes, founding: Founding, key: SigningKey, which: str, action: str, reason: str
) -> dict[str, Any]:
    """Pause a rollout, let it go on, or roll it back."""
    async with nodes.client() as client:
        offer, rollout = await _look_up(client, which)
        body = RolloutControl(bytes.fromhex(rollout.id), action, reason)
        try:
            RolloutControl.decode(body.encode())
        except ProtocolError as error:
            raise UsageError(str(error)) from error
        await submit(client, key, body, founding)
        return await _describe(client, offer.device_type)


async def status(nodes: Nodes, which: str | None) -> list[dict[str, Any]]:
    """How rollouts stand, all of them or one."""
    async with nodes.client() as client:
        if which is not None:
            offer, _ = await _look_up(client, which)
            return [await _describe(client, offer.device_type)]
        return [await _describe(client, offer.device_type) for offer in await client.offers()]


# Beneath ------------------------------------------------------------------------------------


async def _describe(client: Client, device_type: str) -> dict[str, Any]:
    offer, boards = await ask_offer(client, device_type)
    if offer is None:
        raise ToolError(f"{device_type}: a node knows of no offers any more; ask another")
    shown: dict[str, Any] = {
        "device_type": device_type,
        "all_boards_run": _version(offer.stable),
        "way_back_in_force": _version(offer.back),
    }
    rollout = offer.rollout
    if rollout is None:
        return shown | {"status": "no rollout yet"}
    shown |= {
        "rollout": rollout.id,
        "status": rollout.status,
        "reason": rollout.reason,
        "release": _version(rollout.release),
        "way_back": _version(rollout.back),
        "proposer": rollout.proposer,
        "approver": rollout.approver,
        "groups": [
            {
                "group": number,
                "boards": group.size,
                "of": f"{group.percent} %"
                if group.percent is not None
                else f"{len(group.boards)} named",
                "done": group.done,
                "failed": group.failed,
                "next_begins_at": f"{group.success} %",
                "stops_at": f"{group.errors} %",
                "since": group.since,
            }
            for number, group in enumerate(rollout.groups, start=1)
        ],
    }
    if rollout.approver is None:
        return shown
    shown["counts"] = dict(Counter(board.state for board in boards))
    shown["boards"] = [
        {
            "board": board.kid,
            "group": board.group,
            "state": board.state,
            "cause": board.cause,
            "verdicts": board.verdicts,
            "anomalies": board.anomalies,
            "heard": board.heard,
        }
        for board in boards
        if board.state in SHOWN_STATES
    ]
    return shown


async def _release(client: Client, wishes: Wishes) -> ReleaseView:
    found = [
        release
        for release in await client.releases()
        if release.name == wishes.name and wishes.device_type in (None, release.device_type)
    ]
    if not found:
        raise UsageError(f"{wishes.name}: no such release; see `fogline model list`")
    if len(found) > 1:
        types = ", ".join(sorted(release.device_type for release in found))
        raise UsageError(f"{wishes.name}: is released for {types}; give --device-type")
    (release,) = found
    if wishes.version not in (None, release.version):
        raise UsageError(
            f"--version {wishes.version}: the latest of {wishes.name} is {release.version}, and "
            "only that one can be rolled out; release the other model again"
        )
    return release


async def _bundle(client: Client, founding: Founding, release: ReleaseView) -> Bundle:
    """A release's bundle, checked as a node would; raises ToolError."""
    trainers = [
        PublicKey(bytes.fromhex(member.key))
        for member in await client.members()
        if "trainer" in member.roles and member.status != "revoked"
    ]
    data = await client.get_blob(bytes.fromhex(release.bundle))
    try:
        bundle = parse_bundle(data)
        bundle.verify(trainers, founding.chain_id)
    except ProtocolError as error:
        raise ToolError(f"bundle of {release.name} {release.version}: {error}") from error
    manifest = bundle.manifest
    said = (manifest.name, manifest.version, manifest.device_type)
    if said != (release.name, release.version, release.device_type):
        raise ToolError(f"bundle of {release.name} {release.version}: is of {said}")
    return bundle


async def _way_back(
    client: Client, founding: Founding, key: SigningKey, release: ReleaseView, offer: OfferView
) -> Named:
    """The release that a rollback offers: one that fits, or a new one by a trainer's key."""
    from cloud import way_back
    from cloud.release import publish_prepared

    stable = offer.stable
    assert stable is not None
    name = way_back.name_of(release.name)
    releases = await client.releases()
    held = parse_bundle(await client.get_blob(bytes.fromhex(stable.bundle)))
    for known in releases:
        if (known.device_type, known.name) != (release.device_type, name):
            continue
        if known.version > release.version:
            bundle = await _bundle(client, founding, known)
            if _is_same(bundle, held):
                return _named(known)
    versions = [r.version for r in releases if r.device_type == release.device_type]
    raw = await client.raw_transaction(bytes.fromhex(stable.transaction))
    body = parse_transaction(raw).body
    if not isinstance(body, Release):
        raise ToolError(f"{stable.name}: a node gives something else than its release; ask another")
    members = {member.kid: member.roles for member in await client.members()}
    if "trainer" not in members.get(key.kid.hex(), ()):
        raise ToolError(
            f"{release.name} {release.version}: has no way back to {stable.name} {stable.version} "
            "yet; a trainer makes it by proposing the rollout"
        )
    bundle_data = await client.get_blob(body.bundle)
    prepared = way_back.prepare(
        bundle_data, body, key, founding, name, max(versions) + 1, _now_ms()
    )
    await publish_prepared(client, partial(submit, wait=False), key, founding, prepared)
    return Named(prepared.release.name, prepared.release.version, prepared.release.bundle)


async def _checked(client: Client, founding: Founding, offer: OfferView, body: Rollout) -> Manifest:
    """What a rollout says of its bundles must be so; raises ToolError."""
    bundles: dict[str, Bundle] = {}
    for what, named in (("release", body.release), ("back", body.back)):
        if named is None:
            continue
        data = await client.get_blob(named.bundle)
        try:
            bundles[what] = parse_bundle(data)
        except ProtocolError as error:
            raise ToolError(f"bundle of {named.name}: {error}") from error
    manifest = bundles["release"].manifest
    if not isinstance(manifest, Manifest) or manifest.payload_sha256 != body.model:
        raise ToolError("rollout.model: is not that of the release's bundle; do not approve it")
    if body.back is not None:
        if offer.stable is None:
            raise ToolError("rollout.back: there is nothing to go back to; do not approve it")
        held = parse_bundle(await client.get_blob(bytes.fromhex(offer.stable.bundle)))
        if not _is_same(bundles["back"], held):
            raise ToolError("rollout.back: is not what boards run now; do not approve it")
    trainers = [
        PublicKey(bytes.fromhex(member.key))
        for member in await client.members()
        if "trainer" in member.roles and member.status != "revoked"
    ]
    try:
        for bundle in bundles.values():
            bundle.verify(trainers, founding.chain_id)
    except ProtocolError as error:
        raise ToolError(f"bundle: {error}; do not approve it") from error
    return manifest


def _is_same(one: Bundle, other: Bundle) -> bool:
    from cloud.way_back import is_same_model

    first, second = one.manifest, other.manifest
    if not isinstance(first, Manifest) or not isinstance(second, Manifest):
        return False
    return is_same_model(first, second)


async def _look_up(client: Client, which: str) -> tuple[OfferView, RolloutView]:
    """The latest rollout of a device type, or the one whose id begins so; raises UsageError."""
    text = which.strip().lower()
    is_id = len(text) >= MIN_ID_DIGITS and set(text) <= set("0123456789abcdef")
    found = [
        (offer, offer.rollout)
        for offer in await client.offers()
        if offer.rollout is not None
        and (offer.device_type == which or (is_id and offer.rollout.id.startswith(text)))
    ]
    if len(found) != 1:
        raise UsageError(
            f"{which}: {len(found)} rollouts fit; give the device type, or {MIN_ID_DIGITS} or more "
            "digits of the id that `fogline model status` shows"
        )
    return found[0]


async def _body(client: Client, rollout: RolloutView) -> Rollout:
    """A rollout's own bytes, which its id covers; raises ToolError."""
    raw = await client.raw_transaction(bytes.fromhex(rollout.id))
    try:
        transaction = parse_transaction(raw)
    except ProtocolError as error:
        raise ToolError(f"rollout {rollout.id}: {error}; ask another node") from error
    if transaction.id.hex() != rollout.id or not isinstance(transaction.body, Rollout):
        raise ToolError(f"rollout {rollout.id}: a node gives something else; ask another")
    return transaction.body


def check_percentages(groups: Sequence[int]) -> None:
    """Raise UsageError for percentages of groups that no rollout can have; see Rollout.decode."""
    rising = list(groups) == sorted(set(groups))
    if not rising or not groups or groups[0] < 1 or groups[-1] != 100 or len(groups) > MAX_GROUPS:
        typed = ",".join(map(str, groups))
        raise UsageError(
            f"--groups {typed}: must rise from 1 or more to 100, in {MAX_GROUPS} steps at most"
        )


def _groups(wishes: Wishes) -> tuple[Group, ...]:
    groups = [Group(None, _kids(text), wishes.success, wishes.errors) for text in wishes.first]
    groups += [Group(p, (), wishes.success, wishes.errors) for p in wishes.percentages]
    return tuple(groups)


def _kids(text: str) -> tuple[bytes, ...]:
    try:
        kids = tuple(bytes.fromhex(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--first {text}: give key ids, separated by commas") from error
    if any(len(kid) != KID_BYTES for kid in kids):
        raise UsageError(f"--first {text}: a key id has {2 * KID_BYTES} hex digits")
    return kids


def _group(group: Group) -> dict[str, Any]:
    boards = [kid.hex() for kid in group.boards]
    return {
        "boards": boards if group.percent is None else f"{group.percent} %",
        "next_begins_at": f"{group.success} % done",
        "stops_at": f"{group.errors} % failed",
    }


def _named(release: ReleaseView) -> Named:
    return Named(release.name, release.version, bytes.fromhex(release.bundle))


def _version(offered: Any) -> str | None:
    return None if offered is None else f"{offered.name} {offered.version}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
