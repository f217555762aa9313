"""The board's clock: never back, over wraps and resets, and set by those who may."""

import os

from fogline import clock as clock_module
from fogline.clock import BY_NTP, BY_OWN_CLOCK, EARLIEST_MS, FILE, YEAR_2000_S, Clock
from fogline.flash import Flash
from support import Random

DIRECTORY = "test_clock.flash"
GATEWAY = bytes(range(8))
NOW_MS = 1_800_000_000_000
PERIOD = 1 << 30  # of MicroPython's ticks on boards


class Port:
    """A port's `time`: wrapping ticks, and a calendar that begins in 1970 or 2000."""

    def __init__(self, calendar_s=0, year=1970, ticks=0):
        self.ticks = ticks
        self.calendar_s = calendar_s
        self.year = year

    def ticks_ms(self):
        return self.ticks % PERIOD

    def ticks_diff(self, new, old):
        return ((new - old + PERIOD // 2) % PERIOD) - PERIOD // 2

    def gmtime(self, seconds):
        return (self.year,)

    def time(self):
        return self.calendar_s


class Stored:
    """An empty directory for one `with` block."""

    def __enter__(self):
        self._remove()
        return Flash(DIRECTORY)

    def __exit__(self, *_):
        self._remove()

    def _remove(self):
        try:
            for name in os.listdir(DIRECTORY):
                os.remove(DIRECTORY + "/" + name)
            os.rmdir(DIRECTORY)
        except OSError:
            pass


def test_ticks_wrap_and_time_goes_on():
    random = Random(530)
    port = Port(ticks=PERIOD - 5)
    clock = Clock(ticks=port)
    passed = 0
    for _ in range(2000):
        step = random.below(PERIOD // 2 - 1)
        port.ticks += step
        passed += step
        assert clock.up_ms() == passed
    port.ticks -= 1000  # no port should do this
    assert clock.up_ms() == passed
    port.ticks += 1500
    assert clock.up_ms() == passed + 500


def test_a_calendar_that_was_never_set_is_no_time():
    for calendar_s, year in ((0, 1970), (77, 2000), (1_609_459_200, 1970), (0, 2000)):
        clock = Clock(ticks=Port(calendar_s, year))
        assert (clock.now_ms(), clock.by, clock.marked) == (None, None, True)
    for calendar_s in (1 << 60, -5):
        assert Clock(ticks=Port(calendar_s)).now_ms() is None


def test_a_calendar_of_either_epoch():
    for port in (Port(NOW_MS // 1000), Port(NOW_MS // 1000 - YEAR_2000_S, 2000)):
        clock = Clock(ticks=port)
        port.ticks += 250
        assert (clock.now_ms(), clock.by, clock.marked) == (NOW_MS + 250, BY_OWN_CLOCK, False)


def test_a_gateway_is_believed_when_its_answer_is_fresh():
    port = Port()
    clock = Clock(ticks=port)
    port.ticks += 1000
    assert not clock.heard(NOW_MS, GATEWAY, clock.up_ms() - clock_module.MAX_ROUND_TRIP_MS - 1)
    assert clock.now_ms() is None
    assert clock.heard(NOW_MS, GATEWAY, clock.up_ms() - 300)
    assert (clock.now_ms(), clock.by, clock.marked) == (NOW_MS + 150, GATEWAY, True)
    for wrong in (0, EARLIEST_MS - 1000, 1 << 50):
        assert not clock.heard(wrong, GATEWAY, clock.up_ms())
    assert clock.now_ms() == NOW_MS + 150


def test_who_may_set_the_time():
    port = Port(NOW_MS // 1000)
    clock = Clock(ticks=port)
    # Within the tolerance nothing moves, but the better source stands for it.
    assert not clock.asked_ntp(NOW_MS + 1000)
    assert clock.by == BY_OWN_CLOCK
    assert clock.asked_ntp(NOW_MS + 60_000)
    assert (clock.now_ms(), clock.by, clock.marked) == (NOW_MS + 60_000, BY_NTP, True)
    assert not clock.heard(NOW_MS + 60_500, GATEWAY, clock.up_ms())
    assert (clock.now_ms(), clock.by) == (NOW_MS + 60_000, GATEWAY)
    # Anyone can answer for an NTP server: a gateway's word stands.
    assert not clock.asked_ntp(NOW_MS + 999_000)
    assert clock.heard(NOW_MS, GATEWAY, clock.up_ms())
    assert clock.now_ms() == NOW_MS
    up = clock.up_ms()
    port.ticks += 10
    assert clock.up_ms() == up + 10


def test_starts_are_counted():
    with Stored() as flash:
        assert [Clock(flash, True, Port()).boot for _ in range(3)] == [1, 2, 3]
        assert Clock(flash, False, Port()).boot == 4
        flash.save(FILE, b"\xff\xff\xff\xff")
        assert Clock(flash, False, Port()).boot == 0


def test_a_lost_count_does_not_begin_at_one_again():
    boots = set()
    for _ in range(20):
        with Stored() as flash:
            boots.add(Clock(flash, False, Port()).boot)
    assert len(boots) == 20
    assert min(boots) >= 1


def test_a_flash_that_cannot_be_written_keeps_no_board_from_starting():
    class Broken(Flash):
        def _write(self, name, mode, data):
            raise OSError(5, "EIO")

    with Stored():
        assert Clock(Broken(DIRECTORY), False, Port()).boot >= 1


def test_ntp_answers_in_the_ports_epoch():
    class Ntp:
        answer = 1_000

        def time(self):
            if self.answer is None:
                raise OSError(110, "ETIMEDOUT")
            return self.answer

    import sys

    server = sys.modules["ntptime"] = Ntp()
    try:
        assert clock_module.ask_ntp("pool") == 1_000_000
        assert (server.host, server.timeout) == ("pool", 1)
        server.answer = None
        assert clock_module.ask_ntp("pool") is None
    finally:
        del sys.modules["ntptime"]
