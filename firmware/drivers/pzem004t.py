"""PZEM-004T v3: mains voltage, current, power, energy, frequency and power factor, over a UART.

Peacefair, PZEM-004T-100A(V3.0) user manual, V1.0: 2.2 physical layer (9600 baud, 8N1), 2.3
measurement result registers. Modbus RTU; 32-bit values come with their lower half first.
"""

from fogline import board

from .base import Channel
from .modbus import read_input_registers

BAUDRATE = 9600
ANY_METER = 0xF8
# 8 bytes there, 25 back: 35 ms on the line, and the meter's own time.
TIMEOUT_MS = 250
_FIRST, _COUNT = 0x0000, 9


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("bus",)
    OPTIONAL = ("address",)
    # Section 1: what it measures.
    channels = (
        Channel("voltage", "V", 80.0, 260.0),
        Channel("current", "A", 0.0, 100.0),
        Channel("power", "W", 0.0, 23_000.0),
        Channel("energy", "W.h", 0.0, 9_999_990.0),
        Channel("frequency", "Hz", 45.0, 65.0),
        Channel("power_factor", "1", 0.0, 1.0),
    )

    def __init__(self, where, options):
        from fogline.checks import check_integer

        self._uart_name = options["bus"]
        self._address = options.get("address", ANY_METER)
        check_integer(where + ".address", self._address, 1, ANY_METER)
        board.claim(where + ".bus", "uart", self._uart_name)

    def open(self):
        """Get the port."""
        self._uart = board.get("uart", self._uart_name, BAUDRATE)

    def sample(self):
        """Ask for all of it at once."""
        found = read_input_registers(self._uart, self._address, _FIRST, _COUNT, TIMEOUT_MS)
        return [
            found[0] / 10,
            (found[1] | found[2] << 16) / 1000,
            (found[3] | found[4] << 16) / 10,
            float(found[5] | found[6] << 16),
            found[7] / 10,
            found[8] / 100,
        ]

    def close(self):
        """Nothing has to be let go."""
