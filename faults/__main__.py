"""Runs the fault suite: ``python -m faults``. Its exit code is 1 if any promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from faults.result import Result
from faults.scenarios import SCENARIOS, Scenario
from faults.stage import Stage
from slim_actors.cli.console import table

_HEADINGS = ("", "scenario", "sent", "outcomes", "answered", "failed", "p50", "p99", "took", "measured", "")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of all that is left to chance (1)")
    parser.add_argument("--only", type=int, nargs="+", choices=SCENARIOS, help="run these alone")
    parser.add_argument(
        "--quick", action="store_true", help="smaller numbers: three minutes instead of twenty"
    )
    options = parser.parse_args()
    rows, broken = [], False
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        for number in options.only or SCENARIOS:
            scenario = SCENARIOS[number]
            shown = progress.add_task(f"{number}. {scenario.title}", total=1.0)
            began = time.monotonic()
            show = partial(_show, progress, shown)
            result = asyncio.run(_play(scenario, options, show))
            progress.remove_task(shown)
            rows.append(_row(number, scenario, result, time.monotonic() - began))
            broken = broken or bool(result.broken)
            for sentence in result.broken:
                progress.console.print(f"{number}. {scenario.title}: {sentence}", style="red", soft_wrap=True)
    table(_HEADINGS, rows)
    return 1 if broken else 0


async def _play(scenario: Scenario, options: argparse.Namespace, show: Callable[[float], None]) -> Result:
    try:
        async with Stage(options.seed, show) as stage:
            return await (scenario.quick if options.quick else scenario.full)(stage)
    except Exception as error:
        # The others are worth playing all the same.
        logging.getLogger("faults").exception("The scenario %r stumbled", scenario.title)
        return Result(broken=[f"it did not come to its end: {type(error).__name__}: {error}"])


def _show(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


def _row(number: int, scenario: Scenario, result: Result, seconds: float) -> tuple[str, ...]:
    tally = result.tally
    failed = " ".join(f"{count} {name}" for name, count in tally.failed.items())
    return (
        str(number),
        scenario.title,
        f"{tally.sent:,}",
        f"{tally.outcomes:,}",
        f"{tally.answered:,}",
        failed or "-",
        f"{tally.percentile(50) * 1000:,.0f} ms",
        f"{tally.percentile(99) * 1000:,.0f} ms",
        f"{seconds:.0f} s",
        ", ".join(result.facts),
        "BROKEN" if result.broken else "kept",
    )


if __name__ == "__main__":
    sys.exit(main())
