"""INA219: voltage, current and power of a direct-current supply, over I2C.

Texas Instruments, INA219 data sheet (SBOS448G): section 8.6 registers. The current follows from
the voltage at the shunt, so the chip's calibration register is not needed. 16 readings are
averaged, 8.5 ms.
"""

from fogline.errors import SensorFault

from .base import Channel
from .sensor import I2cDevice, big_endian, wait_for

_CONFIGURATION, _SHUNT, _BUS = 0x00, 0x01, 0x02
_RESET = 0x8000
_AFTER_RESET = 0x399F  # the chip has no other mark by which to know it
# 32 V, shunt up to 320 mV, 16 readings averaged for both, without end.
_SETTING = 0x3E67
_READY, _OVERFLOW = 0x02, 0x01
_SHUNT_MV = 320
TIMEOUT_MS = 50


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("bus",)
    OPTIONAL = ("address", "hz", "shunt_milliohm")

    def __init__(self, where, options):
        from fogline.checks import check_number

        self._chip = I2cDevice(where, options, tuple(range(0x40, 0x50)))
        self._milliohm = options.get("shunt_milliohm", 100)
        check_number(where + ".shunt_milliohm", self._milliohm, 0.1, 10_000)
        most = _SHUNT_MV / self._milliohm
        # Section 7.3: 26 V at the inputs, whatever the register could hold.
        self.channels = (
            Channel("voltage", "V", 0.0, 26.0),
            Channel("current", "A", -most, most),
            Channel("power", "W", -26.0 * most, 26.0 * most),
        )

    def open(self):
        """Find the chip and set it to measure without end."""
        self._chip.open()
        self._write(_CONFIGURATION, _RESET)
        if self._read(_CONFIGURATION) != _AFTER_RESET:
            raise SensorFault("absent", "another chip")
        self._write(_CONFIGURATION, _SETTING)

    def sample(self):
        """Return [V, A, W]."""
        if self._read(_CONFIGURATION) != _SETTING:
            raise SensorFault("no-data", "it was reset")
        wait_for(lambda: self._read(_BUS) & _READY, TIMEOUT_MS)
        bus = self._read(_BUS)
        if bus & _OVERFLOW:
            raise SensorFault("range", reopen=False)
        shunt = big_endian(self._chip.read(_SHUNT, 2))
        volts = (bus >> 3) / 250  # 4 mV each
        amperes = shunt / (100 * self._milliohm)  # 10 uV each
        return [volts, amperes, volts * amperes]

    def close(self):
        """Put the chip to sleep."""
        self._write(_CONFIGURATION, 0)

    def _read(self, register):
        return big_endian(self._chip.read(register, 2)) & 0xFFFF

    def _write(self, register, value):
        self._chip.write(register, value >> 8, value & 0xFF)
