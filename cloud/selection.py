"""A data set is a question: its answer, with the Merkle root that a release names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fog_node.protocol.dataset_reference import MAX_DEVICES, DatasetQuery, LabelsReference
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.labels import Image
from fog_node.protocol.merkle import root
from fog_node.protocol.transactions import DatasetReference

from .dataset import Dataset, SealedPack
from .errors import DatasetError
from .labels import Labels
from .readings import Readings


@dataclass(frozen=True)
class Query:
    """Which readings are asked for.

    Attributes:
        device_type: as enrolled.
        devices: key ids; None: all boards of the type.
        since, until: ms since 1970, both in it; None: without that bound.
        with_labels: whether what engineers said is looked at.
        height: as it was known after this block; None: after the data set's latest one.
    """

    device_type: str
    devices: tuple[bytes, ...] | None = None
    since: int | None = None
    until: int | None = None
    with_labels: bool = True
    height: int | None = None


@dataclass(frozen=True)
class Selection:
    """What a query gives.

    Attributes:
        query: as it was put; its height is given.
        reference: the transactions, as a release names them; None of what is not sealed.
        packs: these transactions, in chain order.
        readings: rows of each board, by key id; `excluded` are those that somebody says are
            not normal.
        labels: that were looked at.
    """

    query: Query
    reference: DatasetReference | None
    packs: tuple[SealedPack, ...] = field(repr=False)
    readings: Mapping[bytes, Readings] = field(repr=False)
    labels: Labels = field(repr=False)


def select(dataset: Dataset, query: Query) -> Selection:
    """Put a query to a data set.

    Raises:
        DatasetError: no such type or board, nothing is found, or a damaged file.
    """
    height = dataset.height if query.height is None else query.height
    if height > dataset.height:
        raise DatasetError(
            f"the data set ends at block {dataset.height}, the query at {height}",
            "collect later blocks",
        )
    devices = dataset.of_type(query.device_type)
    if query.devices is not None:
        if len(query.devices) > MAX_DEVICES:
            raise DatasetError(
                f"query: names {len(query.devices)} boards, at most {MAX_DEVICES} can be",
                "ask for all of the type",
            )
        devices = dataset.among(devices, query.devices, query.device_type)
    readings = {
        kid: part
        for kid, rows in dataset.readings(query.device_type, height=height).items()
        if kid in devices and len(part := within(rows, query))
    }
    packs = dataset.packs(devices, height)
    if query.since is not None or query.until is not None:
        held = {(kid, int(n)) for kid, r in readings.items() for n in np.unique(r.sequence)}
        packs = [pack for pack in packs if (pack.device, pack.sequence) in held]
    if not packs:
        raise DatasetError(
            f"the data set holds no readings of {_words(query)} up to block {height}",
            "collect later blocks, when its boards have sent some, or ask for more",
        )
    labels = _labels_of(dataset, set(devices), height) if query.with_labels else Labels(())
    given = [label.transaction for label in labels.all]
    said = list(dict.fromkeys(given))
    reference = DatasetReference(
        root=root([pack.id for pack in packs]),
        count=len(packs),
        first=packs[0].height,
        last=packs[-1].height,
        query=DatasetQuery(
            height=height,
            devices=None if query.devices is None else tuple(sorted(query.devices)),
            since=query.since,
            until=query.until,
            labels=LabelsReference(root(said), len(said)) if said else None,
        ),
    )
    labelled = {
        kid: replace(rows, excluded=labels.of_rows(kid, rows).anomalous) if said else rows
        for kid, rows in readings.items()
    }
    return Selection(replace(query, height=height), reference, tuple(packs), labelled, labels)


def _labels_of(dataset: Dataset, devices: set[bytes], height: int) -> Labels:
    return Labels(
        [
            label
            for label in dataset.labels(height).all
            if not isinstance(label.target, Image) and label.target.device in devices
        ]
    )


def within(rows: Readings, query: Query) -> Readings:
    """The rows in a query's span of time."""
    if query.since is None and query.until is None:
        return rows
    times = rows.times_ms
    since = times >= (query.since if query.since is not None else np.iinfo(np.int64).min)
    until = times <= (query.until if query.until is not None else np.iinfo(np.int64).max)
    return rows.rows(since & until)


def _words(query: Query) -> str:
    boards = "" if query.devices is None else f" ({', '.join(map(kid_hex, query.devices))})"
    return f"{query.device_type}{boards}"
