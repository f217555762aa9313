"""What a board says of itself, and that no pin gets two uses."""

import sys

from fogline import board
from fogline.errors import ConfigError
from support import raises


def claims(*wanted):
    for kind, logical in wanted:
        board.claim("config.driver", kind, logical)


def test_capabilities_are_those_of_the_board():
    board.select("pico-w")
    assert board.has_pins and board.has_wifi and board.has_network and board.has_tls
    assert not board.has_deep_sleep
    board.select("pico")
    assert board.has_pins and not board.has_wifi and not board.has_network
    board.select("unix")
    assert board.has_network and not board.has_wifi and not board.has_pins


def test_an_unknown_board_is_refused_with_the_known_ones():
    error = raises("config.board", board.select, "pico-x")
    assert "pico-w" in error.detail and "esp32-c3" in error.detail


def test_the_other_boards_tables_do_not_stay_in_memory():
    board.select("pico")
    assert not [name for name in sys.modules if name.endswith("board_table")]


def test_a_board_without_pins_has_no_buses():
    board.select("qemu-arm")
    error = raises("config.driver", claims, ("i2c", "i2c0"))
    assert error.detail == "this board has no i2c"


def test_an_unknown_bus_is_refused_with_the_known_ones():
    board.select("pico")
    error = raises("config.driver", claims, ("uart", "uart7"))
    assert "uart0, uart1" in error.detail


def test_sensors_share_i2c_and_spi_and_nothing_else():
    board.select("pico")
    claims(("i2c", "i2c0"), ("i2c", "i2c0"), ("spi", "spi0"), ("spi", "spi0"))
    for kind, logical in (("uart", "uart1"), ("adc", "adc0"), ("pin", "d0")):
        claims((kind, logical))
        error = raises("config.driver", claims, (kind, logical))
        assert logical in error.detail


def test_a_pin_has_one_use():
    board.select("esp32-c3")
    claims(("i2c", "i2c0"))
    error = raises("config.driver", claims, ("spi", "spi0"))
    assert "GPIO6" in error.detail and "i2c0" in error.detail
    board.select("esp32-c3")
    claims(("spi", "spi0"))
    for kind, logical in (("i2c", "i2c0"), ("uart", "uart1")):
        try:
            claims((kind, logical))
        except ConfigError:
            continue
        raise AssertionError("taken")


class Recorder:
    """Stands for a class of `machine`; keeps what it was made with."""

    IN, OUT, PULL_UP, PULL_DOWN, ATTN_11DB = range(5)

    def __init__(self, *arguments, **settings):
        self.arguments = arguments
        self.settings = settings

    def read_u16(self):
        return 65535

    def read_uv(self):
        return 1234


class Machine:
    Pin = I2C = SPI = UART = ADC = Recorder


def with_machine(test):
    before = sys.modules.get("machine")
    sys.modules["machine"] = Machine
    try:
        test()
    finally:
        del sys.modules["machine"]
        if before is not None:
            sys.modules["machine"] = before


def test_buses_are_opened_on_their_pins_once():
    def check():
        board.select("pico")
        board.get("limit", "i2c1", 200_000)
        board.get("limit", "i2c1", 100_000)
        board.get("limit", "i2c1", 900_000)
        i2c = board.get("i2c", "i2c1")
        assert i2c is board.get("i2c", "i2c1")
        assert board.get("i2c", "i2c0").settings["freq"] == 400_000
        assert i2c.arguments == (1,) and i2c.settings["freq"] == 100_000
        assert i2c.settings["sda"].arguments == (6,) and i2c.settings["scl"].arguments == (7,)
        spi = board.get("spi", "spi0", 99_000_000)
        assert spi.settings["baudrate"] == 10_000_000
        assert spi.settings["miso"].arguments == (16,)
        uart = board.get("uart", "uart1", 9600)
        assert uart.arguments == (1,) and uart.settings["timeout"] == 0
        assert uart.settings["tx"].arguments == (8,)
        assert board.get("pin", "d0", "up").arguments == (10, Recorder.IN, Recorder.PULL_UP)
        assert board.get("output", "cs0", 1).settings == {"value": 1}

    with_machine(check)


def test_adc_is_in_microvolts_on_every_board():
    def check():
        board.select("pico")
        assert board.get("adc", "adc0")() == 3_300_000
        board.select("esp32-s3")
        assert board.get("adc", "adc0")() == 1234

    with_machine(check)
