"""The firmware's source as mpy-cross is to take it: the same, with less to keep on a board's heap.

MicroPython keeps every name of a program in memory as long as it runs, some 16 bytes each, and a
board's heap has room for few. So here

- a constant that no other module asks for (`CHUNK_BYTES = 1024`) becomes a private `const`, whose
  name goes nowhere;
- functions, classes, methods and attributes become `a_`, `b_`, ..., the same in every module: see
  `firmware_names`;
- parameters that nobody gives by name become `_a`, `_b`, ..., anew in every function;
- tracebacks call a file by its stem, as `import` does (`File "outbox", line 12`).

Lines stay where they are, so a traceback still leads to its line; `Compact.shared` has the rest.
"""

from __future__ import annotations

import ast
import io
import re
import threading
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.firmware_names import Places, Renaming, Source, globals_of, nodes_of, shared_names
from tools.syntax import parse

__all__ = ["Compact", "compact", "shown"]

_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
_REPLACED = re.compile(r"\{[^{}]*\}")
_WORD = re.compile(r"(\.|(?<![A-Za-z0-9_.]))([A-Za-z_][A-Za-z0-9_]*)")
TESTS = "tests"
LAUNCHER = "launcher.py"
AS_SOURCE = ("boot.py", "main.py", "check_model.py")
_CONSTANT_TYPES = (int, str, bytes)
# Many boards may ask at once: the first makes it, the others wait.
_MAKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Compact:
    """A module's text for mpy-cross.

    shared: what the names of functions, classes and attributes have become, in all modules.
    """

    text: str
    shared: Mapping[str, str]


def shown(source: Path) -> str:
    """What tracebacks on a board call a file."""
    return source.parent.name if source.stem == "__init__" else source.stem


def compact(source: Path, firmware: Path) -> Compact:
    """Make a file of the firmware in folder `firmware` smaller for a board.

    That of a test comes back with the names that the firmware has then. What MicroPython starts as
    source stays as it is.
    """
    with _MAKING:
        made = _all(firmware).get(source)
    return made or Compact(source.read_text("utf-8"), {})


@cache
def _all(firmware: Path) -> Mapping[Path, Compact]:
    modules = {}
    for path in sorted(firmware.rglob("*.py")):
        text = path.read_text("utf-8")
        modules[path] = Source(text, parse(text), path.parent.name != TESTS)
    reached = {name for module in modules.values() for name in _reached(module.tree)}
    keywords = {
        node.arg
        for module in modules.values()
        for node in nodes_of(module.tree)
        if isinstance(node, ast.keyword) and node.arg is not None
    }
    inlined = {
        path: _constants(module.tree, reached) if module.renamed else {}
        for path, module in modules.items()
    }
    # What starts a board is never replaced: what it asks for, and what is asked of it, must have
    # the same names in any version.
    inner = {path: each for path, each in modules.items() if path.name not in AS_SOURCE}
    fixed = {
        name
        for path, module in modules.items()
        for name in (_words(module.tree) if path not in inner else globals_of(module.tree))
        if path not in inner or (path.name == LAUNCHER and not name.startswith("_"))
    }
    put_in = {name for each in inlined.values() for name in each}
    renaming = Renaming(shared_names(inner, fixed, put_in), keywords)
    return {
        path: Compact(_rewritten(module, inlined[path], renaming), renaming.shared)
        for path, module in inner.items()
    }


def _words(tree: ast.AST) -> Iterator[str]:
    """All names within a tree."""
    for node in nodes_of(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def _reached(tree: ast.Module) -> Iterator[str]:
    """Names that are asked of objects or modules, or imported: what they name must be there."""
    for node in nodes_of(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def _constants(tree: ast.Module, reached: AbstractSet[str]) -> dict[str, ast.Assign]:
    """The module's own constants that mpy-cross can put in wherever they are named."""
    stored = Counter(
        node.id
        for node in nodes_of(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    )
    changed = {
        name for node in nodes_of(tree) if isinstance(node, ast.Global) for name in node.names
    }
    found: dict[str, ast.Assign] = {}
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        name = node.targets[0].id
        if not _CONSTANT.fullmatch(name) or stored[name] > 1 or name in changed | reached:
            continue
        if len(node.targets) == 1 and node.lineno == node.end_lineno:
            plain = (
                isinstance(node.value, ast.Constant) and type(node.value.value) in _CONSTANT_TYPES
            )
            if plain or _is_integer(node.value, found):
                found[name] = node
    return found


def _is_integer(node: ast.expr, found: Mapping[str, ast.Assign]) -> bool:
    """Whether an expression is of integers alone, those of `found` among them."""
    if isinstance(node, ast.BinOp):
        return _is_integer(node.left, found) and _is_integer(node.right, found)
    if isinstance(node, ast.UnaryOp):
        return _is_integer(node.operand, found)
    if isinstance(node, ast.Name):
        return node.id in found and _is_integer(found[node.id].value, found)
    return isinstance(node, ast.Constant) and type(node.value) is int


def _formatted(text: str, names: Mapping[str, str], attributes: Mapping[str, str]) -> str:
    """A formatted text with other names between its braces."""

    def renamed(word: re.Match[str]) -> str:
        known = attributes if word[1] else names
        return word[1] + known.get(word[2], word[2])

    return _REPLACED.sub(lambda part: _WORD.sub(renamed, part[0]), text)


def _rewritten(source: Source, inlined: Mapping[str, ast.Assign], renaming: Renaming) -> str:
    lines = source.text.splitlines(keepends=True)
    found = Places(source, renaming)
    edits = list(found.edits)
    constants = {name: f"_{name}" for name in inlined if name[0] != "_"}

    def names_at(line: int) -> dict[str, str]:
        names = dict(constants)
        for text in found.formatted:
            if text.first <= line <= text.last:
                names.update(text.names)
        return names

    depth = 0  # within formatted texts
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        (line, at), (_, end) = token.start, token.end
        kind = tokenize.tok_name[token.type]
        depth += {"FSTRING_START": 1, "FSTRING_END": -1}.get(kind, 0)
        new = None
        if kind == "NAME" and not depth:
            new = constants.get(token.string)
        elif kind == "NAME":
            names = renaming.shared if before == "." else names_at(line)
            new = names.get(token.string)
        elif kind == "STRING" and token.string[0] == "f":
            # One token before Python 3.12; from then on its names are tokens.
            new = _formatted(token.string, names_at(line), renaming.shared)
        if new is not None:
            edits.append((line, at, end, new))
        before = token.string
    for node in inlined.values():
        value = node.value
        assert value.end_col_offset is not None
        edits.append((value.lineno, value.col_offset, value.col_offset, "const("))
        edits.append((value.lineno, value.end_col_offset, value.end_col_offset, ")"))
    for line, at, end, text in sorted(edits, reverse=True):
        lines[line - 1] = lines[line - 1][:at] + text + lines[line - 1][end:]
    return "".join(lines)
