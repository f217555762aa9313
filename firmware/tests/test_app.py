# ruff: noqa: SLF001 - a test may look inside
"""The board's parts together: no reading lost or doubled, whatever is cut, sent or not sent."""

import asyncio
import os

from fogline import cbor, console, cose, mqtt, uplink
from fogline.board_key import BoardKey
from fogline.clock import Clock
from fogline.config import Config, Gateway, Mqtt
from fogline.errors import RevokedError
from fogline.flash import Flash
from fogline.hmac256 import hmac_sha256
from fogline.journal import Journal
from fogline.keeper import Keeper
from fogline.outbox import GAP, Outbox
from fogline.sampler import Sampler
from fogline.stats import Reservoir, Stats

NEEDS = ("network",)
CHAIN_ID = bytes(32)
OUTBOX_BYTES = 48 * 1024
BOX = "test_app.box"
FLASH = "test_app.flash"
MODEL = bytes(range(32))
# Rows at which the model's verdict begins and ceases to be an anomaly.
ANOMALIES = (7, 8, 9, 15, 31, 32)
EDGES = (7, 15, 31)
ROWS = 42
KEY = BoardKey(bytes(31) + b"\x05", True)
PACK_ROWS = 4
NOW_MS = 1_800_000_000_000

events = []


class PowerCutError(Exception):
    """The board stops here."""


def say(event, **fields):
    events.append((event, fields))


console.say = say


def config(driver=None, gateways=2):
    return Config(
        chain_id=CHAIN_ID,
        device_type="water-circulation",
        board="unix",
        enterprise_number=32473,
        gateways=tuple(
            Gateway(f"gw{number}", BoardKey(bytes(31) + bytes((number,)), True).public)
            for number in range(1, 1 + gateways)
        ),
        mqtt=Mqtt("127.0.0.1", 1883, False, None, None, 10, None, None),
        serial=None,
        wifi=None,
        release_keys=(),
        driver=driver or {"name": "testbed"},
        pack_rows=PACK_ROWS,
        rate_hz=0,
        outbox_bytes=OUTBOX_BYTES,
        gateway_timeout_s=10,
        ntp=None,
    )


class Channel:
    def __init__(self, name):
        self.name = name
        self.minimum = -1000.0
        self.maximum = 1000.0

    def __getitem__(self, index):
        return (self.name, "A")[index]


class Driver:
    """Rows 0, 1, 2, ...; the values say which row it is."""

    channels = (Channel("one"), Channel("two"))
    sensors = ("first", "second")
    faults = ()

    def __init__(self, times_ms):
        self._times_ms = times_ms
        self.position = [0]

    def open(self, position):
        self.position = position or [0]

    def sample(self):
        row = self.position[0]
        if row == len(self._times_ms):
            return None
        self.position = [row + 1]
        return self._times_ms[row], [float(row), None if row % 3 else 0.5]

    def close(self):
        pass


class Verdict:
    def __init__(self, anomaly):
        self.score = 200 if anomaly else 10
        self.anomaly = anomaly
        self.output = bytes(32)
        self.us = 5


class Judge:
    manifest = {"threshold": 100}


class Updater:
    judge = Judge()
    digest = MODEL

    def push(self, row, time_ms):
        return Verdict(int(row[0]) in ANOMALIES)

    def next_request(self):
        return None


class Firmware:
    device_type = "firmware/unix"
    confirmed = 0

    def next_request(self):
        return None

    def confirm(self):
        self.confirmed += 1


class FakeUplink:
    """Gives a receipt for everything up to `final` when it is asked to wait."""

    highest = 0

    def __init__(self, journal):
        self._journal = journal

    def wake(self):
        pass

    async def receipt(self):
        self._journal.drop_below(self._journal.next)


def sampler_of(journal, driver, link=None, options=None, clock=None):
    keeper = Keeper(KEY, CHAIN_ID, journal)
    keeper.finish()
    return Sampler(
        config(options),
        KEY,
        journal,
        driver,
        Updater(),
        Stats(),
        link or FakeUplink(journal),
        keeper,
        clock or Clock(),
    )


class Cutter:
    """Cuts the power at the n-th write to flash, before it or behind it."""

    def __init__(self, outbox, flash, cut_at, behind):
        self.writes = 0
        self._cut_at = cut_at
        self._behind = behind
        self._wrap(outbox)
        self._wrap(flash)

    def _wrap(self, target):
        write = target._write

        def cutting(*arguments):
            self.writes += 1
            if self.writes == self._cut_at and not self._behind:
                raise PowerCutError
            write(*arguments)
            if self.writes == self._cut_at:
                raise PowerCutError

        target._write = cutting


def remove_files():
    for directory in (BOX, FLASH):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for name in names:
            os.remove(directory + "/" + name)
        os.rmdir(directory)


def clean(test):
    def wrapped():
        remove_files()
        del events[:]
        try:
            test()
        finally:
            remove_files()

    return wrapped


def life(times_ms, sealed, cut_at=0, behind=False, drop_every=0):
    """One life of a board; returns (whether it came to its end, writes).

    Everything that comes to stand in the outbox is added to `sealed` by its number; one that
    stands there a second time must be the same.
    """
    del events[:]
    outbox = Outbox(BOX, OUTBOX_BYTES, True)
    flash = Flash(FLASH)
    cutter = Cutter(outbox, flash, cut_at, behind)
    done = True
    try:
        journal = Journal(outbox, flash)
        link = FakeUplink(journal)
        sampler = sampler_of(journal, Driver(times_ms), link)
        if drop_every:

            def wake():
                collect(journal, sealed)
                if journal.next % drop_every == 0:
                    journal.drop_below(journal.next)

            link.wake = wake
        asyncio.run(sampler.run())
    except PowerCutError:
        done = False
    collect(Journal(Outbox(BOX, OUTBOX_BYTES, False), Flash(FLASH)), sealed)
    return done, cutter.writes


def collect(journal, sealed):
    for sequence, _, data in journal.pending(1):
        assert sealed.setdefault(sequence, data) == data, f"number {sequence} was signed twice"


def decoded(data):
    """Return (content type, sequence, dropped, payload) of a signed transaction."""
    protected, _, payload, _ = cbor.decode(data, 65536).value
    header = cbor.decode(protected, 1024)
    return header[3], header[-65537], header[-65538], cbor.decode(payload, 65536)


def rows_and_alerts(sealed):
    """Return (rows, {pack: [rows]}, alerts) and check that numbers have no gap."""
    assert sorted(sealed) == list(range(1, 1 + len(sealed)))
    rows = []
    packs = {}
    alerts = []
    for sequence in sorted(sealed):
        content_type, number, dropped, payload = decoded(sealed[sequence])
        assert number == sequence
        assert dropped <= sequence
        if content_type == cose.ALERT:
            alerts.append((payload["pack"], payload["time"]))
        else:
            packs[number] = [int(record[2]) for record in payload if record[0] == "one"]
            rows.extend(packs[number])
    return rows, packs, alerts


def seconds(count):
    return [(1 << 31) * 1000 + 1000 * index for index in range(count)]


@clean
def test_packs_hold_every_row_once_and_alerts_follow_their_pack():
    sealed = {}
    assert life(seconds(ROWS), sealed)[0]
    rows, packs, alerts = rows_and_alerts(sealed)
    assert rows == list(range(ROWS))
    assert [len(packs[key]) for key in sorted(packs)] == [4] * 10 + [2]
    assert len(alerts) == len(EDGES)
    check_alerts(packs, alerts, "")


@clean
def test_a_cut_at_any_write_loses_and_doubles_nothing():
    for drop_every in (0, 3):
        remove_files()
        done, writes = life(seconds(ROWS), {}, drop_every=drop_every)
        assert done
        for cut_at in range(2, writes + 1):
            for behind in (False, True):
                remove_files()
                sealed = {}
                # The power fails again at the same write of the next life, and so on.
                lives = 1
                while not life(seconds(ROWS), sealed, cut_at, behind, drop_every)[0]:
                    lives += 1
                    assert lives < 2 * ROWS
                where = f"cut {'behind' if behind else 'before'} write {cut_at}"
                rows, packs, alerts = rows_and_alerts(sealed)
                assert rows == list(range(ROWS)), where
                check_alerts(packs, alerts, where)


def check_alerts(packs, alerts, where):
    """Each anomaly has its alert, in the pack that says so, once.

    A life that begins within an anomaly alerts too: its model knows nothing of before.
    """
    times = [time - (1 << 31) for _, time in alerts]
    assert set(EDGES) <= set(times) <= set(ANOMALIES), where
    assert len(set(times)) == len(times), where
    for (pack, _), row in zip(alerts, times):
        assert row in packs[pack], where


@clean
def test_a_pack_never_spans_a_gap_or_a_step_back():
    times = seconds(9)
    times[3:] = [time + 60_000 for time in times[3:]]
    times[6:] = [time - 30_000 for time in times[6:]]
    sealed = {}
    life(times, sealed)
    _, packs, _ = rows_and_alerts(sealed)
    assert list(map(tuple, (packs[key] for key in sorted(packs)))) == [
        (0, 1, 2),
        (3, 4, 5),
        (6, 7, 8),
    ]


@clean
def test_a_new_driver_configuration_starts_at_its_beginning():
    outbox = Outbox(BOX, OUTBOX_BYTES, True)
    for options in ({"name": "a"}, {"name": "b"}):
        journal = Journal(outbox, Flash(FLASH))
        sampler = sampler_of(journal, Driver(seconds(4)), options=options)
        asyncio.run(sampler.run())
    sealed = {}
    collect(journal, sealed)
    assert rows_and_alerts(sealed)[0] == [0, 1, 2, 3] * 2


@clean
def test_an_implausible_value_is_no_reading():
    driver = Driver(seconds(1))
    driver.sample = lambda: None if driver.position[0] else take(driver)

    def take(driver):
        driver.position = [1]
        return seconds(1)[0], [5.0, 1000.5]

    journal = Journal(Outbox(BOX, OUTBOX_BYTES, True), Flash(FLASH))
    sampler = sampler_of(journal, driver)
    asyncio.run(sampler.run())
    payload = decoded(next(journal.pending(1))[2])[3]
    assert [record[0] for record in payload if not record[0].startswith("model/")] == ["one"]
    assert ("implausible", {"channel": "two", "value": "1000.5"}) in events


@clean
def test_a_failed_sensor_is_named_and_dead_ones_still_fill_packs():
    class Failing(Driver):
        def sample(self):
            sample = super().sample()
            if sample is None:
                return None
            row = self.position[0] - 1
            self.faults = (("second", "absent"),)
            if row >= config().pack_rows:  # from the second pack on nothing works
                self.faults += (("first", "timeout"),)
                return sample[0], [None, None]
            return sample[0], [float(row), None]

    count = config().pack_rows
    journal = Journal(Outbox(BOX, OUTBOX_BYTES, True), Flash(FLASH))
    driver = Failing(seconds(3 * count))
    sampler = sampler_of(journal, driver)
    asyncio.run(sampler.run())
    packs = [content[3] for content in map(decoded, [data for _, _, data in journal.pending(1)])]
    packs = [
        [(record[0], record.get(3)) for record in pack if not record[0].startswith("model/")]
        for pack in packs
        if isinstance(pack, list)
    ]
    assert packs[0] == [("one", None)] * count + [("fault/second", "absent")]
    assert packs[1] == packs[2] == [("fault/second", "absent"), ("fault/first", "timeout")]
    assert len(packs) == 3


class Calendar:
    """Stands for `time` below a Clock; `now_s` is what the port's calendar shows."""

    def __init__(self, now_s=0):
        self.ms = 0
        self._now_s = now_s

    def ticks_ms(self):
        return self.ms

    def ticks_diff(self, end, start):
        return end - start

    def gmtime(self, _):
        return (1970,)

    def time(self):
        return self._now_s


class Live(Driver):
    """A sensor: a row each second of the board's clock, and `events` on the way, by row."""

    position = []

    def __init__(self, ticks, rows, happens=()):
        super().__init__([None] * rows)
        self._ticks = ticks
        self._happens = dict(happens)
        self._row = 0

    def open(self, position):
        assert not position

    def sample(self):
        self.position = [self._row]
        sample = super().sample()
        self.position = []
        self._ticks.ms += 1000
        self._happens.pop(self._row, lambda: None)()
        self._row += 1
        return sample


def live_packs(ticks, rows, happens=(), clock=None):
    """Run a live driver; returns its packs as ({name: value} of the clock, base, [times])."""
    clock = clock or Clock(None, True, ticks)
    journal = Journal(Outbox(BOX, OUTBOX_BYTES, True), Flash(FLASH))
    asyncio.run(sampler_of(journal, Live(ticks, rows, happens), clock=clock).run())
    found = []
    for content in [decoded(item[2]) for item in journal.pending(1)]:
        if content[0] != cose.PACK:
            continue
        base = content[3][0][-3]
        said = {r[0]: r.get(2, r.get(8)) for r in content[3] if r[0].startswith("clock/")}
        found.append((said, base, [base + r.get(6, 0) for r in content[3] if r[0] == "one"]))
    return found


@clean
def test_a_board_that_knows_the_time_says_nothing_of_its_clock():
    packs = live_packs(Calendar(1_800_000_000), 8)
    assert [said for said, _, _ in packs] == [{}, {}]
    assert packs[0][2] == [1_800_000_001 + second for second in range(4)]


@clean
def test_rows_before_the_time_is_known_are_so_long_before_the_signature_and_corrected_later():
    ticks = Calendar()
    clock = Clock(None, True, ticks)
    gateway = bytes(range(8))
    # The board starts 90 s before; the gateway's word comes in the middle of the second pack.
    told_ms = 1_800_000_006_000
    happens = [(6, lambda: clock.heard(told_ms, gateway, clock.up_ms()))]
    packs = live_packs(ticks, 12, happens, clock)
    assert [sorted(said) for said, _, _ in packs] == [
        ["clock/boot", "clock/up"],
        ["clock/boot", "clock/up"],
        ["clock/boot", "clock/by", "clock/up"],
        ["clock/boot", "clock/by", "clock/up"],
    ]
    start_s = packs[2][1] - packs[2][0]["clock/up"] / 1000
    assert packs[2][0]["clock/by"] == gateway
    times = []
    for said, base, rows in packs:
        if base <= 0:
            assert max(rows) <= 0
            signed_s = start_s + said["clock/up"] / 1000
            times.extend([signed_s + time for time in rows])
        else:
            times.extend(rows)
    # No row is lost or doubled, and they are a second apart, whatever was known when.
    assert times == [times[0] + second for second in range(12)]
    assert times[6] == told_ms / 1000


@clean
def test_a_clock_that_is_set_anew_ends_the_pack():
    ticks = Calendar()
    clock = Clock(None, True, ticks)
    gateway = bytes(range(8))

    def hear(ms):
        return lambda: clock.heard(1_800_000_000_000 + ms, gateway, clock.up_ms())

    # Nine seconds further than it was: no gap between rows, and another start.
    packs = live_packs(ticks, 12, [(0, hear(0)), (6, hear(15_000))], clock)
    starts = [base * 1000 - said["clock/up"] for said, base, _ in packs if base > 0]
    assert len(set(starts)) == 2
    for said, base, rows in packs:
        if base > 0:
            start_ms = base * 1000 - said["clock/up"]
            assert all((time * 1000 - start_ms) % 1000 == 0 for time in rows)
    assert sum(len(rows) for _, _, rows in packs) == 12


@clean
def test_a_lost_outbox_waits_for_a_receipt_and_goes_on_behind_the_note():
    sealed = {}
    life(seconds(8), sealed, drop_every=2)
    for name in os.listdir(BOX):
        os.remove(BOX + "/" + name)
    outbox = Outbox(BOX, OUTBOX_BYTES, False)
    journal = Journal(outbox, Flash(FLASH))
    assert not journal.synced
    link = FakeUplink(journal)

    async def receipt():
        journal.drop_below(9)

    link.receipt = receipt
    sampler = sampler_of(journal, Driver(seconds(12)), link)
    asyncio.run(sampler.run())
    sealed = {}
    collect(journal, sealed)
    gap = min(sealed)
    assert gap > 9 + 1024
    assert decoded(sealed[gap])[3]["from"] == 9
    rows = [int(record[2]) for record in decoded(sealed[gap + 1])[3] if record[0] == "one"]
    assert rows[0] == 4 or rows[0] == 8
    assert ("waiting", {"reason": "receipt"}) in events


# The uplink -------------------------------------------------------------------------------


class FakeClient:
    """Stands for mqtt.Client: takes everything, sends nothing."""

    made = []

    def __init__(self, **options):
        self.made.append(self)
        self.will = options["will"]
        self.filters = options["filters"]
        self.connected = False
        self.published = []
        self.left = []
        self.unacknowledged = set()

    async def publish(self, topic, payload, retain=False, token=None):
        self.published.append((topic, payload, retain, token))

    def pending(self, token):
        return token in self.unacknowledged

    def forget(self, unwanted):
        self.unacknowledged = {token for token in self.unacknowledged if not unwanted(token)}

    def reconnect(self, reason):
        self.left.append(reason)


class Ticks:
    """Stands for the port's time: a calendar that was not set, ticks that a test moves."""

    def __init__(self):
        self.ms = 5

    def ticks_ms(self):
        return self.ms

    def ticks_diff(self, new, old):
        return new - old

    def gmtime(self, seconds):
        return (1970,)

    def time(self):
        return 77


class Quick:
    """The board's key where nobody looks at signatures."""

    kid = KEY.kid

    def sign(self, digest):
        return digest + digest


class Bench:
    """An uplink over a fake client, with `count` transactions in the outbox."""

    def __init__(self, count, gateways=2):
        mqtt.Client = FakeClient
        self.journal = Journal(Outbox(BOX, OUTBOX_BYTES, True), Flash(FLASH))
        for sequence in range(1, count + 1):
            data = cose.sign1(Quick(), cose.PACK, b"%d" % sequence, CHAIN_ID, sequence, 1)
            self.journal.append(sequence, data, None)
        self.config = config(gateways=gateways)
        self.stats = Stats()
        self.keeper = Keeper(KEY, CHAIN_ID, self.journal)
        self.ticks = Ticks()
        self.clock = Clock(ticks=self.ticks)
        self.firmware = Firmware()
        self.uplink = uplink.Uplink(
            self.config,
            KEY,
            self.journal,
            self.stats,
            Updater(),
            self.firmware,
            self.keeper,
            self.clock,
        )
        self.client = FakeClient.made[-1]

    def connect(self):
        self.client.connected = True
        self.uplink.connected()

    def pump(self):
        """Publish all that the uplink wants to; returns the numbers sent."""
        sent = []
        while True:
            message = self.uplink.next_message()
            if message is None:
                return sent
            self.client.published.append(message)
            if message[3] is not None:
                sent.append(message[3])

    def receipt(self, final, gateway=1, secret=None, to="gw1", status=0, nonce=None):
        own = BoardKey(bytes(31) + bytes((secret or gateway,)), True)
        mac_key = hkdf(own, KEY.public)
        payload = cbor.encode([KEY.kid, final, 7, NOW_MS, status, nonce])
        protected = cbor.encode({1: 5, 3: cose.RECEIPT, 4: own.kid})
        structure = cbor.encode(["MAC0", protected, CHAIN_ID, payload])
        tag = hmac_sha256(mac_key, structure)
        data = cbor.encode(cbor.Tagged(17, [protected, {}, payload, tag]))
        self.uplink.message(f"fogline/{to}/receipt/{KEY.kid.hex()}", data)


def hkdf(gateway, device_public):
    from fogline.hmac256 import hkdf_sha256

    info = b"fogline receipt" + gateway.kid + cose.key_id(device_public)
    return hkdf_sha256(gateway.agree(device_public), CHAIN_ID, info, 32)


@clean
def test_nothing_is_sent_before_the_gateway_is_heard():
    bench = Bench(3)
    bench.connect()
    assert bench.pump() == []
    topic, payload, retain, _ = bench.client.published[0]
    assert topic == "fogline/gw1/status/" + KEY.kid.hex()
    assert retain
    assert cbor.decode(payload, 1024)["state"] == "online"
    assert cbor.decode(payload, 1024)["next"] == 4
    bench.receipt(1)
    assert bench.pump() == [1, 2, 3]


@clean
def test_what_became_of_a_bundle_is_told_once_and_fits_a_status():
    bench = Bench(0)
    told = [b"\xff" * uplink.ID_BYTES, "rolled_back", "r" * uplink.MAX_REASON_CHARS]
    bench.uplink.outcome = told
    bench.connect()
    bench.pump()
    bench.uplink.announce()
    bench.pump()
    first, second = [message[1] for message in bench.client.published]
    assert len(first) < 220  # the gateway takes 256, and numbers grow
    assert cbor.decode(first, 256)["update"] == told
    assert "update" not in cbor.decode(second, 256)


class Announced(Updater):
    def __init__(self):
        self.payloads = []

    def announce(self, payload):
        self.payloads.append(payload)


@clean
def test_a_release_may_be_announced_to_the_type_or_to_this_board():
    bench = Bench(0)
    bench.uplink._updater = heard = Announced()
    bench.connect()
    for topic in ("release/water-circulation", "offer/" + KEY.kid.hex(), "offer/" + "0" * 16):
        bench.uplink.message("fogline/gw1/" + topic, topic.encode())
    assert len(heard.payloads) == 2, heard.payloads


@clean
def test_the_window_is_bounded_and_receipts_move_it():
    bench = Bench(uplink.WINDOW + 20)
    bench.connect()
    bench.receipt(1)
    assert bench.pump() == list(range(1, uplink.WINDOW + 1))
    bench.receipt(6)
    assert bench.pump() == list(range(uplink.WINDOW + 1, uplink.WINDOW + 6))
    assert bench.journal.dropped == 6
    assert bench.stats.resent == 0


@clean
def test_a_reconnect_sends_again_what_has_no_receipt():
    bench = Bench(5)
    bench.connect()
    bench.receipt(1)
    bench.pump()
    bench.receipt(3)
    bench.client.unacknowledged = {4}  # the MQTT client sends it again by itself
    bench.connect()
    assert bench.pump() == []
    bench.receipt(3)
    assert bench.pump() == [3, 5]
    assert bench.stats.resent == 2
    assert bench.stats.reconnects == 1


@clean
def test_what_is_final_is_never_sent_again():
    bench = Bench(5)
    bench.connect()
    bench.receipt(1)
    bench.pump()
    bench.client.unacknowledged = {1, 2, 3, 4, 5}
    bench.receipt(4)
    assert bench.client.unacknowledged == {4, 5}


@clean
def test_a_quarantined_board_says_so_and_sends_nothing_until_it_is_reinstated():
    bench = Bench(3)
    bench.connect()
    bench.receipt(1, status=cose.QUARANTINED)
    assert bench.pump() == []
    told = ("status", {"status": "quarantined", "gateway": "gw1"})
    assert events.count(told) == 1
    bench.receipt(1, status=cose.QUARANTINED)
    assert events.count(told) == 1
    bench.receipt(1)
    assert ("status", {"status": "active", "gateway": "gw1"}) in events
    assert bench.pump() == [1, 2, 3]
    bench.receipt(2, status=cose.QUARANTINED)
    bench.uplink.fail_over()
    bench.connect()
    assert bench.pump() == []


@clean
def test_a_board_stops_when_all_its_gateways_call_it_revoked():
    bench = Bench(1)
    bench.connect()
    bench.receipt(1, status=cose.REVOKED)
    assert bench.pump() == []
    bench.uplink.fail_over()
    bench.connect()
    watching = bench.uplink._watch()

    async def work():
        bench.receipt(1, gateway=2, to="gw2", status=cose.REVOKED)
        await asyncio.wait_for(watching, 5)

    try:
        asyncio.run(work())
    except RevokedError as error:
        assert error.code == "board.revoked"
    else:
        raise AssertionError("goes on")


@clean
def test_the_clock_is_set_by_an_answer_that_is_fresh():
    bench = Bench(1)
    bench.connect()
    bench.pump()
    nonce = cbor.decode(bench.client.published[-1][1], 1024)["nonce"]
    assert len(nonce) == cose.NONCE_BYTES
    bench.ticks.ms += 400
    for other in (None, bytes(8)):  # an old receipt, or one that answers nothing
        bench.receipt(1, nonce=other)
        assert bench.clock.now_ms() is None
    # No receipt that waited for those who ran before us says that we are good.
    assert bench.firmware.confirmed == 0
    bench.receipt(1, nonce=nonce)
    assert bench.firmware.confirmed == 1
    assert bench.clock.now_ms() == NOW_MS + 200
    assert bench.clock.by == cose.key_id(bench.config.gateways[0].xy)
    # The same again would be as good as no answer: it is older by now.
    bench.ticks.ms += 5000
    bench.receipt(1, nonce=nonce)
    assert bench.clock.now_ms() == NOW_MS + 5200


@clean
def test_old_and_forged_receipts_change_nothing():
    bench = Bench(5)
    bench.connect()
    bench.receipt(4)
    bench.receipt(2)
    assert bench.journal.dropped == 4
    bench.receipt(5, secret=9)
    bench.receipt(5, gateway=2, to="gw1")
    bench.uplink.message(f"fogline/gw1/receipt/{KEY.kid.hex()}", b"garbage")
    assert bench.journal.dropped == 4
    assert [event for event, _ in events].count("ignored") == 3


@clean
def test_another_gateway_of_ours_may_give_the_receipt():
    bench = Bench(5)
    bench.connect()
    bench.receipt(4, gateway=2, to="gw2")
    assert bench.journal.dropped == 4
    assert bench.pump() == []  # ours has not been heard


@clean
def test_a_silent_gateway_is_left_for_the_next():
    bench = Bench(2)
    bench.connect()
    bench.receipt(1)
    bench.pump()
    bench.client.unacknowledged = {1, 2}
    bench.uplink.fail_over()
    assert bench.client.left == ["no receipt from gw1"]
    assert bench.client.unacknowledged == set()
    assert bench.client.will()[0] == "fogline/gw2/status/" + KEY.kid.hex()
    assert cbor.decode(bench.client.will()[1], 1024)["state"] == "offline"
    bench.connect()
    bench.receipt(1, gateway=2, to="gw2")
    assert bench.pump() == [1, 2]
    assert bench.client.published[-1][0] == "fogline/gw2/up/" + KEY.kid.hex()


@clean
def test_a_receipt_raises_the_number_where_the_flash_was_lost():
    bench = Bench(0)
    bench.connect()
    bench.receipt(12)
    assert bench.journal.next > 12 + 1024  # what was signed before may still come in
    asyncio.run(bench.keeper.mend())
    (sent,) = bench.pump()
    kind, number, dropped, payload = decoded(bench.client.published[-1][1])
    assert (kind, number, dropped) == (cose.GAP, sent, 12)
    assert payload == {"from": 12, "reason": "not in flash any more"}


def answered(bench, gateway, final):
    """Have the present gateway answer the board's status with `final`."""
    bench.connect()
    bench.pump()
    (nonce,) = [
        cbor.decode(payload, 1024)["nonce"]
        for topic, payload, _, _ in bench.client.published[-1:]
        if topic == f"fogline/gw{gateway}/status/{KEY.kid.hex()}"
    ]
    bench.receipt(final, gateway=gateway, to=f"gw{gateway}", nonce=nonce)


def mended(bench):
    """Let the keeper sign the gap that is needed now; returns (number, from, watermark)."""
    assert bench.keeper._lost.is_set()
    bench.keeper.changed = bench.uplink.rearranged
    asyncio.run(bench.keeper.mend())
    bench.keeper._lost.clear()
    (number,) = bench.pump()
    kind, _, dropped, payload = decoded(bench.client.published[-1][1])
    assert kind == cose.GAP
    return number, payload["from"], dropped


def turns_in_vain(bench, finals, rounds):
    """Give each gateway its turns; each says that `finals` is final, and nothing moves."""
    for _ in range(rounds):
        for gateway, final in finals:
            answered(bench, gateway, final)
            bench.uplink.fail_over()


def six_in_two_segments(gateways=2):
    """Numbers 1 to 4 go from flash when they are dropped; 5 and 6 stay."""
    bench = Bench(4, gateways)
    bench.journal.outbox.rotate()
    for sequence in (5, 6):
        data = cose.sign1(Quick(), cose.PACK, b"%d" % sequence, CHAIN_ID, sequence, 1)
        bench.journal.append(sequence, data, None)
    return bench


def sent_contents(bench):
    """What is sent now, by its content."""
    count = len(bench.pump())
    return [cose.split(data)[1] for _, data, _, _ in bench.client.published[-count:]]


@clean
def test_a_gateway_that_lied_too_high_does_not_stop_the_board():
    bench = six_in_two_segments()
    answered(bench, 1, 5)  # the chain has none of them
    assert bench.journal.dropped == 5
    bench.uplink.fail_over()
    turns_in_vain(bench, ((2, 1), (1, 5)), uplink.LESS_ROUNDS - 1)
    assert bench.journal.dropped == 5
    # The last turn that it is given: the liar does not repeat itself.
    turns_in_vain(bench, ((2, 1), (1, 1)), 1)
    answered(bench, 2, 1)
    assert (bench.journal.dropped, bench.journal.next) == (1, 7)
    # What is lost is said to be; what is still here is signed anew behind it.
    assert mended(bench) == (7, 1, 1)
    bench.receipt(8, gateway=2, to="gw2")
    assert sent_contents(bench) == [b"5", b"6"]


@clean
def test_a_gateway_that_goes_on_lying_is_outlived_by_one_that_does_not():
    bench = six_in_two_segments()
    answered(bench, 1, 5)
    bench.uplink.fail_over()
    turns_in_vain(bench, ((2, 1), (1, 5)), uplink.LESS_ROUNDS)
    answered(bench, 2, 1)
    assert mended(bench) == (7, 1, 1)
    # The liar's turn again, while the chain takes the gap.
    bench.uplink.fail_over()
    answered(bench, 1, 5)
    assert bench.journal.dropped == 5
    bench.uplink.fail_over()
    answered(bench, 2, 8)
    assert sent_contents(bench) == [b"5", b"6"]


@clean
def test_what_is_still_in_flash_is_sent_after_all():
    bench = Bench(6)
    answered(bench, 1, 5)
    bench.uplink.fail_over()
    turns_in_vain(bench, ((2, 1), (1, 5)), uplink.LESS_ROUNDS)
    answered(bench, 2, 1)
    assert bench.pump() == [1, 2, 3, 4, 5, 6]


@clean
def test_numbers_that_the_board_cannot_have_used_are_believed_once_and_within_bounds():
    bench = Bench(3)
    for far in (1 << 62, 4 + uplink.MAX_RAISE + 1):
        answered(bench, 1, far)
        assert bench.pump() == []  # such a gateway is not spoken with
        assert (bench.journal.dropped, bench.journal.next) == (1, 4)
    answered(bench, 1, 50)
    after = bench.journal.next
    assert after > 50 + 1024
    asyncio.run(bench.keeper.mend())
    for again in (after + 2, after + 60_000):
        answered(bench, 1, again)
        assert (bench.journal.dropped, bench.journal.next) == (50, after + 1)
    assert [event for event, _ in events].count("ignored") == 4
    # The chain waits for 2. No number is signed twice on the way back.
    bench.uplink.fail_over()
    turns_in_vain(bench, ((2, 2), (1, 50)), uplink.LESS_ROUNDS)
    answered(bench, 2, 2)
    assert mended(bench) == (after + 1, 2, 2)
    assert after + 1 - 2 <= 1 << 20


@clean
def test_a_gateway_that_is_catching_up_is_waited_for():
    bench = Bench(6)
    answered(bench, 1, 5)
    bench.uplink.fail_over()
    for final in (1, 1, 2, 2, 3, 3, 4, 4):
        turns_in_vain(bench, ((2, final), (1, 5)), 1)
        assert bench.journal.dropped == 5
    answered(bench, 2, 5)
    assert bench.pump() == [5, 6]


@clean
def test_a_lie_too_low_costs_a_gap_and_nothing_else():
    bench = six_in_two_segments(gateways=1)
    answered(bench, 1, 5)
    bench.uplink.fail_over()
    turns_in_vain(bench, ((1, 2),), uplink.LESS_ROUNDS)
    answered(bench, 1, 2)
    assert mended(bench) == (7, 2, 2)
    # The chain was at 5 all the time, and takes no gap from 2.
    answered(bench, 1, 5)
    number, first, dropped = mended(bench)
    assert (first, dropped) == (5, 5)
    assert number > 7
    bench.receipt(number + 1)
    assert sent_contents(bench) == [b"5", b"6"]


@clean
def test_nothing_is_sent_behind_a_gap_before_its_receipt():
    bench = Bench(6)
    number = bench.journal.next
    gap = cose.sign1(KEY, cose.GAP, b"\xa0", CHAIN_ID, number, 1)
    bench.journal.append(number, gap, None, GAP, first=4)
    for behind in (8, 9):
        bench.journal.append(behind, b"copy", None)
    bench.connect()
    bench.receipt(1)
    assert bench.pump() == [1, 2, 3, 7]
    bench.receipt(4)
    assert bench.pump() == []
    bench.connect()
    bench.receipt(4)
    assert bench.pump() == [7]
    bench.receipt(8)
    assert bench.pump() == [8, 9]


@clean
def test_a_hole_is_not_sent_across_and_is_mended_when_its_turn_comes():
    bench = Bench(6)
    bench.journal.outbox._damaged.append(4)  # as if it could not be read
    bench.connect()
    bench.receipt(1)
    assert bench.pump() == [1, 2, 3]
    bench.receipt(4)

    async def work():
        run = asyncio.create_task(bench.keeper.run())
        await mended.wait()
        run.cancel()

    def rearranged():
        bench.uplink.rearranged()
        mended.set()

    mended = asyncio.Event()
    bench.keeper.changed = rearranged
    asyncio.run(work())
    assert bench.pump() == [7]
    bench.receipt(8)
    assert bench.pump() == [8, 9]


@clean
def test_a_sensor_that_cannot_wait_thins_a_full_outbox():
    journal = Journal(Outbox(BOX, OUTBOX_BYTES, True), Flash(FLASH))
    driver = Driver(seconds(900))
    sampler = sampler_of(journal, driver, NoReceipts(journal))
    driver.place = 0

    def sample():
        driver.place += 1
        driver.position = []
        if driver.place > 900:
            return None
        return seconds(900)[driver.place - 1], [float(driver.place), 0.5]

    driver.sample = sample
    asyncio.run(sampler.run())
    sealed = {}
    collect(journal, sealed)
    payloads = [decoded(sealed[number]) for number in sorted(sealed)]
    gaps = [payload for kind, _, _, payload in payloads if kind == cose.GAP]
    assert len(gaps) == 1
    assert gaps[0]["reason"].startswith("outbox full: ")
    assert sorted(sealed)[:20] == list(range(1, 21))
    last = [payload for kind, _, _, payload in payloads if kind == cose.PACK][-1]
    assert max(record[2] for record in last if record[0] == "one") == 900.0


class NoReceipts(FakeUplink):
    async def receipt(self):
        raise AssertionError("waits for a receipt")


@clean
def test_rows_of_before_the_time_was_known_say_how_long_ago_they_were():
    ticks = Ticks()
    clock = Clock(ticks=ticks)
    clock.boot = 17
    journal = Journal(Outbox(BOX, OUTBOX_BYTES, True), Flash(FLASH))
    driver = Driver([None] * 30)
    pushed = []
    sampler = sampler_of(journal, driver, clock=clock)
    sampler._updater.push = lambda row, time_ms: pushed.append(time_ms)
    sample = driver.sample

    def later():
        ticks.ms += 1000
        row = driver.position[0]
        if row == 10:
            clock.heard(NOW_MS, bytes(8), clock.up_ms())
        if row == 20:  # the gateway's clock was set back
            clock.heard(NOW_MS + 4000, bytes(8), clock.up_ms())
        return sample()

    driver.sample = later
    asyncio.run(sampler.run())
    sealed = {}
    collect(journal, sealed)
    packs = [decoded(sealed[number])[3] for number in sorted(sealed)]
    assert [len([r for r in pack if r[0] == "one"]) for pack in packs] == [
        4,
        4,
        2,
        4,
        4,
        2,
        4,
        4,
        2,
    ]
    for pack in packs[:3]:
        assert pack[0][-3] <= 0
        assert pack[-2] == {0: "clock/boot", 2: 17}
    starts = []
    for pack in packs[3:]:
        boot, up, by = pack[-3:]
        assert (boot[2], by) == (17, {0: "clock/by", 8: bytes(8)})
        starts.append(pack[0][-3] * 1000 - up[2])
    # Since then all say the same of the start, until the clock was set.
    assert len(set(starts[:3])) == len(set(starts[3:])) == 1
    assert starts[0] - starts[-1] == 6000
    # To the model time went on where it became known, and stepped where it was set.
    steps = [after - before for before, after in zip(pushed, pushed[1:])]
    assert steps == [1000] * 19 + [-5000] + [1000] * 9
    # By the first start that was told, each row gets the time at which it was measured.
    times = []
    for pack in packs[:3]:
        base = starts[0] + pack[-1][2] + pack[0][-3] * 1000
        times += [base + int(1000 * r.get(6, 0)) for r in pack if r[0] == "one"]
    assert [after - before for before, after in zip(times, times[1:])] == [1000] * 9
    assert times[-1] == NOW_MS - 1000


def test_reservoir_is_bounded_and_ranks():
    reservoir = Reservoir()
    assert reservoir.percentile(50) is None
    for value in range(1, 101):
        reservoir.add(value)
    assert reservoir.percentile(50) == 50
    assert reservoir.percentile(99) == 99
    for value in range(5_000):
        reservoir.add(value)
    assert reservoir.count == 5_100
    assert len(reservoir._sample) == 256
