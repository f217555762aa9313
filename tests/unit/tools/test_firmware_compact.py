"""What becomes of the firmware's names on their way to a board."""

import ast

import pytest

from tools.firmware_compact import compact
from tools.firmware_files import FIRMWARE


@pytest.fixture
def made(tmp_path):
    """A function of {file: text} that gives {file: what mpy-cross gets}."""

    def make(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text, "utf-8")
        return {name: compact(tmp_path / f"{name}.py", tmp_path).text for name in files}

    return make


def test_what_only_one_module_names_is_shortened(made):
    text = "class Thing:\n    def __init__(self):\n        self._total = 1\n        self.open = 2\n"
    assert made(one=text)["one"] == text.replace("_total", "_a")


def test_what_two_modules_name_stays(made):
    one, two = "_shared = []\n", "import one\n\nprint(one._shared)\n"
    assert made(one=one, two=two) == {"one": one, "two": two}


def test_what_a_text_names_stays(made):
    text = "def _read(self):\n    return getattr(self, '_read')\n"
    assert made(one=text)["one"] == text


def test_constants_of_one_module_are_put_in(made):
    text = "LIMIT = 4 * 8\n_HALF = LIMIT // 2\nprint(f'{LIMIT} {_HALF}')\n"
    assert made(one=text)["one"] == (
        "_LIMIT = const(4 * 8)\n_HALF = const(_LIMIT // 2)\nprint(f'{_LIMIT} {_HALF}')\n"
    )


def test_constants_that_others_ask_for_stay(made):
    one = "LIMIT = 4\n_TWICE = 2 * LIMIT\n"
    assert made(one=one, two="from one import LIMIT\n")["one"].startswith("LIMIT = 4\n")


def test_parameters_that_nobody_names_are_shortened(made):
    one = "def add(first, second=0):\n    return f'{first + 1}', first + second\n"
    two = "from one import add\n\nadd(1, second=2)\n"
    assert made(one=one, two=two)["one"] == one.replace("first", "_a")


def test_parameters_that_name_something_else_stay(made):
    text = (
        "import os\nfrom .io import x\n\nflag = 1\n\n\ndef do(os, flag, io):\n    return os, flag\n"
    )
    assert made(one=text)["one"] == text


def test_a_name_that_changes_is_no_constant(made):
    text = "_STATE = 1\n\n\ndef change():\n    global _STATE\n    _STATE = 2\n"
    assert "const" not in made(one=text)["one"]


def test_classes_that_inherit_share_no_short_name(made):
    base = "class Base:\n    def __init__(self):\n        self._mine = 1\n"
    other = (
        "from base import Base\n\n\nclass Other(Base):\n    def go(self):\n        self._own = 2\n"
    )
    texts = made(base=base, other=other)
    assert "self._a = 1" in texts["base"]
    assert "self._b = 2" in texts["other"]


def test_the_firmware_stays_the_same_program():
    for source in (FIRMWARE / "fogline").glob("*.py"):
        made = compact(source, FIRMWARE)
        assert len(set(made.names.values())) == len(made.names)
        assert made.text.count("\n") == source.read_text("utf-8").count("\n")
        names = {node.id for node in ast.walk(ast.parse(made.text)) if isinstance(node, ast.Name)}
        assert not names & set(made.names), source
