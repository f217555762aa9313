"""Does everything that allocates in the C extension many times and watches the process's memory."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from fog_node.protocol import _native, senml
from fog_node.protocol.cose import sign1
from fog_node.protocol.keys import SigningKey

ROUNDS = 3_000
# A leak of one short byte string per round would come to about this.
ALLOWED_KIB = 128


def resident_kib() -> int:
    """Counted page by page: `status` may be off by some dozens of pages for each processor."""
    pages = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return int(pages.split("Rss:")[1].split()[0])


key = SigningKey.from_secret(7)
rows = [(i, [("flow", "L/min", i / 4)]) for i in range(40)]
payload = senml.encode_pack(32473, key.kid, 1_700_000_000, rows)
pack = sign1(key, senml.CONTENT_TYPE, payload, bytes(32), 1, 0)


def work(rounds: int) -> None:
    for _ in range(rounds):
        assert _native.read_pack(pack, None) is not None
        assert _native.read_pack(pack[:-1], {key.kid: None}) is None
        table = _native.channels(
            [(f"flow{i}" if i else "flow", "L/min", 0.0, 100.0) for i in range(30)]
        )
        assert _native.read_pack(pack, {key.kid: table})[-1] is table
        with suppress(TypeError, ValueError):
            _native.read_pack(pack, {key.kid: 5})
        assert _native.is_plausible(payload, table)
        assert not _native.is_plausible(payload, _native.channels([]))
        assert _native.to_der(pack[-64:]) is not None
        assert _native.to_der(bytes(64)) is None
        _native.sig_structure(payload, bytes(32), payload)
        for wrong in ([("flow", "L/min", 0.0)], [("x" * 33, "m", 0.0, 1.0)], [1], range(40), 5):
            with suppress(TypeError, ValueError):
                _native.channels(wrong)  # type: ignore[arg-type]
        with suppress(TypeError):
            _native.read_pack("text", None)  # type: ignore[arg-type]
        with suppress(ValueError, TypeError):
            _native.is_plausible(payload, None)  # type: ignore[arg-type]


work(ROUNDS)
before = resident_kib()
work(ROUNDS)
grown = resident_kib() - before
print(f"{grown} KiB more after {ROUNDS} rounds, {ALLOWED_KIB} allowed")
sys.exit(grown > ALLOWED_KIB)
