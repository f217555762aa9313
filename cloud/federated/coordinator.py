"""The rounds of a training across sites, over whatever carries Flower's messages.

Flower (the extra `federated`) puts updates together and carries them; what is asked, checked and
written down is here. A site is asked who it is before it is asked to learn, whenever it comes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.serverapp.strategy import FedAvg, FedTrimmedAvg, Krum

from cloud.errors import TrainingError
from cloud.train.rul_features import Preparation

from . import masked
from .messages import ARRAYS, EXAMPLES, MAX_REASON_CHARS, METRICS, RMSE, SITE, request, told
from .network import Arrays, Noise, initial, model_hash
from .privacy import DELTA, epsilon
from .run_files import RoundRecord, RunFiles, Settings, SiteRecord
from .scales import Scales, put_together
from .site import Task

log = logging.getLogger(__name__)

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
    """What a site said; message and arrays only where it is not under a mask."""

    known: Known
    examples: int
    rmse: float | None
    message: Any = field(default=None, repr=False)
    arrays: Arrays | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Answers:
    """Of one round: by node, why sites gave none, and the mean of those under masks."""

    of: dict[int, _Answer] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    mean: Arrays | None = field(default=None, repr=False)


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
        # Names of sites that have come, or may come: who of them is away is said of each round.
        self._names = {name for name, _ in (members or {}).values()}

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
            self._names.add(known.name)

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
        for attempt in range(TRIES):
            if attempt:
                self._gather(grid, self._settings.sites, self._settings.round_s / TRIES)
            else:
                self._ask_newcomers(grid)
            answers = self._ask(grid, number, arrays, preparation)
            if len(answers.of) >= self._settings.min_sites:
                return self._put_together(number, arrays, answers)
            log.warning("round %d: %d sites answered; %s", number, len(answers.of), answers.absent)
        raise self._too_few(len(answers.of), f"answered in round {number}")

    def _ask(self, grid: Any, number: int, arrays: Arrays, preparation: Preparation) -> _Answers:
        settings = self._settings
        noise = None
        if settings.noise is not None and settings.clip is not None:
            noise = Noise(settings.noise, settings.clip, settings.steps, settings.machines)
            # Noted before it is sent: what a site has done counts, answered or not.
            self._files.note_asked()
        task = Task(number, settings.rounds, settings.seed, settings.epochs, noise)
        said = told(task, preparation)
        known = dict(self._known)
        ask = self._ask_plainly if settings.masks is None else self._ask_masked
        answers = ask(grid, number, known, arrays, said)
        for node, one in known.items():
            if node not in answers.of:
                answers.absent.setdefault(
                    one.name, f"is gone, or gave no answer within {settings.round_s:g} s"
                )
        for name in self._names - {one.name for one in known.values()}:
            answers.absent[name] = "is not connected"
        return answers

    def _ask_plainly(
        self, grid: Any, number: int, known: dict[int, Known], arrays: Arrays, said: dict[str, str]
    ) -> _Answers:
        messages = [
            Message(request(arrays, said), node, MessageType.TRAIN, group_id=str(number))
            for node in known
        ]
        found = _Answers()
        for reply in _send(grid, messages, self._settings.round_s):
            node = reply.metadata.src_node_id
            if node not in known:
                continue
            try:
                found.of[node] = _checked(known[node], reply, shapes_of=arrays)
            except (KeyError, TypeError, ValueError) as error:
                found.absent[known[node].name] = str(error)
        return found

    def _ask_masked(
        self, grid: Any, number: int, known: dict[int, Known], arrays: Arrays, said: dict[str, str]
    ) -> _Answers:
        """As above; nothing of a sum can be left out, so that one bad answer spoils it."""
        settings = self._settings
        assert settings.masks is not None
        most_rows = 1.0
        if settings.noise is None:
            most_rows = max(float(one.scales.rows.sum()) for one in known.values())
        result = masked.add_up(
            grid, number, known, (arrays, said), settings.masks, most_rows, settings.round_s
        )
        found = _Answers(mean=result.mean)
        found.absent.update({known[node].name: why for node, why in result.refused.items()})
        if result.mean is not None and not _fits(result.mean, arrays):
            log.warning("round %d: the sum is no network", number)
            return _Answers(absent=found.absent)
        for node, metrics in result.metrics.items():
            try:
                found.of[node] = _Answer(known[node], *_numbers(metrics))
            except (KeyError, TypeError, ValueError) as error:
                return _Answers(absent=found.absent | {known[node].name: str(error)})
        return found

    def _put_together(
        self, number: int, before: Arrays, answers: _Answers
    ) -> tuple[RoundRecord, Arrays]:
        settings = self._settings
        each = sorted(answers.of.values(), key=lambda one: one.known.name)
        is_private = settings.noise is not None
        sites = tuple(
            SiteRecord(
                one.known.name,
                one.known.member,
                None if one.arrays is None else model_hash(one.arrays).hex(),
                None if is_private else one.examples,
            )
            for one in each
        )
        rows = np.array([one.examples for one in each], np.float64)
        errors = [one.rmse for one in each if one.rmse is not None]
        rmse = None
        if len(errors) == len(each):
            rmse = float(np.sqrt(np.average(np.square(errors), weights=rows)))
        after = answers.mean
        if after is None:
            strategy = strategy_of(settings, len(each))
            record, _ = strategy.aggregate_train(number, [one.message for one in each])
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
                absent=dict(sorted(answers.absent.items())),
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


def _checked(known: Known, reply: Any, *, shapes_of: Arrays) -> _Answer:
    """Look at an answer before anything is made of it; raises ValueError."""
    if reply.has_error():
        raise ValueError(str(reply.error.reason)[:MAX_REASON_CHARS])
    arrays = [np.asarray(one, np.float32) for one in reply.content[ARRAYS].to_numpy_ndarrays()]
    if not _fits(arrays, shapes_of):
        raise ValueError("sent a network of another shape, or numbers that are not finite")
    return _Answer(known, *_numbers(reply.content[METRICS]), reply, arrays)


def _fits(arrays: Arrays, before: Arrays) -> bool:
    """Whether it is a network like the one before."""
    return [one.shape for one in arrays] == [one.shape for one in before] and all(
        bool(np.isfinite(one).all()) for one in arrays
    )


def _numbers(metrics: Any) -> tuple[int, float | None]:
    """Rows and error of an answer; raises KeyError, TypeError, ValueError."""
    examples, rmse = metrics[EXAMPLES], metrics.get(RMSE)
    if not isinstance(examples, int) or not 1 <= examples <= MAX_EXAMPLES:
        raise ValueError(f"says that it has {examples} rows, not 1 to {MAX_EXAMPLES}")
    if rmse is not None and not 0 <= float(rmse) < float("inf"):
        raise ValueError("sent an error that is no number")
    return examples, None if rmse is None else float(rmse)
