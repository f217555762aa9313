"""Who may write to the journal now: signing, and giving numbers up, one at a time."""

import asyncio

from . import console
from .errors import OutboxFull
from .modules import forget
from .outbox import GAP


class Keeper:
    """Runs what gaps.py has to do between the board's other work.

    Args:
        key: BoardKey.
        chain_id: SHA-256 of the founding file.
        journal: Journal.

    Attributes:
        lock: is held by whoever takes the next number until it is used.
    """

    def __init__(self, key, chain_id, journal):
        self.lock = asyncio.Lock()
        self._key = key
        self._chain_id = chain_id
        self._journal = journal
        self._lost = asyncio.Event()
        self.changed = lambda: None  # is called when other transactions wait than before

    def finish(self):
        """At start, before anything is signed or sent: complete what a power cut left."""
        if all(record.kind != GAP for record in self._journal.outbox.records(data=False)):
            return
        steps = self._gaps().finish()
        if steps is not None:
            for _ in steps:
                pass
        forget("gaps")

    def lost(self):
        """A receipt says that the chain waits for what is not here: a gap is needed."""
        self._lost.set()

    async def run(self):
        """Sign gaps for what was lost, for ever."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            await self.mend()

    async def mend(self):
        """Sign a gap if what the chain waits for is not here."""
        async with self.lock:
            if self._journal.outbox.needs_gap():
                await self._do(self._gaps().mend(), "lost")

    async def thin(self, sent):
        """Make room in the outbox; returns whether there is some. The lock must be held.

        `sent`: the highest number that was sent so far; nothing up to it is touched.
        """
        steps = self._gaps().thin(sent)
        if steps is None:
            return False
        return await self._do(steps, "full")

    def _gaps(self):
        """What gives numbers up; few boards ever do, so it is not kept on the heap."""
        from .gaps import Gaps

        return Gaps(self._key, self._chain_id, self._journal)

    async def _do(self, steps, reason):
        number = None
        try:
            for step in steps:
                number = number or step
                await asyncio.sleep(0)
        except OutboxFull:
            return False  # the file system itself is full: nothing can be moved
        finally:
            forget("gaps")
        console.say("gap", seq=number, reason=reason)
        self.changed()
        return True
