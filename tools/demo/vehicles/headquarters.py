"""What headquarters does with sealed readings: learns, seals what it found, orders, asks to change.

It knows what is on the chain, and the plants' build sheets that came with their answers; of the
plan with its faults it knows nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cloud.dataset import Dataset
from cloud.readings import Readings
from cloud.selection import Query, select
from fog_node.protocol.founding import Founding
from tools.nodes import Nodes
from tools.training import update

from . import finder, logs
from .cast import HEADQUARTERS, PLANTS, SUPPLIER, device_type
from .features import windows
from .findings import Findings, change, find
from .office import Office, to_json
from .plan import Car


@dataclass(frozen=True)
class Known:
    """What headquarters has collected.

    Attributes:
        cars: as the build sheets have them.
        readings: sealed, by car.
        data_sets: by device type: how many records up to which height, and the Merkle root over
            their ids. Whoever asks the chain the same comes to the same root.
    """

    dataset: Dataset = field(repr=False)
    cars: tuple[Car, ...]
    readings: Mapping[str, Readings] = field(repr=False)
    data_sets: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Rows of all cars."""
        return sum(map(len, self.readings.values()))


async def collect(
    office: Office, sheets: Mapping[str, str], api: str, founding: Founding, directory: Path
) -> Known:
    """Collect what was sealed; `sheets` are the answers with the build sheets, by plant."""
    cars: list[Car] = []
    names: dict[bytes, str] = {}
    for plant, answer in sheets.items():
        sheet = json.loads(await office.content(HEADQUARTERS, answer))
        for name, car in sorted(sheet["cars"].items()):
            cars.append(Car(name, plant, car["lots"], 0.0))
            names[bytes.fromhex(car["kid"])] = name
    dataset = await update(Nodes((api,)), founding, directory)
    readings: dict[str, Readings] = {}
    data_sets: dict[str, Any] = {}
    for plant in PLANTS:
        type_ = device_type(plant)
        selection = select(dataset, Query(type_, with_labels=False))
        assert selection.reference is not None  # what was sealed has one
        readings |= {names[kid]: found for kid, found in selection.readings.items()}
        data_sets[type_] = {
            "count": selection.reference.count,
            "root": selection.reference.root.hex(),
            "height": selection.query.height,
        }
    return Known(dataset, tuple(cars), readings, data_sets)


def learn(known: Known, weeks: int, seed: int) -> Findings:
    """Train on the sealed first week, judge the rest. Takes seconds."""
    start_s = logs.START.timestamp()
    fleet = {name: windows(readings, start_s) for name, readings in known.readings.items()}
    judged = finder.judge(fleet, weeks, seed)
    return find(known.cars, judged, known.readings, weeks, start_s)


async def tell(office: Office, known: Known, findings: Findings) -> dict[str, Any]:
    """Seal the findings, order the parts, and ask plants to change; gives what came of each."""
    document = {"findings": findings.to_json(), "data_sets": known.data_sets}
    data = to_json(document)
    sealed = await office.ask(HEADQUARTERS, None, "fleet-findings", data)
    digest = hashlib.sha256(data).hexdigest()
    got = await office.content(HEADQUARTERS, sealed)
    letters: dict[str, Any] = {
        "findings": {
            "request": sealed,
            "sha256": digest,
            "bytes": len(data),
            "as_sent": got == data,
        }
    }
    lines = {line.component: line.pieces for line in findings.order if line.pieces}
    if lines:
        letters["order"] = await _order(office, lines, digest)
    # One after the other: each takes the next number of headquarters.
    letters["changes"] = [
        await _change(office, change(lot, findings), digest) for lot in findings.bad_lots
    ]
    return letters


async def _order(office: Office, lines: Mapping[str, int], digest: str) -> dict[str, Any]:
    order = to_json({"order": lines, "because_of": digest})
    request = await office.ask(HEADQUARTERS, SUPPLIER, "spare-parts", order)
    # The supplier, who knows the request alone.
    asked = json.loads(await office.content(SUPPLIER, request))
    confirmed = to_json({"confirmed": asked["order"], "ready_in_weeks": 2})
    response = await office.answer(SUPPLIER, request, "accepted", confirmed)
    answer = json.loads(await office.content(HEADQUARTERS, response))
    return {
        "request": request,
        "response": response,
        "answer": await office.outcome(HEADQUARTERS, response),
        "pieces": sum(lines.values()),
        "confirmed": answer["confirmed"] == lines,
    }


async def _change(office: Office, notice: dict[str, Any], digest: str) -> dict[str, Any]:
    plant = notice["plant"]
    data = to_json(notice | {"because_of": digest})
    request = await office.ask(HEADQUARTERS, plant, "change-notice", data)
    asked = json.loads(await office.content(plant, request))
    stopped = to_json({"stopped": asked["lot"], "called_back": asked["call_back"]})
    response = await office.answer(plant, request, "accepted", stopped)
    return {
        "plant": plant,
        "lot": notice["lot"],
        "request": request,
        "response": response,
        "answer": await office.outcome(HEADQUARTERS, response),
    }


def counted(dataset: Dataset, device_type_: str, kid: bytes, moment: datetime) -> int | None:
    """What a camera's board has sealed as counted at a moment; None: nothing."""
    readings = dataset.readings(device_type_, kid)[kid]
    column = readings.values[:, readings.channels.index("vehicles")]
    at = [row for row, time in enumerate(readings.times) if time == moment.timestamp()]
    return int(column[at[0]]) if at else None


async def in_thread(known: Known, weeks: int, seed: int) -> Findings:
    """`learn`, beside the event loop."""
    return await asyncio.to_thread(learn, known, weeks, seed)
