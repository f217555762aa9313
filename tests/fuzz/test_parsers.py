"""Each harness for a moment: valid messages changed by chance, and what hypothesis thinks of."""

from __future__ import annotations

import random
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from harnesses import BY_NAME, HARNESSES, Harness
from mutations import mutate

from cloud.tables import MAX_CSV_BYTES

ROUNDS = 400
SLOW = {"http": 60, "admission": 150, "config": 150, "csv": 200, "csv-labels": 200}
# What a parser may hold for a message: some objects for each byte, and its own tables.
MEMORY_PER_BYTE = 400
MEMORY_AT_LEAST = 2 * 1024 * 1024
# Room for the largest file is made before it is read.
MEMORY_OF_FILES = {"csv": MAX_CSV_BYTES, "csv-labels": MAX_CSV_BYTES}


@pytest.fixture(params=HARNESSES, ids=lambda harness: harness.name)
def harness(request) -> Harness:
    return request.param


def test_seeds_are_taken_and_verify(harness) -> None:
    for seed in harness.corpus:
        assert harness.check(seed)
        if harness.verify is not None:
            harness.verify(harness.parse(seed))


def test_what_chance_makes_of_valid_messages_is_refused_or_understood(harness) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(SLOW.get(harness.name, ROUNDS)):
        harness.check(mutate(chance.choice(harness.corpus), harness.corpus, chance))


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - set(SLOW)))
@settings(
    max_examples=60, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_what_hypothesis_makes_is_refused_or_understood(name, data) -> None:
    harness = BY_NAME[name]
    if data.draw(st.booleans()):
        harness.check(data.draw(st.binary(max_size=400)))
        return
    chance = data.draw(st.randoms(use_true_random=False))
    message = data.draw(st.sampled_from(harness.corpus))
    harness.check(mutate(message, harness.corpus, chance))


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"http", "admission"}))
def test_no_message_makes_a_parser_hold_much_more_than_its_size(name) -> None:
    harness = BY_NAME[name]
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(30):
        data = mutate(chance.choice(harness.corpus), harness.corpus, chance)
        tracemalloc.start()
        try:
            harness.check(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        allowed = MEMORY_AT_LEAST + MEMORY_PER_BYTE * len(data) + MEMORY_OF_FILES.get(name, 0)
        assert peak < allowed, data.hex()
