"""A network for failures that is small enough for a board: int8, a few kilobytes.

It is taught by the super learner, of rows that were measured and of rows that were made up: what is
measured holds too few failures to learn from them alone (knowledge distillation; Bucila, Caruana
and Niculescu-Mizil, "Model compression", KDD 2006).

Convolutions of one by one instead of dense layers: LiteRT rounds those once, TensorFlow Lite Micro
and the boards twice, and the three must agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError
from cloud.export import Interpreter, TfliteModel, to_float_tflite, to_int8_tflite
from cloud.model_files import load_tflite

HIDDEN = (64, 32)
EPOCHS = 40
QUICK_EPOCHS = 15
BATCH = 256
LEARNING_RATE = 5e-3
# Inputs are in standard deviations, cut off where nothing is to be learned.
CLIP = 6.0
INT8_FILE, FLOAT_FILE = "model.tflite", "model_float.tflite"


@dataclass(frozen=True)
class FailureNetwork:
    """The network before and after quantization.

    Attributes:
        mean, deviation: of each feature, float64 [features].
        float_data: the `.tflite` in floats.
        int8_data: the `.tflite` that runs on boards.
    """

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    float_data: bytes = field(repr=False)
    int8_data: bytes = field(repr=False)

    def float_scores(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Log odds by the network in floats, float64 [n]."""
        scaled = scale(features, self.mean, self.deviation)
        outputs = Interpreter(self.float_data).run(scaled)
        scores: npt.NDArray[np.float64] = outputs[:, 0].astype(np.float64)
        return scores

    def int8_scores(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
        """What the quantized network gives, int8 [n]; the higher, the more likely a failure."""
        interpreter = Interpreter(self.int8_data)
        width, zero = interpreter.input["quantization"]
        scaled = scale(features, self.mean, self.deviation)
        levels = np.clip(np.rint(scaled / width) + zero, -128, 127).astype(np.int8)
        outputs: npt.NDArray[np.int8] = interpreter.run(levels)[:, 0]
        return outputs

    def save(self, directory: Path) -> None:
        """Write both files."""
        (directory / INT8_FILE).write_bytes(self.int8_data)
        (directory / FLOAT_FILE).write_bytes(self.float_data)

    @classmethod
    def load(cls, directory: Path, said: Any, features: int) -> FailureNetwork:
        """Read what was saved.

        Args:
            directory: with both files.
            said: of the network by the model's card.
            features: how many there are.

        Raises:
            ModelError: a file or what is said of it is damaged, or of another model.
        """
        try:
            scales = np.array([said["mean"], said["deviation"]], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{directory}: card is damaged ({error!r})", "train again") from error
        if scales.shape != (2, features) or not np.isfinite(scales).all() or scales[1].min() <= 0:
            raise ModelError(f"{directory}: card's mean and deviation are damaged", "train again")
        files = [directory / name for name in (FLOAT_FILE, INT8_FILE)]
        found = [load_tflite(path) for path in files]
        for path, data, kind in zip(files, found, (np.float32, np.int8), strict=True):
            given = Interpreter(data).input
            if (given["dtype"], given["shape"].tolist()) != (kind, [1, 1, 1, features]):
                raise ModelError(
                    f"{path}: does not take {features} numbers of {kind.__name__}",
                    "use model and card of one training",
                )
        return cls(*scales, *found)


@dataclass(frozen=True)
class NetworkFit:
    """A network that was trained.

    Attributes:
        network: as it runs.
        int8: what must be known to feed it on a board, and what it takes there.
        losses: of each epoch.
    """

    network: FailureNetwork
    int8: TfliteModel = field(repr=False)
    losses: tuple[float, ...] = field(repr=False)


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
    measured: npt.NDArray[np.float64],
    made_up: npt.NDArray[np.float64],
    probability: npt.NDArray[np.float64],
    *,
    quick: bool,
    seed: int,
) -> NetworkFit:
    """Train and quantize.

    Args:
        measured: features of rows that were measured, float64 [n, features]; they set the scale.
        made_up: of rows that were not, float64 [m, features].
        probability: of a failure in each of both, by the teacher, float64 [n + m].
        quick: fewer epochs.
        seed: of everything random.

    Raises:
        ExportError: boards cannot run it.
    """
    import keras

    mean = measured.mean(axis=0)
    deviation = np.maximum(measured.std(axis=0), 1e-9)
    scaled = scale(np.concatenate([measured, made_up]), mean, deviation)
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = _build(measured.shape[1])
    epochs = QUICK_EPOCHS if quick else EPOCHS
    steps = epochs * -(-len(scaled) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-4),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    targets = probability.astype(np.float32).reshape(-1, 1, 1, 1)
    history = model.fit(scaled, targets, batch_size=BATCH, epochs=epochs, verbose=0)
    # Failures set the ranges of the activations, and most of what is made up is of such.
    float_data, int8 = to_float_tflite(model), to_int8_tflite(model, scaled[len(measured) :])
    network = FailureNetwork(mean, deviation, float_data, int8.data)
    return NetworkFit(network, int8, tuple(float(value) for value in history.history["loss"]))


def _build(features: int) -> Any:
    import keras

    layers = keras.layers
    given = hidden = keras.Input((1, 1, features))
    for width in HIDDEN:
        hidden = layers.Conv2D(width, (1, 1), activation="relu")(hidden)
    return keras.Model(given, layers.Conv2D(1, (1, 1))(hidden))
