"""From a fog node's blocks to a released model: what `train`, `evaluate` and `release` do."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from cloud.collect import collect
from cloud.dataset import Dataset
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from tools.nodes import Nodes
from tools.submit import submit


@dataclass(frozen=True)
class Job:
    """A training job: data set, boards, and where the model goes."""

    data: Path
    device_type: str
    out: Path
    quick: bool
    seed: int


@dataclass(frozen=True)
class Check:
    """An evaluation: data set, boards, model, and what to hold it against."""

    data: Path
    device_type: str
    model: Path
    labels: Path | None
    plots: Path | None


async def update(nodes: Nodes, founding: Founding, directory: Path) -> Dataset:
    """Collect what a node has and the data set lacks; raises CloudError, ClientError."""
    dataset = await asyncio.to_thread(Dataset.open, directory)
    async with nodes.client() as client:
        height = (await client.status()).height
        if height > dataset.height:
            async with contextlib.aclosing(client.stream(dataset.height + 1)) as source:
                await collect(source, founding, dataset, until_height=height)
    return dataset


async def train_anomaly(
    nodes: Nodes, founding: Founding, job: Job, console: Console
) -> dict[str, Any]:
    """Collect, train, and say what came of it; progress goes to `console`."""
    dataset = await update(nodes, founding, job.data)
    from cloud.train import anomaly

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("train", total=None)

        def show(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)
            if not console.is_terminal:
                console.print(f"{what} {done}/{of}", highlight=False)

        result = await asyncio.to_thread(
            anomaly.train,
            dataset.readings(job.device_type),
            job.device_type,
            job.out,
            dataset=dataset.reference(job.device_type),
            quick=job.quick,
            seed=job.seed,
            progress=show,
        )
    return result.report


async def evaluate_anomaly(nodes: Nodes, founding: Founding, check: Check) -> dict[str, Any]:
    """Collect, and compare the boards' verdicts with LiteRT and with labels."""
    dataset = await update(nodes, founding, check.data)
    from cloud import evaluate

    labels = evaluate.load_labels(check.labels) if check.labels else {}
    return await asyncio.to_thread(
        evaluate.evaluate, dataset, check.device_type, check.model, labels, check.plots
    )


async def release(
    nodes: Nodes,
    founding: Founding,
    key: SigningKey,
    model: Path,
    name: str,
    overruled_by: str | None,
) -> dict[str, Any]:
    """Sign and publish a model; done when its bundle is held and its transaction final."""
    from cloud.release import publish

    async with nodes.client() as client:
        prepared = await publish(
            client, partial(submit, wait=False), key, founding, model, name, overruled_by
        )
    released = prepared.release
    return {
        "name": released.name,
        "version": released.version,
        "device_type": released.device_type,
        "bundle": released.bundle.hex(),
        "bytes": released.size,
        "trained_on": released.dataset.count,
        "dataset_root": released.dataset.root.hex(),
    }
