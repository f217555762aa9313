"""The network: a convolutional auto-encoder that gives back what is normal in a window.

It sees the window and adds a correction to it that it decodes from a narrow code, coarse in
time. Trained to give back the noise of a window without its level and without what was put onto it,
it corrects little where all channels are at their usual level; the size of the correction is the
score.
"""

from __future__ import annotations

from typing import Any

FILTERS = (16, 24, 24)
STRIDES = (2, 2, 4)
KERNEL = 5
CODE = 16
COARSE = 4


def build(window: int, channels: int) -> Any:
    """Return the Keras model, float32 [batch, window, 1, channels] in and out.

    Two-dimensional layers, as one-dimensional ones are converted with reshapes around each.
    """
    import keras

    layers = keras.layers
    given = hidden = keras.Input((window, 1, channels))
    for filters, stride in zip(FILTERS, STRIDES, strict=True):
        convolution = layers.Conv2D(
            filters, (KERNEL, 1), strides=(stride, 1), padding="same", activation="relu"
        )
        hidden = convolution(hidden)
    # Convolutions over all that is left instead of dense layers: LiteRT rounds those once,
    # TensorFlow Lite Micro and the boards twice, and the three must agree to the bit.
    left = hidden.shape[1]
    hidden = layers.Conv2D(CODE, (left, 1), activation="relu")(hidden)
    hidden = layers.Conv2D(COARSE * channels, (1, 1))(hidden)
    hidden = layers.Reshape((COARSE, 1, channels))(hidden)
    # UpSampling2D would become a TILE, which boards do not have.
    hidden = layers.Resizing(window, 1, interpolation="nearest")(hidden)
    return keras.Model(given, layers.Add()([given, hidden]))
