"""MFRC522: which RFID tag lies on the reader, over SPI.

NXP, MFRC522 data sheet, revision 3.9: 8.1.2 SPI, 9 registers, 10 commands. ISO/IEC 14443-3
type A: 6.3.1 REQA and WUPA, 6.5 anticollision. The number of the tag is what a row gets, not
what is stored on it.

A binary32 holds 24 bits without loss, so the number (4 or 7 bytes, as a big-endian integer)
comes in three channels of 24 bits: `uid_high`, `uid_middle`, `uid_low`; `uid_bytes` is 0 where
no tag lies.
"""

from time import sleep_ms

from fogline import board
from fogline.errors import SensorFault

from .base import Channel
from .sensor import wait_for

_COMMAND, _COM_IRQ, _ERROR, _FIFO_DATA, _FIFO_LEVEL, _BIT_FRAMING, _MODE, _TX_MODE, _RX_MODE = (
    0x01, 0x04, 0x06, 0x09, 0x0A, 0x0D, 0x11, 0x12, 0x13,
)  # fmt: skip
_TX_CONTROL, _TX_ASK, _T_MODE, _T_PRESCALER, _T_RELOAD_HIGH, _T_RELOAD_LOW, _VERSION = (
    0x14, 0x15, 0x2A, 0x2B, 0x2C, 0x2D, 0x37,
)  # fmt: skip
_COLLISION, _CRC_HIGH, _CRC_LOW, _DIV_IRQ = 0x0E, 0x21, 0x22, 0x05
_IDLE, _CALCULATE_CRC, _TRANSCEIVE, _SOFT_RESET = 0x00, 0x03, 0x0C, 0x0F
_POWER_DOWN = 0x10  # in CommandReg: the reset is not over
_RECEIVED, _TIMER = 0x30, 0x01  # RxIRq or IdleIRq; TimerIRq
_CRC_DONE = 0x04
_BAD = 0x1B  # BufferOvfl, CollErr, ParityErr, ProtocolErr
_START, _FLUSH = 0x80, 0x80
# Chips of NXP (1.0 and 2.0), and of others that are sold as such.
VERSIONS = (0x91, 0x92, 0x88, 0xB2)
_WUPA, _CASCADE_TAG = 0x52, 0x88
_LEVELS = (0x93, 0x95)
_SELECT, _ANTICOLLISION = 0x70, 0x20
SPI_HZ = 1_000_000
TIMEOUT_MS = 50


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("bus", "select")
    OPTIONAL = ()
    channels = (
        Channel("uid_bytes", "1", 0.0, 7.0),
        Channel("uid_high", "1", 0.0, 16_777_215.0),
        Channel("uid_middle", "1", 0.0, 16_777_215.0),
        Channel("uid_low", "1", 0.0, 16_777_215.0),
    )

    def __init__(self, where, options):
        self._spi_name, self._select_name = options["bus"], options["select"]
        board.claim(where + ".bus", "spi", self._spi_name)
        board.claim(where + ".select", "pin", self._select_name)

    def open(self):
        """Find the chip, reset it and turn its field on."""
        self._select = board.get("output", self._select_name, 1)
        self._spi = board.get("spi", self._spi_name, SPI_HZ)
        version = self._read(_VERSION)
        if version not in VERSIONS:
            raise SensorFault("absent", f"chip 0x{version:02x}")
        self._write(_COMMAND, _SOFT_RESET)
        wait_for(lambda: not self._read(_COMMAND) & _POWER_DOWN, TIMEOUT_MS)
        # The timer begins with the end of sending and ends the wait for a tag after 25 ms:
        # 13.56 MHz / (2 * 169 + 1) = 40 kHz, 1000 of them.
        self._write(_T_MODE, 0x80)
        self._write(_T_PRESCALER, 0xA9)
        self._write(_T_RELOAD_HIGH, 1000 >> 8)
        self._write(_T_RELOAD_LOW, 1000 & 0xFF)
        self._write(_TX_MODE, 0)
        self._write(_RX_MODE, 0)
        self._write(_TX_ASK, 0x40)  # all of the carrier is modulated, as type A wants it
        self._write(_MODE, 0x3D)  # the CRC of ISO 14443-3: from 0x6363 on
        self._write(_TX_CONTROL, self._read(_TX_CONTROL) | 0x03)
        sleep_ms(5)  # for a tag to wake up in the field

    def sample(self):
        """Look for a tag: [bytes of its number, and the number in three parts]."""
        if not self._read(_TX_CONTROL) & 0x03:
            raise SensorFault("no-data", "it was reset")
        uid = self._find()
        number = 0
        for byte in uid:
            number = number << 8 | byte
        parts = [float(number >> shift & 0xFFFFFF) for shift in (48, 24, 0)]
        return [float(len(uid))] + parts

    def close(self):
        """Turn the field off."""
        self._write(_TX_CONTROL, self._read(_TX_CONTROL) & 0xFC)

    def _find(self):
        """Return the number of the tag in the field, or nothing."""
        self._write(_COLLISION, 0x80)  # bits behind a collision count as received
        # One that was asked before takes the first call for a mistake, and the second for what it
        # is (ISO/IEC 14443-3, figure 7: from READY back to IDLE).
        if self._wake() is None and self._wake() is None:
            return b""
        uid = b""
        for level in _LEVELS:
            found = self._transceive(bytes((level, _ANTICOLLISION)), 0)
            if found is None:
                return b""  # it was taken away meanwhile, or there are several
            if len(found) != 5 or found[0] ^ found[1] ^ found[2] ^ found[3] != found[4]:
                raise SensorFault("crc", reopen=False)
            if found[0] != _CASCADE_TAG:
                return uid + found[:4]
            uid += found[1:4]
            order = bytes((level, _SELECT)) + found
            if self._transceive(order + self._crc(order), 0) is None:
                return b""
        raise SensorFault("range", "a number of 10 bytes", reopen=False)

    def _wake(self):
        return self._transceive(bytes((_WUPA,)), 7)

    def _transceive(self, data, last_bits):
        """Send to the tag and return its answer, or None where there is none."""
        self._write(_COMMAND, _IDLE)
        self._write(_COM_IRQ, 0x7F)
        self._write(_FIFO_LEVEL, _FLUSH)
        for byte in data:
            self._write(_FIFO_DATA, byte)
        self._write(_BIT_FRAMING, last_bits)
        self._write(_COMMAND, _TRANSCEIVE)
        self._write(_BIT_FRAMING, _START | last_bits)
        wait_for(lambda: self._read(_COM_IRQ) & (_RECEIVED | _TIMER), TIMEOUT_MS)
        received = self._read(_COM_IRQ) & _RECEIVED
        self._write(_BIT_FRAMING, 0)
        if not received or self._read(_ERROR) & _BAD:
            return None
        return bytes(self._read(_FIFO_DATA) for _ in range(min(self._read(_FIFO_LEVEL), 16)))

    def _crc(self, data):
        self._write(_COMMAND, _IDLE)
        self._write(_DIV_IRQ, _CRC_DONE)
        self._write(_FIFO_LEVEL, _FLUSH)
        for byte in data:
            self._write(_FIFO_DATA, byte)
        self._write(_COMMAND, _CALCULATE_CRC)
        wait_for(lambda: self._read(_DIV_IRQ) & _CRC_DONE, TIMEOUT_MS)
        self._write(_COMMAND, _IDLE)
        return bytes((self._read(_CRC_LOW), self._read(_CRC_HIGH)))

    def _read(self, register):
        # Section 8.1.2.3: bit 7 for a reading, the address in bits 6 to 1.
        self._select.value(0)
        self._spi.write(bytes((0x80 | register << 1,)))
        value = self._spi.read(1)[0]
        self._select.value(1)
        return value

    def _write(self, register, value):
        self._select.value(0)
        self._spi.write(bytes((register << 1, value)))
        self._select.value(1)
