"""Data sets at hand: what they are, what a query finds in them, and its rows as a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from cloud.selection import Query, Selection
from cloud.sources import Source, open_source
from cloud.times import iso
from fog_node.protocol.keys import kid_hex
from tools.errors import UsageError
from tools.outputs import written_whole

SUFFIXES = (".csv", ".parquet")


async def ask(path: Path, query: Query, out: Path | None) -> dict[str, Any]:
    """Put a query, and write the rows that it finds.

    Args:
        path: of a data set, sealed or imported.
        query: the question.
        out: file for the rows, CSV or Parquet by its ending; None: none is written.

    Raises:
        CloudError: nothing is found, or the data set cannot be read.
        ToolError, UsageError: the file cannot be written, or is of another kind.
    """
    if out is not None and out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out}: give a name that ends with {' or '.join(SUFFIXES)}")
    source = open_source(path)
    selection = await asyncio.to_thread(source.select, query)
    if out is not None:
        await asyncio.to_thread(_write, selection, out)
    return found(source, selection)


def found(source: Source, selection: Selection) -> dict[str, Any]:
    """What a query has found, for people and JSON."""
    report: dict[str, Any] = {"sealed": source.sealed}
    reference = selection.reference
    if reference is not None:
        assert reference.query is not None
        labels = reference.query.labels
        report |= {
            "root": reference.root.hex(),
            "transactions": reference.count,
            "blocks": f"{reference.first} to {reference.last}",
            "as_of_block": reference.query.height,
            "label_transactions": labels.count if labels else 0,
            "labels_root": labels.root.hex() if labels else None,
        }
    return report | {
        "boards": [
            {
                "board": kid_hex(kid),
                "rows": len(rows),
                "from": iso(float(rows.times.min()) * 1000),
                "to": iso(float(rows.times.max()) * 1000),
                "corrected": 0 if rows.corrected is None else int(rows.corrected.sum()),
                "not_normal": 0 if rows.excluded is None else int(rows.excluded.sum()),
            }
            for kid, rows in selection.readings.items()
        ]
    }


def _write(selection: Selection, out: Path) -> None:
    table = pa.concat_tables(
        [_rows(selection, kid) for kid in selection.readings], promote_options="default"
    )
    with written_whole(out) as part:
        if out.suffix.lower() == ".csv":
            pyarrow.csv.write_csv(table, part)
        else:
            pyarrow.parquet.write_table(table, part, compression="zstd")


def _rows(selection: Selection, kid: bytes) -> Any:
    rows = selection.readings[kid]
    count = len(rows)
    said = selection.labels.of_rows(kid, rows)
    columns: dict[str, Any] = {
        "device": [kid_hex(kid)] * count,
        "time": rows.times,
        "sequence": rows.sequence,
        "corrected": np.zeros(count, np.bool_) if rows.corrected is None else rows.corrected,
        "not_normal": [None] * count if rows.excluded is None else rows.excluded,
        "labels": said.words(),
    }
    columns |= {
        name if name not in columns else f"channel:{name}": rows.values[:, at]
        for at, name in enumerate(rows.channels)
    }
    return pa.table(columns)
