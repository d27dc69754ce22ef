"""A replica that is frozen (SIGSTOP) for a while, and thaws."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from faults.agents import ECHO, Echo
from faults.load import Load
from faults.result import Result
from faults.stage import Stage

__all__ = ["one_replica"]

_LEFT_WITHIN = 3.0
_BACK_WITHIN = 15.0
_STUCK = 1.0
"""Seconds beyond which an ask was with the frozen one; the others answer in milliseconds."""


async def one_replica(stage: Stage, *, seconds: float) -> Result:
    """Traffic leaves the frozen replica within 3 s and comes back after; what it says late reaches nobody."""
    replicas = await stage.replicas(Echo)
    frozen = replicas.serving[stage.chance.choice(sorted(replicas.serving))]
    load = Load(await stage.runtime(), ECHO, callers=16, pause=0.01, work=0.002)
    tally = load.tally
    result = Result(tally)
    async with load.until_left():
        await load.passes(300)
        os.kill(frozen, signal.SIGSTOP)
        began = time.monotonic()
        try:
            while (passed := time.monotonic() - began) < seconds:
                stage.show(0.7 * passed / seconds)
                await asyncio.sleep(0.05)
        finally:
            os.kill(frozen, signal.SIGCONT)
        thawed = time.monotonic()
        back = await _answers(load, frozen, thawed)
        stage.show(1.0)
        await load.passes(300)
    stuck = [ask.began - began for ask in tally.asks if ask.seconds > _STUCK and ask.began >= began]
    left = max(stuck, default=0.0)
    result.expect(
        left <= _LEFT_WITHIN, f"{left:.1f} s after the freeze an ask still went to the frozen replica"
    )
    result.expect(back < _BACK_WITHIN, f"the replica had no traffic {back:.1f} s after it had thawed")
    result.facts.append(
        f"{len(stuck)} asks met the frozen one, the last {left:.1f} s after; back {back:.1f} s after"
    )
    # Answers bear the number of their ask: one that came late, to somebody else, would be wrong.
    result.expect_all_answered()
    return result


async def _answers(load: Load, process: int, since: float) -> float:
    """Wait until a process answers what was asked since then; give how long that took."""
    while time.monotonic() - since < _BACK_WITHIN:
        await asyncio.sleep(0.05)
        for ask in reversed(load.tally.asks):
            if ask.began < since:
                break
            if ask.process == process:
                return ask.ended - since
    return _BACK_WITHIN
