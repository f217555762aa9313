"""Converts untrained Keras models to full int8, for test_tflite.py.

Argument: a folder, which gets NAME.keras.tflite and NAME.keras.json with the input's shape.
The batch size is fixed: an open one makes the converter compute shapes at run time.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

SAMPLES = 50


def autoencoder():
    """Strided convolutions and back, over windows of 60 rows of 8 channels."""
    layers = tf.keras.layers
    x = start = tf.keras.Input((60, 8), batch_size=1)
    x = layers.Conv1D(16, 7, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv1D(8, 5, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv1DTranspose(16, 5, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv1DTranspose(8, 7, strides=2, padding="same")(x)
    return tf.keras.Model(start, x)


def classifier():
    """Separable and residual convolutions, pooling, a dense head."""
    layers = tf.keras.layers
    x = start = tf.keras.Input((32, 6), batch_size=1)
    x = layers.SeparableConv1D(12, 3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.AveragePooling1D(2)(x)
    x = layers.Add()([x, layers.Conv1D(12, 3, padding="same", dilation_rate=2)(x)])
    x = layers.MaxPooling1D(2)(x)
    x = layers.GlobalAveragePooling1D()(x)
    return tf.keras.Model(start, layers.Dense(3, activation="sigmoid")(x))


def dense():
    """A dense auto-encoder."""
    layers = tf.keras.layers
    x = start = tf.keras.Input((20, 4), batch_size=1)
    x = layers.Flatten()(x)
    x = layers.Dense(16, activation="tanh")(x)
    x = layers.Dense(80)(x)
    return tf.keras.Model(start, layers.Reshape((20, 4))(x))


def convert(model):
    """The model as a full-int8 .tflite file."""
    rng = np.random.default_rng(0)
    shape = model.input_shape
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.normal(size=shape).astype(np.float32)] for _ in range(SAMPLES)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def main(folder):
    for make in (autoencoder, classifier, dense):
        tf.keras.utils.set_random_seed(1)
        model = make()
        path = Path(folder) / f"{make.__name__}.keras.tflite"
        path.write_bytes(convert(model))
        path.with_suffix(".json").write_text(json.dumps(model.input_shape))


main(sys.argv[1])
