"""Source is parsed right whatever other threads do."""

import ast
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tools.syntax import parse

TEXT = "\n".join(f"def function_{i}(a, b=(1, 2, [3, {{4: a}}])): return a + b" for i in range(400))
THREADS = 4
ROUNDS = 12


class Lets:
    """Litter whose collection lets other threads run, in the midst of whatever made it due."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        time.sleep(0)


@pytest.fixture
def soon_collected():
    """A collector of garbage that comes often."""
    before = gc.get_threshold()
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)


def test_threads_that_parse_at_once(soon_collected):
    expected = len(TEXT.splitlines())
    started = threading.Barrier(THREADS)

    def run(_):
        started.wait(60)
        counts = []
        for _ in range(ROUNDS):
            Lets()
            counts.append(len(parse(TEXT).body))
        return counts

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(run, range(THREADS))) == [[expected] * ROUNDS] * THREADS


def test_what_is_no_python_is_refused():
    with pytest.raises(SyntaxError):
        parse("def (")
    assert ast.dump(parse("x = 1")) == ast.dump(ast.parse("x = 1"))
