"""From a fog node's blocks to a released model: what `train`, `evaluate` and `release` do."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cloud.collect import catch_up
from cloud.dataset import STATE_FILE, Dataset
from cloud.errors import DatasetError
from cloud.imported import SOURCE_FILE, Imported
from cloud.label_files import read_time
from cloud.lineage import Lineage, trace
from cloud.selection import Query, Selection, select
from cloud.train.job import Job
from fog_node.client import Client
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey, parse_kid
from tools.errors import UsageError
from tools.nodes import Nodes
from tools.submit import submit

Given = TypeVar("Given")


@dataclass(frozen=True)
class Check:
    """An evaluation: data set, which of it, model, and what to hold it against.

    Attributes:
        labels: JSON of rows; None: what engineers have sealed, where the query asks for labels.
    """

    data: Path
    query: Query
    model: Path
    labels: Path | None
    plots: Path | None


@dataclass(frozen=True)
class Release:
    """Which release is meant; None: whose name alone tells, and the latest version."""

    name: str
    device_type: str | None = None
    version: int | None = None


def query(
    device_type: str,
    devices: Sequence[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    *,
    with_labels: bool = True,
) -> Query:
    """A query as it was typed; raises UsageError."""
    try:
        kids = tuple(sorted({parse_kid(kid) for kid in devices})) if devices else None
        first, last = (
            None if text is None else read_time(text, name)
            for text, name in ((since, "since"), (until, "until"))
        )
    except (ProtocolError, ValueError) as error:
        raise UsageError(str(error)) from error
    if first is not None and last is not None and first > last:
        raise UsageError("--until: is before --since")
    return Query(device_type, kids, first, last, with_labels)


def is_recorded(founding: Path | None, data: Path, **sealed_only: object) -> bool:
    """Whether a command of `anomaly` is about recordings: no chain's, and nothing imported.

    Args:
        founding: the founding file, where one was given.
        data: what was given as --data.
        sealed_only: options by name that say nothing of recordings, as they were given.

    Raises:
        UsageError: recordings, and one of those options was given.
    """
    if founding is not None or any((data / name).exists() for name in (SOURCE_FILE, STATE_FILE)):
        return False
    for name, given in sealed_only.items():
        if given:
            option = name.replace("_", "-")
            raise UsageError(
                f"--{option}: is for sealed readings, whose --founding is not given; recordings "
                "are taken whole"
            )
    return True


def required(option: str, given: Given | None) -> Given:
    """What an option was given that sealed readings need; raises UsageError."""
    if given is None:
        raise UsageError(f"{option}: is needed")
    return given


async def update(nodes: Nodes, founding: Founding, directory: Path) -> Dataset:
    """Collect what the nodes have and the data set lacks; raises CloudError, ClientError."""
    dataset = await asyncio.to_thread(Dataset.open, directory)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client) for client in nodes.clients()]
        await catch_up(clients, founding, dataset)
    return dataset


async def opened(nodes: Nodes, founding: Founding, directory: Path, *, offline: bool) -> Dataset:
    """Open a data set, and bring it up to date unless no node is to be asked.

    Raises:
        CloudError: of another consortium, empty, or cannot be read or written.
        ClientError: no node answers.
    """
    if not offline:
        return await update(nodes, founding, directory)
    dataset = await asyncio.to_thread(Dataset.open, directory)
    if dataset.view is None:
        raise DatasetError(f"{directory}: holds no data set", "collect one: leave --offline out")
    dataset.check_chain(founding)
    return dataset


async def _selected(nodes: Nodes, founding: Founding | None, data: Path, asked: Query) -> Selection:
    if (data / SOURCE_FILE).exists():
        return await asyncio.to_thread(Imported.open(data).select, asked)
    if founding is None:
        raise UsageError("--founding: is needed, unless --data was made by `fogline data import`")
    dataset = await update(nodes, founding, data)
    return await asyncio.to_thread(select, dataset, asked)


async def train_anomaly(
    nodes: Nodes,
    founding: Founding | None,
    data: Path,
    asked: Query,
    job: Job,
    false_alarms: float | None = None,
) -> dict[str, Any]:
    """Collect, train, and say what came of it.

    Args:
        nodes: are asked for what the data set lacks.
        founding: of the consortium; None where the readings were imported, which are taken as they
            are: nothing is collected for them.
        data: directory of the data set.
        asked: which of its readings are learned from.
        job: where the model goes, and how it is trained.
        false_alarms: share of normal windows that may raise an alarm; None: the usual one.
    """
    selection = await _selected(nodes, founding, data, asked)
    from cloud.board_cost import add_to_card
    from cloud.train import anomaly
    from tools.boards import load_boards
    from tools.model_check import kinds

    result = await asyncio.to_thread(
        anomaly.train,
        selection.readings,
        asked.device_type,
        job.out,
        dataset=selection.reference,
        quick=job.quick,
        seed=job.seed,
        progress=job.progress,
        false_alarms=false_alarms,
    )
    card = await asyncio.to_thread(add_to_card, job.out, kinds(load_boards()))
    reference = selection.reference
    return result.report | {
        "macs": card.macs,
        "boards": [
            {"board": one.name, "fits": one.fits, "least_ms": one.least_ms} for one in card.boards
        ],
        "transactions": 0 if reference is None else reference.count,
        "dataset_root": None if reference is None else reference.root.hex(),
        "left_out_by_labels": sum(
            int(rows.excluded.sum())
            for rows in selection.readings.values()
            if rows.excluded is not None
        ),
    }


async def evaluate_anomaly(nodes: Nodes, founding: Founding, check: Check) -> dict[str, Any]:
    """Collect, and compare the boards' verdicts with LiteRT and with labels."""
    dataset = await update(nodes, founding, check.data)
    from cloud import evaluate

    def judge() -> dict[str, Any]:
        if check.labels is not None:
            labels, said = evaluate.load_labels(check.labels), str(check.labels)
        else:
            selection = select(dataset, check.query)
            labels = {
                kid: selection.labels.truth(kid, rows) for kid, rows in selection.readings.items()
            }
            said = _labels_used(selection)
        device_type = check.query.device_type
        found = evaluate.evaluate(dataset, device_type, check.model, labels, check.plots)
        return found | {"labels": said}

    return await asyncio.to_thread(judge)


async def lineage(
    nodes: Nodes | None, founding: Founding, directory: Path | None, wanted: Release
) -> Lineage:
    """What a released model was trained on, as the chain has it.

    Args:
        nodes: are asked for what the data set lacks; None: none is.
        founding: of the consortium.
        directory: of a data set; None: one that is not kept.
        wanted: which release.
    """
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fogline-")))
        # Where no node is to be asked, `Nodes()` is not.
        dataset = await opened(nodes or Nodes(), founding, directory, offline=nodes is None)
        return await asyncio.to_thread(
            trace, dataset, wanted.name, wanted.device_type, wanted.version
        )


def _labels_used(selection: Selection) -> str:
    asked = None if selection.reference is None else selection.reference.query
    if asked is None or asked.labels is None:
        return "none"
    rows = [selection.labels.of_rows(kid, r) for kid, r in selection.readings.items()]
    disputed = sum(int((each.normal & each.anomalous).sum()) for each in rows)
    return (
        f"{asked.labels.count} sealed transactions, root {asked.labels.root.hex()}; "
        f"{disputed} rows are disputed and not scored"
    )


async def release(
    nodes: Nodes,
    founding: Founding,
    key: SigningKey,
    model: Path,
    name: str,
    overruled_by: str | None,
) -> dict[str, Any]:
    """Sign and publish a model; done when its bundle is held and its transaction final.

    Before that it runs in the boards' own interpreter: see `model_check`.
    """
    from cloud.model_card import ModelCard
    from cloud.release import publish
    from tools import model_check
    from tools.boards import load_boards

    async with nodes.client() as client:
        device_type = ModelCard.load(model).device_type
        enrolled = {
            device.board
            for device in await client.devices()
            if device.type == device_type and device.status != "revoked"
        }
        checked = await asyncio.to_thread(model_check.check, model, load_boards(), enrolled)
        prepared = await publish(
            client, partial(submit, wait=False), key, founding, model, name, overruled_by
        )
        staged = await is_staged(client)
    released = prepared.release
    return {
        "name": released.name,
        "version": released.version,
        "device_type": released.device_type,
        "bundle": released.bundle.hex(),
        "bytes": released.size,
        "trained_on": released.dataset.count,
        "dataset_root": released.dataset.root.hex(),
        **checked,
        "offered": f"by a rollout: fogline model rollout {released.name}"
        if staged
        else "to all boards at once",
    }


async def is_staged(client: Client) -> bool:
    """Whether the consortium has rollouts bring releases to boards; raises ClientError."""
    return bool((await client.consortium()).parameters.get("staged_releases"))
