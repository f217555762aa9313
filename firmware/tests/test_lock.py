"""A locked board takes no Ctrl-C and never comes to its prompt."""

import os
import sys

from fogline import lock


class Machine:
    """Stands for `machine` and `time`."""

    class Reset(Exception):  # noqa: N818 - what a reset looks like from inside
        pass

    def __init__(self, interrupt):
        self.slept = 0
        self._interrupt = interrupt
        self.sleep = self.sleep  # before MicroPython 1.28 no method can be imported

    def sleep(self, seconds):
        self.slept += seconds
        if self._interrupt:
            raise KeyboardInterrupt

    def reset(self):
        raise self.Reset


def replaced(modules, work):
    """Run `work` with modules replaced by others."""
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        work()
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def leave(interrupt=False):
    """Leave with `machine` and `time` replaced; returns the machine."""
    machine = Machine(interrupt)
    replaced({"machine": machine, "time": machine}, lock.leave)
    return machine


def locked(test):
    """Run `test` on a locked board."""
    with open(lock.FILE, "w"):
        pass
    try:
        test()
    finally:
        os.remove(lock.FILE)


def test_a_board_is_open_until_it_is_locked():
    assert not lock.is_locked()
    lock.hold()
    assert leave().slept == 0
    locked(lambda: check(lock.is_locked()))
    assert not lock.is_locked()
    assert not lock.is_locked("/no/such/folder")


def check(condition):
    assert condition


def test_the_end_of_the_program_starts_a_locked_board_anew():
    locked(check_reset)
    locked(lambda: check_reset(interrupt=True))


def check_reset(interrupt=False):
    try:
        leave(interrupt)
    except Machine.Reset:
        return
    raise AssertionError("no reset")


def test_ctrl_c_is_a_byte_like_any_other_on_a_locked_board():
    seen = []

    class Fake:
        kbd_intr = seen.append

    replaced({"micropython": Fake}, lock.hold)
    assert seen == []
    locked(lambda: replaced({"micropython": Fake}, lock.hold))
    assert seen == [-1]
