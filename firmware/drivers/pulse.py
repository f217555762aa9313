"""Counts pulses: a flow meter's, or those of a shaft's sensor.

The rate is taken between edges, not over the time between two samples: n edges further, the
time from the last edge of then to the last edge of now. So it is exact to the microsecond at any
rate, and needs no counter in hardware. Every board of ours interrupts on a pin's edge.

    {"name": "pulse", "pin": "d0", "measures": "flow", "per_unit": 450}      450 pulses a litre
    {"name": "pulse", "pin": "d0", "measures": "speed", "per_unit": 2}       2 pulses a turn
"""

from time import ticks_diff, ticks_us

from fogline import board

from .base import Channel

# Below the half of what ticks_diff can tell apart (2^29 us on 32-bit boards).
_STILL_US = 4_000_000
_CHANNELS = {
    "flow": ("L/min", 400.0),
    "speed": ("/min", 30_000.0),
}


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("pin", "measures", "per_unit")
    OPTIONAL = ("pull", "shortest_us", "maximum")

    def __init__(self, where, options):
        from fogline.checks import check_choice, check_integer, check_number

        self._pin_name = options["pin"]
        board.claim(where + ".pin", "pin", self._pin_name)
        measures = options["measures"]
        check_choice(where + ".measures", measures, sorted(_CHANNELS))
        self._per_unit = options["per_unit"]
        check_number(where + ".per_unit", self._per_unit, 0.001, 1_000_000)
        self._pull = options.get("pull")
        check_choice(where + ".pull", self._pull, (None, "up", "down"))
        # An edge sooner than this behind the last one is a contact that bounces.
        self._shortest_us = options.get("shortest_us", 0)
        check_integer(where + ".shortest_us", self._shortest_us, 0, 1_000_000)
        unit, usual = _CHANNELS[measures]
        maximum = options.get("maximum", usual)
        check_number(where + ".maximum", maximum, 0.001, 1_000_000)
        self.channels = (Channel(measures, unit, 0.0, float(maximum)),)
        self._pin = None

    def open(self):
        """Begin to count."""
        self._edges = 0
        self._edge_us = ticks_us()
        self._seen = 0
        self._seen_us = None  # the edge up to which pulses were reported
        self._rate = 0.0
        self._pin = board.get("pin", self._pin_name, self._pull)
        self._pin.irq(handler=self._count, trigger=self._pin.IRQ_RISING)

    def _count(self, _):
        """An edge: in an interrupt, so nothing is allocated here."""
        now = ticks_us()
        if ticks_diff(now, self._edge_us) >= self._shortest_us or not self._edges:
            self._edges += 1
            self._edge_us = now

    def sample(self):
        """Return [flow or speed] since the last sample; 0 for a shaft that stands still."""
        # The two belong together only if no edge came between reading the one and the other.
        while True:
            edges = self._edges
            edge_us = self._edge_us
            if edges == self._edges:
                break
        quiet_us = ticks_diff(ticks_us(), edge_us)
        if edges != self._seen:
            if self._seen_us is not None:
                passed_us = ticks_diff(edge_us, self._seen_us)
                if passed_us > 0:
                    self._rate = (edges - self._seen) * 1e6 / passed_us
            self._seen, self._seen_us = edges, edge_us
        elif self._seen_us is not None and not 0 <= quiet_us < _STILL_US:
            self._rate, self._seen_us = 0.0, None
        elif quiet_us > 0:
            # No edge for longer than the last interval: it can only be slower by now.
            self._rate = min(self._rate, 1e6 / quiet_us)
        return [self._rate * 60 / self._per_unit]

    def close(self):
        """Stop counting."""
        if self._pin is not None:
            self._pin.irq(handler=None)
