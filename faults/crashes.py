"""Replicas killed with -9, one at a time, at random."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path

from faults.agents import ECHO, ONCE, Echo, Once
from faults.load import Load
from faults.replicas import Replicas
from faults.result import Result
from faults.stage import Stage

__all__ = ["idempotent", "not_idempotent"]

_WORK = 0.004
_CALLERS = 16
"""So few that the replicas keep up: an ask that waits long for its turn may use up its three retries."""


async def idempotent(stage: Stage, *, asks: int, every: float = 0.5) -> Result:
    """Every ask is answered: what a dead replica had is done by another one."""
    replicas = await stage.replicas(Echo)
    load = Load(await stage.runtime(), ECHO, asks=asks, callers=_CALLERS, work=_WORK)
    kills = await _kill_on(stage, replicas, load, asks, every)
    result = Result(load.tally, [f"{kills} killed"])
    result.expect_all_answered()
    return result


async def not_idempotent(stage: Stage, *, asks: int, every: float = 0.5) -> Result:
    """An ask is answered or fails with `PeerLost`, and its handler ran once at the most."""
    journal = stage.folder / "journal"
    journal.mkdir()
    replicas = await stage.replicas(partial(Once, journal))
    load = Load(await stage.runtime(), ONCE, asks=asks, callers=_CALLERS, work=_WORK)
    kills = await _kill_on(stage, replicas, load, asks, every)
    numbers, ids = _read(journal)
    result = Result(load.tally, [f"{kills} killed", f"{numbers.total()} runs of the handler"])
    others = {name: count for name, count in load.tally.failed.items() if name != "PeerLost"}
    result.expect(not others, f"asks failed otherwise than with PeerLost: {others}")
    for what, runs in (("messages", numbers), ("ids", ids)):
        repeated = [key for key, count in runs.items() if count > 1]
        result.expect(not repeated, f"the handler ran twice for {len(repeated)} {what}: {repeated[:5]}")
    result.expect(len(numbers) >= load.tally.answered, "something was answered that no handler saw")
    result.expect_one_outcome_each()
    return result


async def _kill_on(stage: Stage, replicas: Replicas, load: Load, asks: int, every: float) -> int:
    """Kill until every ask has its outcome; give how many were killed."""
    kills = 0
    async with load.until_left():
        while not load.is_over:
            await asyncio.sleep(every)
            # One that is just being started is killed as well, when it is ready.
            kills += replicas.kill(stage.chance.choice(sorted(replicas.serving) or [0]))
            stage.show(load.tally.outcomes / asks)
    return kills


def _read(journal: Path) -> tuple[Counter[str], Counter[str]]:
    """Give how often the handler ran for each number, and for each id."""
    lines = [line.split() for file in journal.iterdir() for line in file.read_text().splitlines()]
    return Counter(number for number, _ in lines), Counter(given for _, given in lines)
