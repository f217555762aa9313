"""A network for failures that is small enough for a board: int8, a kilobyte or two.

Convolutions of one by one instead of dense layers: LiteRT rounds those once, TensorFlow Lite Micro
and the boards twice, and the three must agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.export import Interpreter, TfliteModel, to_float_tflite, to_int8_tflite

HIDDEN = (48, 24)
EPOCHS = 120
QUICK_EPOCHS = 25
BATCH = 128
LEARNING_RATE = 5e-3
# Inputs are in standard deviations, cut off where nothing is to be learned.
CLIP = 6.0
# A failure counts as much as so many rows without one.
POSITIVE_WEIGHT = 4.0


@dataclass(frozen=True)
class FailureNetwork:
    """The network before and after quantization.

    Attributes:
        mean, deviation: of each feature, float64 [features].
        float_data: the `.tflite` in floats.
        int8: the `.tflite` that runs.
        losses: of each epoch.
    """

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    float_data: bytes = field(repr=False)
    int8: TfliteModel = field(repr=False)
    losses: tuple[float, ...] = field(repr=False)

    def float_scores(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Log odds by the network in floats, float64 [n]."""
        scaled = scale(features, self.mean, self.deviation)
        outputs = Interpreter(self.float_data).run(scaled)
        scores: npt.NDArray[np.float64] = outputs[:, 0].astype(np.float64)
        return scores

    def int8_scores(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
        """What the quantized network gives, int8 [n]; the higher, the more likely a failure."""
        return int8_scores(
            self.int8.data, scale(features, self.mean, self.deviation),
            self.int8.input_scale, self.int8.input_zero,
        )  # fmt: skip


def int8_scores(
    data: bytes, scaled: npt.NDArray[np.float32], input_scale: float, input_zero: int
) -> npt.NDArray[np.int8]:
    """Run a quantized network over rows in standard deviations; int8 [n]."""
    levels = np.clip(np.rint(scaled / input_scale) + input_zero, -128, 127).astype(np.int8)
    outputs: npt.NDArray[np.int8] = Interpreter(data).run(levels)[:, 0]
    return outputs


def scale(
    features: npt.NDArray[np.float64],
    mean: npt.NDArray[np.float64],
    deviation: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """Features as the network takes them, float32 [n, 1, 1, features]."""
    scaled = np.clip((features - mean) / deviation, -CLIP, CLIP).astype(np.float32)
    shaped: npt.NDArray[np.float32] = scaled[:, np.newaxis, np.newaxis, :]
    return shaped


def fit_network(
    features: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_], *, quick: bool, seed: int
) -> FailureNetwork:
    """Train and quantize; raises ExportError."""
    import keras

    mean = features.mean(axis=0)
    deviation = np.maximum(features.std(axis=0), 1e-9)
    scaled = scale(features, mean, deviation)
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = _build(features.shape[1])
    epochs = QUICK_EPOCHS if quick else EPOCHS
    steps = epochs * -(-len(labels) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-3),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    targets = labels.astype(np.float32).reshape(-1, 1, 1, 1)
    weights = np.where(labels, POSITIVE_WEIGHT, 1.0).astype(np.float32)
    history = model.fit(
        scaled, targets, sample_weight=weights, batch_size=BATCH, epochs=epochs, verbose=0
    )
    # The rare rows set the ranges of the activations: without them they would saturate.
    shown = np.concatenate([scaled[labels], scaled[~labels][: int(labels.sum())]])
    return FailureNetwork(
        mean, deviation, to_float_tflite(model), to_int8_tflite(model, shown),
        tuple(float(value) for value in history.history["loss"]),
    )  # fmt: skip


def _build(features: int) -> Any:
    import keras

    layers = keras.layers
    given = hidden = keras.Input((1, 1, features))
    for width in HIDDEN:
        hidden = layers.Conv2D(width, (1, 1), activation="relu")(hidden)
    return keras.Model(given, layers.Conv2D(1, (1, 1))(hidden))
