"""From the sensors to the outbox: rows, verdicts, packs, alerts.

With every pack goes a note in the journal: where the driver stands behind it, and which
alerts it gives rise to. A board that loses power at any moment goes on with the row
behind its last signed pack: no reading is lost or signed twice, and no alert is forgotten.

When the outbox is full, a driver that can be read again later waits. One that cannot, as every
real sensor, goes on: what was not sent yet is thinned (gaps.py).
"""

import asyncio
import hashlib
import time

from drivers.base import WAIT_MODEL

from . import cbor, console, cose
from .errors import OutboxFull
from .outbox import ALERT, PACK
from .pack import PackBuilder, encode_alert

# A longer silence of the sensors ends a pack, as a step back in time does.
MAX_GAP_MS = 10_000
FINGERPRINT_BYTES = 8
# Before, the second that the clock began in had not begun: see `_now`.
SETTLED_MS = 1000
# More than the envelope of a transaction adds to its payload.
ENVELOPE_BYTES = 320


class Sampler:
    """Reads a driver to its end and leaves signed transactions in the outbox.

    Args:
        config: Config.
        key: BoardKey.
        journal: Journal.
        driver: a driver, not yet opened.
        updater: Models; its model judges the rows.
        stats: Stats.
        uplink: Uplink; it is told of new transactions and waits for receipts.
        keeper: Keeper; its lock is held by who takes a number.
        clock: Clock; it says when the rows of a live driver are.
    """

    def __init__(self, config, key, journal, driver, updater, stats, uplink, keeper, clock):
        self._chain_id = config.chain_id
        self._period_ms = 1000 / config.rate_hz if config.rate_hz else 0
        self._key = key
        self._journal = journal
        self._driver = driver
        self._updater = updater
        self._stats = stats
        self._uplink = uplink
        self._keeper = keeper
        self._clock = clock
        self._start = None  # of a live row in the pack: what the clock went by
        self._builder = PackBuilder(
            key.kid, driver.channels, config.enterprise_number, config.pack_rows, driver.sensors
        )
        self._pack_rows = config.pack_rows
        self._barren = 0  # rows since the last pack in which no sensor gave anything
        # A driver that was configured anew starts from its beginning.
        self._fingerprint = hashlib.sha256(cbor.encode(config.driver)).digest()[:FINGERPRINT_BYTES]
        self._position = None  # behind the last row that is in a pack
        self._last_ms = None
        self._owed = []  # alerts of the pack in the builder: [time_s, model, score, threshold]
        self._model_changed = asyncio.Event()
        self._anomaly = None  # (judge, its last decision)

    def model_changed(self):
        """Look whether there is a model now."""
        self._model_changed.set()

    async def run(self):
        """Sample until the driver ends; then all of it is signed and in the outbox."""
        await self._resume()
        due_ms = time.ticks_ms()
        while True:
            due_ms = await self._pace(due_ms)
            sample = self._driver.sample()
            if sample is None:
                break
            if sample is WAIT_MODEL:
                await self._seal()
                await self._wait_for_model()
                due_ms = time.ticks_ms()
                continue
            time_ms, values = sample
            start, steady_ms = None, time_ms
            if time_ms is None:
                time_ms, start = self._now()
                steady_ms = self._clock.steady_ms()
            if start != self._start:
                await self._seal()  # the clock was set, or set anew
                self._start = start
            await self._take(time_ms, values, steady_ms)
        await self._seal()
        self._driver.close()

    async def _resume(self):
        """Go on behind the last transaction in the outbox, and pay the alerts it owes."""
        if not self._journal.synced:
            console.say("waiting", reason="receipt")
            while not self._journal.synced:
                await self._uplink.receipt()
            await self._keeper.mend()
        position = None
        if self._journal.note is not None:
            fingerprint, stored, owed, pack = self._journal.note
            await self._pay(pack or self._journal.noted, fingerprint, stored, owed)
            if fingerprint == self._fingerprint:
                position = stored
        self._driver.open(position)
        self._position = self._driver.position

    async def _wait_for_model(self):
        if self._updater.judge is None:
            console.say("waiting", reason="model")
        while self._updater.judge is None:
            self._model_changed.clear()
            await self._model_changed.wait()

    async def _pace(self, due_ms):
        """Wait until the row is due; returns when the next one is."""
        now = time.ticks_ms()
        early_ms = time.ticks_diff(due_ms, now)
        if not self._period_ms or early_ms < -self._period_ms:
            due_ms = now  # free-running, or held up: no burst to catch up
            early_ms = 0
        await asyncio.sleep_ms(max(0, int(early_ms)))
        return time.ticks_add(due_ms, int(self._period_ms))

    async def _take(self, time_ms, values, steady_ms):
        """Put a row into the pack, and into the model.

        `steady_ms`: its time by a clock that does not jump when the time becomes known. So the
        model sees the steps between rows that the cloud sees, once the rows have their time.
        """
        values = self._plausible(values)
        gap = self._last_ms is not None and not 0 < steady_ms - self._last_ms <= MAX_GAP_MS
        if gap or not self._builder.fits(time_ms) or self._other_model():
            await self._seal()
        self._last_ms = steady_ms
        for label, code in self._driver.faults:
            self._builder.add_fault(time_ms, label, code)
        added = self._builder.add_row(time_ms, values)
        self._position = self._driver.position
        if not added:
            self._barren += 1
            # A board whose sensors are all gone still says so, pack by pack.
            if self._builder.rows + self._barren >= self._pack_rows:
                await self._seal()
            return
        self._stats.rows += 1
        verdict = self._updater.push(values, steady_ms)
        if verdict is not None:
            self._note_verdict(verdict, time_ms)
        if self._builder.full:
            await self._seal()

    def _now(self):
        """When a row of now is: (ms since 1970, (when the board started, who says so)).

        While that is not known: (ms since the board's start, (None, None)). A pack's base time is a
        whole second, and none from before the start could be said by the clock that began then.
        """
        clock = self._clock
        up_ms = clock.up_ms()
        if clock.start_ms is None or (clock.marked and up_ms < SETTLED_MS):
            return up_ms, (None, None)
        return clock.start_ms + up_ms, (clock.start_ms, clock.by)

    def _said_of_clock(self):
        """What the pack in the builder says of the clock; None where there is no need to."""
        if self._builder.timeless:
            return self._clock.boot, self._clock.up_ms(), None
        if self._start is None or not self._clock.marked:
            return None
        return self._clock.boot, self._start[0], self._start[1]

    def _other_model(self):
        """Whether the pack has verdicts of a model that is no longer the active one."""
        return self._builder.model not in (None, self._updater.digest)

    def _plausible(self, values):
        """Treat what no such sensor can measure as no reading: the gateway would refuse it."""
        checked = []
        for value, channel in zip(values, self._driver.channels):
            plausible = value is None or channel.minimum <= value <= channel.maximum
            if not plausible:
                console.say("implausible", channel=channel.name, value=str(value))
            checked.append(value if plausible else None)
        return checked

    def _note_verdict(self, verdict, time_ms):
        judge = self._updater.judge
        model = self._updater.digest
        self._builder.add_verdict(model, verdict.score, verdict.anomaly, verdict.output)
        self._stats.inference_us.add(verdict.us)
        console.say("verdict", score=verdict.score, anomaly=verdict.anomaly, us=verdict.us)
        if verdict.anomaly and self._anomaly != (judge, True):
            threshold = judge.manifest["threshold"]
            self._owed.append([time_ms // 1000, model, verdict.score, threshold])
        self._anomaly = (judge, verdict.anomaly)

    async def _seal(self):
        """Sign the pack in the builder, if any, and the alerts that it gave rise to."""
        self._barren = 0
        if self._builder.empty:
            return
        rows = self._builder.rows
        owed, self._owed = self._owed, []
        payload = self._builder.take(self._said_of_clock())
        # The pack's own number stands beside it; the alerts' notes name it (0: this one).
        note = [self._fingerprint, self._position, owed, 0]
        sequence = await self._store(cose.PACK, payload, note)
        self._stats.packs += 1
        console.say("pack", seq=sequence, rows=rows)
        await self._pay(sequence, self._fingerprint, self._position, owed)

    async def _pay(self, pack, fingerprint, position, owed):
        """Sign the alerts that a pack gave rise to; beside each stands which are still owed."""
        for index, (time_s, model, score, threshold) in enumerate(owed):
            payload = encode_alert(time_s, model, score, threshold, pack)
            note = [fingerprint, position, owed[index + 1 :], pack]
            sequence = await self._store(cose.ALERT, payload, note)
            self._stats.alerts += 1
            console.say("alert", seq=sequence, pack=pack, score=score)

    async def _store(self, content_type, payload, note):
        """Sign and store one transaction as soon as there is room; returns its number."""
        told = False
        while True:
            async with self._keeper.lock:
                sequence = self._sign(content_type, payload, note)
                if sequence is not None:
                    break
                if self._thins and await self._keeper.thin(self._uplink.highest):
                    continue
            if not told:
                console.say("waiting", reason="outbox")
                told = True
            await self._uplink.receipt()
        self._uplink.wake()
        return sequence

    def _sign(self, content_type, payload, note):
        """Sign and store under the next number, and return it; None where there is no room."""
        journal = self._journal
        if not journal.has_room(len(payload) + ENVELOPE_BYTES, note):
            return None
        sequence = journal.next
        data = cose.sign1(
            self._key, content_type, payload, self._chain_id, sequence, journal.dropped
        )
        try:
            journal.append(sequence, data, note, ALERT if content_type == cose.ALERT else PACK)
        except OutboxFull:
            return None
        return sequence

    @property
    def _thins(self):
        """Whether the driver cannot wait: what it does not give now is gone."""
        return not self._driver.position
