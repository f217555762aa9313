"""The project's own checks, part of `make check`: python -m tools.checks.

A check is a function that takes the checkout and gives one line per thing that is wrong, with the
remedy. To add one, write it and name it in CHECKS.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tools import board_tables, wiring

__all__ = ["CHECKS", "Checkout", "main"]

ROOT = Path(__file__).parent.parent

# What a file may not say, and where it may all the same.
_WORDS = (
    (
        re.compile(r"\.\./shared"),
        "reaches outside the checkout; take the folder from FOGLINE_DATA",
        {".ci/run", "tests/conftest.py"},
    ),
    (
        re.compile(r"\b(pypi|pythonhosted|piwheels|npmjs|crates)\.(org|com|io)\b"),
        "names a package registry; name the package alone",
        set[str](),
    ),
)


@dataclass(frozen=True, slots=True)
class Checkout:
    """The project's folder and the files in it that git tracks or would track."""

    root: Path
    files: tuple[PurePosixPath, ...]

    @classmethod
    def at(cls, root: Path) -> Checkout:
        """Ask git for the files. Raises CalledProcessError where there is no git checkout."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout.decode()
        paths = (PurePosixPath(name) for name in sorted(set(listed.split("\0"))) if name)
        return cls(root, tuple(path for path in paths if (root / path).is_file()))


def folders_have_readmes(checkout: Checkout) -> Iterator[str]:
    """Every folder says in a README.md what lives there and what may not."""
    folders = {parent for path in checkout.files for parent in path.parents}
    for folder in sorted(folders):
        hidden = any(part.startswith(".") for part in folder.parts)
        if not hidden and folder / "README.md" not in checkout.files:
            yield f"{folder}: no README.md; say in a few lines what lives here and what may not"


def words_are_allowed(checkout: Checkout) -> Iterator[str]:
    """No file says what ties the project to one machine or one registry."""
    this_file = PurePosixPath(Path(__file__).relative_to(ROOT).as_posix())
    for path in checkout.files:
        if path == this_file:
            continue
        text = (checkout.root / path).read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, problem, allowed in _WORDS:
                if str(path) not in allowed and pattern.search(line):
                    yield f"{path}:{number}: {problem}"


def threats_are_tested(checkout: Checkout) -> Iterator[str]:
    """Every test that the threat model names exists, and every attacker's "cannot" names one."""
    page = PurePosixPath("fog_node/protocol/THREATS.md")
    if page not in checkout.files:
        return
    tests = "\n".join(
        (checkout.root / path).read_text(encoding="utf-8")
        for path in checkout.files
        if path.suffix == ".py" and "tests" in path.parts
    )
    defined = set(re.findall(r"def (test_\w+)\(", tests))
    lines = (checkout.root / page).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        for name in re.findall(r"`(test_\w+)`", line):
            if name not in defined:
                yield f"{page}:{number}: no test is called {name}; name the one that shows it now"
        cells = line.split("|")
        if (
            len(cells) == 7
            and cells[3].strip() not in ("cannot", "---")
            and "`test_" not in cells[3]
        ):
            yield f"{page}:{number}: a cannot without a test; name the one that shows it"


def board_table_is_current(checkout: Checkout) -> Iterator[str]:
    """What is made from hardware/boards, the firmware's table among it, says what they say."""
    table = PurePosixPath("firmware/fogline/board_table.py")
    found = board_tables.problem(checkout.root / table) if table in checkout.files else None
    if found is not None:
        yield found


def drawings_are_current(checkout: Checkout) -> Iterator[str]:
    """Wiring diagrams and bills of material were made from their sources as they are."""
    yield from wiring.problems(checkout.root / "hardware" / "wiring")


CHECKS: tuple[Callable[[Checkout], Iterable[str]], ...] = (
    folders_have_readmes,
    words_are_allowed,
    threats_are_tested,
    board_table_is_current,
    drawings_are_current,
)


def main() -> int:
    """Run every check; 1 when one of them has something to say."""
    checkout = Checkout.at(ROOT)
    problems = [problem for check in CHECKS for problem in check(checkout)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
