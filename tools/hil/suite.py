"""The suite: the firmware's own tests, on a target, each module in a fresh interpreter.

A module says in `NEEDS = ("capability", ...)` what it asks of a target, and for single tests in
`TEST_NEEDS = {"test_name": ("capability", ...)}`. A test that this target's
heap is too small for is run again with a larger one where the target can have that, and otherwise
counts as `memory`: it has to pass elsewhere. What no target ran is an error.
"""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from tools.errors import UsageError
from tools.firmware_files import FIRMWARE
from tools.hil.life import Life
from tools.hil.payload import TESTS, firmware_for, tests_for
from tools.hil.target import About, Capability, Target, TargetError
from tools.syntax import parse

__all__ = ["Module", "Result", "Run", "describe", "matrix", "modules", "not_run_anywhere", "run"]

# A target that says nothing for so long within one test has hung. Emulators on a busy machine and
# small boards are slow.
SILENCE_S = 120.0
FOLDER = FIRMWARE / "tests"
KNOWN_NEEDS = {
    value for name, value in vars(Capability).items() if not name.startswith("_")
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Module:
    """A module of tests and what it needs, read without running it."""

    name: str
    tests: tuple[str, ...]
    needs: tuple[str, ...]
    test_needs: Mapping[str, tuple[str, ...]]

    def lacks(self, test: str, capabilities: frozenset[str]) -> list[str]:
        """What a test needs and is not among the capabilities."""
        return sorted({*self.needs, *self.test_needs.get(test, ())} - capabilities)


@dataclass(frozen=True, slots=True)
class Result:
    """How a test went: passed, failed, memory (too small a heap), or skipped, and why.

    before, after: bytes that lived in the heap. heap: what it had.
    """

    module: str
    test: str
    result: str
    heap_bytes: int | None = None
    before_bytes: int | None = None
    after_bytes: int | None = None
    why: str | None = None


@dataclass(slots=True)
class Run:
    """What came of the suite on one target. `life`: what a whole life held there, if it was led."""

    target: str
    about: About
    firmware_sha256: str
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    life: Life | None = None

    def count(self, result: str) -> int:
        """How many tests went so."""
        return sum(one.result == result for one in self.results)

    @property
    def good(self) -> bool:
        """Nothing failed, and something passed."""
        return not self.count("failed") and self.count("passed") > 0

    def as_json(self) -> dict[str, Any]:
        """Everything, for a report."""
        about = self.about
        return {
            "target": self.target,
            "board": about.machine,
            "micropython": f"{about.implementation} {about.version}",
            "heap_bytes": about.heap_bytes,
            "firmware_sha256": self.firmware_sha256,
            "seconds": round(self.seconds, 1),
            "passed": self.count("passed"),
            "failed": self.count("failed"),
            "memory": self.count("memory"),
            "skipped": self.count("skipped"),
            "tests": [
                {
                    "module": one.module,
                    "test": one.test,
                    "result": one.result,
                    "heap": one.heap_bytes,
                    "before": one.before_bytes,
                    "after": one.after_bytes,
                    "why": one.why,
                }
                for one in self.results
            ],
            "life": None if self.life is None else self.life.as_json(),
        }


@runtime_checkable
class _HasLargeHeap(Protocol):
    """A target that can be given a larger heap."""

    def large_heap(self) -> None:
        """Start it anew with one."""

    def with_heap(self, heap_bytes: int | None) -> None:
        """Start it anew with one of this size; None: the usual one."""


def modules(names: Sequence[str] = ()) -> list[Module]:
    """Read the modules of tests, all or those named. Raises UsageError."""
    found = {path.stem: path for path in sorted(FOLDER.glob("test_*.py"))}
    unknown = [name for name in names if name not in found]
    if unknown:
        raise UsageError(f"no module {', '.join(unknown)} in firmware/tests: {', '.join(found)}")
    return [_read(name, found[name].read_text("utf-8")) for name in names or found]


def _read(name: str, text: str) -> Module:
    tree = parse(text)
    tests = tuple(
        sorted(
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        )
    )
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    needs = ast.literal_eval(constants.get("NEEDS", ast.Tuple([])))
    single = ast.literal_eval(constants.get("TEST_NEEDS", ast.Dict([], [])))
    for need in (*needs, *(need for some in single.values() for need in some)):
        if need not in KNOWN_NEEDS and ":" not in need:
            raise UsageError(f"firmware/tests/{name}.py: no capability is called {need}")
    return Module(name, tests, needs, single)


def run(
    target: Target,
    wanted: Iterable[Module],
    firmware_sha256: str,
    tell: Callable[[Result], None] = lambda _: None,
) -> Run:
    """Run modules on a target. Raises TargetError when it stops answering."""
    started = time.monotonic()
    done = Run(target.name, target.about(), firmware_sha256)
    parts = [_split(module, target.capabilities) for module in wanted]
    names = [able.name for able, _ in parts if able.tests]
    target.put({**firmware_for(done.about), **tests_for(done.about, names)})
    heap = done.about.heap_bytes
    again: list[Module] = []
    grows = isinstance(target, _HasLargeHeap)
    for module, skipped in parts:
        for one in skipped:
            _keep(done, one, tell)
        if not module.tests:
            continue
        if grows and Capability.LARGE_HEAP in module.needs:
            again.append(module)
            continue
        results = _run_module(target, module, heap)
        small = tuple(one.test for one in results if one.result == "memory")
        for one in results:
            if one.result != "memory" or not grows:
                _keep(done, one, tell)
        if small and grows:
            again.append(replace(module, tests=small))
    if again:
        assert isinstance(target, _HasLargeHeap)
        target.large_heap()
        heap = target.about().heap_bytes
        for module in again:
            for one in _run_module(target, module, heap):
                # No heap is larger than this one, so it does not get away with asking for it.
                worst = "failed" if one.result == "memory" else one.result
                _keep(done, replace(one, result=worst), tell)
        target.with_heap(None)
    done.seconds = time.monotonic() - started
    return done


def _split(module: Module, capabilities: frozenset[str]) -> tuple[Module, list[Result]]:
    """What of a module can run, and the rest with what it lacks."""
    lacking = {test: module.lacks(test, capabilities) for test in module.tests}
    skipped = [
        Result(module.name, test, "skipped", why=f"needs {', '.join(missing)}")
        for test, missing in lacking.items()
        if missing
    ]
    able = tuple(test for test, missing in lacking.items() if not missing)
    return replace(module, tests=able), skipped


def _keep(done: Run, one: Result, tell: Callable[[Result], None]) -> None:
    done.results.append(one)
    tell(one)


def _run_module(target: Target, module: Module, heap: int | None) -> list[Result]:
    """Run a module's tests in one interpreter; a test that ends it fails, with those behind it."""
    code = (
        # Some tests work in another folder, and modules are loaded when they are needed.
        "import os, sys\nhere = os.getcwd()\n"
        f"sys.path[:0] = ['' if here == '/' else here, '/{TESTS}', here + '/{TESTS}']\n"
        f"import harness\nharness.main({module.name!r}, {module.tests!r})\n"
    )
    results: dict[str, Result] = {}
    said: list[str] = []
    console = target.start(code)
    whole: Result | None = None
    try:
        for line in console.lines(SILENCE_S):
            if not line.startswith('{"') or '"test"' not in line:
                said.append(line)
                continue
            told = json.loads(line)
            one = Result(
                module=module.name,
                test=told["test"],
                result=told["result"],
                heap_bytes=heap,
                before_bytes=told["before"],
                after_bytes=told["after"],
                why=told["why"],
            )
            if one.test == "import":
                whole = one
            else:
                results[one.test] = one
    except TargetError as error:
        said.append(str(error))
    finally:
        console.stop()
    why = "the interpreter ended: " + "\n".join(said)[-1500:]
    result = "failed"
    if whole is not None:
        result, why = whole.result, whole.why or ""
    return [
        results.get(test) or Result(module.name, test, result, heap_bytes=heap, why=why)
        for test in module.tests
    ]


def matrix(runs: Sequence[Run]) -> list[str]:
    """Give lines of a table: how many tests of each module passed on each target, of how many.

    Below it, what each target is, and whether every test ran on one of them.
    """
    names = sorted({one.module for run_ in runs for one in run_.results})
    rows = [["", *(run_.target for run_ in runs)]]
    rows += [[name, *(_cell(run_, name) for run_ in runs)] for name in names]
    rows.append(["all", *(_cell(run_, None) for run_ in runs)])
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    lines = [
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"{describe(run_.target, run_.about)}, {run_.seconds:.0f} s" for run_ in runs]
    nowhere = not_run_anywhere(runs)
    if nowhere:
        lines.append(f"on none of these targets: {', '.join(nowhere)}")
    else:
        lines.append("every test ran on one of these targets at least")
    return lines


def describe(target: str, about: About) -> str:
    """One line about a target."""
    heap = "unbounded" if about.heap_bytes is None else f"{about.heap_bytes} bytes of"
    return f"{target}: {about.machine}, {about.implementation} {about.version}, {heap} heap"


def _cell(run_: Run, module: str | None) -> str:
    """How a module's tests went on a target; all tests' if none is named."""
    mine = [one for one in run_.results if module in (None, one.module)]
    results = [one.result for one in mine]
    text = f"{results.count('passed')}/{len(mine)}"
    for other in ("failed", "memory", "skipped"):
        if results.count(other):
            text += f", {results.count(other)} {other}"
    usual = run_.about.heap_bytes
    larger = sum(one.heap_bytes not in (None, usual) for one in mine)
    return text + (f", {larger} in a larger heap" if larger else "")


def not_run_anywhere(runs: Sequence[Run]) -> list[str]:
    """Tests that no target ran to an end."""
    ran = {
        (one.module, one.test)
        for run_ in runs
        for one in run_.results
        if one.result in ("passed", "failed")
    }
    every = {(one.module, one.test) for run_ in runs for one in run_.results}
    return [f"{module}.{test}" for module, test in sorted(every - ran)]
