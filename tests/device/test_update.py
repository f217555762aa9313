"""Releases on a board that is a real process with real files, and is killed again and again."""

import asyncio
import os
import random
from pathlib import Path

import pytest
from support import model_vectors

FIRMWARE = Path(__file__).parents[2] / "firmware"
VECTORS = Path(__file__).parents[1] / "vectors" / "releases.json"
PROBE = Path(__file__).with_name("update_probe.py")
RELEASES = ("v1=1", "v2=2")
LAST = 2
KILLS = 30
DEADLINE_S = 60
# Lines that one undisturbed run prints, about; a kill comes after at most so many.
LINES = 55


@pytest.fixture
def seed():
    value = random.SystemRandom().getrandbits(32)
    print("seed", value)
    return value


async def run(micropython, directory, kill_after):
    """Run the probe, SIGKILL after so many lines; returns the lines and whether it ended itself."""
    process = await asyncio.create_subprocess_exec(
        micropython, str(PROBE), str(directory), str(VECTORS), *RELEASES,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "MICROPYPATH": f"{FIRMWARE}:.frozen"},
    )  # fmt: skip
    lines = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(lines) != kill_after and (line := await process.stdout.readline()):
                lines.append(line.decode().split())
            if len(lines) != kill_after:
                await process.wait()
    finally:
        ended = process.returncode is not None
        if not ended:
            process.kill()
            await process.wait()
    assert not ended or process.returncode == 0, lines
    return lines, ended


async def test_killed_at_any_moment(micropython, tmp_path, seed):
    source = random.Random(seed)
    board = tmp_path / "0"
    confirmed = 0
    for number in range(KILLS):
        lines, ended = await run(micropython, board, source.randrange(1, LINES))
        for word, version, *reason in lines:
            # A trial may end because of the restarts; nothing else may go wrong.
            assert word != "rejected", lines
            assert word != "rolled_back" or "started" in reason, lines
            if word == "started":
                assert int(version) >= confirmed, lines
            if word == "confirmed":
                confirmed = max(confirmed, int(version))
        if confirmed == LAST:
            lines, ended = await run(micropython, board, kill_after=-1)
            assert ended
            assert ["started", str(LAST)] in lines
        if ended:
            board = tmp_path / str(number + 1)
            confirmed = 0


def test_vectors_are_current():
    for name, content in model_vectors.files().items():
        assert (model_vectors.FOLDER / name).read_text("utf-8") == content, (
            f"PYTHONPATH=tests:. python -m support.model_vectors ({name})"
        )
