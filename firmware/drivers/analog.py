"""A transmitter with a current loop of 4 to 20 mA, read as the voltage at a resistor.

NAMUR NE 43: a measurement is from 3.8 to 20.5 mA; a loop below 3.6 mA is broken or its
transmitter has failed, one above 21 mA is shorted or has failed. What is in between counts as
beyond the transmitter's range.

    {"name": "analog", "adc": "adc0", "measures": "pressure", "unit": "bar", "at_4_ma": 0,
     "at_20_ma": 10, "shunt_ohm": 150}

150 ohm make 0.6 to 3.0 V; every board of ours measures up to 3.1 V.
"""

from fogline import board
from fogline.errors import ConfigError, SensorFault

from .base import Channel

READINGS = 16  # the mean of so many: quieter by a factor of four
MAX_UNIT_CHARS = 16
_LEAST_MA, _MOST_MA = 3.8, 20.5
_BROKEN_MA, _SHORTED_MA = 3.6, 21.0
MAX_VOLTS = 3.1
_NAME_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789_"


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("adc", "measures", "unit", "at_4_ma", "at_20_ma")
    OPTIONAL = ("shunt_ohm",)

    def __init__(self, where, options):
        from fogline.checks import check_number, check_text

        self._adc_name = options["adc"]
        board.claim(where + ".adc", "adc", self._adc_name)
        check_text(where + ".measures", options["measures"], 16, _NAME_CHARS)
        check_text(where + ".unit", options["unit"], MAX_UNIT_CHARS)
        self._shunt_ohm = options.get("shunt_ohm", 150)
        check_number(where + ".shunt_ohm", self._shunt_ohm, 10, 1000)
        if self._shunt_ohm * _SHORTED_MA > MAX_VOLTS * 1000 + 100:
            raise ConfigError(where + ".shunt_ohm", f"gives more than {MAX_VOLTS} V at 20.5 mA")
        self._zero, full = options["at_4_ma"], options["at_20_ma"]
        for key in ("at_4_ma", "at_20_ma"):
            check_number(f"{where}.{key}", options[key], -1e6, 1e6)
        if self._zero == full:
            raise ConfigError(where + ".at_20_ma", "is the same as at_4_ma")
        self._per_ma = (full - self._zero) / 16
        ends = sorted((self._value(_LEAST_MA), self._value(_MOST_MA)))
        self.channels = (Channel(options["measures"], options["unit"], ends[0], ends[1]),)

    def _value(self, milliamperes):
        return self._zero + (milliamperes - 4) * self._per_ma

    def open(self):
        """Get the converter."""
        self._microvolts = board.get("adc", self._adc_name)

    def sample(self):
        """Return [the quantity]."""
        total = 0
        for _ in range(READINGS):
            total += self._microvolts()
        milliamperes = total / READINGS / (1000 * self._shunt_ohm)
        if not _BROKEN_MA < milliamperes < _SHORTED_MA:
            raise SensorFault("wire", f"{milliamperes:.2f} mA", reopen=False)
        if not _LEAST_MA <= milliamperes <= _MOST_MA:
            raise SensorFault("range", f"{milliamperes:.2f} mA", reopen=False)
        return [self._value(milliamperes)]

    def close(self):
        """Nothing has to be let go."""
