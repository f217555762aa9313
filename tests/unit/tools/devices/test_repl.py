"""The raw REPL's client, on a scripted board: flow control, stale words, silence, cut cables."""

import socket
from contextlib import closing
from types import SimpleNamespace

import pytest

from tools.devices import repl as repls
from tools.devices.errors import BoardError, CableError, SilentError
from tools.devices.line import SerialLine
from tools.devices.repl import Repl
from tools.hil.repl_target import ReplTarget
from tools.hil.target import TargetError

BANNER = b"raw REPL; CTRL-B to exit\r\n>"


class Scripted:
    """A line to a board with a raw REPL, which knows how to print one string.

    Args:
        window: of raw paste.
        greedy: ends a transfer by itself behind so many bytes; None for never.
        stale: said at the first Ctrl-C.
        talk: said instead of all that it would say, if given.

    Attributes:
        now_s: the time, of all lines. It goes on while one is waited for, and with each `talk`.
    """

    now_s = 0.0

    def __init__(self, window=32, greedy=None, stale=b"", talk=None):
        self.window, self.greedy, self.stale, self.talk = window, greedy, stale, talk
        self.out = bytearray()
        self.line = bytearray()
        self.pasted = None
        self.room = 0
        self.overrun = False
        self.scripts = []
        self.writes = 0
        self.cut_at = 0
        self.closed = False

    def read(self):
        data = bytes(self.out[:7])  # in pieces, as from a UART
        del self.out[:7]
        if self.talk is not None or not data:
            Scripted.now_s += 0.02
        return data if self.talk is None else self.talk

    def write(self, data):
        self.writes += 1
        if self.writes == self.cut_at:
            raise CableError("port: the line broke (cut)", "plug it in again")
        for byte in data:
            self._take(bytes([byte]))

    def close(self):
        self.closed = True

    def _take(self, byte):
        if self.pasted is not None:
            self._paste(byte)
        elif byte == b"\x03":
            self.out += self.stale
            self.line.clear()
            self.stale = b""
        elif byte == b"\x04" and not self.line:
            self.out += b"OK\r\nMPY: soft reboot\r\nboot.py was here\r\n" + BANNER
        elif byte == b"\x04":
            self.out += b"OK"
            self._run(bytes(self.line))
        elif byte == b"\x01" and bytes(self.line) == b"\x05A":
            self.line.clear()
            self.pasted = bytearray()
            self.room = self.window
            self.out += b"R\x01" + self.window.to_bytes(2, "little")
        elif byte == b"\x01":
            self.line.clear()
            self.out += BANNER
        else:
            self.line += byte

    def _paste(self, byte):
        if byte == b"\x04":
            script, self.pasted = bytes(self.pasted), None
            if self.greedy is None or len(script) < self.greedy:
                self.out += b"\x04"
                self._run(script)
            else:
                self.out += b"\x04SyntaxError: too much\r\n\x04>"
            return
        self.pasted += byte
        self.overrun |= self.room == 0
        self.room -= 1
        if self.room == 0:
            self.room = self.window
            self.out += b"\x01"
        if self.greedy is not None and len(self.pasted) == self.greedy:
            self.out += b"\x04"

    def _run(self, script):
        self.line.clear()
        self.scripts.append(script)
        if script == b"loop":
            self.out += b"word " * 60_000
            return
        if script == b"lines":
            self.out += b"one\r\n\r\nhalf\x04Traceback:\r\n  NameError\r\n\x04>"
            return
        text = script.partition(b"print(")[2].partition(b")")[0]
        self.out += text.replace(b"'", b"") + b"\r\n\x04\x04>"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The lines' own: silence is waited out in no time, and no answer is late."""
    monkeypatch.setattr(repls, "time", SimpleNamespace(monotonic=lambda: Scripted.now_s))


def entered(**options):
    line = Scripted(**options)
    repl = Repl(line, "port")
    repl.enter()
    return repl, line


@pytest.mark.parametrize("window", [1, 32, 256])
def test_no_more_is_sent_than_the_board_has_room_for(window) -> None:
    repl, line = entered(window=window)
    script = "# " + "x" * 1000 + "\nprint('done')"
    assert repl.run(script) == "done\n"
    assert line.scripts[-1] == script.encode()
    assert not line.overrun


def test_what_somebody_else_left_on_the_line_is_not_taken_for_an_answer() -> None:
    stale = b"words of a program\r\n" + BANNER + b"R\x01\x80\x00\x04\x04>"
    repl, _ = entered(stale=stale)
    assert repl.run("print('mine')") == "mine\n"
    repl.fresh()  # past what boot.py prints
    assert repl.run("print('still')") == "still\n"


def test_a_board_that_takes_no_more_says_why() -> None:
    repl, line = entered(greedy=40)
    with pytest.raises(BoardError, match="SyntaxError: too much"):
        repl.run("print('x')" + "#" * 500)
    line.greedy = None
    assert repl.run("print('on')") == "on\n"


def test_a_window_of_nothing_and_endless_words_have_an_end() -> None:
    repl, _ = entered(window=0)
    with pytest.raises(SilentError, match="stopped answering"):
        repl.run("print('x')")
    repl, line = entered()
    line.talk = b"\x01" * 100
    with pytest.raises(BoardError, match="no raw-paste mode"):
        repl.run("print('x')")
    for talk in (b"\x01", b"tick "):
        babbling = Repl(Scripted(talk=talk * 100), "port")
        with pytest.raises(SilentError, match="press RESET"):
            babbling.enter()
    repl, _ = entered()
    with pytest.raises(BoardError, match="without an end"):
        repl.run("loop", 60)


def test_words_without_an_end_do_not_put_off_the_end_of_waiting() -> None:
    """A chip that starts again and again: there is always a word of it."""
    began_s = Scripted.now_s
    with pytest.raises(SilentError, match=r"it says .*tick.*press RESET"):
        Repl(Scripted(talk=b"tick "), "port").enter()
    tries = repls.ENTER_TIMEOUTS_S
    assert Scripted.now_s - began_s < (len(tries) + 1) * max(tries) + sum(tries) + 1


def test_a_silent_board_is_given_up_after_its_patience_and_says_what_it_said_last() -> None:
    line = Scripted()
    line.write = lambda data: None
    line.out += b"ets Jul 29 2019\x1b[2J"
    with pytest.raises(SilentError, match=r"it says 'ets Jul 29 2019\[2J'.*press RESET"):
        Repl(line, "port").enter()
    with pytest.raises(SilentError, match=r"does not answer; start it again$"):
        Repl(line, "port", remedy="start it again").enter()


def test_lines_come_one_by_one_and_the_traceback_behind_them() -> None:
    repl, _ = entered()
    repl.begin("lines")
    assert list(repl.lines(1)) == ["one", "", "half", "Traceback:", "  NameError"]
    assert repl.run("print('on')") == "on\n"


def test_a_cable_pulled_at_any_write_is_an_error_of_the_line_and_of_the_target() -> None:
    def enter_and_run(line):
        repl = Repl(line, "port")
        repl.enter()
        repl.run("print('x')" + "#" * 100)

    line = Scripted()
    enter_and_run(line)
    for at in range(1, line.writes + 1):
        cut = Scripted()
        cut.cut_at = at
        with pytest.raises(CableError, match="plug it in again"):
            enter_and_run(cut)
        cut = Scripted()
        cut.cut_at = at
        target = ReplTarget("board", cut, "start it again")
        with pytest.raises(TargetError, match="plug it in again"):
            target.run("print('x')" + "#" * 100)
    target = ReplTarget("board", Scripted(), "start it again")
    assert target.run("print('x')").checked() == "x\n"


def test_a_socket_gives_all_that_has_come_and_its_end_is_a_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = SerialLine(f"socket://127.0.0.1:{server.getsockname()[1]}")
        peer, _ = server.accept()
        with closing(line):
            peer.sendall(b"x" * 1000)
            assert line.read() == b"x" * 1000
            assert line.read() == b""
            peer.close()
            with pytest.raises(CableError, match="plug the cable in again"):
                line.read()
