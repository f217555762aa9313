"""The same work on many boards: bounded, tried again where that may help, reported one by one."""

import io
import threading

import pytest
from rich.console import Console

from tools.devices import fleet
from tools.devices.errors import BoardError, CableError, ImageError, SilentError
from tools.devices.progress import view


def run(names, work, **options):
    """The outcomes, and what was shown."""
    shown = io.StringIO()
    with view(Console(file=shown, width=200)) as lines:
        outcomes = fleet.run_all(names, work, lines, first_pause_s=0.001, **options)
    return outcomes, shown.getvalue()


def test_forty_boards_at_once_never_more_than_the_workers() -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def work(name, attempt, tell):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        tell("writing", 0.5)
        threading.Event().wait(0.005)
        with lock:
            at_once -= 1
        return {"n": name}

    names = [f"tty{number}" for number in range(40)]
    outcomes, _ = run(names, work, workers=7)
    assert [o.name for o in outcomes] == names
    assert all(o.is_good and o.result == {"n": o.name} and o.tries == 1 for o in outcomes)
    assert 1 < most <= 7
    assert fleet.failures(outcomes) is None


def test_what_may_pass_is_tried_again_and_again_more_slowly() -> None:
    attempts = []

    def work(name, attempt, tell):
        attempts.append(attempt)
        if attempt < 2:
            raise CableError("the line broke", "plug it in again")
        return {"summary": "at last"}

    outcomes, shown = run(["tty0"], work)
    assert attempts == [0, 1, 2]
    assert (outcomes[0].is_good, outcomes[0].tries) == (True, 3)
    assert "tty0: the line broke; plug it in again; once more in 0.001 s" in shown
    assert "once more in 0.002 s" in shown
    assert "tty0: at last" in shown


def test_what_only_a_person_can_mend_is_not_tried_again() -> None:
    def work(name, attempt, tell):
        if name == "tty1":
            raise ImageError("wrong file", "take the other one")
        if name == "tty2":
            raise SilentError("does not answer", "press RESET")
        if name == "tty3":
            raise BoardError("refuses", "mend the settings")
        return {}

    outcomes, shown = run([f"tty{n}" for n in range(5)], work, tries=2)
    assert [o.tries for o in outcomes] == [1, 1, 2, 1, 1]
    assert [o.error for o in outcomes] == [None, "wrong file", "does not answer", "refuses", None]
    assert outcomes[1].remedy == "take the other one"
    assert "3 of 5 boards failed (tty1, tty2, tty3)" in fleet.failures(outcomes)
    assert "tty1: !! failed: wrong file" in shown
    row = outcomes[2].as_dict()
    assert (row["ok"], row["port"], row["tries"], row["remedy"]) == (
        False, "tty2", 2, "press RESET",
    )  # fmt: skip


def test_a_defect_of_ours_is_not_hidden() -> None:
    def work(name, attempt, tell):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(["tty0"], work)


def test_an_interrupt_lets_no_other_board_begin() -> None:
    begun = []

    def work(name, attempt, tell):
        begun.append(name)
        if name == "tty0":
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        run(["tty0", "tty1", "tty2"], work, workers=1)
    assert "tty2" not in begun[2:]


def test_bars_on_a_terminal() -> None:
    shown = io.StringIO()
    with view(Console(file=shown, width=120, force_terminal=True)) as bars:
        tell = bars.board("ttyUSB0")
        assert bars.board("ttyUSB0") is not None
        tell("writing", 0.5)
        bars.ended("ttyUSB0", "done", is_good=True)
    assert "ttyUSB0" in shown.getvalue()
    assert "done" in shown.getvalue()
