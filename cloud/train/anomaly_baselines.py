"""Detectors to hold the network for boards against, each fitted to an experiment's first rows.

Constants are those of the publications, or textbook values; none was chosen by results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
# Is given the rows to fit to, all rows and a seed; says of each row whether it is anomalous.
Detector = Callable[[Rows, Rows, int], Flags]

MIN_DEVIATION = 1e-9
# Isolation forest and Hotelling's T-squared with Q as SKAB runs them (waico/SKAB on GitHub).
CONTAMINATION = 0.0005
FOREST_MEDIAN = 3
VARIANCE = 0.85
CONFIDENCE = 0.999
CHART_MEDIAN = 5
# A mean of so many rows, which is anomalous this many deviations from the first rows' mean.
MEAN_ROWS = 48
MEAN_LIMIT = 3.0
# Page's CUSUM in deviations (Montgomery, Introduction to Statistical Quality Control).
CUSUM_SLACK = 0.5
CUSUM_LIMIT = 5.0
# The convolutional auto-encoder that SKAB publishes as Conv-AE.
AE_WINDOW = 60
AE_FILTERS = (32, 16)
AE_KERNEL = 7
AE_DROPOUT = 0.2
AE_EPOCHS = 100
AE_PATIENCE = 5
AE_BATCH = 32
AE_LEFT_OUT = 0.1
AE_QUANTILE = 0.999
AE_MARGIN = 4 / 3


def all_anomalous(_: Rows, rows: Rows, __: int) -> Flags:
    """Call every row anomalous."""
    return np.ones(len(rows), np.bool_)


def isolation_forest(fit: Rows, rows: Rows, seed: int) -> Flags:
    """Isolation forest, smoothed by a median."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(contamination=CONTAMINATION, random_state=seed).fit(fit)
    outlying = (forest.predict(rows) < 0).astype(np.float64)
    return trailing_median(outlying, FOREST_MEDIAN) > 0


def t_squared_and_q(fit: Rows, rows: Rows, _: int) -> Flags:
    """Hotelling's T-squared in the principal space or Q in what is left, over its limit."""
    from scipy import stats
    from sklearn.decomposition import PCA

    mean, deviation = fit.mean(axis=0), np.maximum(fit.std(axis=0), MIN_DEVIATION)
    known, scaled = (fit - mean) / deviation, (rows - mean) / deviation
    pca = PCA(VARIANCE, svd_solver="full").fit(known)
    count, kept = len(fit), int(pca.n_components_)
    scores = pca.transform(scaled)
    t_squared = np.square(scores / np.sqrt(pca.explained_variance_)).sum(axis=1)
    q = np.square(scaled - pca.inverse_transform(scores)).sum(axis=1)
    factor = kept * (count - 1) * (count + 1) / (count * (count - kept))
    t_limit = factor * stats.f.ppf(CONFIDENCE, kept, count - kept)
    q_limit = _q_limit(np.linalg.eigvalsh(np.atleast_2d(np.cov(known.T)))[::-1][kept:])
    flags: Flags = (trailing_median(t_squared, CHART_MEDIAN) > t_limit) | (
        trailing_median(q, CHART_MEDIAN) > q_limit
    )
    return flags


def _q_limit(left: Rows) -> float:
    """Limit of Q by Jackson and Mudholkar (1979), from the eigenvalues that are left."""
    from scipy import stats

    first, second, third = (float((left**power).sum()) for power in (1, 2, 3))
    if second == 0:  # nothing is left: Q is rounding alone
        return math.inf
    h = 1 - 2 * first * third / (3 * second**2)
    z = float(stats.norm.ppf(CONFIDENCE))
    inner = 1 + z * h * math.sqrt(2 * second) / first + second * h * (h - 1) / first**2
    return float(first * inner ** (1 / h))


def moving_mean(fit: Rows, rows: Rows, _: int) -> Flags:
    """The mean of the latest rows of any channel is too many deviations away."""
    deviation = np.maximum(fit.std(axis=0), MIN_DEVIATION)
    away = (trailing_mean(rows, MEAN_ROWS) - fit.mean(axis=0)) / deviation
    flags: Flags = (np.abs(away) > MEAN_LIMIT).any(axis=1)
    return flags


def cusum(fit: Rows, rows: Rows, _: int) -> Flags:
    """Two-sided CUSUM of any channel; it starts again where the rows that were fitted to end."""
    scaled = (rows - fit.mean(axis=0)) / np.maximum(fit.std(axis=0), MIN_DEVIATION)
    up, down = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    flags = np.zeros(len(rows), np.bool_)
    for at, row in enumerate(scaled):
        if at == len(fit):
            up[:], down[:] = 0, 0
        up = np.maximum(0, up + row - CUSUM_SLACK)
        down = np.maximum(0, down - row - CUSUM_SLACK)
        flags[at] = max(up.max(), down.max()) > CUSUM_LIMIT
    return flags


def conv_auto_encoder(fit: Rows, rows: Rows, seed: int) -> Flags:
    """SKAB's Conv-AE: fitted to the first rows; looks up to 58 rows ahead of the row it judges."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    mean, deviation = fit.mean(axis=0), np.maximum(fit.std(axis=0), MIN_DEVIATION)
    known = _windows((fit - mean) / deviation)
    model = _conv_auto_encoder(rows.shape[1])
    model.fit(
        known, known, epochs=AE_EPOCHS, batch_size=AE_BATCH, validation_split=AE_LEFT_OUT,
        verbose=0, callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=AE_PATIENCE)],
    )  # fmt: skip

    def residuals(windows: npt.NDArray[np.float32]) -> Rows:
        given = model.predict(windows, batch_size=256, verbose=0)
        found: Rows = np.abs(windows - given).mean(axis=1).sum(axis=1).astype(np.float64)
        return found

    limit = np.quantile(residuals(known), AE_QUANTILE) * AE_MARGIN
    over = residuals(_windows((rows - mean) / deviation)) > limit
    flags = np.zeros(len(rows), np.bool_)
    for at in range(AE_WINDOW - 1, len(over) - AE_WINDOW + 1):
        flags[at] = over[at - AE_WINDOW + 1 : at].all()
    return flags


def _conv_auto_encoder(channels: int) -> Any:
    import keras

    layers = keras.layers
    wide, narrow = AE_FILTERS
    given = hidden = keras.Input((AE_WINDOW, channels))
    form: dict[str, Any] = {"padding": "same", "strides": 2, "activation": "relu"}
    hidden = layers.Conv1D(wide, AE_KERNEL, **form)(hidden)
    hidden = layers.Dropout(AE_DROPOUT)(hidden)
    hidden = layers.Conv1D(narrow, AE_KERNEL, **form)(hidden)
    hidden = layers.Conv1DTranspose(narrow, AE_KERNEL, **form)(hidden)
    hidden = layers.Dropout(AE_DROPOUT)(hidden)
    hidden = layers.Conv1DTranspose(wide, AE_KERNEL, **form)(hidden)
    # One channel, held against each of the input's: so it was published.
    model = keras.Model(given, layers.Conv1DTranspose(1, AE_KERNEL, padding="same")(hidden))
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    return model


def _windows(rows: Rows) -> npt.NDArray[np.float32]:
    view = np.lib.stride_tricks.sliding_window_view(rows, AE_WINDOW, axis=0)
    windows: npt.NDArray[np.float32] = view.transpose(0, 2, 1).astype(np.float32)
    return windows


def trailing_mean(rows: Rows, count: int) -> Rows:
    """Mean of each row and those before it, `count` in all or what is there; [n, channels]."""
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    ends = np.arange(1, len(rows) + 1)
    begins = np.maximum(0, ends - count)
    means: Rows = (sums[ends] - sums[begins]) / (ends - begins)[:, np.newaxis]
    return means


def trailing_median(values: Rows, count: int) -> Rows:
    """Median of each value and those before it, `count` in all; the first ones stand as they are.

    `values` is float64 [n].
    """
    found = values.copy()
    if len(values) >= count:
        views = np.lib.stride_tricks.sliding_window_view(values, count)
        found[count - 1 :] = np.median(views, axis=1)
    return found


ALL, PUBLISHED = "every row anomalous", "Conv-AE as published, fitted to each experiment"
DETECTORS: dict[str, Detector] = {
    ALL: all_anomalous,
    "isolation forest": isolation_forest,
    "T-squared and Q": t_squared_and_q,
    f"mean of {MEAN_ROWS} rows": moving_mean,
    "CUSUM": cusum,
    PUBLISHED: conv_auto_encoder,
}
