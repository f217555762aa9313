"""The rounds of a training across sites, over whatever carries Flower's messages.

Flower (the extra `federated`) puts updates together and carries them; what is asked, checked and
written down is here. A site is asked who it is before it is asked to learn, whenever it comes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message_type import MessageType
from flwr.serverapp.strategy import FedAvg, FedTrimmedAvg, Krum

from cloud.errors import TrainingError
from cloud.train.rul_features import Preparation

from .network import Arrays, Noise, initial, model_hash, shapes
from .privacy import DELTA, epsilon
from .run_files import RoundRecord, RunFiles, Settings, SiteRecord
from .scales import Scales, put_together
from .site import Task

log = logging.getLogger(__name__)

ARRAYS, CONFIG, METRICS, SITE = "arrays", "config", "metrics", "site"
EXAMPLES, RMSE = "num-examples", "rmse"
# A round that too few answered is tried again so often: they may be back.
TRIES = 3
# A site may not say that it has learned from more rows, or the mean would be its own.
MAX_EXAMPLES = 10_000_000
MAX_NAME_CHARS = 64
POLL_S = 1.0
Told = Callable[[RoundRecord, int], None]


@dataclass(frozen=True)
class Known:
    """A site that has said who it is.

    Attributes:
        name: of the site.
        member: key id of the member whose fog node it is, hex; None where nobody vouches.
        scales: of its sensors.
    """

    name: str
    member: str | None
    scales: Scales = field(repr=False)


@dataclass(frozen=True)
class _Answer:
    known: Known
    message: Any = field(repr=False)
    arrays: Arrays = field(repr=False)
    examples: int
    rmse: float | None


def strategy_of(settings: Settings, count: int) -> Any:
    """Flower's strategy for so many updates.

    Up to `liars` of them may be anything: trimmed mean leaves so many out at both ends, for each
    weight anew; Krum takes the update that has the others nearest to it.
    """
    if settings.strategy == "krum":
        return Krum(num_malicious_nodes=settings.liars)
    if settings.strategy == "trimmed-mean":
        # Flower rounds the share of `count` down.
        return FedTrimmedAvg(beta=(settings.liars + 0.5) / count)
    return FedAvg()


class Coordinator:
    """Leads a run from where its files end to its last round."""

    def __init__(
        self,
        files: RunFiles,
        told: Told,
        members: dict[int, tuple[str, str | None]] | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            files: of the run.
            told: is given each round that is over, and how many there are to be.
            members: names and members' key ids of the nodes that may take part, by node; None to
                take sites by the names that they give themselves.
        """
        self._files = files
        self._settings = files.settings()
        self._told = told
        self._members = members
        self._known: dict[int, Known] = {}

    def run(self, grid: Any) -> Arrays:
        """Lead all rounds that are left; gives the last model.

        Raises:
            TrainingError: too few sites came, or too few answered; what was reached stays.
        """
        settings = self._settings
        self._gather(grid, settings.sites, settings.round_s)
        records = self._files.rounds()
        preparation = self._preparation()
        channels = preparation.channels
        arrays = initial(channels, settings.seed)
        if records:
            arrays = self._files.model(records[-1])
        for number in range(len(records) + 1, settings.rounds + 1):
            record, arrays = self._round(grid, number, arrays, preparation)
            self._files.keep_round(record, arrays)
            self._told(record, settings.rounds)
        return arrays

    def _preparation(self) -> Preparation:
        card = self._files.preparation()
        if card is not None:
            return Preparation.of_card(card)
        found = put_together([known.scales for known in self._known.values()])
        self._files.keep_preparation(found.card())
        return found

    def _gather(self, grid: Any, wanted: int, patience_s: float) -> None:
        """Wait until all sites have come; go on with enough of them when patience is out."""
        deadline = time.monotonic() + patience_s
        while True:
            self._ask_newcomers(grid)
            if len(self._known) >= wanted:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        if len(self._known) < self._settings.min_sites:
            raise self._too_few(len(self._known), "came")

    def _ask_newcomers(self, grid: Any) -> None:
        nodes = set(grid.get_node_ids())
        for node in set(self._known) - nodes:
            del self._known[node]
        new = nodes - set(self._known)
        if self._members is not None:
            new &= set(self._members)
        asked = [Message(RecordDict(), node, MessageType.QUERY) for node in sorted(new)]
        for reply in _send(grid, asked, self._settings.round_s):
            try:
                known = self._introduced(reply)
            except (KeyError, TypeError, ValueError) as error:
                log.warning("node %d: %s", reply.metadata.src_node_id, error)
                continue
            self._known[reply.metadata.src_node_id] = known

    def _introduced(self, reply: Any) -> Known:
        if reply.has_error():
            raise ValueError(reply.error.reason)
        said = reply.content.config_records[SITE]
        name, member = said["name"], None
        if self._members is not None:
            name, member = self._members[reply.metadata.src_node_id]
        if (
            not isinstance(name, str)
            or not 0 < len(name) <= MAX_NAME_CHARS
            or not name.isprintable()
        ):
            raise ValueError(f"its name is not printable text of 1 to {MAX_NAME_CHARS} characters")
        if any(known.name == name for known in self._known.values()):
            raise ValueError(f"there is a site {name!r} already")
        return Known(name, member, Scales.decode(said["scales"]))

    def _round(
        self, grid: Any, number: int, arrays: Arrays, preparation: Preparation
    ) -> tuple[RoundRecord, Arrays]:
        card = json.dumps(preparation.card())
        for attempt in range(TRIES):
            if attempt:
                self._gather(grid, self._settings.sites, self._settings.round_s / TRIES)
            else:
                self._ask_newcomers(grid)
            answers, absent = self._ask(grid, number, arrays, card)
            if len(answers) >= self._settings.min_sites:
                return self._put_together(number, arrays, answers, absent)
            log.warning("round %d: %d sites answered; %s", number, len(answers), absent)
        raise self._too_few(len(answers), f"answered in round {number}")

    def _ask(
        self, grid: Any, number: int, arrays: Arrays, card: str
    ) -> tuple[list[_Answer], dict[str, str]]:
        settings = self._settings
        noise = None
        if settings.noise is not None and settings.clip is not None:
            noise = Noise(settings.noise, settings.clip, settings.steps, settings.machines)
            # Noted before it is sent: what a site has done counts, answered or not.
            self._files.note_asked()
        task = Task(number, settings.rounds, settings.seed, settings.epochs, noise)
        config = {"task": json.dumps(asdict(task)), "preparation": card}
        messages = [
            Message(
                RecordDict({ARRAYS: ArrayRecord(arrays), CONFIG: ConfigRecord(dict(config))}),
                node,
                MessageType.TRAIN,
                group_id=str(number),
            )
            for node in self._known
        ]
        names = {node: known.name for node, known in self._known.items()}
        answers: dict[int, _Answer] = {}
        absent = {}
        for reply in _send(grid, messages, settings.round_s):
            node = reply.metadata.src_node_id
            if node not in names:
                continue
            try:
                answers[node] = self._checked(self._known[node], reply, shapes_of=arrays)
            except (KeyError, TypeError, ValueError) as error:
                absent[names[node]] = str(error)
        for node, name in names.items():
            if node not in answers:
                absent.setdefault(name, f"is gone, or gave no answer within {settings.round_s:g} s")
        return sorted(answers.values(), key=lambda one: one.known.name), absent

    def _checked(self, known: Known, reply: Any, *, shapes_of: Arrays) -> _Answer:
        """Look at an answer before anything is made of it; raises ValueError."""
        if reply.has_error():
            raise ValueError(str(reply.error.reason)[:200])
        arrays = [np.asarray(one, np.float32) for one in reply.content[ARRAYS].to_numpy_ndarrays()]
        if [one.shape for one in arrays] != [one.shape for one in shapes_of]:
            raise ValueError("sent a network of another shape")
        if not all(np.isfinite(one).all() for one in arrays):
            raise ValueError("sent numbers that are not finite")
        metrics = reply.content[METRICS]
        examples, rmse = metrics[EXAMPLES], metrics.get(RMSE)
        if not isinstance(examples, int) or not 1 <= examples <= MAX_EXAMPLES:
            raise ValueError(f"says that it has {examples} rows, not 1 to {MAX_EXAMPLES}")
        if rmse is not None and not 0 <= float(rmse) < float("inf"):
            raise ValueError("sent an error that is no number")
        return _Answer(known, reply, arrays, examples, None if rmse is None else float(rmse))

    def _put_together(
        self, number: int, before: Arrays, answers: list[_Answer], absent: dict[str, str]
    ) -> tuple[RoundRecord, Arrays]:
        settings = self._settings
        is_private = settings.noise is not None
        sites = tuple(
            SiteRecord(
                one.known.name,
                one.known.member,
                model_hash(one.arrays).hex(),
                None if is_private else one.examples,
            )
            for one in answers
        )
        rows = np.array([one.examples for one in answers], np.float64)
        errors = [one.rmse for one in answers if one.rmse is not None]
        rmse = None
        if len(errors) == len(answers):
            rmse = float(np.sqrt(np.average(np.square(errors), weights=rows)))
        strategy = strategy_of(settings, len(answers))
        record, _ = strategy.aggregate_train(number, [one.message for one in answers])
        after = [np.asarray(one, np.float32) for one in record.to_numpy_ndarrays()]
        spent = None
        if settings.noise is not None:
            spent = epsilon(settings.noise, self._files.asked() * settings.steps)
        return (
            RoundRecord(
                round=number,
                before=model_hash(before).hex(),
                after=model_hash(after).hex(),
                sites=sites,
                absent=dict(sorted(absent.items())),
                rmse=rmse,
                epsilon=spent,
                delta=DELTA if is_private else None,
                time=time.time_ns() // 1_000_000,
            ),
            after,
        )

    def _too_few(self, count: int, did: str) -> TrainingError:
        settings = self._settings
        return TrainingError(
            f"run {settings.run}: {count} of {settings.sites} sites {did}, "
            f"{settings.strategy} needs {settings.min_sites}",
            "see the sites' logs, and go on with --resume when they are back",
        )


def _send(grid: Any, messages: list[Any], patience_s: float) -> Iterable[Any]:
    return list(grid.send_and_receive(messages, timeout=patience_s)) if messages else []


def introduction(name: str, scales: Scales) -> RecordDict:
    """What a site says when it is asked who it is."""
    return RecordDict({SITE: ConfigRecord({"name": name, "scales": scales.encode()})})


def answer(arrays: Arrays, examples: int | None, rmse: float | None) -> RecordDict:
    """What a site sends after it has learned; weights are alike where its rows are private."""
    metrics: dict[str, int | float] = {EXAMPLES: 1 if examples is None else examples}
    if rmse is not None:
        metrics[RMSE] = rmse
    return RecordDict({ARRAYS: ArrayRecord(arrays), METRICS: MetricRecord(metrics)})


def asked(message: Any) -> tuple[Arrays, Task, Preparation]:
    """What a site is asked to do; raises ValueError, ModelError where it makes no sense."""
    config = message.content[CONFIG]
    arrays = [np.asarray(one, np.float32) for one in message.content[ARRAYS].to_numpy_ndarrays()]
    value = json.loads(config["task"])
    noise = value.pop("noise")
    preparation = Preparation.of_card(json.loads(config["preparation"]))
    if [one.shape for one in arrays] != shapes(preparation.channels):
        raise ValueError("the model that came in is no network of this version of Fogline")
    return arrays, Task(**value, noise=None if noise is None else Noise(**noise)), preparation
