"""Names that the firmware's modules share: which of them a board may know by a shorter one.

A name that is ours alone, of a module's function or class, of a method or an attribute, can be any
other name, as long as it is everywhere the same and means one thing in each place. So names that
no module and no class has both of get one short name together (`a_`, `b_`, ...), and a board keeps
some sixty where it kept hundreds.

A name stays where it may be somebody else's, too (`FOREIGN`, what the files at the firmware's root
use, what tools and tests ask a board for: `ASKED`), where a text may stand for it, or where an
argument goes by it.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import ascii_lowercase

PACKAGES = ("fogline", "drivers")

__all__ = [
    "ASKED",
    "FOREIGN",
    "Places",
    "Renaming",
    "Source",
    "globals_of",
    "nodes_of",
    "shared_names",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Ours and also of an object of MicroPython's that we use. `python -m tools.board_types` checks
# against MicroPython's stubs that none is missing.
FOREIGN = _words(
    "FLOAT32 INT32 INT8 clear close connect decode elements encode end flush offset push remove "
    "rotate seek send start wait_for"
)

# What tools and tests ask a board's firmware for, over its console.
ASKED = _words(
    "Model ModelError VERSION allocate app available board bytes check console create inputs "
    "invoke kernels main outputs preload say select update use"
)

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEAD = re.compile(r"(async\s+)?(def|class)\s+")
_ASSEMBLER = re.compile(r"^@micropython\.asm_", re.MULTILINE)


@cache
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes within a tree, as ast.walk gives them: each is looked through many times."""
    return tuple(ast.walk(tree))


@dataclass(frozen=True, slots=True)
class Source:
    """A module. `renamed`: its own names may change, as those of tests do not."""

    text: str
    tree: ast.Module
    renamed: bool


@dataclass(slots=True)
class _Owner:
    """A module, or classes that inherit from each other: within it a short name means one thing."""

    names: set[str] = field(default_factory=set)


def shared_names(
    sources: Mapping[Path, Source], fixed: AbstractSet[str], taken: AbstractSet[str]
) -> dict[str, str]:
    """Give the short name for each name that can have one.

    Args:
        sources: all of the firmware's modules, and its tests.
        fixed: names that stay.
        taken: names that are renamed in another way.
    """
    modules = [
        _Owner(set(globals_of(source.tree))) for source in sources.values() if source.renamed
    ]
    families = _families(sources.values())
    ours: set[str] = set()
    for owner in modules:
        ours |= owner.names
    for owner in _families([s for s in sources.values() if s.renamed]):
        ours |= owner.names
    stays = {*fixed, *taken, *FOREIGN, *ASKED, *dir(builtins), *(path.stem for path in sources)}
    alone: set[str] = set()
    owned = {path.stem: _owned(source) for path, source in sources.items()}
    for path, source in sources.items():
        stays.update(_spoken(source))
        # Where a module has, or imports, what has such an attribute, that is what it gives it to.
        near = {path.stem, *_imported(source.tree)}
        known = {name for stem in near for name in owned.get(stem, ())}
        alone.update(name for name in _stored_elsewhere(source.tree) if name not in known)
    names = {name for name in ours - stays if not name.startswith("__")}
    return _coloured(names, [*modules, *families], alone)


def _coloured(
    names: AbstractSet[str], owners: Iterable[_Owner], alone: AbstractSet[str]
) -> dict[str, str]:
    """Give each name a short one, another than all that it meets within an owner."""
    meets: dict[str, set[str]] = defaultdict(set)
    for owner in owners:
        mine = owner.names & names
        for name in mine:
            meets[name] |= mine
    for name in alone & names:
        # Of an object that somebody else gives it to: of any class.
        meets[name] |= names
        for other in names:
            meets[other].add(name)
    given: dict[str, int] = {}
    for name in sorted(names, key=lambda one: (-len(meets[one]), one)):
        used = {given[other] for other in meets[name] if other in given}
        given[name] = next(number for number in range(len(names)) if number not in used)
    return {name: _letters(number) + "_" for name, number in given.items()}


def _letters(number: int) -> str:
    """The name of this number: a to z, aa, ..."""
    name = ""
    while number >= 0:
        name = ascii_lowercase[number % len(ascii_lowercase)] + name
        number = number // len(ascii_lowercase) - 1
    return name


def globals_of(tree: ast.Module) -> Iterator[str]:
    """Names that stand at a module's own level, or that a function puts there."""
    yield from _bound(tree)
    for node in nodes_of(tree):
        if isinstance(node, ast.Global):
            yield from node.names


def _families(sources: Iterable[Source]) -> list[_Owner]:
    """The attributes of all classes, those of classes that inherit from each other together."""
    owners: dict[str, _Owner] = {}
    for source in sources:
        for node in nodes_of(source.tree):
            if not isinstance(node, ast.ClassDef):
                continue
            owner = owners.setdefault(node.name, _Owner())
            owner.names.update(_bound(node))
            owner.names.update(_asked(node))
            owner.names.update(
                each.attr
                for each in nodes_of(node)
                if isinstance(each, ast.Attribute)
                and not isinstance(each.ctx, ast.Load)
                and isinstance(each.value, ast.Name)
                and each.value.id in ("self", "cls")
            )
            for base in node.bases:
                name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
                other = owners.setdefault(name, _Owner())
                if other is not owner:
                    other.names |= owner.names
                    owners.update({key: other for key, at in owners.items() if at is owner})
                    owner = other
    return list({id(owner): owner for owner in owners.values()}.values())


def _asked(scope: ast.ClassDef) -> Iterator[str]:
    """Names that a class's own level asks for: it finds its attributes before what is outside."""
    for node in _within(scope):
        inside = [node]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [*node.args.defaults, *node.args.kw_defaults, *node.decorator_list]
            inside = [each for one in defaults if one is not None for each in nodes_of(one)]
        yield from (each.id for each in inside if isinstance(each, ast.Name))


def _bound(scope: ast.AST) -> Iterator[str]:
    """Names that a module, a class or a function binds itself."""
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        arguments = scope.args
        for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            yield one.arg
        for more in (arguments.vararg, arguments.kwarg):
            if more is not None:
                yield more.arg
    for node in _within(scope):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ExceptHandler):
            yield from (node.name,) if node.name is not None else ()
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _within(scope: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a scope, those within other scopes left out."""
    waiting: list[ast.AST] = []
    if isinstance(scope, ast.Lambda):
        waiting.append(scope.body)
    else:
        assert isinstance(scope, ast.Module | _Definition)
        waiting.extend(scope.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _SCOPES):
            waiting.extend(ast.iter_child_nodes(node))


def _spoken(source: Source) -> Iterator[str]:
    """Names that texts may stand for, that arguments go by, or that come from elsewhere."""
    tree = source.tree
    silent = {
        id(node.body[0].value)
        for node in nodes_of(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    if not source.renamed:  # a test looks things up by texts, and compares with them
        for node in nodes_of(tree):
            if isinstance(node, ast.Subscript):
                silent.add(id(node.slice))
            elif isinstance(node, ast.Dict):
                silent.update(map(id, node.keys))
            elif isinstance(node, ast.Compare):
                silent.update(map(id, (node.left, *node.comparators)))
    for node in nodes_of(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in silent:
                continue
            words = _WORD.findall(node.value)
            # A sentence names nothing but what is private.
            sentence = " " in node.value.strip()
            yield from (word for word in words if not sentence or word.startswith("_"))
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg
        elif isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not _ours(node)):
            yield from (alias.asname or alias.name for alias in node.names)


def _ours(node: ast.ImportFrom) -> bool:
    """Whether this imports from a module of the firmware."""
    return node.level > 0 or (node.module or "").partition(".")[0] in PACKAGES


def _owned(source: Source) -> set[str]:
    """Names of a module's own level and of its classes."""
    names = set(globals_of(source.tree))
    return names.union(*(owner.names for owner in _families([source])))


def _imported(tree: ast.Module) -> Iterator[str]:
    """The modules of ours that one imports, or imports from."""
    for node in nodes_of(tree):
        if isinstance(node, ast.ImportFrom) and _ours(node):
            yield (node.module or "").rpartition(".")[2]
            yield from (alias.name for alias in node.names)


def _stored_elsewhere(tree: ast.Module) -> Iterator[str]:
    """Attributes that are given to an object from outside."""
    for node in nodes_of(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            yield from () if own else (node.attr,)


# Where the names stand ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Renaming:
    """What becomes of names.

    shared: of functions, classes and attributes. keywords: names that arguments go by; other
    parameters are numbered in each function.
    """

    shared: Mapping[str, str]
    keywords: AbstractSet[str]


@dataclass(frozen=True, slots=True)
class Formatted:
    """Lines of a formatted text, and what becomes of the names that stand alone in it."""

    first: int
    last: int
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Scope:
    node: ast.AST
    bound: frozenset[str]
    parameters: Mapping[str, str]


_Scopes = tuple[_Scope, ...]


class Places:
    """Where a module's names are to be written otherwise.

    Attributes:
        edits: (line, from column, to column, text).
        formatted: texts whose names are not among the edits, since Python before 3.12 does not say
            where they stand.
    """

    def __init__(self, source: Source, renaming: Renaming) -> None:
        self.edits: list[tuple[int, int, int, str]] = []
        self.formatted: list[Formatted] = []
        self._renaming = renaming
        self._renamed = source.renamed
        self._lines = source.text.splitlines()
        self._globals = set(globals_of(source.tree)) if source.renamed else set()
        # Modules that are not ours, the tests' own among them: their attributes stay.
        self._foreign = {
            alias.asname or alias.name.partition(".")[0]
            for node in nodes_of(source.tree)
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.name.partition(".")[0] not in PACKAGES
        }
        # The parameters of what is written in assembler are registers.
        self._registers = _ASSEMBLER.search(source.text) is not None
        for node in source.tree.body:
            self._visit(node, ())

    def _put(self, line: int, at: int, name: str, text: str) -> None:
        """`at`: in bytes, as Python's trees have it; names are ASCII."""
        at = len(self._lines[line - 1].encode()[:at].decode())
        assert self._lines[line - 1][at : at + len(name)] == name, (line, at, name)
        self.edits.append((line, at, at + len(name), text))

    def _new(self, name: str, scopes: _Scopes) -> str | None:
        """What becomes of a name that stands alone here; None where it stays."""
        for depth, scope in enumerate(reversed(scopes)):
            if isinstance(scope.node, ast.ClassDef):
                if depth == 0 and name in scope.bound:
                    return self._renaming.shared.get(name)  # a test's classes stand for ours
            elif name in scope.bound:
                return scope.parameters.get(name)
        return self._renaming.shared.get(name) if name in self._globals else None

    def _visit(self, node: ast.AST, scopes: _Scopes) -> None:
        if isinstance(node, ast.JoinedStr):
            self._format(node, scopes)
            return
        if isinstance(node, ast.Attribute):
            self._attribute(node)
        elif isinstance(node, ast.Name):
            text = self._new(node.id, scopes)
            if text is not None:
                self._put(node.lineno, node.col_offset, node.id, text)
        elif isinstance(node, ast.ImportFrom):
            self._import(node, scopes)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            self._declaration(node, scopes)
        if isinstance(node, _SCOPES):
            self._scope(node, scopes)
        else:
            for child in ast.iter_child_nodes(node):
                self._visit(child, scopes)

    def _scope(self, node: ast.AST, scopes: _Scopes) -> None:
        assert isinstance(node, ast.Lambda | _Definition)
        if not isinstance(node, ast.Lambda):
            text = self._new(node.name, scopes)
            if text is not None:
                head = _HEAD.match(self._lines[node.lineno - 1], node.col_offset)
                assert head is not None
                self._put(node.lineno, head.end(), node.name, text)
            for decorator in node.decorator_list:
                self._visit(decorator, scopes)
        parameters: dict[str, str] = {}
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                self._visit(base, scopes)
        else:
            defaults = [one for one in node.args.kw_defaults if one is not None]
            for default in (*node.args.defaults, *defaults):
                self._visit(default, scopes)
            if self._renamed and not self._registers:
                parameters = self._parameters(node.args, scopes)
        declared = {
            name
            for each in _within(node)
            if isinstance(each, ast.Global | ast.Nonlocal)
            for name in each.names
        }
        bound = frozenset(_bound(node)) - declared
        inner = (*scopes, _Scope(node, bound, parameters))
        for each in [node.body] if isinstance(node, ast.Lambda) else node.body:
            self._visit(each, inner)

    def _parameters(self, arguments: ast.arguments, scopes: _Scopes) -> dict[str, str]:
        """Give a function's parameters names that no function around it has."""
        number = sum(len(scope.parameters) for scope in scopes)
        found = {}
        for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if one.arg not in ("self", "cls", *self._renaming.keywords):
                found[one.arg] = "_" + _letters(number)
                number += 1
                self._put(one.lineno, one.col_offset, one.arg, found[one.arg])
        return found

    def _format(self, node: ast.JoinedStr, scopes: _Scopes) -> None:
        names = {}
        for each in nodes_of(node):
            if isinstance(each, ast.Name):
                text = self._new(each.id, scopes)
                if text is not None:
                    names[each.id] = text
        assert node.end_lineno is not None
        self.formatted.append(Formatted(node.lineno, node.end_lineno, names))

    def _attribute(self, node: ast.Attribute) -> None:
        text = self._renaming.shared.get(node.attr)
        if text is None or (isinstance(node.value, ast.Name) and node.value.id in self._foreign):
            return
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        self._put(node.end_lineno, node.end_col_offset - len(node.attr), node.attr, text)

    def _import(self, node: ast.ImportFrom, scopes: _Scopes) -> None:
        for alias in node.names:
            text = self._renaming.shared.get(alias.name) if _ours(node) else None
            bound = alias.asname
            if text is not None:
                if bound is None and self._new(alias.name, scopes) is None:
                    text += f" as {alias.name}"
                self._put(alias.lineno, alias.col_offset, alias.name, text)
            new = None if bound is None else self._new(bound, scopes)
            if bound is not None and new is not None:
                assert alias.end_col_offset is not None
                assert alias.end_lineno is not None
                self._put(alias.end_lineno, alias.end_col_offset - len(bound), bound, new)

    def _declaration(self, node: ast.Global | ast.Nonlocal, scopes: _Scopes) -> None:
        line = self._lines[node.lineno - 1]
        assert node.end_lineno == node.lineno
        for word in _WORD.finditer(line, line.index("al", node.col_offset) + 2):
            text = self._new(word[0], scopes)
            if text is not None:
                self._put(node.lineno, word.start(), word[0], text)
