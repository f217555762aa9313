"""The `unix` target: a real MicroPython that runs the board's firmware as a process."""

import os
import subprocess
from pathlib import Path

import pytest
from support.micropython import NoMicroPythonError, find_micropython

FIRMWARE = Path(__file__).parents[2] / "firmware"
PROBE = Path(__file__).with_name("core_probe.py")
HEAP = "4m"
TIMEOUT_S = 300


@pytest.fixture(scope="session")
def micropython():
    """Path of the MicroPython program; without one the test fails."""
    try:
        return find_micropython()
    except NoMicroPythonError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def run_firmware(micropython):
    """Run a script on the board; returns the completed process."""

    def run(script, *arguments, stdin="", modules=None):
        folders = [FIRMWARE] if modules is None else [modules, FIRMWARE]
        return subprocess.run(
            [micropython, "-X", f"heapsize={HEAP}", str(script), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "MICROPYPATH": ":".join([*map(str, folders), ".frozen"])},
        )

    return run


@pytest.fixture(scope="session")
def ask(run_firmware):
    """Send lines to the probe; returns its answers."""

    def send(lines):
        done = run_firmware(PROBE, stdin="".join(f"{line}\n" for line in lines))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        answers = done.stdout.splitlines()
        assert len(answers) == len(lines), done.stdout[-2000:]
        return answers

    return send
