"""`fogline predict TASK --seal`: what a model says of a table's things goes on the chain."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.digests import file_sha256
from cloud.inference.journal import Journal
from cloud.inference.rows import read_said
from cloud.inference.sealing import Sealer
from cloud.model_files import fingerprint
from fog_node.client import Client
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.predictions import MAX_NAME_CHARS
from tools.errors import ToolError
from tools.nodes import Nodes
from tools.recorded import RecordedTask

# Seconds that a request waits for a node that answers.
PATIENCE_S = 10.0
# The journal knows so many files again that were predicted and sealed.
FILES_KEPT = 100


@dataclass(frozen=True)
class Asked:
    """What is to be predicted: see a task's `predict`."""

    task: RecordedTask
    model: Path
    data: Path
    out: Path
    settings: dict[str, Any]


async def predict_and_seal(
    nodes: Nodes, founding: Founding, key: SigningKey, journal: Path, asked: Asked
) -> dict[str, Any]:
    """Write the CSV file, and seal what it says, each thing of a file once by each model.

    Args:
        nodes: are asked to seal; until one answers, what is to be sealed waits in the journal.
        founding, key: of the ledger, and of a member with the role gateway or trainer.
        journal: file that knows what is sealed.
        asked: of a task that shares what it predicts.

    Raises:
        CloudError: model, data or journal cannot be used.
        ClientError: a node says that we may not seal.
        ToolError: the data changed meanwhile.
    """
    with contextlib.closing(Journal(journal, founding.chain_id)) as noted:
        report = await asyncio.to_thread(_predict, noted, asked)
        async with nodes.client(PATIENCE_S) as client:
            sealer = Sealer(noted, client, key, founding)
            await sealer.run(until_empty=True)
    return report | {"transactions": [id_.hex() for id_ in sealer.transactions]}


def _predict(journal: Journal, asked: Asked) -> dict[str, Any]:
    """Predict, and note what is to be sealed."""
    task = asked.task
    assert task.shares is not None
    source = task.source_of(asked.data)
    digest = file_sha256(source)
    report: dict[str, Any] = task.module().predict(
        asked.model, asked.data, asked.out, **asked.settings
    )
    if file_sha256(source) != digest:
        raise ToolError(f"{source}: changed while it was read; predict again")
    said = read_said(asked.out, task.shares)
    name = asked.model.resolve().name[:MAX_NAME_CHARS]
    new = journal.note_things(fingerprint(asked.model), name, digest, said, FILES_KEPT)
    return report | {"source": digest.hex(), "new": new, "known": len(said) - new}


async def sealed_predictions(
    client: Client, subject: str | None, model: str | None, count: int
) -> list[dict[str, Any]]:
    """Latest first, what models said, a row for each verdict.

    Args:
        client: of a fog node.
        subject: name, or how an image's SHA-256 begins; None: of all.
        model: its name, or how its SHA-256 begins; None: of all.
        count: at most so many rows.
    """
    rows: list[dict[str, Any]] = []
    async with contextlib.aclosing(client.all_transactions(kind="prediction")) as latest_first:
        async for view in latest_first:
            body = view.body or {}
            if model is not None and not _is(model, body.get("name"), body.get("model")):
                continue
            for verdict in body.get("verdicts", ()):
                if subject is not None and not _is(
                    subject, verdict.get("name"), verdict.get("image") or verdict.get("device")
                ):
                    continue
                rows.append(
                    verdict
                    | {
                        "model": body["name"],
                        "sha256": body["model"],
                        "source": body["source"],
                        "signer": view.signer,
                        "time": body["time"],
                        "transaction": view.id,
                    }
                )
                if len(rows) == count:
                    return rows
    return rows


def _is(typed: str, name: str | None, digest: str | None) -> bool:
    return typed == name or (digest is not None and digest.startswith(typed.lower()))
