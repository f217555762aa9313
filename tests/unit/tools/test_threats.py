"""The check that the threat model names tests that exist."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tools.checks import ROOT, Checkout, threats_are_tested

PAGE = PurePosixPath("fog_node/protocol/THREATS.md")
TEST = PurePosixPath("tests/test_it.py")
HEAD = "| who holds | can | cannot | seen by | what to do |\n| --- | --- | --- | --- | --- |\n"


def problems(tmp_path, row: str) -> list[str]:
    for path, text in ((PAGE, HEAD + row), (TEST, "def test_it_holds(x):\n    pass\n")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return list(threats_are_tested(Checkout(tmp_path, (PAGE, TEST))))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| a | b | c (`test_it_holds`) | d | e |", None),
        ("| a | b | c (`test_it_does_not`) | d | e |", "no test is called test_it_does_not"),
        ("| a | b | nothing at all | d | e |", "a cannot without a test"),
    ],
)
def test_rows(tmp_path, row, problem) -> None:
    found = problems(tmp_path, row)
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def test_the_projects_own_page() -> None:
    assert list(threats_are_tested(Checkout.at(ROOT))) == []
