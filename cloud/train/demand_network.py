"""One network for the demand of all parts: a zero-inflated negative binomial per month ahead.

Its outputs are of each month ahead and of the total up to it: a total's spread is learned, and not
taken together from months as if these were independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError
from cloud.model_files import check_size
from cloud.scale_out import HERE, Pool

from .demand_data import MONTHS_A_YEAR, DemandData
from .demand_distribution import CountDistribution
from .experiment_log import Scalar

HORIZON = 12
# An origin has at least a year behind it.
MIN_HISTORY = 12
LAGS = 12
RATES = (3, 6, 12, 24)
# Added to rates before their logarithm: less than one piece in a year.
_LEAST_RATE = 0.04
# Zeros, mean and shape of each kind, each a line over the logarithm of the month ahead: what is
# known of far months from few origins is told by the near ones, too.
_PARAMETERS, _KINDS = 3, 2
_BASIS = np.stack([np.ones(HORIZON), np.log(np.arange(1, HORIZON + 1)) / np.log(HORIZON)])
_OUTPUTS = len(_BASIS) * _KINDS * _PARAMETERS
# Parameters go no further from where they start, as logarithms.
_REACH = 4.0
# An input that hardly differed in training says little when it differs later.
_LEAST_DEVIATION, _CLIP = 0.1, 5.0
WEIGHTS_FILE = "weights.npz"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """What a network is like; chosen on windows that end before the months that are judged.

    Attributes:
        hidden: width of each hidden layer.
        dropout: share of hidden values left out while training.
        decay: of the weights.
        epochs: passes over all examples.
        members: networks that are trained from other starts, their distributions averaged.
    """

    hidden: tuple[int, ...] = (64, 64)
    dropout: float = 0.2
    decay: float = 1e-3
    epochs: int = 16
    members: int = 4
    batch: int = 256
    learning_rate: float = 2e-3


FULL = Shape()
QUICK = Shape(epochs=6, members=1)


@dataclass(frozen=True)
class DemandNetwork:
    """Trained members.

    Attributes:
        members: kernel and bias of each of a member's layers, float32.
        mean, deviation: of each input, float64 [inputs].
        losses: of each epoch of each member; mean negative log-likelihood.
    """

    members: Sequence[Sequence[npt.NDArray[np.float32]]] = field(repr=False)
    mean: Floats = field(repr=False)
    deviation: Floats = field(repr=False)
    losses: Sequence[Sequence[float]] = field(default=(), repr=False)

    def forecast(self, demand: Floats) -> CountDistribution:
        """What comes after the last month: [parts, 2, HORIZON], of months and of totals."""
        inputs, base = features(demand)
        scaled = _scaled(inputs, self.mean, self.deviation)
        start = _starts(base)
        raw = np.stack([_outputs(member, scaled) for member in self.members])
        lines = raw.reshape(len(raw), len(demand), len(_BASIS), _KINDS, 1, _PARAMETERS)
        values = (lines * _BASIS[:, np.newaxis, :, np.newaxis]).sum(axis=2)
        values = _REACH * np.tanh(values / _REACH)
        return CountDistribution(
            zero=1 / (1 + np.exp(-values[..., 0])),
            mean=np.exp(values[..., 1] + start),
            shape=np.exp(values[..., 2]),
        )

    def save(self, directory: Path) -> None:
        """Write the weights of all members."""
        arrays: dict[str, Any] = {
            _array_name(member, layer): weights
            for member, layers in enumerate(self.members)
            for layer, weights in enumerate(layers)
        }
        np.savez(directory / WEIGHTS_FILE, **arrays)


def load_network(directory: Path, card: dict[str, Any]) -> DemandNetwork:
    """Read the weights that a card tells of; raises ModelError."""
    path = directory / WEIGHTS_FILE
    check_size(path)
    try:
        mean, deviation = (np.array(card[name], np.float64) for name in ("mean", "deviation"))
        widths = (len(mean), *card["shape"]["hidden"], _OUTPUTS)
        shapes = [shape for pair in pairwise(widths) for shape in (pair, pair[1:])]
        count = int(card["members"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{directory}: card is damaged ({error!r})", "train again") from error
    if count < 1 or deviation.shape != mean.shape:
        raise ModelError(f"{directory}: card is damaged", "train again")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            members = [
                [arrays[_array_name(member, layer)] for layer in range(len(shapes))]
                for member in range(count)
            ]
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise ModelError(f"{path}: is no model ({error})", "train again") from error
    for member in members:
        if [weights.shape for weights in member] != shapes:
            raise ModelError(f"{path}: is not the network that the card tells of", "train again")
    return DemandNetwork(members, mean, deviation)


def _array_name(member: int, layer: int) -> str:
    return f"member_{member}_{layer}"


def _outputs(member: Sequence[npt.NDArray[np.float32]], scaled: npt.NDArray[np.float32]) -> Floats:
    """What a trained member gives, [n, outputs]: dense layers with ReLU between them."""
    values = scaled
    for at in range(0, len(member), 2):
        values = values @ member[at] + member[at + 1]
        if at + 2 < len(member):
            values = np.maximum(values, 0)
    return values.astype(np.float64)


def features(demand: Floats) -> tuple[Floats, Floats]:
    """Inputs of parts after their last month.

    Args:
        demand: float64 [n, months], at least MIN_HISTORY months.

    Returns:
        float64 [n, inputs], and each part's rate of the last year, from which outputs are told.
    """
    months = demand.shape[1]
    lags = np.log1p(demand[:, -LAGS:])
    rates = [np.log(demand[:, -span:].mean(axis=1) + _LEAST_RATE) for span in (*RATES, months)]
    sold = demand > 0
    shares = [sold[:, -span:].mean(axis=1) for span in (*RATES, months)]
    ever = sold.any(axis=1)
    since_last = np.where(ever, np.argmax(sold[:, ::-1], axis=1), months)
    since_first = np.where(ever, months - np.argmax(sold, axis=1), 0)
    size = demand.sum(axis=1) / np.maximum(sold.sum(axis=1), 1)
    spread = demand.var(axis=1) / np.maximum(demand.mean(axis=1), _LEAST_RATE)
    rest = (
        np.log1p(since_last), np.log1p(since_first), since_first < months, np.log1p(size),
        np.log1p(spread), np.log1p(demand.max(axis=1)),
    )  # fmt: skip
    base = demand[:, -MONTHS_A_YEAR:].mean(axis=1)
    return np.column_stack([lags, *rates, *shares, *rest]), base


def examples(data: DemandData) -> tuple[Floats, Floats, Floats, Floats]:
    """All that can be learned: each month with a year behind it and at least one ahead.

    Returns:
        inputs [n, inputs]; logarithms that outputs start from [n, 2, HORIZON]; demand of months
        and totals [n, 2, HORIZON]; which of them are known, 0 or 1, of the same shape.
    """
    parts = []
    for origin in range(MIN_HISTORY, data.months):
        inputs, base = features(data.demand[:, :origin])
        ahead = min(HORIZON, data.months - origin)
        monthly = np.zeros((len(data), HORIZON))
        known = np.zeros((len(data), HORIZON))
        monthly[:, :ahead] = data.demand[:, origin : origin + ahead]
        known[:, :ahead] = data.recorded[:, origin : origin + ahead]
        targets = np.stack([monthly, np.cumsum(monthly, axis=1)], axis=1)
        mask = np.stack([known, np.cumprod(known, axis=1)], axis=1)
        keep = data.recorded[:, origin - 1] & (known.sum(axis=1) > 0)
        parts.append((inputs[keep], _starts(base)[keep], targets[keep], mask[keep]))
    inputs, starts, targets, masks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return inputs, starts, targets, masks


def _note_nothing(name: str, value: float, step: int) -> None:
    """Keep no log."""


def fit_network(
    data: DemandData,
    shape: Shape,
    seed: int,
    step: Callable[[], None] = lambda: None,
    note: Scalar = _note_nothing,
    pool: Pool = HERE,
) -> DemandNetwork:
    """Train on everything in `data`.

    Args:
        data: with more than MIN_HISTORY months.
        shape: of the network.
        seed: of starts and order.
        step: is called after each member.
        note: is told the loss of each epoch.
        pool: trains the members.
    """
    inputs, starts, targets, masks = examples(data)
    mean, deviation = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), _LEAST_DEVIATION)
    scaled = _scaled(inputs, mean, deviation)
    told = np.stack([starts, targets, masks], axis=-1).astype(np.float32)
    seeds = [seed * shape.members + number for number in range(shape.members)]
    members, losses = [], []
    fits = pool.map(_fit, seeds, (scaled, told, shape))
    for number, (weights, lost) in enumerate(fits):
        members.append(weights)
        losses.append(lost)
        for epoch, loss in enumerate(lost):
            note(f"loss, network {number}", loss, epoch)
        step()
    return DemandNetwork(members, mean, deviation, losses)


def _fit(seed: int, shared: Any) -> tuple[list[npt.NDArray[np.float32]], list[float]]:
    """Train a member: its weights, and the loss of each epoch."""
    import keras

    scaled, told, shape = shared
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = _build(scaled.shape[1], shape)
    steps = shape.epochs * -(-len(scaled) // shape.batch)
    schedule = keras.optimizers.schedules.CosineDecay(shape.learning_rate, steps)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=shape.decay, clipnorm=1.0)
    model.compile(optimizer, _loss)
    history = model.fit(scaled, told, batch_size=shape.batch, epochs=shape.epochs, verbose=0)
    weights = [variable.value.numpy() for variable in model.trainable_variables]
    return weights, [float(loss) for loss in history.history["loss"]]


def _scaled(inputs: Floats, mean: Floats, deviation: Floats) -> npt.NDArray[np.float32]:
    """Inputs in deviations, those far from all that was learned from cut off."""
    found: npt.NDArray[np.float32] = np.clip((inputs - mean) / deviation, -_CLIP, _CLIP).astype(
        np.float32
    )
    return found


def _starts(base: Floats) -> Floats:
    """Logarithms of what would come at the rate of the last year, [n, 2, HORIZON]."""
    ahead = np.arange(1, HORIZON + 1)
    rate = np.log(base + _LEAST_RATE)[:, np.newaxis]
    return np.stack([np.repeat(rate, HORIZON, axis=1), rate + np.log(ahead)], axis=1)


def _build(inputs: int, shape: Shape) -> Any:
    import keras

    layers = keras.layers
    given = hidden = keras.Input((inputs,))
    for width in shape.hidden:
        hidden = layers.Dense(width, activation="relu")(hidden)
        hidden = layers.Dropout(shape.dropout)(hidden)
    # Starts near the rate of the last year: few zeros more than the negative binomial has.
    last = layers.Dense(_OUTPUTS, kernel_initializer="zeros")
    return keras.Model(given, last(hidden))


def _loss(told: Any, raw: Any) -> Any:
    """Mean negative log-likelihood of what is known."""
    import keras
    import tensorflow as tf

    ops = keras.ops
    start, count, known = told[..., 0], told[..., 1], told[..., 2]
    lines = ops.reshape(raw, (-1, len(_BASIS), _KINDS, 1, _PARAMETERS))
    basis = _BASIS[:, np.newaxis, :, np.newaxis].astype(np.float32)
    values = _REACH * ops.tanh(ops.sum(lines * basis, axis=1) / _REACH)
    zero, log_mean, log_shape = values[..., 0], values[..., 1] + start, values[..., 2]
    shape = ops.exp(log_shape)
    # Of the mean in the negative binomial: log of shape / (shape + mean), and of its rest.
    log_stay = -ops.softplus(log_mean - log_shape)
    log_go = -ops.softplus(log_shape - log_mean)
    log_count = (
        tf.math.lgamma(count + shape) - tf.math.lgamma(shape) - tf.math.lgamma(count + 1)
        + shape * log_stay + count * log_go
    )  # fmt: skip
    log_zero, log_rest = -ops.softplus(-zero), -ops.softplus(zero)
    likelihood = ops.where(
        count == 0, ops.logaddexp(log_zero, log_rest + log_count), log_rest + log_count
    )
    return -ops.sum(likelihood * known) / ops.maximum(ops.sum(known), 1.0)
