"""An ensemble of small networks that tell how many cycles are left, and how sure that is.

Each network has three heads: the mean, and a low and a high quantile (Koenker and Bassett 1978).
Each is trained without a part of the units, and judges that part: the errors there widen or narrow
the interval until it holds (conformalised quantile regression, Romano et al. 2019), and say how
good the networks are without a look at any test. All of them are one file, with the same input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError
from cloud.export import FOG_NODE, Interpreter, TfliteModel, to_float_tflite, to_int8_tflite

# Cycles. What is further off than this shows in no sensor (Heimes 2008 and most since).
CAP = 125.0
PARTS = 5
REPEATS = 2
QUICK_REPEATS = 1
HIDDEN = (128, 64)
DROPOUT = 0.2
EPOCHS = 40
QUICK_EPOCHS = 20
BATCH = 256
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3
# The interval's two ends, as quantiles; its share of true values.
QUANTILES = (0.05, 0.95)
COVERAGE = 0.9
# Rows that networks are judged by: as much of a unit was seen, and as little is left, as where
# the interval is of use.
MIN_SEEN = 30
MAX_LEFT = 150.0

Told = Callable[[int, float], None]
Floats = npt.NDArray[np.float64]


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


def fit_ensemble(
    features: npt.NDArray[np.float32],
    left: Floats,
    unit: npt.NDArray[np.int64],
    rows: npt.NDArray[np.bool_],
    *,
    quick: bool,
    seed: int,
    told: Told,
) -> Ensemble:
    """Train, calibrate and quantize; raises ExportError.

    Args:
        features: float32 [n, channels].
        left: cycles left at each row, float64 [n].
        unit: that the row is of, int64 [n].
        rows: by which the interval is made to hold, bool [n].
        quick: fewer networks and epochs.
        seed: of the parts and of everything random in training.
        told: epochs so far, and the loss.
    """
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    target = np.minimum(left, CAP)
    shown = _shown(unit, QUICK_REPEATS if quick else REPEATS, random)
    networks = _build(features.shape[1], shown.shape[1])
    _train(networks, features, target / CAP, shown, epochs_of(quick), told)
    values = networks.predict(features, batch_size=4096, verbose=0).astype(np.float64) * CAP
    hidden = ~shown[:, :, np.newaxis]
    said = (values * hidden).sum(axis=1) / hidden.sum(axis=1)
    margin = margin_of(said[rows], target[rows])
    whole = _branches(networks)
    representative = features[random.permutation(len(features))]
    return Ensemble(
        to_float_tflite(whole),
        to_int8_tflite(whole, representative, FOG_NODE),
        margin,
        _combine(said, margin),
    )


def epochs_of(quick: bool) -> int:
    """How many epochs there are."""
    return QUICK_EPOCHS if quick else EPOCHS


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
    unit: npt.NDArray[np.int64], repeats: int, random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Which rows are shown to which networks, bool [n, networks]; a unit's rows go together."""
    numbers = np.unique(unit)
    parts = [
        part for _ in range(repeats) for part in np.array_split(random.permutation(numbers), PARTS)
    ]
    return np.stack([~np.isin(unit, part) for part in parts], axis=1)


def _build(channels: int, networks: int) -> Any:
    """Networks side by side that share no weight, [n, networks, heads] out: trained in one go."""
    import keras

    layers = keras.layers
    given = hidden = keras.Input((channels,))
    before, sums = channels, "bi,mio->bmo"
    for width in (*HIDDEN, len(QUANTILES) + 1):
        limit = (6 / (before + width)) ** 0.5  # Glorot's, for each network by itself
        hidden = layers.EinsumDense(
            sums, (networks, width), bias_axes="mo",
            activation="linear" if width == len(QUANTILES) + 1 else "relu",
            kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        )(hidden)  # fmt: skip
        if width != len(QUANTILES) + 1:
            hidden = layers.Dropout(DROPOUT)(hidden)
        before, sums = width, "bmi,mio->bmo"
    return keras.Model(given, hidden)


def _branches(networks: Any) -> Any:
    """The same networks of plain layers, which every interpreter has; [1, networks * heads] out."""
    import keras

    layers = keras.layers
    weights = [layer.get_weights() for layer in networks.layers if layer.weights]
    given = keras.Input(networks.input_shape[1:])
    outputs = []
    for number in range(networks.output_shape[1]):
        hidden = given
        for at, (kernel, bias) in enumerate(weights):
            last = at == len(weights) - 1
            dense = layers.Dense(bias.shape[1], activation="linear" if last else "relu")
            hidden = dense(hidden)
            dense.set_weights([kernel[number], bias[number]])
        outputs.append(hidden)
    return keras.Model(given, layers.Concatenate()(outputs))


def _train(
    networks: Any,
    features: npt.NDArray[np.float32],
    target: Floats,
    shown: npt.NDArray[np.bool_],
    epochs: int,
    told: Told,
) -> None:
    import keras

    steps = epochs * -(-len(features) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    networks.compile(keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY), _loss)
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: told(epoch + 1, float(logs["loss"]))
    )
    # What a network is not shown it is given as well, but nothing that it says there counts.
    wanted = np.stack([np.broadcast_to(target[:, np.newaxis], shown.shape), shown], axis=2)
    networks.fit(
        features, wanted.astype(np.float32), batch_size=BATCH, epochs=epochs, verbose=0,
        callbacks=[tell],
    )  # fmt: skip


def _loss(wanted: Any, said: Any) -> Any:
    """Squared error of the mean and pinball losses of the quantiles, summed over networks."""
    from keras import ops

    true, shown = wanted[:, :, 0], wanted[:, :, 1]
    loss = ops.square(true - said[:, :, 0])
    for at, quantile in enumerate(QUANTILES, start=1):
        error = true - said[:, :, at]
        loss += ops.maximum(quantile * error, (quantile - 1) * error)
    return ops.sum(shown * loss, axis=1)
