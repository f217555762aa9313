"""The way from the outbox to a gateway and back: publishing, receipts, fail-over.

A transaction stays in the outbox until a gateway's receipt says that it is final. Towards one
gateway at a time, at most WINDOW of them are on the wire without a receipt; they are sent
again after a reconnect and where no receipt has said more for half the gateway's time-out.
After the whole of it the next gateway in the list has its turn. Nothing is sent before a
gateway's first receipt: it shows that the gateway is there, knows this board and counts as
we do. Nor is anything sent while a gateway says that our key is quarantined or revoked; the next
gateway is asked in its turn.

A gateway's word is enough to drop what it says is final: there is nothing cheap to check it by.
What it cannot do with a lie is stop the board, see `_is_incredible` and `_less_is_final`.
"""

import asyncio
import os
import time

from . import VERSION, cbor, console, cose
from .errors import CryptoError, EncodingError, RevokedError, UpdateError
from .receipts import Receipts

WINDOW = 64
# A gateway that has not answered "online" (it may not know us yet) is told again.
ANNOUNCE_MS = 2_000
TICK_MS = 250
# While the time is not known, it is asked for so often; later, to correct our clock's drift.
ASK_TIME_MS = 10_000
ASK_TIME_AGAIN_MS = 3_600_000
_STATUS_NAMES = ("active", "quarantined", "revoked")
ID_BYTES = 8  # of a SHA-256, in a status
MAX_REASON_CHARS = 80
# Numbers that a flash can be behind, as where one of an earlier day came back; four fit into a gap.
MAX_RAISE = 1 << 18
# So often has each gateway had its turn in vain before one is believed that says less is final.
LESS_ROUNDS = 3


class Uplink:
    """The board's connection to its gateways, one at a time.

    Args:
        config: Config.
        key: BoardKey.
        journal: Journal.
        stats: Stats.
        updater: Models; it gets announcements and chunks, and says what to ask for.
        firmware: OwnFiles; the same, and it is told that a gateway has answered.
        keeper: Keeper; it is told when the chain waits for what is not in flash any more.
        clock: Clock; it gets the gateways' time.
        wire: Wire, where the gateway is at the end of a serial line; else None.
        wifi: Wifi, where the broker is reached by it; else None.
    """

    def __init__(
        self, config, key, journal, stats, updater, firmware, keeper, clock, wire=None, wifi=None
    ):
        self._config = config
        self._kid = key.kid.hex()
        self._journal = journal
        self._stats = stats
        self._updater = updater
        self._firmware = firmware
        self._keeper = keeper
        self._clock = clock
        self._receipts = Receipts(key, config.chain_id, config.gateways)
        self._at = 0  # which of the gateways is ours now
        self._heard = False  # its first receipt on this connection has come
        self._announce = False  # "online" is to be published
        self._sent = 1  # number of the transaction to be sent next, on this connection
        self.highest = 0  # the highest that this process has ever sent
        self._under_way = []  # numbers sent on this connection that have no receipt yet
        self._behind = 0  # nothing is sent before a receipt for this number: a gap
        self._closing = False
        self.outcome = None  # [bundle, state, reason] of one given up, to be told in a status
        self._ended = None
        self._connections = 0
        self._announced_ms = 0  # by the clock's `up_ms`
        self._nonce = None  # of the latest status, until an answer to it has come
        self._revoked = set()  # gateways that say so, one after the other
        self._status_told = None  # what the console was last told of where we stand
        self._waiting_ms = 0  # since when we wait for a receipt that says more
        self._repeated = False  # what has no receipt was sent again meanwhile
        self._raised = False  # a receipt has told us of numbers beyond ours
        self._less = 0  # the most that gateways call final which call less so than we do
        self._turns = 0  # of gateways, since a receipt has said more
        self._rounds = LESS_ROUNDS
        self._work = asyncio.Event()
        self._progress = asyncio.Event()
        self._topics = self._subscriptions()
        self._client = self._make_client(key, wire, wifi)

    # What the rest of the board asks for ------------------------------------------------

    def wake(self):
        """Look for something to send: the outbox has grown."""
        if self._journal.waiting == 1:
            self._wait_anew()
        self._work.set()

    def announce(self):
        """Tell the gateway our state again, for instance which model judges now."""
        self._announce = True
        self._work.set()

    @property
    def is_connected(self):
        """Whether there is a network now."""
        return self._client.connected

    async def receipt(self):
        """Wait for the next receipt."""
        self._progress.clear()
        await self._progress.wait()

    async def drained(self):
        """Wait until a receipt has come for everything in the outbox."""
        while self._journal.waiting:
            await self.receipt()

    def coroutines(self):
        """Return the coroutines that must run for the uplink to work."""
        return self._client.run(), self._publish(), self._watch()

    async def close(self):
        """Say "offline" and disconnect."""
        self._closing = True
        await self._client.publish(self._topic("status"), self._status("offline"), retain=True)
        await self._client.close()

    # Publishing -------------------------------------------------------------------------

    async def _publish(self):
        while True:
            message = self.next_message() if self._client.connected else None
            if message is None:
                self._work.clear()
                await self._work.wait()
            else:
                await self._client.publish(*message)

    def next_message(self):
        """Choose what to publish now: (topic, payload, retain, token), or None for nothing."""
        if self._closing:
            return None
        if self._announce:
            self._announce = False
            self._nonce = os.urandom(cose.NONCE_BYTES)
            self._announced_ms = self._clock.up_ms()
            return self._topic("status"), self._status("online", self._nonce), True, None
        if not self._heard:
            return None
        wanted = self._updater.next_request() or self._firmware.next_request()
        if wanted is not None:
            return self._topic("get"), cbor.encode(wanted), False, None
        return self._next_transaction()

    def _next_transaction(self):
        dropped = self._journal.dropped
        if self._journal.busy or self._behind >= dropped or len(self._under_way) >= WINDOW:
            return None
        for sequence, first, data in self._journal.pending(max(self._sent, dropped)):
            if first > max(self._sent, dropped):
                return None  # what comes before it was lost: a gap will take its place
            self._sent = sequence + 1
            self._under_way.append(sequence)
            if first < sequence:
                # The chain takes what is behind a gap only after it; and a board that loses its
                # flash again may then use these numbers again.
                self._behind = sequence
            if self._client.pending(sequence):  # the client itself sends this one again
                if self._behind >= dropped or len(self._under_way) >= WINDOW:
                    return None
                continue
            if sequence <= self.highest:
                self._stats.resent += 1
            self.highest = max(self.highest, sequence)
            return self._topic("up"), data, False, sequence
        return None

    def _send_again(self):
        """Begin anew with what has no receipt."""
        self._sent = self._journal.dropped
        self._under_way = []
        self._behind = 0

    async def _watch(self):
        """Announce until heard; where receipts stay away, send again, then go elsewhere."""
        timeout_ms = int(self._config.gateway_timeout_s * 1000)
        while True:
            await asyncio.sleep_ms(TICK_MS)
            if self._ended is not None:
                raise self._ended
            if not self._client.connected:
                continue
            self._work.set()  # a download may have to ask again
            self._ask_time()
            if self._heard and self._journal.waiting == 0:
                continue
            now = time.ticks_ms()
            waited_ms = time.ticks_diff(now, self._waiting_ms)
            if waited_ms > timeout_ms:
                self.fail_over()
            elif not self._heard:
                if self._clock.up_ms() - self._announced_ms > ANNOUNCE_MS:
                    self._announce = True
            elif waited_ms > timeout_ms // 2 and not self._repeated:
                self._repeated = True
                self._send_again()

    def _ask_time(self):
        pause_ms = ASK_TIME_MS if self._clock.now_ms() is None else ASK_TIME_AGAIN_MS
        if self._heard and self._clock.up_ms() - self._announced_ms > pause_ms:
            self._announce = True

    def fail_over(self):
        """Leave the present gateway for the next in the list."""
        silent = self._config.gateways[self._at].name
        self._turns += 1
        if self._less and self._turns >= self._rounds * len(self._config.gateways):
            self._less_is_final()
        self._at = (self._at + 1) % len(self._config.gateways)
        self._heard = False
        self._wait_anew()
        self._client.forget(lambda token: True)
        # A new connection, because a will cannot change: the old one marks us offline at
        # the gateway that we leave.
        self._client.reconnect(f"no receipt from {silent}")

    # What the client calls ----------------------------------------------------------------

    def found(self, name):
        """Turn to the gateway at the other end of the line; returns whether it is one of ours."""
        for index, gateway in enumerate(self._config.gateways):
            if gateway.name == name:
                self._at = index
                return True
        return False

    def connected(self):
        """Begin anew with the present gateway."""
        self._heard = False
        self._announce = True
        self._send_again()
        self._wait_anew()
        if self._connections:
            self._stats.reconnects += 1
        self._connections += 1
        console.say("connected", gateway=self._config.gateways[self._at].name)
        self._work.set()

    def disconnected(self, reason):
        """Report it; the client comes back by itself."""
        console.say("disconnected", reason=reason)

    def message(self, topic, payload):
        """Take what a gateway sends. Bad messages are reported and change nothing."""
        kind, gateway = self._topics.get(topic, (None, None))
        try:
            if kind == "receipt":
                self._take_receipt(gateway, payload)
            elif kind == "release":
                self._updater.announce(payload)
            elif kind == "firmware":
                self._firmware.announce(payload)
            elif kind == "blob":
                self._updater.chunk(payload)
                self._firmware.chunk(payload)
        except (CryptoError, EncodingError, UpdateError) as error:
            console.say("ignored", topic=topic, error=str(error))
        self._work.set()

    def _take_receipt(self, gateway, payload):
        receipt = self._receipts.open(gateway, payload)
        final = receipt.next
        if self._is_incredible(final):
            raise EncodingError("receipt.next", f"{final} of {self._journal.next}")
        if gateway == self._config.gateways[self._at].name:
            if self._take_answer(receipt) and self._less < final < self._journal.dropped:
                self._less = final
                self._turns = 0  # it may be catching up
            self._take_status(gateway, receipt.status)
        if final > self._journal.dropped:  # a gateway that lags behind says less
            self._less = self._turns = 0
            self._journal.drop_below(final)
            self._wait_anew()
            # A dropped transaction must not be sent again: a later one swears that it is gone.
            self._client.forget(lambda token: token is not None and token < final)
            self._under_way = [number for number in self._under_way if number >= final]
            console.say("receipt", next=final)
        if final == self._journal.dropped and self._journal.outbox.needs_gap():
            self._keeper.lost()
        self._progress.set()

    def _is_incredible(self, final):
        """Whether a receipt speaks of numbers that we cannot have used.

        Where flash was damaged, or is an older one, numbers above ours were used: the first receipt
        of a start says so. More of them, and too high ones, are lies, and would lead farther than a
        gap can bring the chain. A board that knows no number of its own believes what it hears.
        """
        above = final - self._journal.next
        if above <= 0 or not self._journal.synced:
            return False
        if self._raised or above > MAX_RAISE:
            return True
        self._raised = True
        return False

    def _less_is_final(self):
        """Believe that less is final than a gateway has told us: nothing moves otherwise.

        What we dropped is lost then, and a gap gives its numbers up. If this is the lie, the chain
        does not take the gap; the next receipt tells, and another gap begins where it says.
        """
        self._journal.outbox.reopen(self._less)
        self._less = self._turns = 0
        self._rounds *= 2  # two gateways that contradict each other must not wear out the flash

    def rearranged(self):
        """Other transactions wait than before: those that were given up are not sent again."""
        outbox = self._journal.outbox
        self._client.forget(lambda token: token is not None and outbox.is_dead(token))
        self._send_again()
        self._work.set()

    def _take_answer(self, receipt):
        """Take an answer to our latest status, whose nonce no older one repeats.

        It sets the clock, and shows that the files that run can do all that they must: a
        receipt that waited at the broker for those before them would not. Gives whether it is one.
        """
        if receipt.nonce is None or receipt.nonce != self._nonce:
            return False
        self._nonce = None
        self._firmware.confirm()
        gateway = cose.key_id(self._config.gateways[self._at].xy)
        if self._clock.heard(receipt.time_ms, gateway, self._announced_ms):
            console.say("time", now=self._clock.now_ms() // 1000, by=gateway.hex())
        return True

    def _take_status(self, gateway, status):
        if status != self._status_told:
            if status != cose.ACTIVE or self._status_told is not None:
                console.say("status", status=_STATUS_NAMES[status], gateway=gateway)
            self._status_told = status
        if status == cose.REVOKED:
            self._revoked.add(gateway)
            if len(self._revoked) == len(self._config.gateways):
                # Raised where the board runs: this is called by the MQTT client.
                self._ended = RevokedError("board.revoked", "enrol it anew with a new key")
        else:
            self._revoked.discard(gateway)
        if (status == cose.ACTIVE) != self._heard:
            self._heard = status == cose.ACTIVE
            self._wait_anew()

    def _wait_anew(self):
        self._waiting_ms = time.ticks_ms()
        self._repeated = False

    # Small parts --------------------------------------------------------------------------

    def _subscriptions(self):
        topics = {}
        for gateway in self._config.gateways:
            topics.update(
                (f"fogline/{gateway.name}/{way}/{to}", (kind, gateway.name))
                for kind, way, to in (
                    ("receipt", "receipt", self._kid),
                    ("blob", "blob", self._kid),
                    ("release", "release", self._config.device_type),
                    ("release", "offer", self._kid),
                    ("firmware", "release", self._firmware.device_type),
                )
            )
        return topics

    def _make_client(self, key, wire, wifi):
        # A board uses one of the two; the other one's code would only take its memory.
        if wire is not None:
            from . import serial_link

            return serial_link.Client(
                wire=wire,
                kid=key.kid,
                device_type=self._config.device_type,
                firmware_type=self._firmware.device_type,
                settings=self._config.serial,
                handler=self,
            )
        from . import mqtt

        settings = self._config.mqtt
        context = None
        if settings.tls:
            with open(settings.ca, "rb") as file:
                context = mqtt.tls_context(file.read())
        return mqtt.Client(
            host=settings.host,
            port=settings.port,
            client_id=self._kid,
            keepalive_s=settings.keepalive_s,
            will=lambda: (self._topic("status"), self._status("offline")),
            filters=[(topic, 1) for topic in self._topics],
            handler=self,
            context=context,
            server_name=settings.server_name,
            user=settings.user,
            password=settings.password,
            network=wifi,
        )

    def _topic(self, kind):
        return f"fogline/{self._config.gateways[self._at].name}/{kind}/{self._kid}"

    def _status(self, state, nonce=None):
        digest = self._updater.digest
        model = digest and digest[:ID_BYTES]
        fields = {
            "state": state,
            "next": self._journal.next,
            "model": model,
            "firmware": VERSION,
            "nonce": nonce,
        }
        if nonce is not None and self.outcome is not None:
            # Once: a gateway that offers the bundle again is told again.
            fields["update"], self.outcome = self.outcome, None
        return cbor.encode(fields)
