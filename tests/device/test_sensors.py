"""The drivers of sensors against fake chips, under a real MicroPython."""

from pathlib import Path

import pytest

FIRMWARE = Path(__file__).parents[2] / "firmware"
MODULES = ("i2c_sensors", "pin_sensors", "sensors", "uart_sensors", "vibration_sensors")


@pytest.mark.parametrize("module", MODULES)
def test_inside_micropython(run_firmware, module):
    done = run_firmware(FIRMWARE / "tests" / "run.py", f"test_{module}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_every_driver_has_tests_and_a_place_in_the_table():
    """A sensor that is offered is tested, and told of where technicians look."""
    names = {path.stem for path in (FIRMWARE / "drivers").glob("*.py")}
    shared = {"__init__", "base", "sensor", "sensors", "vibration", "modbus", "water_circulation"}
    offered = names - shared - {"replay", "testbed"}
    listed = (FIRMWARE / "drivers" / "sensors.py").read_text(encoding="utf-8")
    table = (FIRMWARE / "drivers" / "README.md").read_text(encoding="utf-8")
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (FIRMWARE / "tests").glob("test_*_sensors.py")
    )
    for name in offered:
        assert f'"{name}",' in listed
        assert f"| `{name}` |" in table
        assert f'"{name}"' in tests
