"""Files that somebody names: no more of them is read than they may hold."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fog_node.small_files import read_small


def test_as_much_as_it_may_hold_and_not_a_byte_more(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_small(path, 10) == b"x" * 10
    for endless in (path, Path("/dev/zero")):
        with pytest.raises(OSError, match="is larger than 9 bytes") as refused:
            read_small(endless, 9)
        assert (refused.value.errno, refused.value.filename) == (errno.EFBIG, str(endless))
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "none")
