"""What was measured, for a person and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from attrs import asdict
from rich.table import Table

from benchmarks.cases import Case, Series
from benchmarks.runner import Effort, Samples
from benchmarks.systems import OURS, System

__all__ = ["as_json", "comparison", "ratios", "save", "table"]

_SMALL = 100
_FEW = 3


def ratios(samples: Samples, case: Case, other: System) -> list[float]:
    """Give, for each round, the figure of slim-actors divided by that of another system."""
    values = samples.values[case]
    rounds = zip(values[OURS], values[other], strict=True)
    return [ours / theirs for ours, theirs in rounds if ours is not None and theirs]


def table(samples: Samples, systems: Sequence[System]) -> Table:
    """Make the table of figures: the median of each, and, where there is room, its least and most."""
    spans = len(systems) <= _FEW
    made = Table("case", "unit", title="Medians" + " (and the least to the most of all rounds)" * spans)
    for system in systems:
        made.add_column(system.title, justify="right")
    for case in samples.values:
        made.add_row(
            case.title, case.unit, *(_figure(samples.values[case][system], spans) for system in systems)
        )
    return made


def comparison(samples: Samples, systems: Sequence[System]) -> Table:
    """Make the table of ratios, each taken within a round: their least, median and most."""
    others = [system for system in systems if system != OURS]
    made = Table("case", "", title=f"{OURS.title} divided by others: least, median and most of all rounds")
    for system in others:
        made.add_column(system.title, justify="right")
    for case in samples.values:
        better = "more is better" if case.more_is_better else "less is better"
        compared = [_ratio(ratios(samples, case, system)) for system in others]
        made.add_row(case.title, better, *compared)
    return made


def as_json(samples: Samples, effort: Effort, series: Sequence[Series] = ()) -> str:
    """Give everything that was measured, and on what."""
    figures: list[dict[str, Any]] = [
        {
            "case": case.title,
            "unit": case.unit,
            "setup": asdict(case.setup),
            "number": case.number,
            "values": {system.title: values for system, values in by_system.items()},
        }
        for case, by_system in samples.values.items()
    ]
    versions = {name: version(name) for name in ("slim-actors", "slim-bindings")}
    return json.dumps(
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()},
            "python": platform.python_version(),
            "versions": versions,
            "effort": asdict(effort),
            "series": [one.title for one in series],
            "figures": figures,
            "errors": dict(samples.errors),
        },
        indent=1,
        ensure_ascii=False,
    )


def save(folder: Path, name: str, text: str) -> Path:
    """Write a file of results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _figure(values: Sequence[float | None], spans: bool) -> str:  # noqa: FBT001
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    span = f" ({_number(min(known))} to {_number(max(known))})" * spans
    return f"{_number(median(known))}{span}"


def _ratio(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return " ".join(f"{value:.3g}" for value in (min(values), median(values), max(values)))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _SMALL else f"{value:.3g}"
