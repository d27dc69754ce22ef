"""How cost grows, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.cases import Series
from benchmarks.runner import Samples
from benchmarks.systems import System

__all__ = ["draw"]

_SIZE = (6.4, 4.0)


def draw(series: Series, samples: Samples, systems: Sequence[System], folder: Path) -> Path:
    """Draw one series as SVG: the median of each system, and the span from its least to its most.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # Here, not at the top: the table needs no plots.
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    for system in systems:
        points = [
            (number, known)
            for number, case in series.cases.items()
            if (known := [value for value in samples.values[case][system] if value is not None])
        ]
        if not points:
            continue
        numbers = [number for number, _ in points]
        axes.plot(numbers, [median(known) for _, known in points], marker="o", label=system.title)
        axes.fill_between(
            numbers, [min(known) for _, known in points], [max(known) for _, known in points], alpha=0.2
        )
    unit = next(iter(series.cases.values())).unit
    axes.set(xscale="log", xlabel=series.axis, ylabel=unit, title=series.title)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{series.title.lower().replace(' ', '-')}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
