"""The firmware's source as mpy-cross is to take it: the same, with less to keep on a board's heap.

MicroPython keeps every name of a program in memory as long as it runs, some 16 bytes each, and a
board's heap has room for few. Names with an underscore are nobody's business but their module's,
so here

- a constant that no other module asks for (`CHUNK_BYTES = 1024`) becomes a private `const`, whose
  name goes nowhere;
- other private names that only one module has, and parameters that nobody gives by name, become
  `_a`, `_b`, ..., the same in every module;
- tracebacks call a file by its stem, as `import` does (`File "outbox", line 12`).

Lines stay where they are, so a traceback still leads to its line; `Compact.names` has the rest.
Names that a text may stand for (`getattr`), or that more than one module has, stay.
"""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Compact", "compact", "shown"]

_PRIVATE = re.compile(r"(?<![A-Za-z0-9_])_[A-Za-z][A-Za-z0-9_]*")
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
_REPLACED = re.compile(r"\{[^{}]*\}")
_WORD = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z_][A-Za-z0-9_]*")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CONSTANT_TYPES = (int, str, bytes)


@dataclass(frozen=True, slots=True)
class Compact:
    """A module's text for mpy-cross, and what its private names have become."""

    text: str
    names: Mapping[str, str]


def shown(source: Path) -> str:
    """What tracebacks on a board call a file."""
    return source.parent.name if source.stem == "__init__" else source.stem


def compact(source: Path, firmware: Path) -> Compact:
    """Make a file of the firmware in folder `firmware` smaller for a board."""
    return _all(firmware)[source]


@dataclass(frozen=True, slots=True)
class _Module:
    text: str
    tree: ast.Module
    private: frozenset[str]  # wherever they stand, in texts and comments, too

    @classmethod
    def read(cls, path: Path) -> _Module:
        text = path.read_text("utf-8")
        return cls(text, ast.parse(text), frozenset(_PRIVATE.findall(text)))


@cache
def _all(firmware: Path) -> Mapping[Path, Compact]:
    paths = sorted(firmware.rglob("*.py"))
    modules = {path: _Module.read(path) for path in paths}
    owners = Counter(name for module in modules.values() for name in module.private)
    reached = {name for module in modules.values() for name in _reached(module.tree)}
    keywords = {
        node.arg
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.keyword) and node.arg is not None
    }
    family = _families(modules)
    used: dict[Path, int] = {}
    result = {}
    for path, module in modules.items():
        inlined = _constants(module.tree, reached)
        own = {name for name in module.private if owners[name] == 1}
        own -= {*inlined, *_said(module.tree)}
        own |= _parameters(module) - keywords
        # Classes that inherit from each other share their objects' names.
        start = used.get(family[path], 0)
        names = {name: _short(start + at) for at, name in enumerate(sorted(own))}
        used[family[path]] = start + len(names)
        names.update({name: f"_{name}" for name in inlined if not name.startswith("_")})
        result[path] = Compact(_rewritten(module, inlined, names), names)
    return result


def _short(number: int) -> str:
    """The private name of this number: _a to _z, _aa, ..."""
    name = ""
    while number >= 0:
        name = _LETTERS[number % len(_LETTERS)] + name
        number = number // len(_LETTERS) - 1
    return "_" + name


def _reached(tree: ast.Module) -> Iterator[str]:
    """Names that are asked of objects or modules, or imported: what they name must be there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def _said(tree: ast.Module) -> set[str]:
    """Private names within texts, other than docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    said: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            said.update(_PRIVATE.findall(node.value) if id(node) not in docstrings else ())
    return said


def _parameters(module: _Module) -> set[str]:
    """Parameters that go by no name but their own within their module."""
    if "asm_" in module.text:
        return set()  # they are registers
    found = {node.arg for node in ast.walk(module.tree) if isinstance(node, ast.arg)}
    others = {"self", "cls", *vars(builtins), *_reached(module.tree)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            others.add(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            others.update(node.names)
        elif isinstance(node, ast.Import):
            others.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            others.update(node.module.split("."))
        elif isinstance(node, ast.alias) and node.asname:
            others.add(node.asname)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            others.update(_bound(node))
    return {name for name in found - others if not name.startswith("_")}


def _bound(scope: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Names that stand at a module's or a class's own level."""
    for statement in scope.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))


def _constants(tree: ast.Module, reached: AbstractSet[str]) -> dict[str, ast.Assign]:
    """The module's own constants that mpy-cross can put in wherever they are named."""
    stored = Counter(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    )
    changed = {
        name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names
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


def _families(modules: Mapping[Path, _Module]) -> dict[Path, Path]:
    """For each module one that stands for all whose classes inherit from one another."""
    defined = {
        node.name: path
        for path, module in modules.items()
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
    }
    stands = {path: path for path in modules}
    for path, module in modules.items():
        for node in ast.walk(module.tree):
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
                old, new = stands[path], stands[defined.get(name, path)]
                stands.update({each: new for each, of in stands.items() if of == old})
    return stands


def _rewritten(module: _Module, inlined: Mapping[str, ast.Assign], names: Mapping[str, str]) -> str:
    lines = module.text.splitlines(keepends=True)

    def renamed(part: re.Match[str]) -> str:
        return _WORD.sub(lambda word: names.get(word[0], word[0]), part[0])

    edits: list[tuple[int, int, int, str]] = []  # line, from column, to column, text
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        (line, at), (_, end) = token.start, token.end
        if token.type == tokenize.NAME and token.string in names:
            edits.append((line, at, end, names[token.string]))
        elif token.type == tokenize.STRING and token.string[0] == "f":
            # One token before Python 3.12; from then on its names are tokens.
            edits.append((line, at, end, _REPLACED.sub(renamed, token.string)))
    for node in inlined.values():
        value = node.value
        assert value.end_col_offset is not None
        edits.append((value.lineno, value.col_offset, value.col_offset, "const("))
        edits.append((value.lineno, value.end_col_offset, value.end_col_offset, ")"))
    for line, at, end, text in sorted(edits, reverse=True):
        lines[line - 1] = lines[line - 1][:at] + text + lines[line - 1][end:]
    return "".join(lines)
