"""What every target has to be able to do."""

import pytest

from tools.hil.target import BoardError, Capability
from tools.hil.targets import open_target

CONTENT = bytes(range(256)) * 9


def test_files_are_written_once_and_read_back(target):
    target.put({"deep/er/x.bin": CONTENT, "y.bin": b""})
    assert target.put({"deep/er/x.bin": CONTENT}) == 0
    assert target.put({"deep/er/x.bin": CONTENT + b"!"}) == 1
    assert target.get("deep/er/x.bin") == CONTENT + b"!"
    assert target.get("y.bin") == b""
    with pytest.raises(BoardError):
        target.get("z.bin")


def test_source_takes_the_place_of_compiled_code(target):
    target.put({"both.mpy": b"not code"})
    target.put({"both.py": b"print('source')\n"})
    assert target.run("import both").checked().strip() == "source"


def test_each_run_has_a_fresh_interpreter(target):
    assert target.run("kept = 1").error is None
    assert "NameError" in target.run("print(kept)").error


def test_an_exception_is_an_outcome(target):
    outcome = target.run("print('before')\n1 / 0")
    assert outcome.output.strip() == "before"
    assert "ZeroDivisionError" in outcome.error
    with pytest.raises(BoardError, match="ZeroDivisionError"):
        outcome.checked()


def test_code_of_any_size_arrives_whole(target):
    lines = "\n".join(f"total += {n}" for n in range(600))
    assert target.run(f"total = 0\n{lines}\nprint(total)").checked().strip() == "179700"


def test_a_console_takes_bytes_and_gives_lines(target):
    console = target.start(
        "import sys\nprint('ready')\n"
        "for _ in range(2):\n print('got', sys.stdin.readline().strip())\nprint('end')"
    )
    lines = console.lines(60)
    assert next(lines) == "ready"
    console.write(b"one\n")
    assert next(line for line in lines if line.startswith("got")) == "got one"
    console.write(b"two\n")
    assert [line for line in lines if line.startswith(("got", "end"))] == ["got two", "end"]
    console.stop()


def test_whatever_runs_can_be_stopped(target):
    console = target.start("print('on')\nwhile True:\n pass")
    assert next(console.lines(60)) == "on"
    console.stop()
    assert target.run("print(1)").checked().strip() == "1"


def test_flash_outlives_a_power_cut(target):
    assert Capability.POWER in target.capabilities
    target.put({"kept.txt": b"kept"})
    console = target.start("print('on')\nwhile True:\n pass")
    assert next(console.lines(60)) == "on"
    target.power_cut()
    assert target.get("kept.txt") == b"kept"


@pytest.fixture(params=["qemu-arm", "qemu-rv32"])
def counting(request):
    opened = open_target(request.param, count_instructions=True)
    yield opened
    opened.close()


COUNT = """
import hil_counter
@micropython.viper
def loop(n: int):
    while n:
        n -= 1
loop(1)
print([hil_counter.measure(loop, n) for n in (1, 1, 1001, 2001)][1:])
"""


def test_instructions_are_counted_exactly(counting):
    one, thousand, two_thousand = eval(counting.run(COUNT).checked())
    # What a round takes is for the emitter to say; that each takes the same is for the counter.
    assert abs((two_thousand - thousand) - (thousand - one)) <= 40
    each = round((two_thousand - thousand) / 1000)
    assert 3 <= each <= 12
    assert abs(two_thousand - thousand - 1000 * each) <= 40


def test_files_go_over_the_serial_line_too(counting):
    assert counting.put_by_line({"x.bin": CONTENT}) == 1
    assert counting.get("x.bin") == CONTENT


def test_a_watchdog_starts_the_board_anew(counting):
    counting.run("open('count.txt', 'w').close()").checked()
    console = counting.start("import machine\nmachine.WDT(timeout=200)\nwhile True:\n pass")
    assert any("MicroPython" in line for line in console.lines(60))
    console.stop()
    outcome = counting.run("import machine\nprint(machine.reset_cause() == machine.WDT_RESET)")
    assert outcome.checked().strip() == "True"
    assert counting.get("count.txt") == b""


@pytest.fixture
def mock():
    opened = open_target("mock")
    yield opened
    opened.close()


def test_the_mock_refuses_what_only_micropython_has(mock):
    viper = "import micropython\n@micropython.viper\ndef f(x: ptr8, n: int): pass\nf(b'', 1)"
    assert "needs viper" in mock.run(viper).error
    assert "needs littlefs" in mock.run("import vfs\nvfs.VfsLfs2(None)").error
    assert {Capability.VIPER, Capability.LITTLEFS}.isdisjoint(mock.capabilities)


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("import time\nprint(time.ticks_diff(time.ticks_add(0, -5), 3))", "-8"),
        ("import asyncio\nprint(asyncio.run(asyncio.sleep_ms(1)))", "None"),
        ("import gc\ngc.threshold(7)\nprint(gc.threshold(), gc.mem_free() > 0)", "7 True"),
        (
            (
                "import os\nos.mkdir('r')\nos.mkdir('r/d')\nopen('r/f', 'w').close()\n"
                "print(sorted((e[0], e[1]) for e in os.ilistdir('r')))"
            ),
            "[('d', 16384), ('f', 32768)]",
        ),
        ("import struct\nprint(struct.unpack('f', struct.pack('f', -1e300)))", "(-inf,)"),
        (
            (
                "from machine import Pin\np = Pin(3, Pin.OUT, value=1)\np.value(0)\n"
                "print(p.value(), Pin(4, Pin.IN, Pin.PULL_UP)())"
            ),
            "0 1",
        ),
        (
            (
                "from machine import I2C\ntry:\n I2C(0).readfrom_mem(1, 2, 3)\n"
                "except OSError as e:\n print(e.errno)"
            ),
            "19",
        ),
        (
            (
                "import uctypes\nb = bytearray(3)\n"
                "uctypes.bytearray_at(uctypes.addressof(b), 3)[1] = 9\nprint(b[1])"
            ),
            "9",
        ),
    ],
)
def test_the_mock_has_what_micropython_has_beside_cpython(mock, code, printed):
    assert mock.run(code).checked().strip() == printed


def test_the_mocks_watchdog_and_reset_end_a_start(mock):
    assert "75" in mock.run("import machine\nmachine.reset()").error
    assert "76" in mock.run("import machine\nmachine.WDT(timeout=50)\nwhile True: pass").error
