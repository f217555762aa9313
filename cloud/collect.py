"""Follows the chain into a data set, and trusts no node on the way.

What a node gives is checked block by block, so it does not matter from which node a block came, nor
whether the next one comes from another: what does not hold is refused, and asked of the next node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

from fog_node.client import Client, ClientError, SealedBlock
from fog_node.protocol.block import Block, hash_hex
from fog_node.protocol.founding import Founding

from .chain_view import ChainView
from .dataset import Dataset
from .errors import ChainError, CloudError, DatasetError, StalledError

log = logging.getLogger(__name__)

# Blocks are written together, in files of a size that is worth reading ...
BATCH_BLOCKS = 1024
BATCH_BYTES = 16 * 1024 * 1024
# ... but not held back when no other follows for so long.
IDLE_S = 2.0
# A node that says that it has more blocks, and gives none for so long, is left for the next one.
STALL_S = 60.0

Progress = Callable[[int], None]


async def catch_up(
    clients: Sequence[Client],
    founding: Founding,
    dataset: Dataset,
    progress: Progress | None = None,
) -> int:
    """Collect what nodes have and the data set lacks.

    Nodes are taken one after the other, the one that says it has most first. One that does not
    answer, is behind, lies or falls silent is left for the next one, and is named in the log;
    what came before from it was checked, and stays.

    Args:
        clients: of one node each, entered.
        founding, dataset, progress: see `collect`.

    Returns:
        The height that the data set has now, which is at least that of every node that answered
        and did what it said.

    Raises:
        ChainError, StalledError, ClientError: no node did; the error of the first one.
        DatasetError: of another chain, or cannot be written.
    """
    dataset.check_chain(founding)
    heights: dict[Client, int] = {}
    problems: list[Exception] = []
    for client in clients:
        try:
            heights[client] = await _height(client, dataset)
        except (ClientError, CloudError) as error:
            problems.append(error)
    is_one_honest = False
    for client in sorted(heights, key=lambda client: -heights[client]):
        try:
            if heights[client] > dataset.height:
                async with aclosing(client.stream(dataset.height + 1)) as source:
                    await collect(
                        source, founding, dataset, heights[client], progress, stall_s=STALL_S
                    )
            is_one_honest = True
        except DatasetError:
            raise
        except (ClientError, CloudError) as error:
            problems.append(error)
    for problem in problems:
        log.warning("collect: %s", problem)
    if problems and not is_one_honest:
        raise problems[0]
    return dataset.height


async def _height(client: Client, dataset: Dataset) -> int:
    """How far a node says it is; ChainError where its chain is not the data set's."""
    height = (await client.status()).height
    view = dataset.view
    if view is not None and 0 < view.height <= height:
        (block,) = (await client.blocks(view.height, 1)).blocks
        if block.hash != hash_hex(view.head):
            raise ChainError(
                view.height,
                f"{client.urls[0]} has another one ({block.hash}) than was collected "
                f"({hash_hex(view.head)})",
            )
    return height


async def collect(
    source: AsyncIterator[SealedBlock],
    founding: Founding,
    dataset: Dataset,
    until_height: int | None = None,
    progress: Progress | None = None,
    *,
    stall_s: float | None = None,
) -> int:
    """Check blocks and append them, until the source ends or a height is reached.

    Args:
        source: `Client.stream(dataset.height + 1)`; the caller closes it.
        founding: what all trust hangs on.
        dataset: is appended to, and resumed.
        until_height: stop at this one; None follows for as long as the source gives.
        progress: is called with the height whenever blocks were written.
        stall_s: how long to wait for the next block; None: as long as it takes.

    Returns:
        The height that the data set has now.

    Raises:
        ChainError: a block does not hold; those before it are written.
        StalledError: no block came for `stall_s`.
        DatasetError: of another chain, or cannot be written.
    """
    dataset.check_chain(founding)
    view = dataset.view or ChainView.at_founding(founding)
    batch = _Batch(dataset, view, progress)
    pieces = _Pieces(source)
    try:
        while until_height is None or batch.view.height < until_height:
            piece = await pieces.next(IDLE_S if batch.blocks else stall_s)
            if piece is None:
                if pieces.ended:
                    break
                if not batch.blocks:
                    raise StalledError(
                        f"block {batch.view.height + 1}: did not come within {stall_s:g} s",
                        "look whether the node is well, or collect from another one",
                    )
                await batch.write()
                continue
            block, after = await asyncio.to_thread(
                batch.view.after, piece.block, piece.certificate, founding
            )
            batch.add(block, after)
            if batch.is_full:
                await batch.write()
    finally:
        await pieces.close()
        await batch.write()
    return dataset.height


class _Batch:
    """Checked blocks that are not written yet; `view` is the chain after them."""

    def __init__(self, dataset: Dataset, view: ChainView, progress: Progress | None) -> None:
        self.view = view
        self.blocks: list[Block] = []
        self._bytes = 0
        self._dataset = dataset
        self._progress = progress

    @property
    def is_full(self) -> bool:
        return len(self.blocks) >= BATCH_BLOCKS or self._bytes >= BATCH_BYTES

    def add(self, block: Block, view: ChainView) -> None:
        self.blocks.append(block)
        self._bytes += len(block.raw)
        self.view = view

    async def write(self) -> None:
        blocks, self.blocks, self._bytes = self.blocks, [], 0
        if not blocks:
            return
        await asyncio.to_thread(self._dataset.append, blocks, self.view)
        if self._progress is not None:
            self._progress(self._dataset.height)


class _Pieces:
    """Takes pieces from a source; a silence does not cancel what the source is at."""

    def __init__(self, source: AsyncIterator[SealedBlock]) -> None:
        self.ended = False
        self._source = source
        self._task: asyncio.Task[SealedBlock | None] | None = None

    async def next(self, timeout_s: float | None) -> SealedBlock | None:
        """Give the next piece; None at the end, or after a silence."""
        if self._task is None:
            self._task = asyncio.create_task(self._take())
        done, _ = await asyncio.wait({self._task}, timeout=timeout_s)
        if not done:
            return None
        task, self._task = self._task, None
        piece = task.result()
        self.ended = piece is None
        return piece

    async def close(self) -> None:
        """Stop what the source is at, so that its owner can close it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _take(self) -> SealedBlock | None:
        return await anext(self._source, None)
