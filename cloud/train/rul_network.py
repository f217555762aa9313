"""An ensemble of small networks that tell how many cycles are left, and how sure that is.

Each network has three heads: the mean, and a low and a high quantile (Koenker and Bassett 1978).
Each is trained without a part of the units, and judges that part: the errors there widen or narrow
the interval until it holds (conformalised quantile regression, Romano et al. 2019), and say how
good the networks are without a look at any test. All of them are one file, with the same input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError
from cloud.export import FOG_NODE, Interpreter, TfliteModel, to_float_tflite, to_int8_tflite
from cloud.scale_out import HERE, Pool

# Cycles. What is further off than this shows in no sensor (Heimes 2008 and most since).
CAP = 125.0
# The interval's two ends, as quantiles; its share of true values.
QUANTILES = (0.05, 0.95)
COVERAGE = 0.9
# Rows that networks are judged by: as much of a unit was seen, and as little is left, as where
# the interval is of use.
MIN_SEEN = 30
MAX_LEFT = 150.0

# A network's number, and the loss of each of its epochs.
Told = Callable[[int, Sequence[float]], None]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """What the networks are like; chosen on training units.

    Attributes:
        parts, repeats: units are dealt into so many parts so many times, for a network each that
            is trained without the part.
        hidden: width of each hidden layer.
        dropout: share of hidden values left out while training.
        decay: of the weights.
        epochs: passes over all rows that a network is shown.
    """

    parts: int = 5
    repeats: int = 2
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    decay: float = 1e-3
    epochs: int = 40
    batch: int = 256
    learning_rate: float = 2e-3

    @property
    def networks(self) -> int:
        """How many there are."""
        return self.parts * self.repeats


FULL = Shape()
QUICK = Shape(repeats=1, epochs=20)


@dataclass(frozen=True)
class Estimate:
    """Cycles left, and the interval in which COVERAGE of true values lie; each float64 [n]."""

    left: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Ensemble:
    """The networks before and after quantization.

    Attributes:
        float_data: the `.tflite` in floats.
        int8: the `.tflite` that runs.
        margin: what both ends of the interval are moved outwards by, in cycles.
        left_out: what was said of each training row by networks that had not seen its unit.
    """

    float_data: bytes = field(repr=False)
    int8: TfliteModel = field(repr=False)
    margin: float
    left_out: Estimate = field(repr=False)


def estimate(data: bytes, features: npt.NDArray[np.float32], margin: float) -> Estimate:
    """Run a file of either kind, as it runs on a fog node.

    Args:
        data: a `.tflite`, of floats or int8.
        features: float32 [n, channels].
        margin: of the interval.

    Raises:
        ModelError: it is not of these features, or gives something else.
    """
    interpreter = Interpreter(data)
    given, made = interpreter.input, interpreter.output
    heads = len(QUANTILES) + 1
    if given["shape"].tolist() != [1, features.shape[1]] or int(made["shape"][-1]) % heads:
        raise ModelError(
            f"model: goes from {given['shape'].tolist()} to {made['shape'].tolist()} numbers, not "
            f"from {[1, features.shape[1]]} to a multiple of {heads}",
            "use model and card of one training",
        )
    if given["dtype"] == np.int8:
        scale, zero = given["quantization"]
        levels = np.clip(np.rint(features / scale) + zero, -128, 127).astype(np.int8)
        scale, zero = made["quantization"]
        values = (interpreter.run(levels).astype(np.float64) - zero) * scale
    else:
        values = interpreter.run(features).astype(np.float64)
    return _combine(values.reshape(len(features), -1, heads).mean(axis=1) * CAP, margin)


def _tell_nobody(number: int, losses: Sequence[float]) -> None:
    """Take no note of a network."""


def fit_ensemble(
    features: npt.NDArray[np.float32],
    left: Floats,
    unit: npt.NDArray[np.int64],
    rows: npt.NDArray[np.bool_],
    shape: Shape,
    *,
    seed: int,
    told: Told = _tell_nobody,
    pool: Pool = HERE,
) -> Ensemble:
    """Train, calibrate and quantize; raises ExportError.

    Args:
        features: float32 [n, channels].
        left: cycles left at each row, float64 [n].
        unit: that the row is of, int64 [n].
        rows: by which the interval is made to hold, bool [n].
        shape: of the networks.
        seed: of the parts and of everything random in training.
        told: called after each network.
        pool: trains the networks.
    """
    random = np.random.default_rng(seed)
    target = np.minimum(left, CAP)
    shown = _shown(unit, shape, random)
    seeds = random.integers(2**31, size=shape.networks).tolist()
    members, sums = [], np.zeros((len(features), len(QUANTILES) + 1))
    fits = pool.map(_fit, list(enumerate(seeds)), (features, target / CAP, shown, shape))
    for number, (weights, said, losses) in enumerate(fits):
        members.append(weights)
        sums[~shown[:, number]] += said * CAP
        told(number, losses)
    said = sums / (~shown).sum(axis=1, keepdims=True)
    margin = margin_of(said[rows], target[rows])
    whole = _side_by_side(members, features.shape[1], shape)
    representative = features[random.permutation(len(features))]
    return Ensemble(
        to_float_tflite(whole),
        to_int8_tflite(whole, representative, FOG_NODE),
        margin,
        _combine(said, margin),
    )


def judged(left: Floats, cycle: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Rows that say how good an estimate is, bool [n]."""
    chosen: npt.NDArray[np.bool_] = (cycle >= MIN_SEEN) & (left <= MAX_LEFT)
    return chosen


def margin_of(said: Floats, target: Floats) -> float:
    """By how much the interval has to grow to hold COVERAGE of the targets; below 0 to shrink.

    Args:
        said: mean, low and high quantile of each row, in cycles, [n, 3].
        target: cycles left, [n].
    """
    missed = np.maximum(said[:, 1] - target, target - said[:, 2])
    return float(np.quantile(missed, COVERAGE))


def _combine(values: Floats, margin: float) -> Estimate:
    """Estimates of means, low and high quantiles, [n, 3], in cycles."""
    left, low, high = values.T
    return Estimate(
        np.clip(left, 0, CAP),
        np.clip(np.minimum(low - margin, left), 0, CAP),
        np.clip(np.maximum(high + margin, left), 0, CAP),
    )


def _shown(
    unit: npt.NDArray[np.int64], shape: Shape, random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Which rows are shown to which networks, bool [n, networks]; a unit's rows go together."""
    numbers = np.unique(unit)
    parts = [
        part
        for _ in range(shape.repeats)
        for part in np.array_split(random.permutation(numbers), shape.parts)
    ]
    return np.stack([~np.isin(unit, part) for part in parts], axis=1)


def _fit(part: tuple[int, int], shared: Any) -> tuple[list[Any], Floats, list[float]]:
    """Train a network: its weights, what it says of rows that it was not shown, its losses."""
    import keras

    number, seed = part
    features, target, all_shown, shape = shared
    shown = all_shown[:, number]
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    network = _build(keras.Input((features.shape[1],)), shape)
    steps = shape.epochs * -(-int(shown.sum()) // shape.batch)
    schedule = keras.optimizers.schedules.CosineDecay(shape.learning_rate, steps)
    network.compile(keras.optimizers.AdamW(schedule, weight_decay=shape.decay), _loss)
    history = network.fit(
        features[shown], target[shown, np.newaxis].astype(np.float32), batch_size=shape.batch,
        epochs=shape.epochs, verbose=0,
    )  # fmt: skip
    said = np.asarray(network(features[~shown]), np.float64)
    return network.get_weights(), said, [float(loss) for loss in history.history["loss"]]


def _build(given: Any, shape: Shape) -> Any:
    import keras

    layers = keras.layers
    hidden = given
    for width in shape.hidden:
        hidden = layers.Dropout(shape.dropout)(layers.Dense(width, activation="relu")(hidden))
    return keras.Model(given, layers.Dense(len(QUANTILES) + 1)(hidden))


def _side_by_side(members: Sequence[list[Any]], channels: int, shape: Shape) -> Any:
    """All networks as one, with the same input; [1, networks * heads] out."""
    import keras

    # Layers are named by a count of the process, and the names are in the `.tflite`.
    keras.utils.clear_session()
    given = keras.Input((channels,))
    outputs = []
    for weights in members:
        network = _build(given, shape)
        network.set_weights(weights)
        outputs.append(network.output)
    return keras.Model(given, keras.layers.Concatenate()(outputs))


def _loss(true: Any, said: Any) -> Any:
    """Squared error of the mean and pinball losses of the quantiles."""
    from keras import ops

    loss = ops.square(true[:, 0] - said[:, 0])
    for at, quantile in enumerate(QUANTILES, start=1):
        error = true[:, 0] - said[:, at]
        loss += ops.maximum(quantile * error, (quantile - 1) * error)
    return loss
