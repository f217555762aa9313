"""Files in a board's flash, over its REPL: compared by hash, replaced whole or not at all."""

from __future__ import annotations

import ast
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tools.devices.errors import BoardError
from tools.devices.repl import Repl

__all__ = ["PART", "FlashFiles", "OnBoard"]

# What a file is called until all of it is there and its hash is right.
PART = ".part"
# One script each: about what a UART carries in a tenth of a second.
CHUNK_BYTES = 1024
# Of a file that is read: a line of base64 each, and so many of them at a time.
READ_BYTES = 960
READ_LINES = 32
HASH_TIMEOUT_S = 60.0
MAX_FILES = 512

_HELPERS = """\
import os, hashlib, binascii
def _h(p):
    s = hashlib.sha256()
    b = bytearray(1024)
    v = memoryview(b)
    with open(p, "rb") as f:
        while True:
            n = f.readinto(b)
            if not n:
                break
            s.update(v[:n])
    return binascii.hexlify(s.digest()).decode()
def _x(p):
    try:
        return os.stat(p)[0] & 0x8000 != 0
    except OSError:
        return False
def _l(d, sizes):
    try:
        found = list(os.ilistdir(d))
    except OSError:
        return
    for e in found:
        p = d + "/" + e[0] if d else e[0]
        if e[1] == 0x4000:
            if d:
                _l(p, sizes)
        else:
            n = os.stat(p)[6]
            print(repr((p, n, _h(p) if sizes.get(p) == n else "")))
def _m(p):
    d = ""
    for q in p.split("/")[:-1]:
        d = d + "/" + q if d else q
        try:
            os.mkdir(d)
        except OSError as e:
            if e.args[0] != 17:
                raise
def _r(p, q):
    try:
        os.rename(p, q)
    except OSError as e:
        if e.args[0] not in (1, 17):
            raise
        os.remove(q)
        os.rename(p, q)
    if hasattr(os, "sync"):
        os.sync()
"""


@dataclass(frozen=True)
class OnBoard:
    """A file that is there. sha256: hex; empty where its size alone says that it differs."""

    size: int
    sha256: str


class FlashFiles:
    """The files of a board whose REPL we have. Whoever owns the REPL restarts it behind us."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl
        repl.run(_HELPERS)

    def compare(
        self, directories: Iterable[str], wanted: Mapping[str, bytes]
    ) -> dict[str, OnBoard]:
        """What lies in these directories ("" is the root, alone; others with all below).

        Hashes are made of files that have the size of the wanted one of their name.
        """
        sizes = {path: len(data) for path, data in wanted.items()}
        # In pieces, each a small script: a board has little memory.
        items = list(sizes.items())
        self._repl.run("_s = {}")
        for start in range(0, len(items), 16):
            self._repl.run(f"_s.update({dict(items[start : start + 16])!r})")
        found: dict[str, OnBoard] = {}
        for directory in directories:
            answer = self._repl.run(f"_l({directory!r}, _s)", HASH_TIMEOUT_S)
            for line in answer.splitlines():
                try:
                    path, size, sha256 = ast.literal_eval(line)
                    found[str(path)] = OnBoard(int(size), str(sha256))
                except (ValueError, TypeError, SyntaxError) as error:
                    raise self._garbled(line) from error
                if len(found) > MAX_FILES:
                    raise BoardError(
                        f"{self._repl.name}: has more than {MAX_FILES} files",
                        "flash it with --erase (which deletes its key) and provision it anew",
                    )
        return found

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self._repl.run(f"print(_x({path!r}))").strip() == "True"

    def put(
        self,
        path: str,
        data: bytes,
        tell: Callable[[int], None] = lambda _: None,
        check: Callable[[str], None] | None = None,
        write: Callable[[bytes], None] | None = None,
    ) -> None:
        """Write a file beside the old one, compare its hash, then take the old one's place.

        Args:
            path: of the file.
            data: of the file.
            tell: called with the number of bytes that each chunk has brought over.
            check: called with the new file's name before it takes the place; raises to stop that.
            write: fills the file, open as `_f` on the board, by another way than this line.

        Raises:
            BoardError: the flash is full, or what arrived is not what was sent.
        """
        run, part = self._repl.run, path + PART
        run(f"_m({path!r})\n_f = open({part!r}, 'wb')")
        if write is not None:
            write(data)
        for start in range(0, len(data) if write is None else 0, CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            text = binascii.b2a_base64(chunk, newline=False)
            run(f"_ = _f.write(binascii.a2b_base64({text!r}))")
            tell(len(chunk))
        answer = run(f"_f.close()\nprint(_h({part!r}))", HASH_TIMEOUT_S).strip()
        if answer != hashlib.sha256(data).hexdigest():
            raise BoardError(
                f"{self._repl.name}: {path} did not arrive as it was sent",
                "use another cable or port, and repeat the step; "
                "if it happens again the flash is worn out",
            )
        if check is not None:
            check(part)
        run(f"_r({part!r}, {path!r})")

    def get(self, path: str) -> bytes:
        """Read a file; raises BoardError where there is none."""
        self._repl.run(f"_f = open({path!r}, 'rb')")
        script = (
            f"for _ in range({READ_LINES}):\n"
            f" print(binascii.b2a_base64(_f.read({READ_BYTES})).decode(), end='')"
        )
        data = bytearray()
        while piece := binascii.a2b_base64(self._repl.run(script, HASH_TIMEOUT_S)):
            data += piece
        return bytes(data)

    def remove(self, path: str) -> None:
        """Remove a file that is there."""
        self._repl.run(f"os.remove({path!r})")

    def _garbled(self, line: str) -> BoardError:
        return BoardError(
            f"{self._repl.name}: {line[:80]!r} is not what was asked for",
            "press RESET (EN) on the board and repeat the step",
        )
