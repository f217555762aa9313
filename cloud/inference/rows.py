"""What a model said of the things in a table, read from the CSV file that `predict` wrote.

So what is sealed is to the digit what the file says.
"""

from __future__ import annotations

import math
from pathlib import Path

from cloud.errors import RecordingError
from cloud.tables import read_table
from fog_node.protocol.labels import MAX_VALUE_CHARS, NORMAL
from fog_node.protocol.predictions import MAX_NAME_CHARS, Thing

from .journal import Said
from .shares import Shares

# Of one file; the chain has better uses than tables.
MAX_THINGS = 10_000


def read_said(path: Path, shares: Shares) -> list[Said]:
    """Read it; raises RecordingError, which names line and column."""
    wanted = (shares.subject, shares.score, *((shares.said,) if shares.said else ()))
    table = read_table(path, wanted)
    names, scores = table.texts(shares.subject), table.numbers(shares.score)
    classes: list[str | None] = [None] * len(table)
    if shares.said is not None:
        at = table.header.index(shares.said)
        classes = [cells[at] or NORMAL for cells in table.rows]
    found: dict[str, Said] = {}
    numbers: dict[str, list[float]] = {}
    for line, name, score, said in zip(table.lines, names, scores, classes, strict=True):
        if len(name) > MAX_NAME_CHARS:
            wanted_name = f"a name of at most {MAX_NAME_CHARS} characters"
            raise table.bad_cell(line, shares.subject, name, wanted_name)
        if shares.said and said is not None and len(said) > MAX_VALUE_CHARS:
            wanted_class = f"a class of at most {MAX_VALUE_CHARS} characters"
            raise table.bad_cell(line, shares.said, said, wanted_class)
        if name in found and not shares.adds:
            raise table.bad_cell(line, shares.subject, name, "a name that no other row has")
        numbers.setdefault(name, []).append(float(score))
        found[name] = Said(Thing(name), said, math.fsum(numbers[name]))
        if len(found) > MAX_THINGS:
            raise RecordingError(
                f"{path}: tells of over {MAX_THINGS} things", "seal what others need to know"
            )
    return list(found.values())
