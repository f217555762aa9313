"""The board's buses and pins by logical name: `board.get` calls these, and forgets them.

`machine` is imported by what needs it alone, since not every target has pins.
"""

from . import board
from .errors import ConfigError

# The longest that one transfer may hold the I2C bus, clock stretching included.
I2C_TIMEOUT_US = 20_000
UART_BUFFER_BYTES = 256
ADC_FULL_SCALE_UV = 3_300_000
# Several sensors may hang on one of these.
_SHARED = ("i2c", "spi")


def claim(where, kind, logical):
    """Keep a bus or pin for one driver; I2C and SPI may be claimed by several.

    Args:
        where: the setting that asks, for the error.
        kind: "i2c", "spi", "uart", "adc" or "pin".
        logical: its name on this board.

    Raises ConfigError: the board has none of that name, or its pins have another use.
    """
    from .checks import check_choice

    table = board.tables.get(kind, {})
    if not table:
        raise ConfigError(where, f"this board has no {kind}")
    check_choice(where, logical, sorted(table))
    for gpio in _gpios(kind, table[logical]):
        other = board.claims.get(gpio)
        if other is not None and not (kind in _SHARED and other == logical):
            raise ConfigError(where, f"{logical} needs GPIO{gpio}, which {other} has")
        board.claims[gpio] = logical


def _gpios(kind, entry):
    if kind in ("adc", "pin"):
        return (entry,)
    return entry[1:3] if kind != "spi" else entry[1:4]


def limit(logical, hz):
    """Let a bus be no faster than this: the slowest of its sensors, or its longest cable."""
    board.limits[logical] = min(hz, board.limits.get(logical, hz))


def i2c(logical):
    """Return the bus, at the speed that all who share it can do."""
    if logical not in board.opened:
        from machine import I2C, Pin

        number, sda, scl, most = board.tables["i2c"][logical]
        limit(logical, most)
        board.opened[logical] = I2C(
            number, scl=Pin(scl), sda=Pin(sda), freq=board.limits[logical], timeout=I2C_TIMEOUT_US
        )
    return board.opened[logical]


def clear_i2c(logical):
    """Free an I2C bus that a chip holds since it lost count of the clock; others are left alone.

    Nine clocks with the data line released let it end its byte (NXP, UM10204, 3.1.16); the
    next `i2c` sets the controller up anew.
    """
    if board.opened.pop(logical, None) is None or logical not in board.tables["i2c"]:
        return
    from time import sleep_us

    from machine import Pin

    _, sda, scl, _ = board.tables["i2c"][logical]
    Pin(sda, Pin.IN, Pin.PULL_UP)
    clock = Pin(scl, Pin.OPEN_DRAIN, Pin.PULL_UP, value=1)
    for _ in range(9):
        clock.value(0)
        sleep_us(5)
        clock.value(1)
        sleep_us(5)


def spi(logical, hz):
    """Return the bus in mode 0, most significant bit first; who asks first sets its speed."""
    if logical not in board.opened:
        from machine import SPI, Pin

        number, sck, mosi, miso, most = board.tables["spi"][logical]
        board.opened[logical] = SPI(
            number,
            baudrate=min(hz, most),
            polarity=0,
            phase=0,
            sck=Pin(sck),
            mosi=Pin(mosi),
            miso=Pin(miso),
        )
    return board.opened[logical]


def uart(logical, baudrate, buffer_bytes=UART_BUFFER_BYTES):
    """Return the port, 8 data bits, no parity, 1 stop bit; reading never waits."""
    from machine import UART, Pin

    number, tx, rx = board.tables["uart"][logical]
    return UART(
        number,
        baudrate=baudrate,
        bits=8,
        parity=None,
        stop=1,
        tx=Pin(tx),
        rx=Pin(rx),
        timeout=0,
        rxbuf=buffer_bytes,
    )


def adc(logical):
    """Return a function that measures the pin in microvolts, 0 to about 3.1 or 3.3 V."""
    from machine import ADC, Pin

    gpio = Pin(board.tables["adc"][logical])
    if board.has_calibrated_adc:
        return ADC(gpio, atten=ADC.ATTN_11DB).read_uv  # type: ignore[attr-defined]  # ESP32s alone
    converter = ADC(gpio)
    # 65535 stands for the supply; the product stays below 2^30 on the way.
    return lambda: converter.read_u16() * (ADC_FULL_SCALE_UV // 300) // 65535 * 300


def pin(logical, pull=None):
    """Return the pin as an input. pull: None, "up" or "down"."""
    from machine import Pin

    resistors = {None: None, "up": Pin.PULL_UP, "down": Pin.PULL_DOWN}
    return Pin(board.tables["pin"][logical], Pin.IN, resistors[pull])


def output(logical, value=0):
    """Return the pin as an output that begins with `value`."""
    from machine import Pin

    return Pin(board.tables["pin"][logical], Pin.OUT, value=value)
