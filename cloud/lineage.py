"""What a released model was trained on, put together again from the chain and compared."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fog_node.protocol.dataset_reference import DatasetReference
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.merkle import root

from .dataset import Dataset, SealedRelease
from .errors import DatasetError
from .readings import Readings
from .selection import Query, Selection, select
from .times import iso

_COLUMNS = ("id", "height", "index", "board", "sequence", "rows", "used", "left_out")


@dataclass(frozen=True)
class Lineage:
    """A release, and what the chain gives for its data set.

    Attributes:
        released: the release.
        selection: what its query gives; None where it says that it was trained on nothing sealed,
            or where the query gives nothing.
        differences: what the release says of its data set and the chain does not, field by field.
    """

    released: SealedRelease
    selection: Selection | None = field(repr=False)
    differences: tuple[dict[str, Any], ...]

    @property
    def is_sealed(self) -> bool:
        """Whether the release names sealed transactions, and they are those of the chain."""
        return self.released.release.dataset.count > 0 and not self.differences

    def why(self) -> str:
        """In words, why it is not sealed."""
        release = self.released.release
        which = f"release {release.name} {release.version}"
        if not self.differences:
            return f"{which}: names no sealed transaction that it was trained on"
        told = "; ".join(
            f"{each['field']}: the release says {each['release']}, the chain {each['chain']}"
            for each in self.differences
        )
        return f"{which}: does not fit the chain: {told}"

    def report(self) -> dict[str, Any]:
        """For people and JSON."""
        release = self.released.release
        reference = release.dataset
        report: dict[str, Any] = {
            "name": release.name,
            "version": release.version,
            "device_type": release.device_type,
            "released_by": self.released.member,
            "released_in_block": self.released.height,
            "release": self.released.id.hex(),
            "sealed": self.is_sealed,
            "root": reference.root.hex(),
            "transactions": reference.count,
            "blocks": f"{reference.first} to {reference.last}",
            "query": _query(release.device_type, reference),
            "differences": list(self.differences),
        }
        if self.selection is not None:
            report |= _found(self.selection)
        return report

    def transactions(self) -> str:
        """CSV of the transactions, in the chain's order: each, and how many of its rows count."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(_COLUMNS)
        if self.selection is None:
            return out.getvalue()
        used, left_out = _rows_of_packs(self.selection.readings)
        for pack in self.selection.packs:
            key = (pack.device, pack.sequence)
            writer.writerow(
                (
                    pack.id.hex(),
                    pack.height,
                    pack.place,
                    kid_hex(pack.device),
                    pack.sequence,
                    pack.rows,
                    used[key],
                    left_out[key],
                )
            )
        return out.getvalue()


def find(
    dataset: Dataset, name: str, device_type: str | None = None, version: int | None = None
) -> SealedRelease:
    """Find a model's release on the chain; see `trace`, which says what it was trained on."""
    named = [r for r in dataset.releases() if r.release.name == name and not r.release.is_firmware]
    found = [r for r in named if device_type in (None, r.release.device_type)]
    types = sorted({r.release.device_type for r in found})
    if len(types) > 1:
        raise DatasetError(
            f"release {name!r}: there is one for each of {', '.join(types)}",
            "name the device type",
        )
    found = [r for r in found if version in (None, r.release.version)]
    if not found:
        known = ", ".join(f"{r.release.name} {r.release.version}" for r in dataset.releases())
        which = name if version is None else f"{name} {version}"
        raise DatasetError(
            f"release {which!r}: is not on the chain up to block {dataset.height}",
            f"give one that is ({known or 'none'}), or collect later blocks: fogline data collect",
        )
    return max(found, key=lambda r: r.release.version)


def trace(
    dataset: Dataset, name: str, device_type: str | None = None, version: int | None = None
) -> Lineage:
    """Find a release on the chain, and put its query again.

    Args:
        dataset: collected, so every block of it is checked.
        name: of the release.
        device_type: where several types have one of this name.
        version: None: the latest.

    Raises:
        DatasetError: there is no such release, or the data set does not go as far as its query.
    """
    released = find(dataset, name, device_type, version)
    release = released.release
    reference = release.dataset
    if reference.count == 0:
        empty = DatasetReference(root([]), 0, reference.first, reference.last, reference.query)
        return Lineage(released, None, _differences(reference, empty))
    query = _query_of(release.device_type, reference)
    assert query.height is not None
    if query.height >= released.height:
        said = {"field": "query.height", "release": query.height, "chain": released.height - 1}
        return Lineage(released, None, (said,))
    try:
        selection = select(dataset, query)
    except DatasetError as error:
        nothing = {"field": "query", "release": f"{reference.count} packs", "chain": error.problem}
        return Lineage(released, None, (nothing,))
    assert selection.reference is not None
    return Lineage(released, selection, _differences(reference, selection.reference))


def _query_of(device_type: str, reference: DatasetReference) -> Query:
    query = reference.query
    if query is None:
        return Query(device_type, with_labels=False, height=reference.last)
    return Query(
        device_type,
        query.devices,
        query.since,
        query.until,
        with_labels=query.labels is not None,
        height=query.height,
    )


def _differences(said: DatasetReference, found: DatasetReference) -> tuple[dict[str, Any], ...]:
    """Field by field, what is not the same."""
    pairs: list[tuple[str, Any, Any]] = [
        ("count", said.count, found.count),
        ("first", said.first, found.first),
        ("last", said.last, found.last),
        ("root", said.root.hex(), found.root.hex()),
    ]
    ours, theirs = (r.query.labels if r.query else None for r in (said, found))
    if ours is not None:
        count, labels_root = (theirs.count, theirs.root.hex()) if theirs else (0, root([]).hex())
        pairs += [
            ("labels.count", ours.count, count),
            ("labels.root", ours.root.hex(), labels_root),
        ]
    return tuple(
        {"field": name, "release": one, "chain": other}
        for name, one, other in pairs
        if one != other
    )


def _query(device_type: str, reference: DatasetReference) -> str:
    query = reference.query
    if reference.count == 0:
        return "nothing sealed"
    if query is None:
        return (
            f"all packs of {device_type} in blocks {reference.first} to {reference.last}, "
            "without labels"
        )
    boards = (
        f"all boards of {device_type}"
        if query.devices is None
        else f"{device_type} {', '.join(map(kid_hex, query.devices))}"
    )
    since = "the beginning" if query.since is None else iso(query.since)
    until = "the end" if query.until is None else iso(query.until)
    labels = "no labels"
    if query.labels is not None:
        labels = f"labels of {query.labels.count} transactions"
    return f"{boards}, from {since} to {until}, as of block {query.height}, {labels}"


def _found(selection: Selection) -> dict[str, Any]:
    packs, labels = selection.packs, selection.labels
    boards = []
    for device in sorted({pack.device for pack in packs}):
        own = [pack for pack in packs if pack.device == device]
        rows = selection.readings.get(device)
        boards.append(
            {
                "board": kid_hex(device),
                "packs": len(own),
                "numbers": f"{own[0].sequence} to {own[-1].sequence}",
                **_span(rows),
                "corrected": 0 if rows is None or rows.corrected is None
                else int(rows.corrected.sum()),
                "left_out_by_labels": 0 if rows is None or rows.excluded is None
                else int(rows.excluded.sum()),
                "not_in_question": sum(pack.rows for pack in own)
                - (0 if rows is None else len(rows)),
            }
        )  # fmt: skip
    said = Counter(label.member for label in labels.all)
    return {
        "sealed_from": iso(packs[0].block_time * 1000),
        "sealed_to": iso(packs[-1].block_time * 1000),
        "boards": boards,
        "labels": [{"member": member, "labels": count} for member, count in sorted(said.items())],
        "disputed_rows": sum(
            int(labels.of_rows(device, rows).disputed.sum())
            for device, rows in selection.readings.items()
        ),
    }


def _span(rows: Readings | None) -> dict[str, Any]:
    if rows is None:
        return {"rows": 0, "from": None, "to": None}
    return {
        "rows": len(rows),
        "from": iso(float(rows.times.min()) * 1000),
        "to": iso(float(rows.times.max()) * 1000),
    }


def _rows_of_packs(
    readings: Mapping[bytes, Readings],
) -> tuple[Counter[tuple[bytes, int]], Counter[tuple[bytes, int]]]:
    """How many rows of each pack a training may use, and how many labels leave out."""
    used: Counter[tuple[bytes, int]] = Counter()
    left_out: Counter[tuple[bytes, int]] = Counter()
    for device, rows in readings.items():
        excluded = rows.excluded if rows.excluded is not None else np.zeros(len(rows), np.bool_)
        for counter, of in ((used, ~excluded), (left_out, excluded)):
            numbers, counts = np.unique(rows.sequence[of], return_counts=True)
            for number, count in zip(numbers, counts, strict=True):
                counter[device, int(number)] = int(count)
    return used, left_out
