"""`fogline model watch`: what has drifted goes on the chain, and a better model is released."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloud.challenge import Challenge, challenge
from cloud.dataset import Dataset
from cloud.drift import STATISTIC, Seen, measure, seen
from cloud.errors import CloudError, ReleaseError, TrainingError
from cloud.lineage import find, trace
from cloud.readings import Readings
from cloud.selection import Query, Selection, select, within
from cloud.train import anomaly
from cloud.train.anomaly_model import BoardModel
from fog_node.client import Client, ClientError, RefusedError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey, kid_hex
from fog_node.protocol.manifest import Manifest, parse_bundle
from fog_node.protocol.predictions import Drift, Measure
from fog_node.protocol.transactions import Release
from tools import rollouts
from tools.at_work import AtWork, ask_offer, at_work, has_open_rollout
from tools.errors import ToolError
from tools.nodes import Nodes
from tools.outputs import check_directory, write_out
from tools.rollout_wishes import Wishes
from tools.submit import submit
from tools.training import is_staged, release, update

HOUR_MS = 3_600_000
# Of the recent readings, the latest part is kept from the new training, to judge it by.
HELD_OUT = 0.3


@dataclass(frozen=True)
class Rule:
    """When something has drifted, and what then.

    Attributes:
        hours: of readings that are looked at.
        limit: population stability index above which something has moved.
        looks: so many looks in a row, before it counts.
        retrain: directory for new models; None: a new training is only proposed.
        groups: percentages of the rollout of a new model, where the consortium stages releases.
        quick, seed: of the training.
        false_alarms: share of normal windows that may raise an alarm of a new model; None: the
            usual one.
    """

    hours: float
    limit: float
    looks: int
    retrain: Path | None
    groups: Sequence[int]
    quick: bool
    seed: int
    false_alarms: float | None


@dataclass(frozen=True)
class Watched:
    """Who watches what.

    Attributes:
        name: of a release: the boards that it is for are watched, whatever model they run; a new
            model is released under it.
        device_type: where several types have one of this name; None: the name alone tells.
        data: directory of the data set.
        key: of a member with the role gateway or trainer; to release, trainer.
    """

    name: str
    device_type: str | None
    data: Path
    key: SigningKey


@dataclass(frozen=True)
class Look:
    """What one look at a model has shown.

    Attributes:
        release: that boards run; `contender`, as they run it.
        measures: of each channel, and of the verdicts.
        recent: readings of the boards that run it, by key id.
        query: which readings of the device type are recent.
    """

    release: Release
    contender: BoardModel
    measures: tuple[Measure, ...]
    recent: Mapping[bytes, Readings]
    query: Query

    @property
    def model(self) -> bytes:
        """SHA-256 of the model's file: the same however often it was released."""
        return self.contender.manifest.payload_sha256

    @property
    def moved(self) -> tuple[str, ...]:
        """Names of what is beyond its limit."""
        return tuple(item.name for item in self.measures if item.has_moved)

    @property
    def span_ms(self) -> tuple[int, int]:
        """When the first and the last recent row was taken."""
        times = np.concatenate([rows.times_ms for rows in self.recent.values()])
        return int(times.min()), int(times.max())

    def report(self) -> dict[str, Any]:
        """As a command shows it."""
        return {
            "release": f"{self.release.name} {self.release.version}",
            "boards": [kid_hex(kid) for kid in sorted(self.recent)],
            "rows": sum(len(rows) for rows in self.recent.values()),
            "measures": [
                {
                    "name": m.name,
                    STATISTIC: round(m.value, 4),
                    "limit": m.limit,
                    "moved": m.has_moved,
                }
                for m in self.measures
            ],
            "moved": list(self.moved),
        }


@dataclass(frozen=True)
class Looks:
    """What one look at the boards of a device type has shown.

    Attributes:
        models: each that boards run, and that there is enough of to say something.
        put_off: by name and version of a release, why nothing can be said yet.
        is_between: whether a rollout is under way: what boards run is about to change.
    """

    device_type: str
    models: tuple[Look, ...]
    put_off: Mapping[str, str]
    is_between: bool

    def report(self, done: Mapping[bytes, dict[str, Any]]) -> dict[str, Any]:
        """As a command shows it; `done`: what followed, by model."""
        return {
            "device_type": self.device_type,
            "models": [look.report() | done.get(look.model, {}) for look in self.models]
            + [{"release": name, "put_off": why} for name, why in self.put_off.items()],
        }


@dataclass
class Memory:
    """What a watcher keeps from look to look, by model.

    Attributes:
        in_a_row: looks in which it has moved.
        said: with what action its drift was sealed; once each, also by an earlier watcher.
        followed: models after which another one was trained; it is noted beside that as well, for
            a watcher that is started anew.
    """

    in_a_row: Counter[bytes] = field(default_factory=Counter)
    said: set[tuple[bytes, str]] = field(default_factory=set)
    followed: set[bytes] = field(default_factory=set)

    def beyond(self, looks: Looks, needed: int) -> list[Look]:
        """Those that have moved in so many looks, this one counted."""
        moved = [look for look in looks.models if look.moved]
        self.in_a_row = Counter({look.model: self.in_a_row[look.model] + 1 for look in moved})
        return [look for look in moved if self.in_a_row[look.model] >= needed]


async def watch(
    nodes: Nodes,
    founding: Founding,
    watched: Watched,
    rule: Rule,
    every_s: float | None,
    tell: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Look until it is ended, or once.

    Args:
        every_s: between two looks; None: one look, which counts at once.
        tell: takes what a look has shown.

    Returns:
        The last look, and what followed from it.

    Raises:
        UsageError, ToolError: what would be found out only when something has drifted.
    """
    rollouts.check_percentages(rule.groups)
    if rule.retrain is not None:
        check_directory("--retrain", rule.retrain)
    memory: Memory | None = None
    while True:
        try:
            memory = memory or Memory(said=await _said_before(nodes, watched.key))
            looks = await _look(nodes, founding, watched, rule)
            needed = rule.looks if every_s is not None else 1
            done = {
                look.model: await _act(nodes, founding, watched, rule, look, memory, looks)
                for look in memory.beyond(looks, needed)
            }
        except (CloudError, ClientError, ToolError) as error:
            if every_s is None:
                raise
            tell({"put_off": str(error)})
            await asyncio.sleep(every_s)
            continue
        result = looks.report(done)
        tell(result)
        if every_s is None:
            return result
        await asyncio.sleep(every_s)


async def _said_before(nodes: Nodes, key: SigningKey) -> set[tuple[bytes, str]]:
    """What this key has sealed of drift: a watcher that is started anew does not repeat it."""
    said = set()
    async with (
        nodes.client() as client,
        contextlib.aclosing(client.all_transactions(kind="drift")) as sealed,
    ):
        async for view in sealed:
            body = view.body or {}
            if view.signer == kid_hex(key.kid) and body.get("model") is not None:
                said.add((bytes.fromhex(body["model"]), body["action"]))
    return said


async def _look(nodes: Nodes, founding: Founding, watched: Watched, rule: Rule) -> Looks:
    dataset = await update(nodes, founding, watched.data)
    named = await asyncio.to_thread(find, dataset, watched.name, watched.device_type)
    device_type = named.release.device_type
    now = time.time_ns() // 1_000_000
    query = Query(device_type, since=now - int(rule.hours * HOUR_MS), until=now)
    async with nodes.client() as client:
        offer, boards = await ask_offer(client, device_type)
        running = at_work(offer, boards, _newest(dataset, device_type))
        if not running:
            raise TrainingError(
                f"{watched.name}: no board of {device_type} runs a model yet",
                f"roll it out: fogline model rollout {watched.name}",
            )
        recent = await asyncio.to_thread(select, dataset, query)
        found, put_off = [], {}
        for work in running:
            kids = work.among(recent.readings, running)
            if not kids:
                continue
            own = replace(recent, readings={kid: recent.readings[kid] for kid in kids})
            released, learned = await asyncio.to_thread(_learned, dataset, work, device_type)
            contender = await _contender(client, released)
            try:
                found.append(
                    await asyncio.to_thread(_compare, learned, released, contender, own, rule)
                )
            except TrainingError as error:
                if len(running) == 1:
                    raise
                put_off[f"{work.name} {work.version}"] = str(error)
    return Looks(device_type, tuple(found), put_off, len(running) > 1 or has_open_rollout(offer))


def _newest(dataset: Dataset, device_type: str) -> Release:
    """The latest release for these boards; there is one."""
    of_type = [each for each in dataset.releases() if each.release.device_type == device_type]
    return max(of_type, key=lambda each: (each.height, each.release.version)).release


def _learned(
    dataset: Dataset, work: AtWork, device_type: str
) -> tuple[Release, Mapping[bytes, Readings]]:
    """A release, and what it was trained on; raises ToolError where it does not say so."""
    lineage = trace(dataset, work.name, device_type, work.version)
    release = lineage.released.release
    if lineage.selection is None or lineage.differences:
        raise ToolError(
            f"release {release.name} {release.version}: was not trained on what it says; see: "
            f"fogline model lineage {release.name} --version {release.version}"
        )
    return release, lineage.selection.readings


def _compare(
    learned: Mapping[bytes, Readings],
    release: Release,
    contender: BoardModel,
    recent: Selection,
    rule: Rule,
) -> Look:
    # What it has learned says nothing of what has changed.
    latest = max(int(rows.times_ms.max()) for rows in learned.values() if len(rows))
    fresh = {
        kid: part
        for kid, rows in recent.readings.items()
        if len(part := within(rows, replace(recent.query, since=latest + 1)))
    }
    if not fresh:
        raise TrainingError(
            f"drift: in {rule.hours:g} h boards of {release.device_type} sent nothing that "
            f"{release.name} {release.version} was not trained on",
            "look again later, or over a longer time",
        )
    before, now = (_seen(readings, contender) for readings in (learned, fresh))
    measures = measure(before, now, contender.manifest, rule.limit)
    return Look(release, contender, measures, fresh, recent.query)


def _seen(readings: Mapping[bytes, Readings], contender: BoardModel) -> Seen:
    """What was called not normal is neither what it learned nor what has drifted."""
    normal = {
        kid: rows if rows.excluded is None else rows.rows(~rows.excluded)
        for kid, rows in readings.items()
    }
    return seen(normal, contender.manifest, contender.payload)


async def _contender(client: Client, release: Release) -> BoardModel:
    bundle = parse_bundle(await client.get_blob(release.bundle))
    assert isinstance(bundle.manifest, Manifest)
    return BoardModel(bundle.manifest, bundle.payload)


async def _act(
    nodes: Nodes,
    founding: Founding,
    watched: Watched,
    rule: Rule,
    look: Look,
    memory: Memory,
    looks: Looks,
) -> dict[str, Any]:
    """Seal that a model has drifted, and train another where that is wished and can be now."""
    may_train = rule.retrain is not None and not looks.is_between
    action = "retraining" if may_train else "retrain"
    done: dict[str, Any] = {}
    if (look.model, action) not in memory.said:
        done = {"drift": await _seal(nodes, founding, watched.key, look, action), "action": action}
        memory.said.add((look.model, action))
    if not may_train or look.model in memory.followed:
        return done
    assert rule.retrain is not None
    note = rule.retrain / f"followed-{look.model.hex()}.json"
    if note.exists():
        return done | {"followed": str(note)}
    done |= await _follow(nodes, founding, watched, rule, look)
    memory.followed.add(look.model)
    write_out(note, (json.dumps(done, indent=1) + "\n").encode())
    return done


async def _seal(nodes: Nodes, founding: Founding, key: SigningKey, look: Look, action: str) -> str:
    first, last = look.span_ms
    body = Drift(
        device_type=look.release.device_type,
        model=look.model,
        statistic=STATISTIC,
        measures=look.measures,
        first=first,
        last=last,
        action=action,
        note=f"moved: {', '.join(look.moved)}"[:200],
        time=time.time_ns() // 1_000_000,
    )
    async with nodes.client() as client:
        return (await submit(client, key, body, founding)).id.hex()


async def _follow(
    nodes: Nodes, founding: Founding, watched: Watched, rule: Rule, look: Look
) -> dict[str, Any]:
    """Train on the earlier part of the recent readings; release what wins on the later part."""
    assert rule.retrain is not None
    out = rule.retrain / f"{watched.name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    judged = await asyncio.to_thread(_train, rule, look, watched.data, out)
    done: dict[str, Any] = {"model": str(out), "challenge": judged.report(), "released": None}
    if not judged.is_won:
        return done
    try:
        released = await release(nodes, founding, watched.key, out, watched.name, None)
    except (ReleaseError, RefusedError) as error:
        return done | {"refused": str(error)}
    done |= {"released": released["version"], "offered": released["offered"]}
    async with nodes.client() as client:
        if not await is_staged(client):
            return done
    wishes = Wishes(
        watched.name,
        look.release.device_type,
        released["version"],
        rule.groups,
        note=f"{look.release.name} {look.release.version} drifted: {', '.join(look.moved)}"[:200],
    )
    try:
        rollout = await rollouts.propose(nodes, founding, watched.key, wishes)
    except (ToolError, RefusedError) as error:
        return done | {"refused": str(error)}
    return done | {"rollout": rollout["rollout"], "status": rollout["status"]}


def _silent(what: str, done: int, of: int) -> None:
    """A worker that runs for months shows no bar."""


def _train(rule: Rule, look: Look, data: Path, out: Path) -> Challenge:
    times = np.sort(np.concatenate([rows.times_ms for rows in look.recent.values()]))
    cut = int(times[int(len(times) * (1 - HELD_OUT))])
    selection = select(Dataset.open(data), replace(look.query, since=int(times[0]), until=cut))
    anomaly.train(
        selection.readings,
        look.release.device_type,
        out,
        dataset=selection.reference,
        quick=rule.quick,
        seed=rule.seed,
        progress=_silent,
        false_alarms=rule.false_alarms,
    )
    later = replace(look.query, since=cut + 1)
    held_out = {kid: part for kid, rows in look.recent.items() if len(part := within(rows, later))}
    return challenge(look.contender, BoardModel.load(out), held_out, rule.seed)
