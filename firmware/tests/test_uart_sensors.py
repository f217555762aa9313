"""Sensors on a UART: PZEM-004T over Modbus, ELM327."""

import fakes
from fakes import UART, clock, fault, made, near, new
from support import Random, raises

MAINS = (2301, 1234, 0, 2839, 0, 0x86A0, 1, 500, 99)
MAINS_VALUES = [230.1, 1.234, 283.9, 100000.0, 50.0, 0.99]


class Meter:
    """Answers what it is asked with `registers`, 20 ms later."""

    def __init__(self):
        self.registers = MAINS
        self.damage = lambda answer: answer
        self.asked = []
        self._answer = b""
        self._due_us = 0

    def take(self, data):
        from drivers.modbus import crc16

        assert crc16(data[:-2]) == data[-2] | data[-1] << 8
        self.asked.append(data)
        body = bytes((data[0], 4, 2 * len(self.registers)))
        for word in self.registers:
            body += bytes((word >> 8, word & 0xFF))
        crc = crc16(body)
        self._answer = self.damage(body + bytes((crc & 0xFF, crc >> 8)))
        self._due_us = clock.us + 20_000

    def give(self):
        if clock.us < self._due_us:
            return b""
        data, self._answer = self._answer[:7], self._answer[7:]
        return data


def pzem004t(**options):
    fakes.reset()
    UART.device = Meter()
    return made("pzem004t", bus="uart1", **options), UART.device


def test_crc_is_that_of_the_standard():
    from drivers.modbus import crc16, request

    assert crc16(b"123456789") == 0x4B37
    # MODBUS over Serial Line, 6.2.2 has a frame with this CRC: 02 07 -> 41 12.
    assert crc16(b"\x02\x07") == 0x1241
    assert request(0xF8, 4, 0, 10) == bytes.fromhex("f804 0000 000a 6464".replace(" ", ""))


def test_pzem004t_reads_all_quantities_at_once():
    sensor, meter = pzem004t()
    assert near(sensor.sample(), MAINS_VALUES, 1e-6)
    assert near(sensor.sample(), MAINS_VALUES, 1e-6)
    assert len(meter.asked) == 2
    meter.registers = (2301, 0x86A0, 1, 0, 3, 0, 0, 500, 0)
    values = sensor.sample()
    assert near(values[1:3], [100.0, 19660.8], 1e-6)


def test_pzem004t_of_another_address_is_asked_by_it():
    sensor, meter = pzem004t(address=7)
    sensor.sample()
    assert meter.asked[0][0] == 7
    raises("config.address", lambda: pzem004t(address=0))


def test_what_a_meter_answers_wrongly_has_its_word():
    sensor, meter = pzem004t()
    for damage, expected in (
        (lambda answer: b"", "absent"),
        (lambda answer: answer[:-1], "timeout"),
        (lambda answer: answer[:3], "timeout"),
        (lambda answer: answer[:4] + b"\xff" + answer[5:], "crc"),
        (lambda answer: b"\x00" + answer, "crc"),
    ):
        meter.damage = damage
        begin = clock.us
        assert fault(sensor.sample) == expected
        assert clock.us - begin < 400_000
    meter.damage = lambda answer: answer
    assert near(sensor.sample(), MAINS_VALUES, 1e-6)


def test_an_exception_is_no_data():
    from drivers.modbus import crc16

    def exception(answer):
        body = bytes((0xF8, 0x84, 2))
        crc = crc16(body)
        return body + bytes((crc & 0xFF, crc >> 8))

    sensor, meter = pzem004t()
    meter.damage = exception
    begin = clock.us
    assert fault(sensor.sample) == "no-data"
    assert clock.us - begin < 100_000  # not waited for


def test_noise_on_the_line_never_passes_for_a_reading():
    source = Random(20261126)
    sensor, meter = pzem004t()
    for _ in range(60):
        at, bit = source.below(23), 1 << source.below(8)
        meter.damage = lambda answer, at=at, bit=bit: (
            answer[:at] + bytes((answer[at] ^ bit,)) + answer[at + 1 :]
        )
        assert fault(sensor.sample) in ("crc", "timeout", "no-data")


class Car:
    """An ELM327 on a car; `says` maps a command to an answer, after `delay_us`."""

    def __init__(self):
        self.says = {
            "ATZ": "\r\rELM327 v1.5\r\r",
            "0100": "4100BE3EA813\r",
            "010C": "410C1AF8\r",
            "010D": "410D32\r",
            "0105": "41057B\r",
            "015C": "415C5A\r",
        }
        self.delay_us = {}
        self.asked = []
        self._line = b""
        self._answers = []

    def take(self, data):
        self._line += data
        while b"\r" in self._line:
            line, self._line = self._line.split(b"\r", 1)
            command = line.decode()
            self.asked.append(command)
            usual = "OK\r" if command.startswith("AT") else "NO DATA\r"
            answer = self.says.get(command, usual)
            if answer is not None:
                due = clock.us + self.delay_us.get(command, 50_000)
                self._answers.append((due, answer.encode() + b"\r>"))

    def give(self):
        if not self._answers or self._answers[0][0] > clock.us:
            return b""
        return self._answers.pop(0)[1]


def elm327(car=None):
    fakes.reset()
    UART.device = car or Car()
    sensor = made("elm327", bus="uart1")
    return sensor, UART.device


def settled(sensor):
    """Let the search for the car come to its end."""
    for _ in range(100):
        clock.sleep_ms(200)
        try:
            return sensor.sample()
        except Exception:  # noqa: BLE001 - it is still looking
            continue
    raise AssertionError("found no car")


def test_elm327_gives_what_the_standard_says():
    sensor, car = elm327()
    assert settled(sensor) == [1726.0, 50.0, 83.0, 50.0]
    assert car.asked[0] == "ATZ" and "ATSP0" in car.asked


def test_elm327_does_not_wait_for_the_search():
    car = Car()
    car.delay_us["0100"] = 8_000_000
    sensor, car = elm327(car)
    begin = clock.us
    assert fault(sensor.sample) == "no-data"
    assert clock.us - begin < 10_000
    assert settled(sensor)[0] == 1726.0


def test_a_car_without_ignition_is_no_data_until_it_has_one():
    car = Car()
    found = dict(car.says)
    for command in ("0100", "010C", "010D", "0105", "015C"):
        car.says[command] = "UNABLE TO CONNECT\r"
    sensor, car = elm327(car)
    for _ in range(5):
        clock.sleep_ms(200)
        assert fault(sensor.sample) == "no-data"
    car.says = found
    assert settled(sensor) == [1726.0, 50.0, 83.0, 50.0]
    # And off again, in the middle.
    for command in ("0100", "010C", "010D", "0105", "015C"):
        car.says = dict(car.says)
        car.says[command] = "NO DATA\r"
    assert fault(sensor.sample) == "no-data"


def test_what_a_car_does_not_know_is_none_and_not_asked_for_ever():
    car = Car()
    del car.says["015C"]
    sensor, car = elm327(car)
    settled(sensor)
    for _ in range(10):
        assert sensor.sample() == [1726.0, 50.0, 83.0, None]
    assert car.asked.count("015C") == 3


def test_of_several_control_units_the_first_counts():
    car = Car()
    car.says["0105"] = "41057B\r41050A\r"
    sensor, car = elm327(car)
    assert settled(sensor)[2] == 83.0


def test_errors_on_the_cars_bus_and_garbage_have_their_words():
    sensor, car = elm327()
    settled(sensor)
    for answer, expected in (
        ("CAN ERROR\r", "bus"),
        ("?\r", "bus"),
        ("410CZZZZ\r", "crc"),
        ("410C1A\r", "crc"),
        ("\x00" * 300, "crc"),
        (None, "absent"),
    ):
        car.says["010C"] = answer
        begin = clock.us
        assert fault(sensor.sample) == expected, answer
        assert clock.us - begin < 1_000_000


def test_another_device_on_the_port_is_not_an_elm327():
    car = Car()
    car.says["ATZ"] = "GPS v2\r"
    fakes.reset()
    UART.device = car
    assert fault(new("elm327", bus="uart1").open) == "absent"
