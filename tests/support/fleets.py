"""Machines of C-MAPSS's format, made up: two sensors show wear, others stand still or are noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_fleet(path: Path, machines: int, seed: int, conditions: int = 1) -> Path:
    """Write machines that ran until they failed, after 50 to 90 cycles."""
    random = np.random.default_rng(seed)
    settings = ((0.0, 0.0, 100.0), (25.0, 0.62, 60.0))
    with path.open("w") as file:
        for machine in range(1, machines + 1):
            life = int(random.integers(50, 90))
            for cycle in range(1, life + 1):
                condition = int(random.integers(conditions))
                wear = np.exp(-(life - cycle) / 15)
                sensors = [float(number) for number in range(1, 22)]
                sensors[1] = 600 - 50 * condition + 4 * wear + random.normal(0, 0.3)
                sensors[6] = 550 - 300 * condition - 2 * wear + random.normal(0, 0.2)
                sensors[8] = random.normal(9000, 10)
                row = [machine, cycle, *settings[condition], *sensors]
                file.write(" ".join(f"{value:g}" for value in row) + "\n")
    return path
