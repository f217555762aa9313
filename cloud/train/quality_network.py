"""Networks that look for defects: evidence at each position of a grid over an image.

Trained from nothing. What a network is shown is turned, mirrored, moved and lit differently, for a
piece lies in any way under the camera. There are two, of one kind: one for fog nodes, and one that
is small enough for a board with the memory of an ESP32-S3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ExportError
from cloud.export import (
    BOARD_OPS,
    FOG_NODE,
    MAX_MODEL_BYTES,
    Target,
    TfliteModel,
    to_float_tflite,
    to_int8_tflite,
)
from cloud.images import Grey

from .quality_model import MAX_VIEWS, PIXEL_MAX

BATCH = 32
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-3
# Steps in which the learning rate rises, as a share of all.
WARM_UP = 0.1
LABEL_SMOOTHING = 0.02
# How much the strongest evidence on the grid counts against the mean of it.
SHARPNESS = 1.0
# Images that an epoch shows, half of them good, whatever there are of either. A group of
# near-duplicates is shown by the root of its size: its hundredth image says less than its first.
EPOCH_IMAGES = 4096
# Half of all images are moved: turned by up to so many degrees beyond mirroring and quarter turns,
# drawn larger or smaller and longer or wider by such shares, and shifted by a share of the side.
MOVED = 0.5
TURN_DEGREES = 45.0
ZOOM, STRETCH, SHIFT = 0.1, 0.05, 0.05
# Light: a factor around the middle grey, and what is added to it.
CONTRAST, BRIGHTNESS = 0.25, 0.15
# Of hardware/boards/esp32-s3.toml.
ESP32_S3 = Target("boards with an ESP32-S3", BOARD_OPS, MAX_MODEL_BYTES, 96 * 1024)

Told = Callable[[int, float], None]


@dataclass(frozen=True)
class Variant:
    """A network to train.

    Attributes:
        name: of it, also of its files.
        target: where it is to run.
        side: pixels of its input, which is square.
        widths: channels of each stage; a stage halves the grid.
        blocks: residual blocks of each stage.
        views: how many ways it is shown an image in (`quality_model.seen_from`) to judge it.
        epochs, quick_epochs: how long it is trained.
    """

    name: str
    target: Target
    side: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    views: int
    epochs: int
    quick_epochs: int

    @property
    def on_board(self) -> bool:
        """Whether a board runs it, whose bytes LiteRT's reference kernels give."""
        return self.target != FOG_NODE


FOG = Variant("fog", FOG_NODE, 128, (16, 24, 48), (0, 1, 1), MAX_VIEWS, 50, 2)
BOARD = Variant("board", ESP32_S3, 96, (8, 16, 24), (0, 0, 1), MAX_VIEWS, 50, 3)


@dataclass(frozen=True)
class Network:
    """A trained network, before and after quantization.

    Attributes:
        variant: which it is.
        float_data: the `.tflite` in floats.
        int8: the `.tflite` that runs.
    """

    variant: Variant
    float_data: bytes = field(repr=False)
    int8: TfliteModel = field(repr=False)


def fit_network(
    variant: Variant,
    images: Grey,
    defective: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    *,
    epochs: int,
    seed: int,
    told: Told,
) -> Network:
    """Train and quantize.

    Args:
        variant: which network.
        images: uint8 [n, side, side].
        defective: bool [n].
        groups: of near-duplicates, int64 [n].
        epochs: how often it sees each group.
        seed: of everything random.
        told: epochs so far, and the loss.

    Raises:
        ExportError: it is not one that its target runs.
    """
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    grid, judge = build(variant)
    random = np.random.default_rng(seed)
    shown = _shown(groups, defective, epochs, random)
    _train(judge, images, defective, shown, epochs, seed, told)
    # Of both classes alike, and from darkest to brightest, so that an input level is a pixel's.
    chosen = shown[random.permutation(len(shown))].reshape(-1)
    samples = images[chosen[:2000]][..., np.newaxis].astype(np.float32) / PIXEL_MAX
    samples[0, :2, 0, 0] = 0, 1
    int8 = to_int8_tflite(grid, samples, variant.target)
    if int8.input_zero != -128 or abs(int8.input_scale * PIXEL_MAX - 1) > 1e-3:
        raise ExportError(
            f"{variant.name}: an input level is {int8.input_scale}, not a grey level",
            "report this, with the version of TensorFlow",
        )
    return Network(variant, to_float_tflite(grid), int8)


def build(variant: Variant) -> tuple[Any, Any]:
    """The network that gives the grid, and the same with what its evidence comes to."""
    import keras

    layers = keras.layers

    def convolved(x: Any, width: int, taps: int, stride: int) -> Any:
        x = layers.Conv2D(width, taps, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    given = x = keras.Input((variant.side, variant.side, 1))
    for stage, (width, blocks) in enumerate(zip(variant.widths, variant.blocks, strict=True)):
        x = layers.ReLU()(convolved(x, width, 3 if stage else 5, 2))
        for _ in range(blocks):
            inner = layers.ReLU()(convolved(x, width, 3, 1))
            x = layers.ReLU()(layers.Add()([x, convolved(inner, width, 3, 1)]))
    grid = layers.Conv2D(1, 1)(x)
    flat = layers.Reshape((-1,))(grid)
    return keras.Model(given, grid), keras.Model(given, _combined(flat))


def _combined(flat: Any) -> Any:
    """As `quality_model.combined`, in a way that can be learned through."""
    from keras import ops

    sums = ops.logsumexp(SHARPNESS * flat, axis=1, keepdims=True)
    return (sums - float(np.log(flat.shape[1]))) / SHARPNESS


def _shown(
    groups: npt.NDArray[np.int64],
    defective: npt.NDArray[np.bool_],
    epochs: int,
    random: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Numbers of the images of each batch, int64 [batches, BATCH]: half of each kind."""
    steps = epochs * (EPOCH_IMAGES // BATCH)
    halves = []
    for kind in (defective, ~defective):
        numbers = np.flatnonzero(kind)
        _, of, sizes = np.unique(groups[numbers], return_inverse=True, return_counts=True)
        chance = 1 / np.sqrt(sizes[of])
        drawn = random.choice(numbers, (steps, BATCH // 2), p=chance / chance.sum())
        halves.append(drawn)
    return np.concatenate(halves, axis=1)


def _train(
    judge: Any,
    images: Grey,
    defective: npt.NDArray[np.bool_],
    shown: npt.NDArray[np.int64],
    epochs: int,
    seed: int,
    told: Told,
) -> None:
    import keras
    import tensorflow as tf

    given = tf.constant(images[..., np.newaxis])
    wanted = tf.constant(defective.astype(np.float32)[:, np.newaxis])

    def batch(number: Any, chosen: Any) -> tuple[Any, Any]:
        pictures = _varied(tf.gather(given, chosen), tf.stack([tf.cast(seed, tf.int64), number]))
        return pictures, tf.gather(wanted, chosen)

    steps = len(shown)
    warm = max(1, int(steps * WARM_UP))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm), warmup_target=LEARNING_RATE, warmup_steps=warm
    )
    judge.compile(
        keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY),
        keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING),
    )
    batches = (
        tf.data.Dataset.from_tensor_slices((np.arange(steps, dtype=np.int64), shown))
        .map(batch, num_parallel_calls=2, deterministic=True)
        .prefetch(4)
    )
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: told(epoch + 1, float(logs["loss"]))
    )
    judge.fit(
        batches, epochs=epochs, steps_per_epoch=steps // epochs, shuffle=False, verbose=0,
        callbacks=[tell],
    )  # fmt: skip


def _varied(images: Any, seed: Any) -> Any:
    """Pictures as the piece would look in another position and light, of 0 to 1.

    Args:
        images: uint8 [n, side, side, 1].
        seed: two integers.
    """
    import tensorflow as tf

    count, side = tf.shape(images)[0], images.shape[1]
    chance = tf.random.stateless_uniform((12, count), seed)

    def even(at: int, reach: float) -> Any:
        return (chance[at] - 0.5) * 2 * reach

    pictures = tf.cast(images, tf.float32) / PIXEL_MAX
    even_chance = chance[:3, :, tf.newaxis, tf.newaxis, tf.newaxis] < 0.5
    pictures = tf.where(even_chance[0], pictures, pictures[:, ::-1])
    pictures = tf.where(even_chance[1], pictures, pictures[:, :, ::-1])
    pictures = tf.where(even_chance[2], pictures, tf.transpose(pictures, (0, 2, 1, 3)))
    moved = tf.cast(chance[3] < MOVED, tf.float32)
    angle = moved * even(4, np.deg2rad(TURN_DEGREES))
    across = 1 + moved * even(5, ZOOM)
    down = across * (1 + moved * even(6, STRETCH))
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # Output (x, y) is taken from (a x + b y + c, d x + e y + f), around the middle.
    a, b, d, e = cosine * across, -sine * down, sine * across, cosine * down
    middle = (side - 1) / 2
    c = middle * (1 - a - b) + moved * even(7, SHIFT * side)
    f = middle * (1 - d - e) + moved * even(8, SHIFT * side)
    none = tf.zeros_like(a)
    pictures = tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures, transforms=tf.stack([a, b, c, d, e, f, none, none], axis=1),
        output_shape=(side, side), interpolation="BILINEAR", fill_mode="NEAREST", fill_value=0.0,
    )  # fmt: skip
    gain = (1 + even(9, CONTRAST))[:, tf.newaxis, tf.newaxis, tf.newaxis]
    more = even(10, BRIGHTNESS)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return tf.clip_by_value((pictures - 0.5) * gain + 0.5 + more, 0.0, 1.0)
