"""The figure of `fogline bench clients`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.errors import ToolError


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw latencies and memory into a file; raises ToolError, OSError."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ToolError("--plot: needs matplotlib; install fogline[cloud]") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, seconds in result["latencies"].items():
        share = [(i + 1) / len(seconds) for i in range(len(seconds))]
        left.plot(seconds, share, label=name)
    left.set(xlabel="s", ylabel="share of clients", xlim=(0, None), ylim=(0, 1))
    left.set_title(f"{result['clients']} clients, {result['concurrency']} at once")
    left.legend()
    samples = result["samples"]
    for name in samples[0]["mib"]:
        times = [sample["s"] for sample in samples]
        right.plot(times, [sample["mib"].get(name) for sample in samples], label=name)
    right.set(xlabel="s", ylabel="MiB resident", ylim=(0, None))
    right.set_title("Memory of the controllers")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
