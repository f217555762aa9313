"""What time it is, who says so, and a clock of our own that never goes back.

`up_ms` counts from this start of the board; `boot` counts the starts, in flash. Together they
order everything that the board does, whatever its calendar says. The calendar comes from a
gateway's receipt (authenticated, and fresh: see `heard`), else from NTP, else from a real-time
clock that shows a plausible date. A board may have none of them: then `now_ms` is None, and packs
say how long ago they were made.
"""

import os
import time

from .errors import FoglineError

BY_OWN_CLOCK, BY_NTP = 0, 1  # as in a pack's `clock/by`; a gateway is its key id
FILE = "boot.bin"
# No clock that was ever set shows less: unset ones begin at 1970, 2000 or 2021.
EARLIEST_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z
LATEST_MS = 1 << 48
# Seconds from 1970 to 2000, where some ports' calendars begin.
YEAR_2000_S = 946_684_800
# An answer that took longer says too little about now.
MAX_ROUND_TRIP_MS = 10_000
# Who is off by less is not set again.
STEP_MS = 2_000
MAX_BOOT = (1 << 32) - 1
# Where the count of starts was lost, it goes on from somewhere else: not to repeat a number soon.
_RANDOM_BOOT_BITS = 28


class Clock:
    """See above. Ask for `up_ms` at least every few days: the ticks below it wrap.

    Args:
        flash: Flash for the count of starts; None: this is start 0, and nothing is written.
        new: whether the board is new, so that a missing count means that it never started.
        ticks: the port's `time`, or what stands for it in a test.

    Attributes:
        boot: number of this start.
        by: who gave the time: a gateway's key id, BY_NTP, BY_OWN_CLOCK; None while not known.
        start_ms: when `up_ms` was 0, ms since 1970; None while not known.
        first_ms: `start_ms` as it was told first.
        marked: whether packs of this start say what the clock showed: it had no time at first,
            or was set anew.
    """

    def __init__(self, flash=None, new=True, ticks=time):
        self._ticks = ticks
        self._last = ticks.ticks_ms()
        self._up_ms = 0
        self.boot = 0 if flash is None else _count(flash, new)
        self.by = None
        self.start_ms = self.first_ms = None
        now = calendar_ms(ticks)
        if now is not None:
            self.start_ms, self.by = now, BY_OWN_CLOCK
            self.first_ms = now
        self.marked = now is None

    def up_ms(self):
        """Milliseconds since this start; never less than before."""
        now = self._ticks.ticks_ms()
        # Wraps; a step back would be a defect of the port, and counts for nothing.
        passed = self._ticks.ticks_diff(now, self._last)
        if passed > 0:
            self._up_ms += passed
            self._last = now
        return self._up_ms

    def now_ms(self):
        """Milliseconds since 1970, or None while not known. May step, forth and back."""
        return None if self.start_ms is None else self.start_ms + self.up_ms()

    def heard(self, time_ms, gateway, sent_ms):
        """Take a gateway's time from an answer to what we sent at `sent_ms` (`up_ms` then).

        The answer was made in between, so half of the way is the best guess. Returns whether the
        clock was set.
        """
        up = self.up_ms()
        if up - sent_ms > MAX_ROUND_TRIP_MS:
            return False
        return self._set(time_ms + (up - sent_ms) // 2 - up, gateway)

    def asked_ntp(self, time_ms):
        """Take what an NTP server said just now, unless a gateway, whom we can check, has."""
        if isinstance(self.by, bytes):
            return False
        return self._set(time_ms - self.up_ms(), BY_NTP)

    def _set(self, start_ms, by):
        if not EARLIEST_MS <= start_ms + self._up_ms <= LATEST_MS:
            return False
        better = isinstance(by, bytes) and not isinstance(self.by, bytes)
        if self.start_ms is not None and abs(start_ms - self.start_ms) < STEP_MS:
            if better:
                self.by = by
            return False
        self.marked = self.marked or self.start_ms is not None
        self.start_ms, self.by = start_ms, by
        if self.first_ms is None:
            self.first_ms = start_ms
        return True

    def steady_ms(self):
        """Milliseconds that go on when the time becomes known, and step when it is set anew.

        Differences of rows by it are those that everybody sees once the rows have their time.
        """
        stepped = 0 if self.start_ms is None else self.start_ms - self.first_ms
        return self.up_ms() + stepped


def calendar_ms(ticks=time):
    """What the port's calendar shows, in ms since 1970; None where it was not set."""
    epoch_s = YEAR_2000_S if ticks.gmtime(0)[0] == 2000 else 0
    now = (int(ticks.time()) + epoch_s) * 1000
    return now if EARLIEST_MS <= now <= LATEST_MS else None


def _count(flash, new):
    """Count this start in flash; returns its number."""
    data = flash.load(FILE, 4)
    if data is not None and len(data) == 4:
        boot = (int.from_bytes(data, "big") + 1) & MAX_BOOT
    elif new:
        boot = 1
    else:
        boot = 1 + (int.from_bytes(os.urandom(4), "big") >> (32 - _RANDOM_BOOT_BITS))
    try:
        flash.save(FILE, boot.to_bytes(4, "big"))
    except OSError:
        # A full or worn flash must not keep the board from starting: any number will do once.
        boot = 1 + (int.from_bytes(os.urandom(4), "big") >> (32 - _RANDOM_BOOT_BITS))
    return boot


def ask_ntp(host):
    """Return ms since 1970 by an NTP server, or None where it does not answer; blocks up to 1 s.

    Raises FoglineError `clock.ntp` where this port has no `ntptime`.
    """
    try:
        import ntptime
    except ImportError:
        raise FoglineError("clock.ntp", "this port has no ntptime; leave `ntp` out") from None
    ntptime.host = host
    ntptime.timeout = 1
    try:
        now_s = ntptime.time()
    except (OSError, IndexError, ValueError):
        return None
    return (now_s + (YEAR_2000_S if time.gmtime(0)[0] == 2000 else 0)) * 1000
