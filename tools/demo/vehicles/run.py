"""The car maker's weeks: cars are built, drive and upload, and headquarters learns from it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from fog_node.api.models import Status
from fog_node.client import Client
from fog_node.protocol.transactions import Enrol, ReinstateDevice, sign_transaction
from tools.demo.fleet import Fleet
from tools.demo.play import SETTLE_TIMEOUT_S, Play, work_directory
from tools.demo.processes import free_port
from tools.demo.summary import committed
from tools.demo.view import View, bar
from tools.submit import submit, wait_final

from . import falsify, headquarters, infrastructure, logs, page, promises
from .cast import CAST, CITY, GOVERNMENT, HEADQUARTERS, PLANTS, ROADS
from .findings import Findings, score
from .garage import Garage, LoggingBoard
from .gate import Gate
from .office import Office, to_json
from .plan import Plan, make_plan

WEEK_TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        directory: working folder, which is kept; None for a temporary one, which is not.
        cars: of the fleet.
        weeks: how many are lived through.
        replay: folder of carOBD recordings; None: simulated cars.
        sites: how many boards stand at the roads.
        seed: of the fleet, its faults and the learning.
    """

    directory: Path | None
    cars: int
    weeks: int
    replay: Path | None
    seed: int
    sites: int = len(infrastructure.SITES)


async def run(options: Options, console: Console) -> dict[str, Any]:
    """Run it and return the summary; `summary["failures"]` is empty if all held.

    Raises:
        ToolError: something could not be started or did not come about.
    """
    plan = make_plan(options.cars, options.weeks, options.seed)
    clips = logs.SIMULATED if options.replay is None else logs.read_clips(options.replay)
    with work_directory(options.directory) as directory, View(console) as view:
        return await Vehicles(options, plan, clips, directory, view).run()


class Vehicles(Play):
    """One run, step by step."""

    def __init__(
        self, options: Options, plan: Plan, clips: logs.Clips, directory: Path, view: View
    ) -> None:
        super().__init__(
            directory, view, Fleet(directory, None, "mqtt", options.cars + options.sites, CAST)
        )
        self._options = options
        self._plan = plan
        self._clips = clips
        self._logs = logs.Logs(plan, clips)
        self._sites = infrastructure.sites(options.sites)
        broker = self._fleet.broker
        assert broker is not None
        self._gate = Gate(free_port(), "127.0.0.1", broker.port)
        self._office = Office(self._fleet)
        self._week = 0
        self._letters: dict[str, Any] = {}
        self._pictures: list[dict[str, Any]] = []
        self._falsified: list[falsify.Falsified] = []
        self._quarantine: dict[str, Any] = {}

    @property
    def _boards(self) -> list[LoggingBoard]:
        return [board for board in self._fleet.boards if isinstance(board, LoggingBoard)]

    @property
    def _cars(self) -> list[LoggingBoard]:
        return self._boards[: len(self._plan.cars)]

    @property
    def _at_roads(self) -> list[LoggingBoard]:
        return self._boards[len(self._plan.cars) :]

    async def run(self) -> dict[str, Any]:
        """All steps; the processes are ended whatever happens."""
        self._view.step(f"readings: {self._clips.source}")
        try:
            async with self._running() as client:
                return await self._steps(client)
        finally:
            await self._gate.shut()

    async def _steps(self, client: Client) -> dict[str, Any]:
        view, plan = self._view, self._plan
        view.step(f"{len(plan.cars)} cars and {len(self._sites)} boards at the roads make keys")
        await Garage(self._fleet, self._gate.port).build(plan.cars, self._sites)
        await self._enrol(client)
        view.step("headquarters asks the plants which lots are in which car")
        await self._ask_for_build_sheets()
        for week in range(1, plan.weeks + 1):
            await self._live_a_week(week)
            if week == plan.weeks - 1:
                await self._falsify()
        view.step("headquarters collects what was sealed, and learns from it")
        sheets = self._letters["build_sheets"]
        known = await headquarters.collect(
            self._office, sheets, self._fleet.apis[self._steady], self._fleet.founding,
            self._directory / "dataset",
        )  # fmt: skip
        findings = await headquarters.in_thread(known, plan.weeks, self._options.seed)
        self._compare_pictures(known)
        view.step("headquarters seals its findings, orders parts, and asks a plant to change")
        self._letters |= await headquarters.tell(self._office, known, findings)
        view.step("heads and states of all nodes are compared; a record is proven")
        statuses = await self._settle()
        proof = await self._prove_worst(findings)
        summary = self._summary(statuses, known, findings, proof)
        self._write(summary, findings)
        return summary

    # The fleet ------------------------------------------------------------------------

    async def _enrol(self, client: Client) -> None:
        """Headquarters enrols the cars, each of its plant's type; and for the roads their boards.

        All are sent before the first is final: each takes the member's next number.
        """
        key = self._fleet.consortium.signing_key(HEADQUARTERS)
        number = (await client.signer(key.kid)).next
        for at, board in enumerate(self._boards):
            assert board.key is not None
            is_car = board in self._cars
            body = Enrol(
                key=board.key,
                owner=board.plant if is_car else CITY,
                type=board.type,
                board=board.target,
                channels=board.channels,
                time=_now_ms(),
            )
            latest = sign_transaction(key, body, self._fleet.founding.chain_id, number + at)
            await client.submit(latest.raw)
        await wait_final(client, latest)

    async def _live_a_week(self, week: int) -> None:
        """Cars drive and sign with no way out; then the way is open until all is final."""
        view, cars = self._view, self._cars
        self._week = week
        view.step(f"week {week}: cars drive, and keep what they sign")
        for car, board in zip(self._plan.cars, cars, strict=True):
            board.append(self._logs.week(car, week))
        for site, board in zip(self._sites, self._at_roads, strict=True):
            board.append(infrastructure.site_week(site, week, self._options.seed))
        for board in self._boards:
            await board.start()
        await self._wait(
            f"every car has signed what it measured in week {week}",
            lambda: all(car.rows == week * logs.ROWS_A_WEEK for car in cars),
            WEEK_TIMEOUT_S,
        )
        kept = sum(len(car.signed) - sum(n < car.receipted for n in car.signed) for car in cars)
        view.step(f"week {week} ends: cars upload the {kept} records that they have kept")
        await self._gate.open()
        held = self._quarantined_cars()
        pictures = asyncio.create_task(self._take_pictures(week))
        try:
            await self._wait(
                f"all boards but {len(held)} in quarantine have receipts for week {week}",
                lambda: all(b.done is not None for b in self._boards if b not in held),
                WEEK_TIMEOUT_S,
            )
            if held:
                await self._reinstate(held[0])
            await pictures
        finally:
            pictures.cancel()
        await self._gate.shut()

    def _quarantined_cars(self) -> list[LoggingBoard]:
        clones = set(self._watch.clones)
        return [car for car in self._cars if car.kid in clones]

    async def _reinstate(self, car: LoggingBoard) -> None:
        """The signalled car keeps its week until headquarters knows that the copy is gone."""
        await self._wait(
            f"{car.name} is told of its quarantine",
            lambda: car.status == "quarantined",
            WEEK_TIMEOUT_S,
        )
        kept = len([number for number in car.signed if number >= car.receipted])
        self._view.step(f"{car.name} was told of its quarantine, and keeps {kept} records")
        self._quarantine |= {"car": car.name, "signalled": True, "records_kept": kept}
        async with self._office.client() as client:
            body = ReinstateDevice(car.kid, "the copy of its flash was found", _now_ms())
            key = self._fleet.consortium.signing_key(HEADQUARTERS)
            await submit(client, key, body, self._fleet.founding)
        await self._wait(
            f"{car.name} is active again, and has receipts for all it kept",
            lambda: car.status == "active" and car.done is not None,
            WEEK_TIMEOUT_S,
        )
        self._quarantine["reinstated"] = True

    async def _ask_for_build_sheets(self) -> None:
        asked = {
            plant: await self._office.ask(HEADQUARTERS, plant, "build-sheet", b"all cars, all lots")
            for plant in PLANTS
        }
        kids = {board.name: board.kid.hex() for board in self._cars}

        def sheet(plant: str) -> bytes:
            cars = {
                car.name: {"kid": kids[car.name], "lots": dict(car.lots)}
                for car in self._plan.cars
                if car.plant == plant
            }
            return to_json({"plant": plant, "cars": cars})

        answers = await asyncio.gather(
            *(self._office.answer(plant, asked[plant], "done", sheet(plant)) for plant in PLANTS)
        )
        self._letters["build_sheets"] = dict(zip(PLANTS, answers, strict=True))

    # The roads -------------------------------------------------------------------------

    async def _take_pictures(self, week: int) -> None:
        """The city asks for the week's pictures; they lie beside the chain, by their hash."""
        cameras = [site for site in self._sites if site.type == infrastructure.CAMERA]
        asked = await self._office.ask(CITY, ROADS, "camera-pictures", f"week {week}".encode())
        for site in cameras:
            moment, row = infrastructure.site_week(site, week, self._options.seed)[0]
            shown = int(row["vehicles"])
            title = f"{site.name} {moment.isoformat()}"
            image = infrastructure.picture(site, week, shown, self._options.seed)
            data = infrastructure.encode_png(image, title)
            altered = bytearray(data)
            altered[len(altered) // 2] ^= 1
            response, refused = await self._office.answer_beside(ROADS, asked, data, bytes(altered))
            got = await self._office.content(CITY, response)
            picture, said = infrastructure.decode_png(got)
            self._pictures.append(
                {
                    "camera": site.name,
                    "week": week,
                    "response": response,
                    "sha256": hashlib.sha256(got).hexdigest(),
                    "bytes": len(got),
                    "as_sent": got == data and said == title,
                    "time": moment.timestamp(),
                    "vehicles": infrastructure.count_vehicles(picture),
                    "other_refused": refused,
                }
            )
            self._directory.joinpath("pictures").mkdir(exist_ok=True)
            name = f"{site.name}-week-{week}.png"
            self._directory.joinpath("pictures", name).write_bytes(got)

    def _compare_pictures(self, known: headquarters.Known) -> None:
        """Hold each picture against what its camera's board has sealed."""
        kids = {board.name: board.kid for board in self._at_roads}
        for one in self._pictures:
            moment = datetime.fromtimestamp(one.pop("time"), UTC)
            kid = kids[one["camera"]]
            one["sealed"] = headquarters.counted(known.dataset, infrastructure.CAMERA, kid, moment)

    # Falsified records -----------------------------------------------------------------

    async def _falsify(self) -> None:
        """What the watermark covers is refused as replayed: it needs a week that was dropped."""
        cars = self._cars
        kids = [car.kid for car in cars]
        first = {car.name: self._watch.packs[car.kid][0] for car in cars}
        chain_id = self._fleet.founding.chain_id
        a, b, c = (cars[index] for index in self._victims())
        number = self._fleet.founding.parameters.enterprise_number
        unknown, foreign = falsify.stranger(first[a.name], chain_id, number)
        assert unknown not in kids
        made = falsify.Falsified
        self._falsified = [
            made("odometer changed after signing", a.name, a.kid, "tampered",
                 falsify.changed(first[a.name], "odometer", -3000.0)),
            made("coolant temperature changed after signing", b.name, b.kid, "tampered",
                 falsify.changed(first[b.name], "coolant", -20.0)),
            made(f"a week of {b.name} in the name of another car", a.name, a.kid, "replayed",
                 first[b.name].message.raw),
            made("an earlier week sent again", b.name, b.kid, "replayed",
                 first[b.name].message.raw),
            made("a car that no plant has built", "unknown", unknown, "unknown_device", foreign),
            made("a copy of the car's key signs another odometer", c.name, c.kid, "conflict",
                 falsify.cloned(first[c.name], c.directory, chain_id, "odometer", -3000.0)),
        ]  # fmt: skip
        self._view.step(f"{len(self._falsified)} falsified records arrive")
        for one in self._falsified:
            owner = next((car for car in cars if car.kid == one.claimed), a)
            await self._fleet.attack(owner.plant, one.claimed, one.message)
        await self._wait(
            "every falsified record is on the chain as an incident",
            lambda: all(map(self._is_refused, self._falsified)),
            SETTLE_TIMEOUT_S,
        )
        await self._wait(
            f"{c.name} is quarantined", lambda: c.kid in self._watch.clones, SETTLE_TIMEOUT_S
        )

    def _victims(self) -> Sequence[int]:
        """Three cars of three plants."""
        return [
            next(at for at, car in enumerate(self._plan.cars) if car.plant == plant)
            for plant in PLANTS
        ]

    def _is_refused(self, one: falsify.Falsified) -> bool:
        return any(
            incident.digest == one.digest and incident.cause == one.cause
            for incident in self._watch.reports
        )

    # Summary ---------------------------------------------------------------------------

    def _figures(self) -> Mapping[str, str]:
        boards, watch = self._boards, self._watch
        rows = self._plan.weeks * len(self._plan.cars) * logs.ROWS_A_WEEK
        read = sum(car.rows for car in self._cars)
        return {
            "nodes and heads": self._shown_heads(),
            "blocks": str(watch.height),
            "week": f"{self._week} of {self._plan.weeks}",
            "records signed": str(sum(board.packs for board in boards)),
            "records sealed": str(sum(len(packs) for packs in watch.packs.values())),
            "refused": str(sum(watch.incidents.values())),
            "progress": f"{bar(read, rows)} {read} of {rows} rows",
        }

    async def _prove_worst(self, findings: Findings) -> dict[str, Any]:
        """Prove the latest record of the car that is worst off."""
        name = findings.failing[0].car if findings.failing else self._plan.cars[0].name
        car = next(car for car in self._cars if car.name == name)
        return {"car": name, **await self._prove(self._watch.packs[car.kid][-1])}

    def _summary(
        self,
        statuses: Sequence[Status],
        known: headquarters.Known,
        findings: Findings,
        proof: dict[str, Any],
    ) -> dict[str, Any]:
        watch, plan = self._watch, self._plan
        found = {(one.car, one.component) for one in findings.failing}
        scores = {
            "network": score(found, plan.failures),
            "limits": score(findings.by_limits, plan.failures),
        }
        summary: dict[str, Any] = {
            "scenario": "vehicles",
            "source": self._clips.source,
            "seed": plan.seed,
            "cars": len(self._cars),
            "weeks": plan.weeks,
            "validators": len(self._fleet.founding.validators),
            "quorum": self._fleet.founding.quorum,
            **committed(self._boards, watch),
            "rows_signed": sum(car.rows for car in self._cars),
            "rows_collected": known.rows,
            "blocks": watch.height,
            "data_height": known.dataset.height,
            "data_sets": dict(known.data_sets),
            "heads_equal": len({status.head for status in statuses}) == 1,
            "state_roots_equal": len({status.state_root for status in statuses}) == 1,
            "falsified": [
                {
                    "what": one.what,
                    "car": one.car,
                    "cause": one.cause,
                    "refused": self._is_refused(one),
                }
                for one in self._falsified
            ],
            "quarantine": self._quarantine,
            "infrastructure": self._roads_summary(),
            "findings": findings.to_json(),
            "judged": {
                "scores": scores,
                "bad_lot": plan.bad_lot,
                "bad_lot_found": plan.bad_lot in {lot.name for lot in findings.bad_lots},
                "odometers_right": {one.car for one in findings.odometers} == plan.turned_back,
                "verdict": verdict(scores, findings),
            },
            "letters": self._letters,
            "proof": proof,
            "problems": [problem for board in self._boards for problem in board.problems],
            "seconds": round(time.monotonic() - self._began, 1),
        }
        summary["failures"] = promises.broken(summary)
        return summary

    def _write(self, summary: dict[str, Any], findings: Findings) -> None:
        """Write report.html and report.json into the working folder."""
        latest = f"-week-{self._plan.weeks}.png"
        pictures = {
            path.name.removesuffix(latest): path.read_bytes()
            for path in sorted((self._directory / "pictures").glob(f"*{latest}"))
        }
        path = self._directory / "report.html"
        path.write_text(page.render(findings, summary, pictures), encoding="utf-8")
        (self._directory / "report.json").write_bytes(to_json(summary))
        if self._options.directory is None:
            self._view.step("the report is gone with the working folder: give --keep DIR")
        else:
            self._view.step(f"the report is {path}")

    def _roads_summary(self) -> dict[str, Any]:
        """How the government's validators have sealed what the roads say."""
        members = {member.name: member.key.kid for member in self._fleet.founding.members}
        government = {members[name] for name in GOVERNMENT}
        packs = [pack for board in self._at_roads for pack in self._watch.packs.get(board.kid, [])]
        heights = [self._watch.heights[pack.signer, pack.sequence] for pack in packs]
        return {
            "records": len(packs),
            "expected": len(self._sites) * self._plan.weeks,
            "gateways": list(GOVERNMENT),
            "certificates_with_a_government_vote": sum(
                bool(self._watch.voters[height] & government) for height in heights
            ),
            "pictures": self._pictures,
        }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def verdict(scores: Mapping[str, Mapping[str, float]], findings: Findings) -> str:
    """Say plainly which of the two found more, and how much earlier."""
    network, limits = scores["network"], scores["limits"]
    earlier = [one.limit_week - one.since for one in findings.failing if one.limit_week is not None]
    mean = sum(earlier) / len(earlier) if earlier else 0.0
    if network["recall"] == limits["recall"] and network["precision"] == limits["precision"]:
        said = "The network finds no more than the limits of a workshop do"
    elif network["right"] >= limits["right"] and network["precision"] >= limits["precision"]:
        said = "The network finds more than the limits of a workshop do"
    elif network["right"] <= limits["right"] and network["precision"] <= limits["precision"]:
        said = "The limits of a workshop find more than the network does: use them"
    else:
        said = "The network finds more, and is wrong more often, than the limits of a workshop"
        if network["right"] < limits["right"]:
            said = "The network finds less, and is wrong less often, than the limits of a workshop"
    return f"{said}; what both find, it finds {mean:.1f} weeks earlier."
