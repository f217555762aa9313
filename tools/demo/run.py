"""The demo itself: founds, streams, trains, releases, judges, attacks, proves, and adds up."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fog_node.api.models import Status
from fog_node.client import Client
from fog_node.protocol.transactions import Enrol
from tools.submit import submit

from . import scenario as scenarios
from .attacks import forge
from .fleet import DEVICE_TYPE, OPERATOR, TRAINER, VALIDATORS, ExternalBroker, Fleet, Transport
from .play import COMMAND_TIMEOUT_S, SETTLE_TIMEOUT_S, Play, work_directory
from .summary import FORGERIES, commit_latency_ms, committed, failures, inference
from .view import View, bar

DEFAULT_DEVICES = 4
MAX_DEVICES = 32
STREAM_TIMEOUT_S = 600.0
TRAIN_TIMEOUT_S = 600.0
# How long a validator and the broker stay dead under --chaos.
OUTAGE_S = 3.0
# Not the node that proofs and API calls go to.
VICTIM = VALIDATORS[0]
TESTBED_SEED = 7
MODEL_NAME = "anomaly"


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        directory: working folder, which is kept; None for a temporary one, which is not.
        devices: how many boards.
        replay: folder of recordings; None for the simulated test bed.
        broker: a broker that runs already; None for an own one.
        chaos: kill a validator and the own broker mid-stream.
        rate_hz: rows per second and board; 0 for as fast as possible.
        seed: of the simulated test bed and of the training.
        transport: how boards reach their gateways.
        target: what the last board is: `unix`, `qemu-arm` or `qemu-rv32`.
    """

    directory: Path | None = None
    devices: int = DEFAULT_DEVICES
    replay: Path | None = None
    broker: ExternalBroker | None = None
    chaos: bool = False
    rate_hz: float = 0.0
    seed: int = TESTBED_SEED
    transport: Transport = "mqtt"
    target: str = "unix"


async def run(options: Options, console: Console) -> dict[str, Any]:
    """Run the demo and return its summary; `summary["failures"]` is empty if all held.

    Raises:
        ToolError: something could not be started or did not come about.
    """
    if options.replay is not None:
        scenario = scenarios.replay(options.replay, options.devices)
    else:
        scenario = scenarios.testbed(
            options.devices, options.seed, is_last_emulated=options.target != "unix"
        )
    with work_directory(options.directory) as directory, View(console) as view:
        return await Demo(options, scenario, directory, view).run()


class Demo(Play):
    """One run, step by step."""

    def __init__(
        self, options: Options, scenario: scenarios.Scenario, directory: Path, view: View
    ) -> None:
        fleet = Fleet(directory, options.broker, options.transport, options.devices)
        super().__init__(directory, view, fleet)
        self._options = options
        self._scenario = scenario
        self._chaos: dict[str, Any] = {}
        self._streaming_s = 0.0

    async def run(self) -> dict[str, Any]:
        """All steps; the processes are ended whatever happens."""
        self._view.step(f"readings: {self._scenario.source}")
        async with self._running() as client:
            return await self._steps(client)

    async def _steps(self, client: Client) -> dict[str, Any]:
        view, fleet = self._view, self._fleet
        view.step(f"{self._options.devices} boards make their keys and are enrolled")
        await asyncio.to_thread(
            fleet.make_boards, self._scenario, self._options.rate_hz, self._options.target
        )
        await self._enrol(client)
        view.step("boards stream normal operation")
        began = time.monotonic()
        for board in fleet.boards:
            await board.start()
        await self._wait(
            "all boards wait for a model and have receipts for all they signed",
            lambda: all(b.waiting and len(b.signed) < b.receipted for b in fleet.boards),
            STREAM_TIMEOUT_S,
        )
        self._streaming_s += time.monotonic() - began
        view.step("the cloud collects what was sealed and trains on it")
        trained = await self._train()
        view.step("the model is released; its rollout is proposed, and approved by a second member")
        began = time.monotonic()
        await self._release()
        view.step(f"{fleet.boards[0].name} installs it; once it has judged, the other boards do")
        await self._wait(
            "the boards judge their readings",
            lambda: all(b.verdict_us or b.done for b in fleet.boards),
            STREAM_TIMEOUT_S,
        )
        await self._attack()
        if self._options.chaos:
            await self._make_chaos()
        await self._wait(
            "all boards are done",
            lambda: all(b.done is not None for b in fleet.boards),
            STREAM_TIMEOUT_S,
        )
        await self._wait(
            "every signed transaction is final",
            lambda: all(
                self._watch.seen.get((b.key.kid, n)) for b in fleet.boards if b.key
                for n in b.signed
            ),
            SETTLE_TIMEOUT_S,
        )  # fmt: skip
        self._streaming_s += time.monotonic() - began
        view.step("boards are done; heads and states of all nodes are compared")
        statuses = await self._settle()
        view.step("a proof is written, checked in another process, and checked with a flipped bit")
        packs = [pack for packs in self._watch.packs.values() for pack in packs]
        proof = await self._prove(secrets.choice(packs))
        view.step("verdicts are compared with LiteRT and with the labels")
        judged = await self._judge()
        view.step("what the model was trained on is put together from the chain, and compared")
        lineage = await self._trace()
        rollout = await self._rolled_out(client)
        return self._summary(statuses, trained, rollout, proof, judged, lineage)

    async def _enrol(self, client: Client) -> None:
        key = self._fleet.consortium.signing_key(OPERATOR)
        for board in self._fleet.boards:
            assert board.key is not None
            body = Enrol(
                key=board.key,
                owner=OPERATOR,
                type=DEVICE_TYPE,
                board=board.target,
                channels=board.channels,
                time=time.time_ns() // 1_000_000,
            )
            await submit(client, key, body, self._fleet.founding)

    async def _train(self) -> dict[str, Any]:
        fleet = self._fleet
        out = self._directory / "model"
        report = self._directory / "train.json"
        command = ["train", "anomaly", "--quick", "--seed", str(self._options.seed)]
        command += ["--founding", str(fleet.consortium.founding_file)]
        command += ["--api", fleet.apis[self._steady], "--data", str(self._directory / "dataset")]
        command += ["--device-type", DEVICE_TYPE, "--out", str(out), "--json", str(report)]
        await self._command("train", command, TRAIN_TIMEOUT_S)
        trained: dict[str, Any] = json.loads(report.read_text())
        return trained

    async def _release(self) -> None:
        fleet = self._fleet
        command = ["model", "release", str(self._directory / "model"), "--name", MODEL_NAME]
        await self._as_member(TRAINER, "release", command)
        # A first board for itself. What it says of its faults is no failure of the model.
        first = fleet.boards[0].key
        assert first is not None
        await self._as_member(
            TRAINER, "rollout",
            ["model", "rollout", MODEL_NAME, "--first", first.kid.hex(), "--groups", "100",
             "--verdicts", "1", "--anomalies", "100"],
        )  # fmt: skip
        await self._as_member(OPERATOR, "approve", ["model", "approve", DEVICE_TYPE, "--yes"])

    async def _as_member(self, member: str, name: str, command: list[str]) -> None:
        """Run a command that signs with a member's key."""
        consortium = self._fleet.consortium
        command += ["--founding", str(consortium.founding_file)]
        command += ["--key", str(consortium.member_directory(member) / "signing.key")]
        command += ["--api", self._fleet.apis[self._steady]]
        await self._command(name, command, COMMAND_TIMEOUT_S)

    async def _rolled_out(self, client: Client) -> dict[str, Any]:
        """How the rollout stands, as the chain has it."""
        (offer,) = await client.offers()
        rollout = offer.rollout
        assert rollout is not None
        return {
            "rollout": rollout.id,
            "release": f"{rollout.release.name} {rollout.release.version}",
            "proposed_by": rollout.proposer,
            "approved_by": rollout.approver,
            "status": rollout.status,
            "groups": [
                {"boards": group.size, "done": group.done, "failed": group.failed}
                for group in rollout.groups
            ],
        }

    async def _attack(self) -> None:
        board = self._fleet.boards[0]
        assert board.key is not None
        kid = board.key.kid

        def dropped() -> int:
            packs = self._watch.packs.get(kid, [])
            return packs[-1].message.dropped or 0 if packs else 0

        await self._wait(
            "a board has dropped what it has receipts for",
            lambda: dropped() > 1,
            SETTLE_TIMEOUT_S,
        )
        self._view.step(f"four forgeries in the name of {board.name}")
        old = self._watch.packs[kid][0]
        gateway = self._fleet.gateway_of(board)
        for cause, (claimed, message) in forge(old, self._fleet.founding.chain_id).items():
            await self._fleet.attack(gateway, claimed, message)
            await self._wait(
                f"the forgery is on the chain as {cause}",
                lambda cause=cause: self._watch.incidents[cause] > 0,
                SETTLE_TIMEOUT_S,
            )

    async def _make_chaos(self) -> None:
        fleet = self._fleet
        height = self._watch.height
        victim = fleet.nodes[VICTIM]
        own_broker = fleet.broker_child
        killed = [VICTIM, *(["broker"] if own_broker else [])]
        self._view.step(f"chaos: SIGKILL to {' and to '.join(killed)}")
        unfinished = sum(board.done is None for board in fleet.boards)

        def recovered() -> bool:
            # Who gets the last receipt in this very moment has nothing left for another block.
            is_over = all(board.done is not None for board in fleet.boards)
            return self._watch.height > height or is_over

        await victim.kill()
        if own_broker is not None:
            await own_broker.kill()
        for board in fleet.boards:
            board.unplug()
        await asyncio.sleep(OUTAGE_S)
        for board in fleet.boards:
            board.plug()
        if own_broker is not None:
            await own_broker.start()
        await victim.start()
        await fleet.wait_ready(VICTIM)
        self._view.step(f"chaos: {VICTIM} is back")
        if unfinished:
            await self._wait("blocks become final again", recovered, SETTLE_TIMEOUT_S)
        self._chaos = {
            "killed": killed,
            "line": self._line_chaos(),
            "boards_mid_stream": unfinished,
            "recovered": recovered(),
        }

    def _line_chaos(self) -> str:
        if self._fleet.transport == "serial":
            return "every cable pulled out and put back"
        return "broker killed and started again" if self._fleet.broker_child else "left alone"

    async def _judge(self) -> dict[str, Any]:
        """Repeat every sealed verdict with LiteRT, and score both against the labels."""
        labels = {
            board.key.kid.hex(): {str(time_): value for time_, value in plan.labels.items()}
            for board, plan in zip(self._fleet.boards, self._scenario.boards, strict=True)
            if board.key is not None
        }
        label_file = self._directory / "labels.json"
        label_file.write_text(json.dumps(labels))
        report = self._directory / "evaluate.json"
        fleet = self._fleet
        command = ["evaluate", "anomaly", "--model", str(self._directory / "model")]
        command += ["--founding", str(fleet.consortium.founding_file)]
        command += ["--api", fleet.apis[self._steady], "--data", str(self._directory / "dataset")]
        command += ["--device-type", DEVICE_TYPE]
        command += ["--labels", str(label_file), "--json", str(report)]
        await self._command("evaluate", command, TRAIN_TIMEOUT_S)
        judged: dict[str, Any] = json.loads(report.read_text())
        return judged

    async def _trace(self) -> dict[str, Any]:
        """Put the released model's query again; the command fails where its root does not fit."""
        report = self._directory / "lineage.json"
        command = ["model", "lineage", MODEL_NAME, "--data", str(self._directory / "dataset")]
        command += ["--founding", str(self._fleet.consortium.founding_file)]
        await self._command("lineage", [*command, "--json", str(report)], COMMAND_TIMEOUT_S)
        traced: dict[str, Any] = json.loads(report.read_text())
        return {name: traced[name] for name in ("sealed", "transactions", "root", "query")}

    def _figures(self) -> Mapping[str, str]:
        boards, watch = self._fleet.boards, self._watch
        rows = sum(plan.normal_rows + plan.rest_rows for plan in self._scenario.boards)
        judged = sum(len(board.verdict_us) for board in boards)
        read = sum(board.rows for board in boards)
        sealed = sum(len(packs) for packs in watch.packs.values())
        return {
            "nodes and heads": self._shown_heads(),
            "blocks": str(watch.height),
            "packs signed": str(sum(board.packs for board in boards)),
            "packs sealed": str(sealed),
            "refused": str(sum(watch.incidents.values())),
            "verdicts": str(judged),
            "alerts": str(len(watch.alerts)),
            "progress": f"{bar(read, rows)} {read} of {rows} rows",
        }

    def _summary(
        self,
        statuses: list[Status],
        trained: dict[str, Any],
        rollout: dict[str, Any],
        proof: dict[str, Any],
        judged: dict[str, Any],
        lineage: dict[str, Any],
    ) -> dict[str, Any]:
        fleet, watch = self._fleet, self._watch
        counts = committed(fleet.boards, watch)
        summary: dict[str, Any] = {
            "source": self._scenario.source,
            "boards": len(fleet.boards),
            "validators": len(fleet.founding.validators),
            "quorum": fleet.founding.quorum,
            **counts,
            "incidents": {cause: watch.incidents[cause] for cause in FORGERIES}
            | dict(watch.incidents),
            "blocks": watch.height,
            "heads_equal": len({status.head for status in statuses}) == 1,
            "state_roots_equal": len({status.state_root for status in statuses}) == 1,
            "commit_latency_ms": commit_latency_ms(fleet.boards, watch),
            "committed_packs_per_s": round(counts["packs_committed"] / self._streaming_s, 1),
            "model": {
                "sha256": trained["sha256"],
                "bytes": trained["bytes"],
                "ops": trained["ops"],
                "f1_float": judged["f1_float"],
                "f1_int8": judged["f1_int8"],
            },
            "rollout": rollout,
            "on_board": inference(fleet.boards)
            | {
                "compared": judged["compared"],
                "equals_litert": judged["equals_litert"],
            },
            "lineage": lineage,
            "alerts": len(watch.alerts),
            "proof": proof,
            "chaos": self._chaos,
            "problems": [problem for board in fleet.boards for problem in board.problems],
            "seconds": round(time.monotonic() - self._began, 1),
        }
        summary["failures"] = failures(summary, fleet.founding)
        return summary
