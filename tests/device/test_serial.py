"""The board's side of the serial line, in a MicroPython process."""

from pathlib import Path

import pytest

FIRMWARE = Path(__file__).parents[2] / "firmware"


@pytest.mark.parametrize("module", ["serial_frame", "wifi"])
def test_inside_micropython(run_firmware, module):
    done = run_firmware(FIRMWARE / "tests" / "run.py", f"test_{module}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
