"""Records every write and sync of a directory, and puts a disk together as a power cut leaves it.

SQLite's own writes are seen where they leave it: in the virtual file system of the very library
that Python's sqlite3 module has loaded, whose methods are replaced through ctypes. Nothing of
the code under test is changed, and nothing in it knows.
"""

from __future__ import annotations

import _sqlite3  # noqa: F401 - loads the library
import ctypes
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from fog_node.ledger import files

SECTOR_BYTES = 512
Mode = Literal["kept", "lost", "torn"]
_OK = 0
_FULL = 13
_MAPS = Path("/proc/self/maps")

# Names go on as the very pointers that came: SQLite keeps them.
_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_int),
)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Vfs(ctypes.Structure):
    """The beginning of sqlite3_vfs."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", _OPEN),
        ("delete", _DELETE),
    )


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, of which three are looked at."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", _WRITE),
        ("truncate", _TRUNCATE),
        ("sync", _SYNC),
        ("others", ctypes.c_void_p * 13),
    )


@dataclass(frozen=True)
class Operation:
    """One thing done to the disk, or told to the outside.

    Attributes:
        path: of the file; of the directory for `names`.
        data: what was written at `offset`; `offset` is the new size for `truncate`.
        target: of a rename.
        told: what the code under test has promised, for `told`.
    """

    kind: Literal["create", "write", "truncate", "sync", "remove", "rename", "names", "told"]
    path: Path
    offset: int = 0
    data: bytes = field(default=b"", repr=False)
    target: Path | None = None
    told: tuple[Any, ...] = ()


class Recorder:
    """What was done to one directory, in order.

    Attributes:
        room: how many writes of SQLite the disk still has room for; None is no limit.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.operations: list[Operation] = []
        self.room: int | None = None

    def takes_write(self) -> bool:
        """Whether there is room for one more write."""
        if self.room is None:
            return True
        self.room -= 1
        return self.room >= 0

    def tell(self, *what: Any) -> None:
        """Note that the code under test has now promised something."""
        self.operations.append(Operation("told", self.directory, told=what))

    def note(self, kind: Any, where: Path, **more: Any) -> None:
        """Note an operation on a file or on the directory itself."""
        if where == self.directory or self.directory in where.parents:
            self.operations.append(Operation(kind, where, **more))


@contextmanager
def recording(directory: Path) -> Iterator[Recorder]:
    """Record what SQLite and `ledger/files.py` do to a directory."""
    recorder = Recorder(directory)
    with _recording_sqlite(recorder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", _Os(recorder))
        replace, unlink = Path.replace, Path.unlink

        def renamed(self: Path, target: Path) -> Path:
            recorder.note("rename", self, target=target)
            return replace(self, target)

        def removed(self: Path, missing_ok: bool = False) -> None:
            if self.exists():
                recorder.note("remove", self)
            unlink(self, missing_ok)

        patch.setattr(Path, "replace", renamed)
        patch.setattr(Path, "unlink", removed)
        yield recorder


class _Os:
    """The module `os`, seen by `ledger/files.py`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._paths: dict[int, Path] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not path.exists():
            self._recorder.note("create", path)
        descriptor = os.open(path, flags, mode)
        self._paths[descriptor] = path
        return descriptor

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        self._recorder.note("write", self._paths[descriptor], offset=offset, data=data)
        return os.pwrite(descriptor, data, offset)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._recorder.note("truncate", self._paths[descriptor], offset=size)
        os.ftruncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        path = self._paths[descriptor]
        self._recorder.note("names" if path.is_dir() else "sync", path)

    def fdatasync(self, descriptor: int) -> None:
        self.fsync(descriptor)


@contextmanager
def _recording_sqlite(recorder: Recorder) -> Iterator[None]:
    vfs = _default_vfs()
    # By address: what ctypes hands out of a structure changes with it.
    real_open = _OPEN(ctypes.cast(vfs.open, ctypes.c_void_p).value or 0)
    real_delete = _DELETE(ctypes.cast(vfs.delete, ctypes.c_void_p).value or 0)
    paths: dict[int, Path] = {}
    # By address of the original: one set of methods each.
    methods: dict[int, _Methods] = {}

    def watched(address: int) -> _Methods:
        if address not in methods:
            real = _Methods.from_address(address)
            own = _Methods.from_buffer_copy(real)

            @_WRITE
            def write(file: int, data: int, size: int, offset: int) -> int:
                if not recorder.takes_write():
                    return _FULL
                content = ctypes.string_at(data, size)
                recorder.note("write", paths[file], offset=offset, data=content)
                return int(real.write(file, data, size, offset))

            @_TRUNCATE
            def truncate(file: int, size: int) -> int:
                recorder.note("truncate", paths[file], offset=size)
                return int(real.truncate(file, size))

            @_SYNC
            def sync(file: int, flags: int) -> int:
                code = int(real.sync(file, flags))
                recorder.note("sync", paths[file])
                return code

            own.write, own.truncate, own.sync = write, truncate, sync
            methods[address] = own
        return methods[address]

    @_OPEN
    def open_(self: int, name: int | None, file: int, flags: int, out: Any) -> int:
        path = None if name is None else Path(os.fsdecode(ctypes.string_at(name)))
        is_new = path is not None and not path.exists()
        code = int(real_open(self, name, file, flags, out))
        if code == _OK and path is not None:
            paths[file] = path
            if is_new:
                recorder.note("create", path)
            place = ctypes.c_void_p.from_address(file)
            assert place.value is not None
            place.value = ctypes.addressof(watched(place.value))
        return code

    @_DELETE
    def delete(self: int, name: int, sync_names: int) -> int:
        path = Path(os.fsdecode(ctypes.string_at(name)))
        if path.exists():
            recorder.note("remove", path)
        code = int(real_delete(self, name, sync_names))
        if sync_names:
            recorder.note("names", path.parent)
        return code

    vfs.open, vfs.delete = open_, delete
    try:
        yield
    finally:
        vfs.open, vfs.delete = real_open, real_delete
        # Connections that outlive the recording keep their methods.
        _KEPT.append((open_, delete, methods, paths))


_KEPT: list[Any] = []


def _default_vfs() -> _Vfs:
    for line in _MAPS.read_text().splitlines():
        name = line.rpartition(" ")[2]
        if "libsqlite3" in name:
            library = ctypes.CDLL(name)
            library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
            library.sqlite3_vfs_find.argtypes = (ctypes.c_char_p,)
            vfs: _Vfs = library.sqlite3_vfs_find(None).contents
            return vfs
    raise AssertionError(
        "Python's sqlite3 module has SQLite built in; run these tests with a Python that loads "
        "the system's libsqlite3, as Debian's does"
    )


@dataclass
class _File:
    """A file as a disk holds it: what is durable, and what may be lost."""

    durable: bytes | None = None
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)

    def apply(self, kept: Sequence[tuple[str, int, bytes]]) -> bytes:
        content = bytearray(self.durable or b"")
        for kind, offset, data in kept:
            if kind == "truncate":
                del content[offset:]
                content.extend(bytes(offset - len(content)))
            else:
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
        return bytes(content)


class Disk:
    """A directory on a disk that keeps what was synced, and may lose the rest.

    Names are durable once their file or the directory was synced.
    """

    def __init__(self, directory: Path, image: dict[str, bytes] | None = None) -> None:
        """Begin with an image that is all durable."""
        self._directory = directory
        self._files = {name: _File(content) for name, content in (image or {}).items()}
        self._names: dict[str, _File] = dict(self._files)
        self._names_durable: dict[str, _File] = dict(self._files)

    def take(self, operation: Operation) -> None:
        """Do an operation."""
        name = operation.path.name
        match operation.kind:
            case "create":
                self._names[name] = _File()
            case "write":
                self._names[name].pending.append(("write", operation.offset, operation.data))
            case "truncate":
                self._names[name].pending.append(("truncate", operation.offset, b""))
            case "sync":
                if name in self._names:
                    file = self._names[name]
                    file.durable, file.pending = file.apply(file.pending), []
                    self._names_durable[name] = file
            case "remove":
                self._names.pop(name, None)
            case "rename":
                assert operation.target is not None
                self._names[operation.target.name] = self._names.pop(name)
            case "names":
                self._names_durable = dict(self._names)

    def image(
        self, mode: Literal["kept", "lost", "torn"], chance: random.Random
    ) -> dict[str, bytes]:
        """Files as they are found after the cut.

        Args:
            mode: what was not synced is all there (as after SIGKILL), all gone, or each
                sector and name by itself there or gone.
            chance: for `torn`.
        """
        names = dict(self._names_durable)
        if mode == "kept" or (mode == "torn" and chance.random() < 0.5):
            names = self._names
        found = {}
        for name, file in names.items():
            if mode == "lost":
                content = file.apply([])
            elif mode == "kept":
                content = file.apply(file.pending)
            else:
                content = file.apply(list(_torn(file.pending, chance)))
            found[name] = content
        return found


def _torn(
    pending: Sequence[tuple[str, int, bytes]], chance: random.Random
) -> Iterator[tuple[str, int, bytes]]:
    for kind, offset, data in pending:
        if kind == "truncate":
            if chance.random() < 0.5:
                yield kind, offset, data
            continue
        start = offset
        while start < offset + len(data):
            end = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, offset + len(data))
            if chance.random() < 0.5:
                yield kind, start, data[start - offset : end - offset]
            start = end


def lay_out(image: dict[str, bytes], directory: Path) -> Path:
    """Write an image into a new directory."""
    directory.mkdir()
    for name, content in image.items():
        (directory / name).write_bytes(content)
    return directory
