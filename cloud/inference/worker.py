"""Watches folders, lets models judge the images in them, and has what they say sealed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cloud.digests import file_sha256
from cloud.errors import DatasetError, JournalFullError, RecordingError
from cloud.images import MAX_IMAGE_BYTES, Grey, read_grey
from fog_node.protocol.labels import NORMAL, Image

from .folder import SETTLE_S, Folder, Stamp
from .heatmaps import Heatmaps
from .journal import Journal, Said
from .judges import ImageJudge, Judgement
from .sealing import Sealer

log = logging.getLogger(__name__)

SCAN_S = 0.5
# Where there is no room for the journal.
ROOM_S = 10.0
# Images that are read and judged together.
BATCH = 32
# Verdicts that wait for a fog node; with so many, judging rests.
MAX_WAITING = 10_000
# What is told of damaged files, by name; the journal has them all.
MAX_DAMAGED_TOLD = 100


@dataclass(frozen=True)
class Watch:
    """A folder, and a model that judges the images in it."""

    folder: Path
    judge: ImageJudge


@dataclass
class Told:
    """What came of it.

    Attributes:
        images: judged in this run, by model and class.
        known: files whose content the model had judged before, under another name.
        damaged: files that are no images, and why; the first MAX_DAMAGED_TOLD.
        damaged_count: of all of them.
        undrawn: heat maps that could not be drawn or written.
    """

    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    known: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    damaged_count: int = 0
    undrawn: int = 0

    def report(self, transactions: Sequence[bytes]) -> dict[str, Any]:
        """As a command shows it."""
        return {
            "judged": sum(self.images.values()),
            "verdicts": [
                {"model": model, "said": said, "images": count}
                for (model, said), count in sorted(self.images.items())
            ],
            "already_judged": self.known,
            "damaged": self.damaged_count,
            "damaged_files": self.damaged,
            "undrawn": self.undrawn,
            "transactions": [id_.hex() for id_ in transactions],
        }


class Worker:
    """Judges what comes into folders until it is ended; `run` it once."""

    def __init__(
        self,
        watches: Sequence[Watch],
        journal: Journal,
        sealer: Sealer,
        show: Callable[[str], None],
        heatmaps: Heatmaps | None = None,
    ) -> None:
        """Prepare.

        Args:
            watches: folders and models; a folder may have several, a model several.
            journal, sealer: see there.
            show: takes a line per image judged.
            heatmaps: of what is not normal; None: none.
        """
        self._watches = tuple(watches)
        self._folders: Mapping[Path, Folder] = {w.folder: Folder(w.folder) for w in watches}
        self._journal = journal
        self._sealer = sealer
        self._show = show
        self._heatmaps = heatmaps
        self.told = Told()
        self._thread = ThreadPoolExecutor(1)

    async def run(self, *, once: bool) -> None:
        """Judge and seal.

        Args:
            once: end when all that is in the folders now is judged and sealed; else never.

        Raises:
            ModelError: a model cannot judge. RecordingError: a folder cannot be read any more.
            RefusedError: a node says that we may not seal.
            JournalError: it cannot be written; a full disk is waited for, but not if `once`.
        """

        async def patiently(work: Callable[[], Awaitable[None]]) -> None:
            while True:
                try:
                    return await work()
                except JournalFullError as error:
                    if once:
                        raise
                    log.warning("put off: %s", error)
                await asyncio.sleep(ROOM_S)

        tasks = [
            asyncio.create_task(patiently(self._sealer.run)),
            asyncio.create_task(patiently(partial(self._judge_and_wait, once=once))),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # A thread cannot be cancelled: the batch that it judges is noted before we end.
            self._thread.shutdown()
        for task in done:
            task.result()

    async def _judge_and_wait(self, *, once: bool) -> None:
        await self._judge(once=once)
        while self._journal.count_waiting():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(SCAN_S)

    async def _judge(self, *, once: bool) -> None:
        # Twice, and a settling time between: else what lies there counts as just written.
        loop, scans = asyncio.get_running_loop(), 0
        while True:
            found = False
            if self._journal.count_waiting() < MAX_WAITING:
                found = await loop.run_in_executor(self._thread, self._scan)
                scans += 1
            if once and scans > 1 and not found:
                return
            if not found:
                await asyncio.sleep(SETTLE_S if scans == 1 else SCAN_S)

    def _scan(self) -> bool:
        """Judge a batch for each folder and model; whether there was any."""
        now_s, found = time.monotonic(), False
        settled = {path: tuple(folder.settled(now_s)) for path, folder in self._folders.items()}
        for watch in self._watches:
            new = [
                (path, stamp)
                for path, stamp in settled[watch.folder]
                if self._journal.is_new(path, watch.judge.sha256, stamp)
            ][:BATCH]
            if new:
                found = True
                self._take(watch.judge, new)
        if not found:
            present = [path for folder in self._folders.values() for path in folder.present]
            self._journal.forget(self._folders, present)
        return found

    def _take(self, judge: ImageJudge, files: Sequence[tuple[Path, Stamp]]) -> None:
        """Read, judge and note files; a damaged one is noted and stops nothing."""
        good: list[tuple[Path, Stamp]] = []
        images: list[Grey] = []
        digests: list[bytes] = []
        for path, stamp in files:
            try:
                digest = file_sha256(path, MAX_IMAGE_BYTES)
                (image,) = read_grey(path, (judge.side,))
                if file_sha256(path, MAX_IMAGE_BYTES) != digest:
                    continue  # it is being written: the next scan sees it changed
            except (DatasetError, RecordingError) as error:
                self._damaged(judge, path, stamp, error.problem)
                continue
            good.append((path, stamp))
            images.append(image)
            digests.append(digest)
        if not good:
            return
        verdicts = judge.judge(np.stack(images))
        said = [
            Said(Image(digest), verdict.said, float(verdict.score))
            for digest, verdict in zip(digests, verdicts, strict=True)
        ]
        # Before they are noted: of what is noted there is one, and a second run has the same name.
        for (path, _), digest, verdict in zip(good, digests, verdicts, strict=True):
            self._draw(judge, path, digest, verdict)
        new = self._journal.note(judge.sha256, judge.name, good, said)
        self.told.known += len(said) - new
        for (path, _), item in zip(good, said, strict=True):
            word = item.said or "-"
            self.told.images[judge.name, word] += 1
            self._show(f"{path}: {word}, {item.score:.4g} ({judge.name})")

    def _draw(self, judge: ImageJudge, path: Path, digest: bytes, verdict: Judgement) -> None:
        """Draw where something is not normal; what cannot be drawn is judged and sealed anyway."""
        if self._heatmaps is None or verdict.said == NORMAL:
            return
        try:
            self._heatmaps.write(digest, judge.sha256, judge.picture(path, verdict))
        except RecordingError as error:
            log.warning("heat map: %s", error)
            self.told.undrawn += 1

    def _damaged(self, judge: ImageJudge, path: Path, stamp: Stamp, problem: str) -> None:
        log.warning("%s", problem)
        self._journal.note_damaged(judge.sha256, path, stamp, problem)
        self.told.damaged_count += 1
        if len(self.told.damaged) < MAX_DAMAGED_TOLD:
            self.told.damaged[str(path)] = problem
