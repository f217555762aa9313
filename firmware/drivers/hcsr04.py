"""HC-SR04: distance by ultrasound, two pins.

Elec Freaks, Ultrasonic Ranging Module HC-SR04: 2 cm to 4 m; a trigger of 10 us, an echo pulse as
long as the sound is under way; at most one measurement in 60 ms. Without an obstacle the pulse
lasts 38 ms. The echo is a 5 V signal: it needs a divider, see hardware/wiring.
"""

from time import sleep_ms, sleep_us, ticks_diff, ticks_ms

from fogline import board
from fogline.errors import SensorFault

from .base import Channel

TRIGGER_US = 10
# The module takes less than 1 ms to raise its echo, and lowers it after 38 ms by itself.
TIMEOUT_US = 40_000
# Sooner, the last ping's echoes from further away are taken for this one's.
CYCLE_MS = 60
_NO_ECHO_BEGAN = -2
_LONGEST_US = 30_000  # more than 4 m, there and back


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("trigger", "echo")
    OPTIONAL = ("air_cel",)
    channels = (Channel("distance", "cm", 2.0, 400.0),)

    def __init__(self, where, options):
        from fogline.checks import check_number

        self._trigger_name, self._echo_name = options["trigger"], options["echo"]
        board.claim(where + ".trigger", "pin", self._trigger_name)
        board.claim(where + ".echo", "pin", self._echo_name)
        air_cel = options.get("air_cel", 20)
        check_number(where + ".air_cel", air_cel, -40, 85)
        # The speed of sound in air, m/s, to a tenth of a per cent between -20 and 50 Cel.
        self._cm_per_us = (331.3 + 0.606 * air_cel) / 10_000

    def open(self):
        """Get the pins."""
        self._trigger = board.get("output", self._trigger_name, 0)
        self._echo = board.get("pin", self._echo_name)
        self._pinged_ms = None

    def sample(self):
        """Send one ping: [cm]."""
        import machine

        if self._pinged_ms is not None:
            passed = ticks_diff(ticks_ms(), self._pinged_ms)
            if 0 <= passed < CYCLE_MS:
                sleep_ms(CYCLE_MS - passed)
        self._pinged_ms = ticks_ms()
        if self._echo.value():
            raise SensorFault("timeout", "the last echo has no end")
        self._trigger.value(1)
        sleep_us(TRIGGER_US)
        self._trigger.value(0)
        us = machine.time_pulse_us(self._echo, 1, TIMEOUT_US)
        if us == _NO_ECHO_BEGAN:
            raise SensorFault("absent")
        if not 0 <= us <= _LONGEST_US:
            raise SensorFault("range", "no obstacle", reopen=False)
        return [us * self._cm_per_us / 2]

    def close(self):
        """Nothing has to be let go."""
