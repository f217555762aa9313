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
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        return {
            name: compact(tmp_path / f"{name.replace('__', '/')}.py", tmp_path).text
            for name in files
        }

    return make


def test_attributes_and_methods_are_shortened_alike_everywhere(made):
    one = "class Thing:\n    def __init__(self):\n        self.total = 1\n        self._kept = 2\n"
    two = "def double(thing):\n    return f'{thing.total}', thing.total * 2\n"
    texts = made(one=one, two=two)
    short = texts["one"].partition("self.")[2].partition(" ")[0]
    assert short.endswith("_")
    assert len(short) == 2
    assert f"return f'{{_a.{short}}}', _a.{short} * 2" in texts["two"]
    assert "_kept" not in texts["one"]


def test_what_no_class_has_both_of_shares_a_name(made):
    texts = made(
        one="class One:\n    def first(self):\n        return self.first\n",
        two="class Two:\n    def other(self):\n        return self.other\n",
    )
    assert (
        texts["one"].split("def ")[1].split("(")[0] == texts["two"].split("def ")[1].split("(")[0]
    )


def test_classes_that_inherit_share_no_short_name(made):
    base = "class Base:\n    def __init__(self):\n        self._mine = 1\n"
    other = (
        "from base import Base\n\n\nclass Other(Base):\n    def go(self):\n        self._own = 2\n"
    )
    texts = made(base=base, other=other)
    names = [text.partition("self.")[2].partition(" ")[0] for text in texts.values()]
    assert len(set(names)) == 2


def test_a_default_of_a_method_is_what_stands_outside_the_class(made):
    names = [f"thing{number}" for number in range(4)]
    methods = "".join(f"    def {name}(self):\n        pass\n\n" for name in names)
    text = f"LIMIT = []\n\n\nclass Thing:\n{methods}    def act(self, most=LIMIT):\n        pass\n"
    tree = ast.parse(made(one=text)["one"])
    inner = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert tree.body[0].targets[0].id not in inner


def test_what_is_given_from_outside_meets_no_other_name(made):
    texts = made(
        one="class One:\n    def __init__(self):\n        self.mine = 1\n",
        two="class Two:\n    def __init__(self):\n        self.told = 1\n",
        three="def tell(one):\n    one.told = 2\n",
    )
    names = [texts[name].partition("self.")[2].partition(" ")[0] for name in ("one", "two")]
    assert len(set(names)) == 2


def test_what_is_given_to_what_a_module_imports_is_that_ones(made):
    texts = made(
        one="class One:\n    def __init__(self):\n        self.mine = 1\n",
        two="class Two:\n    def __init__(self):\n        self.told = 1\n",
        three="from fogline import two\n\n\ndef tell(one):\n    one.told = 2\n",
    )
    names = {texts[name].partition("self.")[2].partition(" ")[0] for name in ("one", "two")}
    assert len(names) == 1
    assert f".{names.pop()} = 2" in texts["three"]


def test_locals_stay_and_hide_what_is_outside(made):
    text = (
        "total = []\n\n\ndef one():\n    total = 1\n    return total\n\n\n"
        "def two():\n    return total\n"
    )
    found = made(one=text)["one"]
    assert "    total = 1\n    return total\n" in found
    assert found.count("total") == 2


@pytest.mark.parametrize(
    "use",
    [
        "getattr(thing, 'total')",  # a text may stand for it
        "make(total=1)",  # an argument goes by it
    ],
)
def test_what_may_be_asked_for_otherwise_stays(made, use):
    text = f"class Thing:\n    def total(self):\n        return self\n\n\nprint({use})\n"
    assert "def total(self)" in made(one=text)["one"]


def test_names_of_micropython_and_of_the_launcher_stay(made):
    launcher = "def feed():\n    return _wait()\n\n\ndef _wait():\n    pass\n"
    one = "class Line:\n    def close(self):\n        pass\n\n    def feed(self):\n        pass\n"
    texts = made(launcher=launcher, one=one)
    assert "def feed()" in texts["launcher"]
    assert "_wait" not in texts["launcher"]
    assert texts["one"].partition(":")[2] == one.partition(":")[2]


def test_constants_of_one_module_are_put_in(made):
    text = "LIMIT = 4 * 8\n_HALF = LIMIT // 2\nprint(f'{LIMIT} {_HALF}')\n"
    assert made(one=text)["one"] == (
        "_LIMIT = const(4 * 8)\n_HALF = const(_LIMIT // 2)\nprint(f'{_LIMIT} {_HALF}')\n"
    )


def test_constants_that_others_ask_for_are_no_constants(made):
    one = "LIMIT = 4\n_TWICE = 2 * LIMIT\n"
    assert "const" not in made(one=one, two="from one import LIMIT\n")["one"]


def test_a_name_that_changes_is_no_constant(made):
    text = "_STATE = 1\n\n\ndef change():\n    global _STATE\n    _STATE = 2\n"
    found = made(one=text)["one"]
    assert "const" not in found
    assert "_STATE" not in found


def test_parameters_that_nobody_names_are_shortened(made):
    text = (
        "def add(first, second=0):\n    def inner(third):\n        return first + third\n\n"
        "    return inner(second)\n\n\nadd(1, second=2)\n"
    )
    found = made(one=text)["one"]
    assert "(_a, second=0)" in found
    assert "(_b):" in found
    assert "return _a + _b" in found


def test_imports_within_functions_keep_their_local_name(made):
    texts = made(
        fogline__one="def act():\n    pass\n",
        fogline__two="def go():\n    from .one import act\n\n    act()\n",
        tests__test_one="from fogline.one import act\n\nact()\n",
    )
    short = texts["fogline__one"].partition("def ")[2].partition("(")[0]
    assert f"from .one import {short} as act\n\n    act()" in texts["fogline__two"]
    assert texts["tests__test_one"] == f"from fogline.one import {short} as act\n\nact()\n"


def test_the_firmware_stays_the_same_program():
    for source in [*(FIRMWARE / "fogline").glob("*.py"), *(FIRMWARE / "drivers").glob("*.py")]:
        made = compact(source, FIRMWARE)
        text = source.read_text("utf-8")
        assert made.text.count("\n") == text.count("\n")
        # The same tree, but for names.
        before, after = (_shape(ast.parse(one)) for one in (text, made.text))
        assert before == after, source


def _shape(tree):
    """The kinds of a tree's nodes in their order, constants' definitions left out."""
    return [
        type(node).__name__
        for statement in tree.body
        if not isinstance(statement, ast.Assign)
        for node in ast.walk(statement)
    ]
