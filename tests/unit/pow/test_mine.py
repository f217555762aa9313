"""What every kernel and the twin promise, with hashlib as the judge."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading

import pytest

from fog_node import pow as proof_of_work
from fog_node.pow import CancelToken, KernelError, MineResult, WorkError, mine, python_twin

HEADER = bytes(range(76))
NONCES = 1 << 32
EVERY_HASH = (1 << 256) - 1
NO_HASH = 0
# More than any search here takes, less than anyone would wait.
PATIENCE_S = 60


def hash_of(header: bytes, nonce: int) -> int:
    """The number that a target is held against, by hashlib."""
    inner = hashlib.sha256(header[:76] + nonce.to_bytes(4, "little")).digest()
    return int.from_bytes(hashlib.sha256(inner).digest(), "little")


@pytest.mark.parametrize("rank", [0, 1, 20])
def test_random_headers_give_the_nonce_that_hashlib_gives(kernel, rng, rank):
    for _ in range(8):
        header = rng.randbytes(80)
        start = rng.randrange(NONCES - 700)
        count = rng.randrange(rank + 1, 700)
        hashes = [hash_of(header, start + offset) for offset in range(count)]
        target = sorted(hashes)[rank]
        offset = next(offset for offset, value in enumerate(hashes) if value <= target)
        result = mine(header, target, kernel=kernel, start=start, count=count)
        assert result == MineResult(start + offset, offset + 1, cancelled=False)


def test_double_sha256_of_random_headers_is_hashlibs(rng):
    for _ in range(100):
        header = rng.randbytes(80)
        expected = hashlib.sha256(hashlib.sha256(header).digest()).digest()
        assert proof_of_work.double_sha256(header) == expected


@pytest.mark.parametrize(
    "count", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 512, 513, 1024, 1025, 4096, 4097]
)
def test_a_nonce_right_behind_the_range_is_not_found(kernel, rng, count):
    lowest = 0
    while lowest < count:
        header = rng.randbytes(76)
        hashes = [hash_of(header, nonce) for nonce in range(3 * count + 100)]
        lowest = hashes.index(min(hashes))
    work = {"kernel": kernel, "start": lowest - count}
    missed = mine(header, hashes[lowest], **work, count=count)
    assert missed == MineResult(None, count, cancelled=False)
    found = mine(header, hashes[lowest], **work, count=count + 1)
    assert found == MineResult(lowest, count + 1, cancelled=False)


def test_the_search_ends_with_the_last_nonce(kernel):
    assert mine(HEADER, NO_HASH, kernel=kernel, start=NONCES - 5) == MineResult(None, 5, False)
    last = hash_of(HEADER, NONCES - 1)
    found = mine(HEADER, last, kernel=kernel, start=NONCES - 1)
    assert found == MineResult(NONCES - 1, 1, cancelled=False)


def test_an_empty_range_is_done_at_once(kernel):
    assert mine(HEADER, EVERY_HASH, kernel=kernel, count=0) == MineResult(None, 0, cancelled=False)


def test_the_easiest_target_takes_the_first_nonce(kernel):
    result = mine(HEADER, EVERY_HASH, kernel=kernel, start=17)
    assert result == MineResult(17, 1, cancelled=False)


def test_a_target_near_a_hash_is_compared_in_every_word(kernel):
    nonce = 99
    value = hash_of(HEADER, nonce)
    for word in range(8):
        unit = 1 << 32 * word
        for target in (value - unit, value + unit):
            found = mine(HEADER, target, kernel=kernel, start=nonce, count=1).nonce
            assert (found == nonce) == (value <= target)


def test_the_nonce_in_an_80_byte_header_does_not_count(kernel):
    work = {"kernel": kernel, "start": 3, "count": 100}
    target = hash_of(HEADER, 42)
    results = {mine(HEADER + tail, target, **work) for tail in (b"", bytes(4), b"\xff" * 4)}
    assert len(results) == 1


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_cover_the_range_without_gap_or_overlap(kernel, threads):
    work = {"kernel": kernel, "start": 1000, "count": 101, "threads": threads}
    assert mine(HEADER, NO_HASH, **work) == MineResult(None, 101, cancelled=False)
    targets = sorted(hash_of(HEADER, nonce) for nonce in range(1000, 1101))
    for nonce in range(1000, 1101):
        value = hash_of(HEADER, nonce)
        result = mine(HEADER, value, **work)
        assert result.nonce is not None
        assert hash_of(HEADER, result.nonce) <= value
        if value == targets[0]:
            assert result.nonce == nonce


def test_more_threads_than_nonces(kernel):
    result = mine(HEADER, NO_HASH, kernel=kernel, count=2, threads=8)
    assert result == MineResult(None, 2, cancelled=False)


def test_a_cancelled_token_stops_before_the_first_hash(kernel):
    token = CancelToken()
    assert not token.cancelled
    token.cancel()
    assert token.cancelled
    assert mine(HEADER, EVERY_HASH, kernel=kernel, cancel=token) == MineResult(None, 0, True)


@pytest.mark.parametrize(("threads", "cores", "running"), [(3, 4, 3), (3, 3, 3), (256, 3, 3)])
def test_all_threads_search_at_once_as_far_as_there_are_cores(monkeypatch, threads, cores, running):
    everybody = threading.Barrier(running)
    parts = []

    def search(header, target, first, count, stopped):
        parts.append((first, count))
        everybody.wait(PATIENCE_S)
        return None, count

    monkeypatch.setattr(proof_of_work.search, "usable_cores", lambda: cores)
    monkeypatch.setattr(python_twin, "search", search)
    result = mine(HEADER, NO_HASH, kernel="python", start=10, count=100, threads=threads)
    assert result == MineResult(None, 100, cancelled=False)
    assert len(parts) == running
    assert [first for first, _ in sorted(parts)] == [10, 43, 76]


def test_the_twin_judges_no_more_than_one_batch_after_it_is_stopped():
    looks = []

    def stopped():
        looks.append(None)
        return len(looks) == 3

    limit = NO_HASH.to_bytes(32, "little")
    judged = python_twin.search(HEADER, limit, 0, NONCES, stopped)
    assert judged == (None, 2 * python_twin.NONCES_PER_LOOK)


@pytest.mark.parametrize("threads", [1, 2])
def test_another_thread_cancels(kernel, threads):
    # Without the GIL released, or without a look at the token, this would take minutes.
    token = CancelToken()
    results = []

    def search():
        results.append(mine(HEADER, NO_HASH, kernel=kernel, threads=threads, cancel=token))

    thread = threading.Thread(target=search)
    thread.start()
    token.cancel()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert results[0].cancelled
    assert results[0].nonce is None
    assert results[0].hashes < NONCES


def test_one_token_cancels_several_searches(kernel):
    token = CancelToken()
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(mine(HEADER, NO_HASH, kernel=kernel, cancel=token))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    token.cancel()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [result.cancelled for result in results] == [True, True, True]


def test_ctrl_c_ends_a_search(kernel):
    program = (
        # A shell that starts us in the background has us ignore it, and children inherit that.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from fog_node import pow\n"
        "print('searching', flush=True)\n"
        f"pow.mine(bytes(76), 0, kernel={kernel!r}, threads=2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "searching\n"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0


@pytest.mark.parametrize("missing", ["", "NEON", "PORTABLE", "portable\0", "auto"])
def test_a_missing_kernel_is_refused_and_the_others_named(missing):
    with pytest.raises(KernelError, match="portable, python") as refusal:
        mine(HEADER, EVERY_HASH, kernel=missing)
    assert refusal.value.kernel == missing
    assert refusal.value.available == tuple(proof_of_work.kernels())


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("header", {"header": HEADER[:75]}),
        ("header", {"header": HEADER + b"x"}),
        ("header", {"header": bytes(81)}),
        ("header", {"header": b""}),
        ("target", {"target": -1}),
        ("target", {"target": 1 << 256}),
        ("start", {"start": -1}),
        ("start", {"start": NONCES}),
        ("count", {"count": -1}),
        ("count", {"count": NONCES + 1}),
        ("count", {"start": 1, "count": NONCES}),
        ("threads", {"threads": 0}),
        ("threads", {"threads": proof_of_work.MAX_THREADS + 1}),
    ],
)
def test_bad_work_is_refused_by_the_name_of_the_field(kernel, field, arguments):
    work = {"header": HEADER, "target": EVERY_HASH, "kernel": kernel, **arguments}
    with pytest.raises(WorkError, match=f"^{field}: ") as refusal:
        mine(work.pop("header"), work.pop("target"), **work)
    assert refusal.value.field == field


@pytest.mark.parametrize("size", [0, 76, 79, 81])
def test_double_sha256_takes_whole_headers_only(size):
    with pytest.raises(WorkError, match=r"^header: "):
        proof_of_work.double_sha256(bytes(size))
