"""`fogline fog infer`: models judge the images of folders, and a fog node seals what they say."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.files import real_path
from cloud.inference.folder import check_folder
from cloud.inference.heatmaps import Heatmaps
from cloud.inference.journal import Journal
from cloud.inference.judges import QualityJudge
from cloud.inference.sealing import Sealer
from cloud.inference.worker import Watch, Worker
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from tools.errors import UsageError
from tools.nodes import Nodes

# Seconds that a request waits for a node that answers.
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Duty:
    """What a worker is to do.

    Attributes:
        watches: FOLDER=MODEL, as typed.
        variant: of the models.
        journal: its file.
        once: end when all that is there is judged and sealed.
        heatmaps: folder for heat maps of what is not normal; None: none are drawn.
        heatmaps_kept: so many at most, the latest.
    """

    watches: Sequence[str]
    variant: str
    journal: Path
    once: bool
    heatmaps: Path | None
    heatmaps_kept: int


async def infer(
    nodes: Nodes,
    founding: Founding,
    key: SigningKey,
    duty: Duty,
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Judge and seal until SIGTERM or Ctrl-C, or once; gives what came of it.

    Raises:
        UsageError: a watch is not FOLDER=MODEL, or heat maps were to go into one.
        CloudError: a folder, model or journal cannot be used.
        ClientError: a node says that we may not seal.
    """
    watches = _watches(duty)
    _check_apart(watches, duty.heatmaps)
    drawn = None if duty.heatmaps is None else Heatmaps(duty.heatmaps, duty.heatmaps_kept)
    with contextlib.closing(Journal(duty.journal, founding.chain_id)) as journal:
        async with nodes.client(PATIENCE_S) as client:
            sealer = Sealer(journal, client, key, founding)
            worker = Worker(watches, journal, sealer, show, drawn)
            await _until_told(worker.run(once=duty.once))
        return {
            **worker.told.report(sealer.transactions),
            "waiting": journal.count_waiting(),
        }


def _watches(duty: Duty) -> list[Watch]:
    judges: dict[Path, QualityJudge] = {}
    found: list[Watch] = []
    for typed in dict.fromkeys(duty.watches):
        folder, sign, model = typed.partition("=")
        if not (folder and sign and model):
            raise UsageError(f"--watch {typed}: is not FOLDER=MODEL, as camera=model")
        check_folder(Path(folder))
        directory = Path(model)
        if directory not in judges:
            judges[directory] = QualityJudge(directory, duty.variant)
        found.append(Watch(Path(folder), judges[directory]))
    return found


def _check_apart(watches: Sequence[Watch], heatmaps: Path | None) -> None:
    """Heat maps would be judged, too."""
    if heatmaps is not None and any(_is_same(watch.folder, heatmaps) for watch in watches):
        raise UsageError(f"--heatmaps {heatmaps}: is watched; give a folder of its own")


def _is_same(one: Path, other: Path) -> bool:
    return real_path(one) == real_path(other)


async def _until_told(work: Any) -> None:
    """Run until it ends, or a signal says so; what is in the journal stays there."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
