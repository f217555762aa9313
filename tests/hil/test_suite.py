"""The firmware's tests, on every target."""

import pytest

from tools.errors import UsageError
from tools.hil import suite
from tools.hil.target import TargetError
from tools.hil.targets import open_target


def test_the_firmwares_tests(suite_run):
    failed = [one for one in suite_run.results if one.result == "failed"]
    assert not failed, "\n".join(f"{one.module}.{one.test}: {one.why}" for one in failed)
    assert suite_run.count("passed") > 100


def test_nothing_is_skipped_on_all_targets(suite_runs):
    assert suite.not_run_anywhere(list(suite_runs.values())) == []


def test_every_result_has_its_heap(suite_run):
    if suite_run.about.heap_bytes is None:
        assert suite_run.target == "mock"  # CPython's has no bound, and counts nothing
        return
    for one in suite_run.results:
        if one.result == "passed":
            assert 0 < one.before_bytes < one.heap_bytes
            assert 0 < one.after_bytes < one.heap_bytes


@pytest.mark.parametrize("name", ["qemu", "unix:x", "serial", "serial:", "pico", ""])
def test_an_unknown_target_names_those_there_are(name):
    with pytest.raises(UsageError, match="qemu-arm"):
        open_target(name)


def test_a_target_that_is_not_there_names_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(TargetError, match="device list"):
        open_target(f"serial:{tmp_path}/ttyACM0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match=r"tools/system\.sh qemu"):
        open_target("qemu-arm")
    monkeypatch.setenv("FOGLINE_MICROPYTHON", "/bin/true")
    with pytest.raises(TargetError, match="FOGLINE_MICROPYTHON"):
        open_target("unix")
