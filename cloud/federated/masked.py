"""Updates that are added up under masks, so that nobody sees a single one: SecAgg+.

Sites agree in pairs on masks that cancel out in the sum. What the masks of a site that drops out
would have cancelled is found by shares of its key that others hold (Bell et al. 2020). Flower has
it for its former API alone, a workflow that leads a round and a wrapper around what a site does;
here both are given what they want of that, and the messages are those of `messages`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    FitIns,
    FitRes,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common import recorddict_compat as compat
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    RECORD_KEY_STATE,
    Key,
    Stage,
)
from flwr.server import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey

from .messages import ARRAYS, CONFIG, EXAMPLES, MAX_REASON_CHARS, METRICS
from .network import Arrays
from .run_files import LEAST_MASKED, Masks

log = logging.getLogger(__name__)

# Whatever comes of what a site sent: Flower looks at little of it.
_UNREADABLE = (
    ArithmeticError, AttributeError, EOFError, LookupError, TypeError, UnsupportedAlgorithm,
    ValueError,
)  # fmt: skip
Learn = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class Sum:
    """What came of a round.

    Attributes:
        mean: of the updates, weighed by rows; None if too few sites stayed.
        metrics: of each node whose update is in it.
        refused: what nodes said that would not, or could not.
    """

    mean: Arrays | None = field(repr=False)
    metrics: dict[int, dict[str, Any]]
    refused: dict[int, str]


def add_up(
    grid: Any,
    number: int,
    nodes: Iterable[int],
    content: tuple[Arrays, Mapping[str, str]],
    masks: Masks,
    most_rows: float,
    patience_s: float,
) -> Sum:
    """Have sites learn, and add up what they have learned.

    Args:
        grid: Flower's, or one like it.
        number: of the round.
        nodes: of the sites.
        content: the model, and what they are told; as a round without masks has it.
        masks: as agreed.
        most_rows: that a site learns from.
        patience_s: for each of four exchanges.
    """
    arrays, config = content
    fit = FitIns(ndarrays_to_parameters(arrays), dict(config))
    round_ = _Round(list(nodes), fit)
    heard = _Heard(grid, set(nodes))
    context = LegacyContext(Context(0, 0, {}, RecordDict(), {}), None, round_, round_)
    context.state[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: number})
    context.state[MAIN_PARAMS_RECORD] = ArrayRecord(arrays)
    workflow = _Workflow(
        masks.shares,
        masks.threshold,
        max_weight=most_rows,
        clipping_range=masks.clipping,
        quantization_range=masks.levels,
        timeout=patience_s,
    )
    try:
        workflow(heard, context)
    except _UNREADABLE as error:
        log.warning("round %d: %s: %s", number, type(error).__name__, error)
        return Sum(None, {}, heard.refused)
    answers = round_.results
    if not answers:
        return Sum(None, {}, heard.refused)
    # The workflow puts the mean into each of them.
    mean = parameters_to_ndarrays(next(iter(answers.values())).parameters)
    return Sum(
        [np.asarray(one, np.float32) for one in mean],
        {node: {**one.metrics, EXAMPLES: one.num_examples} for node, one in answers.items()},
        heard.refused,
    )


def is_masked(message: Message) -> bool:
    """Whether a site is asked for its part in a sum."""
    return RECORD_KEY_CONFIGS in message.content.config_records


def take_part(message: Message, context: Context, learn: Learn) -> Message:
    """Do what is next in a round; `learn` does the learning.

    Raises:
        ValueError: it would tell more of this site than the sum, or is out of turn.
    """
    said = message.content.config_records[RECORD_KEY_CONFIGS]
    if said.get(Key.STAGE) == Stage.SETUP:
        _check(said)

    def masked(inner: Message, own: Context) -> Message:
        given = compat.recorddict_to_fitins(inner.content, keep_input=True)
        inner.content = RecordDict(
            {
                ARRAYS: ArrayRecord(parameters_to_ndarrays(given.parameters)),
                CONFIG: ConfigRecord(dict(given.config)),
            }
        )
        reply = learn(inner, own)
        arrays, metrics = reply.content[ARRAYS].to_numpy_ndarrays(), dict(reply.content[METRICS])
        examples = metrics.pop(EXAMPLES)
        _check_range(arrays, examples, own.state.config_records[RECORD_KEY_STATE])
        answer = FitRes(Status(Code.OK, ""), ndarrays_to_parameters(arrays), examples, metrics)
        reply.content = compat.fitres_to_recorddict(answer, keep_input=True)
        return reply

    return secaggplus_mod(message, context, masked)


def _check(said: Mapping[str, Any]) -> None:
    """A trainer who got a site's key and its own mask from the others would see its update."""
    numbers = [said.get(name) for name in (Key.SAMPLE_NUMBER, Key.SHARE_NUMBER, Key.THRESHOLD)]
    sites, shares, threshold = (one if isinstance(one, int) else 0 for one in numbers)
    if sites < LEAST_MASKED or 2 * threshold <= shares:
        raise ValueError(
            f"{threshold} of {shares} shares, of {sites} sites, would tell this site's update: "
            f"more than half are needed, and {LEAST_MASKED} sites"
        )


def _check_range(arrays: Arrays, examples: int, state: Mapping[str, Any]) -> None:
    """What is beyond the range would be cut off in silence."""
    share = examples / state[Key.MAX_WEIGHT]
    most = share * max(float(np.abs(one).max()) for one in arrays)
    if share > 1 or most > state[Key.CLIPPING_RANGE]:
        raise ValueError(
            f"a weight is {most:g}, beyond --clipping-range {state[Key.CLIPPING_RANGE]:g}"
        )


@dataclass(frozen=True)
class _Node:
    node_id: int


class _Round:
    """What the workflow takes for a strategy and its clients."""

    def __init__(self, nodes: list[int], fit: FitIns) -> None:
        self._nodes = [_Node(node) for node in nodes]
        self._fit = fit
        self.results: dict[int, FitRes] = {}

    def configure_fit(self, *_: Any) -> list[tuple[_Node, FitIns]]:
        return [(node, self._fit) for node in self._nodes]

    def num_available(self) -> int:
        return len(self._nodes)

    def aggregate_fit(
        self, _round: int, results: list[tuple[_Node, FitRes]], _failures: Any
    ) -> tuple[None, dict[str, Any]]:
        self.results = {node.node_id: answer for node, answer in results}
        return None, {}


class _Heard:
    """Notes what nodes refuse, and lets nobody answer who was not asked."""

    def __init__(self, grid: Any, nodes: set[int]) -> None:
        self._grid = grid
        self._nodes = nodes
        self.refused: dict[int, str] = {}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        replies = {}
        for reply in self._grid.send_and_receive(list(messages), timeout=timeout):
            node = reply.metadata.src_node_id
            if node in self._nodes:
                replies[node] = reply
                if reply.has_error():
                    self.refused[node] = str(reply.error.reason)[:MAX_REASON_CHARS]
        return list(replies.values())


class _Workflow(SecAggPlusWorkflow):  # type: ignore[misc] # Flower is in an environment of its own
    """Flower's, which asks for shares of sites that dropped out before they dealt any."""

    def setup_stage(self, grid: Any, context: Any, state: Any) -> bool:
        return bool(super().setup_stage(grid, context, state)) and _leave_out(state)

    def share_keys_stage(self, grid: Any, context: Any, state: Any) -> bool:
        return bool(super().share_keys_stage(grid, context, state)) and _leave_out(state)


def _leave_out(state: Any) -> bool:
    """Go on as if the sites that are gone had not been asked: nobody has masks with them yet."""
    active = set(state.active_node_ids)
    state.sampled_node_ids = active
    state.nid_to_neighbours = {
        node: near & active for node, near in state.nid_to_neighbours.items() if node in active
    }
    return True
