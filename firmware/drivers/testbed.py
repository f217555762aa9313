"""A simulated pump-and-valve test bed: what the boards read where there is no recording.

A centrifugal pump circulates water through an inlet valve (2) and an outlet valve (1). Each
row is computed from the seed and the row's number alone, so the bed can be opened again at
any row. The physics is the textbook's, with constants chosen so that the values lie in the
ranges of the Skoltech test bed (water_circulation.py):

- pump curve and system curve meet at the flow Q where H0 - A Q^2 = K Q^2 (L/min, bar);
- the pump's outlet pressure is what the curve leaves, less what the inlet valve takes;
- shaft power is an idle part and a part that grows with pressure and flow; the motor's
  current is that power over the supply voltage, which wanders;
- vibration grows with the flow, and with what is wrong;
- water and casing warm towards a balance with first-order lags, also after a fault.

    {"name": "testbed", "seed": 1, "script": [
        {"rows": 900, "fault": null}, {"wait": "model"}, {"rows": 300, "fault": "valve1"}]}

A fault grows over its first RAMP_ROWS rows. Rows are a second apart, from `start_s` on.
"""

import math

from fogline.errors import DriverError

from .base import WAIT_MODEL
from .script import check_position, check_script
from .water_circulation import CHANNELS

FAULTS = (None, "valve1", "valve2", "cavitation", "imbalance")
RAMP_ROWS = 20
MAX_ROWS = 1_000_000
START_S = 1_735_689_600  # 2025-01-01T00:00:00Z

_HEAD_BAR = 0.60  # of the pump at no flow
_PUMP_LOSS = 4.0e-5  # bar per (L/min)^2
_PIPE_LOSS = 3.0e-5
_VALVE_LOSS = 1.8e-5  # of each valve, fully open
_IDLE_W = 190.0
_SHAFT_W = 4.6  # per bar L/min
_WATER_LAG_ROWS = 400.0
# How far each fault warms water (Cel) in the end: throttled flow, or friction.
_WARMING = {"valve1": 3.0, "valve2": 2.0, "cavitation": 1.5, "imbalance": 2.5}


class Driver:
    """See `base.py` for the shape. A position is [script item, rows of it, rows in all]."""

    channels = CHANNELS
    sensors = ()
    faults = ()

    def __init__(self, options, report):
        from fogline.checks import check_choice, check_integer, check_map, dotted

        check_map("config.driver", options, ("name", "seed", "script"), ("start_s",))
        check_integer("config.driver.seed", options["seed"], 0, (1 << 31) - 1)
        check_script(options["script"], ("rows", "fault"), ())
        for index, item in enumerate(options["script"]):
            if "rows" in item:
                where = f"config.driver.script[{index}]"
                check_integer(dotted(where, "rows"), item["rows"], 1, MAX_ROWS)
                check_choice(dotted(where, "fault"), item["fault"], FAULTS)
        self._start_s = options.get("start_s", START_S)
        check_integer("config.driver.start_s", self._start_s, 1 << 28, 1 << 40)
        self._seed = options["seed"]
        self._script = options["script"]
        self.position = [0, 0, 0]

    def open(self, position):
        """Start at `position`: the warmth of the items before it is computed again."""
        if position is not None:
            check_position(position, 3)
            if position[0] > len(self._script):
                raise DriverError("driver.position", "lies behind the script's end")
            self.position = position
        self._warmth = 0.0
        for item in self._script[: self.position[0]]:
            self._pass(item)

    def sample(self):
        """Return the next row, WAIT_MODEL, or None at the script's end."""
        item, row, total = self.position
        while item < len(self._script) and row == self._script[item].get("rows"):
            self._pass(self._script[item])
            item, row = item + 1, 0
        if item == len(self._script):
            return None
        work = self._script[item]
        if "wait" in work:
            self.position = [item + 1, 0, total]
            return WAIT_MODEL
        self.position = [item, row + 1, total + 1]
        return (self._start_s + total) * 1000, self._measure(work["fault"], row, total)

    def close(self):
        """Nothing is open."""

    def _pass(self, item):
        """Carry the water's warmth over a whole script item."""
        if "rows" in item:
            self._warmth = _lagged(self._warmth, _WARMING.get(item["fault"], 0.0), item["rows"])

    def _measure(self, fault, row, total):
        noise = _Noise(self._seed, total)
        severity = min(1.0, (row + 1) / RAMP_ROWS) if fault else 0.0

        def strength(name):
            return severity if fault == name else 0.0

        cavitation, imbalance = strength("cavitation"), strength("imbalance")
        outlet = _VALVE_LOSS / (1.0 - 0.55 * strength("valve1")) ** 2
        inlet = _VALVE_LOSS / (1.0 - 0.50 * strength("valve2")) ** 2

        speed = 1.0 + 0.004 * noise.drift(0, 600) - 0.015 * imbalance
        head = _HEAD_BAR * speed * speed * (1.0 - 0.16 * cavitation)
        flow = math.sqrt(head / (_PUMP_LOSS + _PIPE_LOSS + outlet + inlet))
        flow *= 1.0 + cavitation * 0.035 * noise.gauss(1)
        pressure = head - (_PUMP_LOSS + inlet) * flow * flow
        voltage = 230.0 + 4.0 * noise.drift(2, 300) + 3.0 * noise.gauss(3)
        shaft_w = _IDLE_W + _SHAFT_W * (pressure + 0.1) * flow * (1.0 + 0.5 * imbalance)
        rough = 1.0 + 0.9 * cavitation + 0.12 * strength("valve2")
        shake = 0.082 * (flow / 75.0) ** 2 * rough
        warmth = _lagged(self._warmth, _WARMING.get(fault, 0.0), row + 1)
        water = 82.0 + 1.5 * noise.drift(4, 3600) + warmth
        return [
            shake * (1.0 + 0.60 * imbalance) + 0.0011 * rough * noise.gauss(5),
            1.6 * shake * (1.0 + 0.35 * imbalance) + 0.0018 * rough * noise.gauss(6),
            shaft_w / voltage + 0.05 * (1.0 + cavitation + imbalance) * noise.gauss(7),
            pressure + 0.012 * (1.0 + 2.5 * cavitation) * noise.gauss(8),
            water + 0.12 * noise.gauss(9),
            24.6 + 0.8 * noise.drift(10, 2400) + 0.15 * warmth + 0.015 * noise.gauss(11),
            voltage,
            flow + 0.45 * noise.gauss(12),
        ]


class _Noise:
    """Random numbers of one row: each is a hash of seed, row and purpose."""

    def __init__(self, seed, row):
        self._seed = seed
        self._row = row

    def gauss(self, purpose):
        """Nearly normal, mean 0, deviation 1: the sum of four uniform bytes."""
        bits = _mix(self._seed, self._row, purpose)
        total = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)
        return (total - 510) / 147.8

    def drift(self, purpose, period_rows):
        """Wander slowly between -1 and 1, turning about every `period_rows`."""
        knot, within = divmod(self._row, period_rows)
        before = _mix(self._seed, knot, purpose) / 0x7FFFFFFF - 1.0
        after = _mix(self._seed, knot + 1, purpose) / 0x7FFFFFFF - 1.0
        part = within / period_rows
        return before + (after - before) * part * part * (3.0 - 2.0 * part)


def _mix(seed, row, purpose):
    """Scramble three integers into 32 bits (multiply and xor-shift, all modulo 2^32)."""
    value = (seed * 0x9E3779B1 ^ row * 0x85EBCA77 ^ purpose * 0xC2B2AE3D) & 0xFFFFFFFF
    for _ in range(2):
        value ^= value >> 16
        value = value * 0x7FEB352D & 0xFFFFFFFF
        value ^= value >> 15
        value = value * 0x846CA68B & 0xFFFFFFFF
    return value ^ value >> 16


def _lagged(value, target, rows):
    """Return where `value` stands after `rows` rows on its way to `target`."""
    return target + (value - target) * math.exp(-rows / _WATER_LAG_ROWS)
