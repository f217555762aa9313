"""`fogline model watch`: what has drifted goes on the chain, and a better model is released."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloud.challenge import Challenge, Contender, challenge
from cloud.dataset import Dataset
from cloud.drift import STATISTIC, Seen, measure, seen
from cloud.errors import CloudError, ReleaseError, TrainingError
from cloud.lineage import trace
from cloud.model_card import MODEL_FILE, ModelCard, read_bounded
from cloud.readings import Readings
from cloud.selection import Query, select, within
from fog_node.client import Client, ClientError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import MAX_PAYLOAD_BYTES, Manifest, parse_bundle
from fog_node.protocol.predictions import Drift, Measure
from fog_node.protocol.transactions import Release
from tools.errors import ToolError
from tools.nodes import Nodes
from tools.submit import submit
from tools.training import release, update

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
        quick, seed: of the training.
    """

    hours: float
    limit: float
    looks: int
    retrain: Path | None
    quick: bool
    seed: int


@dataclass(frozen=True)
class Watched:
    """Who watches what.

    Attributes:
        name: of the release that is watched, its latest version.
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
    """What one look has shown.

    Attributes:
        release: that was looked after; `contender`, as boards run it.
        measures: of each channel, and of the verdicts.
        recent: readings that were looked at, by key id; `query`, which.
    """

    release: Release
    contender: Contender
    measures: tuple[Measure, ...]
    recent: Mapping[bytes, Readings]
    query: Query

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
            "device_type": self.release.device_type,
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
    """
    in_a_row, said_of = 0, b""
    while True:
        try:
            look = await _look(nodes, founding, watched, rule)
        except (CloudError, ClientError) as error:
            if every_s is None:
                raise
            tell({"put_off": str(error)})
            await asyncio.sleep(every_s)
            continue
        result = look.report()
        in_a_row = in_a_row + 1 if look.moved else 0
        counts = in_a_row >= (rule.looks if every_s is not None else 1)
        # Said once of a release; boards and engineers then have to do something.
        if counts and said_of != look.release.bundle:
            result |= await _act(nodes, founding, watched, rule, look)
            said_of = look.release.bundle
        tell(result)
        if every_s is None:
            return result
        await asyncio.sleep(every_s)


async def _look(nodes: Nodes, founding: Founding, watched: Watched, rule: Rule) -> Look:
    dataset = await update(nodes, founding, watched.data)
    lineage = await asyncio.to_thread(trace, dataset, watched.name, watched.device_type)
    release = lineage.released.release
    if lineage.selection is None or lineage.differences:
        raise ToolError(
            f"release {release.name} {release.version}: was not trained on what it says; see: "
            f"fogline model lineage {release.name}"
        )
    async with nodes.client() as client:
        contender = await _contender(client, release)
    now = time.time_ns() // 1_000_000
    query = Query(release.device_type, since=now - int(rule.hours * HOUR_MS), until=now)
    return await asyncio.to_thread(
        _compare, dataset, lineage.selection.readings, release, contender, query, rule
    )


def _compare(
    dataset: Dataset,
    learned: Mapping[bytes, Readings],
    release: Release,
    contender: Contender,
    query: Query,
    rule: Rule,
) -> Look:
    recent = select(dataset, query)
    # What it has learned says nothing of what has changed.
    latest = max(int(rows.times_ms.max()) for rows in learned.values() if len(rows))
    fresh = {
        kid: part
        for kid, rows in recent.readings.items()
        if len(part := within(rows, replace(query, since=latest + 1)))
    }
    if not fresh:
        raise TrainingError(
            f"drift: in {rule.hours:g} h boards of {release.device_type} sent nothing that the "
            "model was not trained on",
            "look again later, or over a longer time",
        )
    before, now = (_seen(readings, contender) for readings in (learned, fresh))
    measures = measure(before, now, contender.manifest, rule.limit)
    return Look(release, contender, measures, fresh, recent.query)


def _seen(readings: Mapping[bytes, Readings], contender: Contender) -> Seen:
    """What was called not normal is neither what it learned nor what has drifted."""
    normal = {
        kid: rows if rows.excluded is None else rows.rows(~rows.excluded)
        for kid, rows in readings.items()
    }
    return seen(normal, contender.manifest, contender.payload)


async def _contender(client: Client, release: Release) -> Contender:
    bundle = parse_bundle(await client.get_blob(release.bundle))
    assert isinstance(bundle.manifest, Manifest)
    return Contender(bundle.manifest, bundle.payload)


async def _act(
    nodes: Nodes, founding: Founding, watched: Watched, rule: Rule, look: Look
) -> dict[str, Any]:
    first, last = look.span_ms
    body = Drift(
        device_type=look.release.device_type,
        model=look.contender.manifest.payload_sha256,
        statistic=STATISTIC,
        measures=look.measures,
        first=first,
        last=last,
        action="retrain" if rule.retrain is None else "retraining",
        note=f"moved: {', '.join(look.moved)}"[:200],
        time=time.time_ns() // 1_000_000,
    )
    async with nodes.client() as client:
        transaction = await submit(client, watched.key, body, founding)
    done: dict[str, Any] = {"drift": transaction.id.hex(), "action": body.action}
    if rule.retrain is None:
        return done
    return done | await _retrain(nodes, founding, watched, rule, look)


async def _retrain(
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
    except ReleaseError as error:
        return done | {"refused": str(error)}
    return done | {"released": released["version"], "offered": released["offered"]}


def _silent(what: str, done: int, of: int) -> None:
    """A worker that runs for months shows no bar."""


def _train(rule: Rule, look: Look, data: Path, out: Path) -> Challenge:
    from cloud.train import anomaly

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
    )
    card = ModelCard.load(out)
    payload = read_bounded(out / MODEL_FILE, MAX_PAYLOAD_BYTES)
    manifest = card.manifest(look.release.name, look.release.version + 1, payload, cut)
    later = replace(look.query, since=cut + 1)
    held_out = {kid: part for kid, rows in look.recent.items() if len(part := within(rows, later))}
    return challenge(look.contender, Contender(manifest, payload), held_out, rule.seed)
