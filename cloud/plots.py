"""Plots of a training job and of an evaluation, written as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 60
DOTS_PER_INCH = 110


def plot_training(
    out: Path,
    losses: Sequence[float],
    int8_scores: npt.NDArray[Any],
    threshold: int,
    float_scores: npt.NDArray[Any],
    float_threshold: float,
) -> None:
    """Write loss.png, scores.png and float_int8.png."""
    figure, axes = _figure()
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set(xlabel="epoch", ylabel="mean squared error", title="training", yscale="log")
    _save(figure, out / "loss.png")
    figure, axes = _figure()
    bins = np.geomspace(1, max(2, int(int8_scores.max(initial=2))), BINS)
    axes.hist(np.maximum(int8_scores, 1), bins=bins)
    axes.axvline(max(1, threshold), color="red", label=f"threshold {threshold}")
    axes.set(xlabel="score of held-out normal windows", ylabel="windows", xscale="log")
    axes.legend()
    _save(figure, out / "scores.png")
    figure, axes = _figure()
    axes.loglog(np.maximum(float_scores, 1e-3), np.maximum(int8_scores, 1), ".", markersize=3)
    axes.axvline(float_threshold, color="grey")
    axes.axhline(max(1, threshold), color="grey")
    axes.set(xlabel="score, float", ylabel="score, int8", title="float against int8")
    _save(figure, out / "float_int8.png")


def plot_timeline(
    path: Path,
    scores: npt.NDArray[Any],
    threshold: int,
    labels: npt.NDArray[np.bool_],
    title: str,
) -> None:
    """Write the scores of one board over its windows, labelled anomalies shaded."""
    figure, axes = _figure()
    position = np.arange(len(scores))
    axes.semilogy(position, np.maximum(scores, 1), linewidth=0.8)
    axes.axhline(max(1, threshold), color="red", linewidth=0.8)
    low, high = axes.get_ylim()
    axes.fill_between(position, low, high, where=labels.tolist(), alpha=0.2, color="orange")
    axes.set(xlabel="window", ylabel="score", title=title)
    _save(figure, path)


def plot_precision_recall(
    path: Path, scores: Mapping[str, npt.NDArray[np.float64]], labels: npt.NDArray[np.bool_]
) -> None:
    """Write the curves of several classifiers, by name."""
    from sklearn.metrics import precision_recall_curve

    figure, axes = _figure()
    for name, values in scores.items():
        precisions, recalls, _ = precision_recall_curve(labels, values)
        axes.plot(recalls, precisions, label=name, linewidth=1)
    axes.set(xlabel="recall", ylabel="precision", title="rows that were not learned from")
    axes.legend(fontsize="small")
    _save(figure, path)


def plot_left(
    path: Path,
    true: npt.NDArray[np.float64],
    said: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
) -> None:
    """Write cycles left as they were and as they were told, with intervals; a dot each unit."""
    figure, axes = _figure()
    reach = [said - low, high - said]
    axes.errorbar(true, said, yerr=reach, fmt="o", markersize=3, elinewidth=0.5)
    end = float(max(true.max(), high.max()))
    axes.plot([0, end], [0, end], color="grey", linewidth=0.8)
    axes.set(xlabel="cycles left", ylabel="cycles left, as told", title="units never seen")
    _save(figure, path)


def plot_course(
    path: Path,
    cycle: npt.NDArray[np.int64],
    true: npt.NDArray[np.float64],
    said: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    title: str,
) -> None:
    """Write what was told of one unit, cycle by cycle, until it failed."""
    figure, axes = _figure()
    axes.fill_between(cycle, low, high, alpha=0.25, label="interval")
    axes.plot(cycle, said, linewidth=1, label="told")
    axes.plot(cycle, true, color="grey", linewidth=1, label="true, capped")
    axes.set(xlabel="cycle", ylabel="cycles left", title=title)
    axes.legend()
    _save(figure, path)


def plot_heatmaps(
    path: Path,
    images: npt.NDArray[np.uint8],
    heats: npt.NDArray[np.float64],
    titles: Sequence[str],
) -> None:
    """Write images beside each other, with what speaks for a defect in red, 0 to 1."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = 4
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2 * columns, 2.2 * rows), layout="constrained", squeeze=False
    )
    for place in axes.flat:
        place.axis("off")
    for place, image, heat, title in zip(axes.flat, images, heats, titles, strict=False):
        side = len(image)
        place.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
        place.imshow(
            np.ones_like(heat), cmap="autumn_r", vmin=0, vmax=1, alpha=heat,
            extent=(0, side, side, 0), interpolation="bilinear",
        )  # fmt: skip
        place.set_title(title, fontsize="small")
    _save(figure, path)


def plot_losses(path: Path, losses: Sequence[Sequence[float]], what: str) -> None:
    """Write the loss of each epoch of each member of an ensemble."""
    figure, axes = _figure()
    for number, values in enumerate(losses):
        axes.plot(range(1, len(values) + 1), values, label=f"network {number}", linewidth=1)
    axes.set(xlabel="epoch", ylabel=what, title="training")
    axes.legend(fontsize="small")
    _save(figure, path)


def plot_calibration(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the share of what was observed below each level, against the level."""
    figure, axes = _figure()
    levels = [row["level"] for row in rows]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.plot(levels, [row["share"] for row in rows], "o-", label="share below the level")
    axes.plot(levels, [row["covered"] for row in rows], "x", label="at or below the quantile")
    axes.set(xlabel="level", ylabel="share of months", title="calibration of months kept out")
    axes.legend(fontsize="small")
    _save(figure, path)


def plot_service(
    path: Path,
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    chosen: Mapping[str, tuple[float, float]],
) -> None:
    """Write each policy's service against its stock; curves are of (stock, fill rate, cost)."""
    figure, axes = _figure()
    for name, curve in curves.items():
        held = [point[0] for point in curve]
        (line,) = axes.plot(held, [point[1] for point in curve], ".-", label=name, linewidth=1)
        axes.plot(*chosen[name], "o", color=line.get_color())
    axes.set(
        xlabel="pieces in stock, mean", ylabel="fill rate",
        title="service against stock; dots: as set",
    )  # fmt: skip
    axes.legend(fontsize="small")
    _save(figure, path)


def _figure() -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(7, 4), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
