"""``python -m benchmarks``: slim-actors beside bare slim-bindings, and, if wanted, beside its peers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cases import SERIES, TABLE, Case
from benchmarks.isolation import can_isolate
from benchmarks.plots import draw
from benchmarks.report import as_json, comparison, save, table
from benchmarks.runner import Effort, Samples, measure
from benchmarks.systems import BARE, OURS, PEERS, SKETCH, System

RESULTS = Path(__file__).resolve().parent / "results"

QUICK, FULL = Effort(3, 0.3), Effort(7, 2.0)

# A table that is piped has the width that it needs.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Under two minutes; for every day.")] = False,
    peers: Annotated[bool, typer.Option("--peers", help="With other systems, where installed.")] = False,
    sketch: Annotated[
        bool, typer.Option("--sketch", help="With a sketch that does nothing but send messages together.")
    ] = False,
    growth: Annotated[
        bool | None, typer.Option(help="How cost grows, with plots; by default unless quick or with others.")
    ] = None,
    only: Annotated[str, typer.Option(help="Only cases and series whose title has this in it.")] = "",
    rounds: Annotated[int | None, typer.Option(min=1, help="How often each system has its turn.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="How long each figure is measured.")] = None,
    out: Annotated[Path, typer.Option(help="Where the results are written.")] = RESULTS,
) -> None:
    """Measure slim-actors and bare slim-bindings by turns; print a table, and write JSON and plots."""
    usual = QUICK if quick else FULL
    effort = Effort(rounds or usual.rounds, usual.seconds if seconds is None else seconds, peers)
    systems = [BARE, OURS, *([SKETCH] if sketch else ()), *(_installed() if peers else ())]
    cases = [case for case in TABLE if only in case.title]
    samples = _measured(cases, systems, effort)
    console.print(table(samples, systems), comparison(samples, systems))
    for system in systems:
        if system.differs:
            console.print(f"{system.title}: {system.differs}", soft_wrap=True)
    for error, count in samples.errors.items():
        console.print(f"not measured ({count}x): {error}", soft_wrap=True)
    name = "peers.json" if peers else "sketch.json" if sketch else "table.json"
    console.print(f"written: {save(out, name, as_json(samples, effort))}")
    if growth or (growth is None and not quick and not peers and not sketch):
        _grow(Effort(rounds or 3, 1.0 if seconds is None else seconds), only, out)


def _grow(effort: Effort, only: str, out: Path) -> None:
    systems = [BARE, OURS]
    series = [each for each in SERIES if only in each.title]
    cases = [case for each in series for case in each.cases.values()]
    samples = _measured(cases, systems, effort)
    console.print(f"written: {save(out, 'growth.json', as_json(samples, effort, series))}")
    for error, count in samples.errors.items():
        console.print(f"not measured ({count}x): {error}", soft_wrap=True)
    if find_spec("matplotlib") is None:
        console.print("No plots: matplotlib is not installed (pip install 'slim-actors[bench]').")
        return
    for each in series:
        console.print(f"written: {draw(each, samples, systems, out)}")


def _measured(cases: Sequence[Case], systems: Sequence[System], effort: Effort) -> Samples:
    """Measure, and say what is going on where that does not get into the output."""
    if not sys.stdout.isatty():
        progress = Console(stderr=True, highlight=False, markup=False)
        return measure(cases, systems, effort, progress.print)
    with console.status("") as status:
        return measure(cases, systems, effort, status.update)


def _installed() -> list[System]:
    # Programs that pip has put beside Python, whether or not this environment is active.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if not can_isolate():
        console.print(
            "No peers: some listen on every interface, so they run only where unshare --net can give them a "
            "network of their own, which it cannot here."
        )
        raise typer.Exit(1)
    found = []
    for system in PEERS:
        missing = system.missing()
        if missing:
            by_pip = set(missing) <= set(system.packages)
            how = "pip install 'slim-actors[bench-peers]'" if by_pip else "a program, to be put on the PATH"
            console.print(f"{system.title} is left out: {', '.join(missing)} is not installed ({how}).")
        else:
            found.append(system)
    return found


if __name__ == "__main__":
    typer.run(main)
