"""What `python -m tools.checks` finds in a checkout."""

from __future__ import annotations

import subprocess
from pathlib import PurePosixPath

import pytest

from tools import checks


@pytest.fixture
def checkout(tmp_path):
    """Write files into a new checkout and look at it."""

    def make(**files):
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return checks.Checkout.at(tmp_path)

    return make


def test_ignored_files_are_not_looked_at(checkout, tmp_path):
    (tmp_path / ".gitignore").write_text("ignored\n", encoding="utf-8")
    found = checkout(kept="", ignored="")
    assert found.files == (PurePosixPath(".gitignore"), PurePosixPath("kept"))


def test_each_folder_needs_a_readme(checkout):
    found = list(checks.folders_have_readmes(checkout(a__b__file="", a__file="")))
    assert [problem.split(":")[0] for problem in found] == [".", "a", "a/b"]


def test_a_hidden_folder_needs_none(checkout, tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text("", encoding="utf-8")
    (tmp_path / "README.md").write_text("", encoding="utf-8")
    assert list(checks.folders_have_readmes(checkout())) == []


@pytest.mark.parametrize(
    "text", [".." + "/shared/data", "pypi" + ".org", "files.pythonhosted" + ".org"]
)
def test_what_ties_the_project_to_one_machine_is_found(checkout, text):
    found = list(checks.words_are_allowed(checkout(file=f"fine\nsee {text}\n")))
    assert [problem.split(": ")[0] for problem in found] == ["file:2"]


def test_this_project_passes_its_checks():
    found = checks.Checkout.at(checks.ROOT)
    assert list(checks.words_are_allowed(found)) == []
