"""The node killed with -9, again and again."""

from __future__ import annotations

import asyncio
import signal
import time

from faults.agents import ECHO, Echo
from faults.load import Load
from faults.result import Result
from faults.stage import Stage

__all__ = ["node"]

_RECOVERS_WITHIN = 5.0
_WINDOW = 0.5
_SHARE = 0.5
"""Of the throughput before: with as much of it in one window, it has recovered."""


async def node(stage: Stage, *, deaths: int, every: float = 5.0) -> Result:
    """Each ask has one outcome, throughput is back within 5 s of the node, and no agent is restarted."""
    replicas = await stage.replicas(Echo)
    before = dict(replicas.serving)
    # Slow callers, so that it is not the machine that limits the throughput.
    load = Load(await stage.runtime(), ECHO, callers=24, pause=0.05, work=0.001)
    tally = load.tally
    result = Result(tally)
    recoveries: list[float] = []
    async with load.until_left():
        await load.passes(50)
        start, count = time.monotonic(), tally.answered
        await load.passes(500)
        usual = (tally.answered - count) / (time.monotonic() - start)
        for death in range(1, deaths + 1):
            await stage.node.stop(signal.SIGKILL)
            await stage.start_node()
            returned = time.monotonic()
            await asyncio.sleep(every)
            recoveries.append(_recovery(load, returned, usual))
            stage.show(death / deaths)
        await load.passes(200)
    slowest = max(recoveries)
    result.facts.append(
        f"{deaths} deaths of the node, {_SHARE:.0%} of {usual:,.0f}/s again after {slowest:.1f} s at the most"
    )
    late = [round(seconds, 1) for seconds in recoveries if seconds > _RECOVERS_WITHIN]
    result.expect(not late, f"throughput took too long to recover: {late} s")
    result.expect(replicas.serving == before, "an agent was restarted")
    result.expect_one_outcome_each()
    return result


def _recovery(load: Load, returned: float, usual: float) -> float:
    """Give the seconds from the node's return to the first window with enough answers; infinite if none."""
    ends = sorted(
        ask.ended - returned for ask in load.tally.asks if ask.ended >= returned and not ask.outcome
    )
    enough = max(1, round(usual * _WINDOW * _SHARE))
    windows = zip(ends, ends[enough - 1 :], strict=False)
    return next((last for first, last in windows if last - first <= _WINDOW), float("inf"))
