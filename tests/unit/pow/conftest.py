"""What the tests of the proof of work share."""

from __future__ import annotations

import os
import random

import pytest

from fog_node import pow as proof_of_work

SEED_VARIABLE = "FOGLINE_SEED"


@pytest.fixture(params=proof_of_work.kernels())
def kernel(request: pytest.FixtureRequest) -> str:
    """Each kernel of this machine, the Python twin among them."""
    return request.param


@pytest.fixture
def rng() -> random.Random:
    """A generator whose seed a failing test shows; FOGLINE_SEED=<seed> replays it."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().getrandbits(32))
    print(f"{SEED_VARIABLE}={seed}")
    return random.Random(seed)
