"""One `target` for every test, on each of the targets asked for; the matrix at the end."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support import summary

from tools.hil import suite
from tools.hil.payload import firmware_sha256
from tools.hil.targets import open_target

TARGETS = ("mock", "unix", "qemu-arm", "qemu-rv32")
RUNS = pytest.StashKey[dict]()


def pytest_configure(config):
    config.stash[RUNS] = {}


@pytest.fixture(scope="session", params=TARGETS)
def target(request):
    """A target; one that is not there fails the test."""
    opened = open_target(request.param)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def suite_runs(request):
    """What came of the firmware's tests on every target; all at the same time."""
    runs = request.config.stash[RUNS]
    sha256 = firmware_sha256()
    modules = suite.modules()

    def run(name):
        opened = open_target(name)
        try:
            return suite.run(opened, modules, sha256)
        finally:
            opened.close()

    if not runs:
        with ThreadPoolExecutor(len(TARGETS)) as pool:
            runs.update(zip(TARGETS, pool.map(run, TARGETS), strict=True))
        lines = suite.matrix(list(runs.values()))
        summary.say(request.config, "the firmware's tests on every target", lines)
    return runs


@pytest.fixture(params=TARGETS)
def suite_run(request, suite_runs):
    """What came of them on one target."""
    return suite_runs[request.param]
