"""The figure of `fogline bench network`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.errors import ToolError


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw rates and latencies over the validators into a file; raises ToolError, OSError."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ToolError("--plot: needs matplotlib; install fogline[cloud]") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    runs = result["runs"]
    for readings in dict.fromkeys(row["readings"] for row in runs):
        rows = [row for row in runs if row["readings"] == readings]
        counts = [row["validators"] for row in rows]
        label = f"{readings} readings a pack"
        left.plot(counts, [row["packs_per_s"] for row in rows], "o-", label=label)
        right.plot(counts, [row["p99_s"] for row in rows], "o-", label=label)
    by_count = {row["validators"]: row["limit_per_s"] for row in runs}
    for share, style in ((result["limit"], "--"), (result["target"], ":")):
        label = f"{share:g} x the limit"
        left.plot(
            list(by_count), [share * limit for limit in by_count.values()], f"k{style}", label=label
        )
    left.set(xlabel="validators", ylabel="packs made final per s", yscale="log")
    left.legend(fontsize="small")
    right.axhline(2 * result["block_interval_s"], color="k", linestyle=":")
    right.set(xlabel="validators", ylabel="s until final, 99th percentile", ylim=(0, None))
    right.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
