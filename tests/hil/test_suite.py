"""The firmware's tests, on every target."""

import pytest

from tools.errors import UsageError
from tools.hil import suite
from tools.hil.target import About, TargetError
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


def test_the_matrix_says_what_ran_where_and_what_ran_nowhere():
    def run_of(target, heap_bytes, *results):
        about = About("micropython", "1.27.0", f"{target} machine", heap_bytes, None, 6)
        return suite.Run(target, about, "", [suite.Result("test_a", *one) for one in results], 3.2)

    one = run_of("one", 1000, ("test_x", "passed", 1000), ("test_y", "skipped"))
    two = run_of(
        "another", None, ("test_x", "failed", None, None, None, "no"), ("test_y", "passed")
    )
    lines = suite.matrix([one, two])
    assert lines == [
        "        one             another",
        "test_a  1/2, 1 skipped  1/2, 1 failed",
        "all     1/2, 1 skipped  1/2, 1 failed",
        "one: one machine, micropython 1.27.0, 1000 bytes of heap, 3 s",
        "another: another machine, micropython 1.27.0, unbounded heap, 3 s",
        "every test ran on one of these targets at least",
    ]
    assert suite.matrix([one])[-1] == "on none of these targets: test_a.test_y"
    large = run_of("one", 1000, ("test_x", "passed", 9000), ("test_y", "memory", 1000))
    assert suite.matrix([large])[1] == "test_a  1/2, 1 memory, 1 in a larger heap"
