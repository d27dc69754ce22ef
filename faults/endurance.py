"""Many requesters for a long time: nothing may grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from statistics import mean

import psutil
from attrs import Factory, define

from faults.agents import ECHO, Census, Echo
from faults.load import Load
from faults.replicas import SECRET, child, readable
from faults.result import Result, Tally
from faults.stage import Stage
from slim_actors import Anycast, Runtime, SharedSecret

__all__ = ["requesters"]

_REPLICAS = 3
_PROCESSES = 5
_LOOKS = 12
"""How often one looks in the first window, and in the last."""
_PAUSE = 0.2
_SLACK = 3
"""Tasks or descriptors that may be under way when one looks: a set-up, a probe, a close."""


@define
class _Use:
    """What a process used, each time that one looked."""

    memory: list[float] = Factory(list)
    files: list[float] = Factory(list)
    tasks: list[float] = Factory(list)


@define
class _Window:
    """What every process used in a part of the time."""

    uses: dict[int, _Use]

    @classmethod
    def of(cls, pids: list[int]) -> _Window:
        return cls({pid: _Use() for pid in pids})


async def requesters(
    stage: Stage,
    *,
    count: int,
    hurry: int = 0,
    warm_up: float,
    seconds: float,
    window: float,
    growth: float = 0.05,
) -> Result:
    """The memory, the descriptors and the tasks of every process are at the end what they were at the start.

    Args:
        stage: Where.
        count: How many requesters, over a few processes.
        hurry: How many questions each asks without a pause, first: SLIM keeps the last 512 payloads of each
            session to send them again, and at first there are none.
        warm_up: Seconds before the first look: a replica remembers the outcomes of 120 s, at first of none.
        seconds: How long it goes on after that.
        window: How long the start lasts, and the end.
        growth: The share by which the memory of a process may have grown.
    """
    result = Result()
    replicas = await stage.replicas(Echo, _REPLICAS)
    looker = await stage.runtime()
    # It knows the replicas before everybody else begins to look for them.
    await looker.ask(Anycast(ECHO), Census())
    children = [child(_ask_on, stage.endpoint, count // _PROCESSES, hurry) for _ in range(_PROCESSES)]
    channels = {process.pid or 0: channel for process, channel in children}
    names = {stage.node.pid: "the node"}
    names |= {pid: f"replica {number}" for number, pid in replicas.serving.items()}
    names |= {pid: f"requesters {number}" for number, pid in enumerate(channels)}
    try:
        begins = time.monotonic()
        await _until(stage, begins, begins + warm_up, warm_up + seconds)
        first, last = _Window.of([*names]), _Window.of([*names])
        for begin, each in ((warm_up, first), (warm_up + seconds - window, last)):
            for look in range(1, _LOOKS + 1):
                await _until(stage, begins, begins + begin + window * look / _LOOKS, warm_up + seconds)
                await _look(each, looker, channels)
        for channel in channels.values():
            channel.send("stop")
        for channel in channels.values():
            await readable(channel.fileno())
            result.tally.add(channel.recv())
    finally:
        for process, channel in children:
            process.kill()
            process.join()
            channel.close()
    result.expect(set(names) == {stage.node.pid, *replicas.serving.values(), *channels}, "a process died")
    grown = _compare(result, names, first, last, growth)
    result.facts.append(
        f"{count} requesters, {seconds:.0f} s after {warm_up:.0f} s, memory {grown:+.1%} at the most"
    )
    result.expect_all_answered()
    return result


def _compare(result: Result, names: dict[int, str], first: _Window, last: _Window, growth: float) -> float:
    most = float("-inf")
    for pid, name in names.items():
        before, after = first.uses[pid], last.uses[pid]
        grown = mean(after.memory) / mean(before.memory) - 1
        most = max(most, grown)
        result.expect(grown <= growth, f"the memory of {name} grew by {grown:.1%}")
        kinds: dict[str, Callable[[_Use], list[float]]] = {
            "descriptors": lambda use: use.files,
            "tasks": lambda use: use.tasks,
        }
        for kind, of in kinds.items():
            # The least of each: session set-ups come and go, what leaks stays.
            was, now = (min(of(use), default=0) for use in (before, after))
            result.expect(now <= was + _SLACK, f"the {kind} of {name} grew from {was:.0f} to {now:.0f}")
    return most


async def _until(stage: Stage, begins: float, when: float, whole: float) -> None:
    while (left := when - time.monotonic()) > 0:
        stage.show((time.monotonic() - begins) / whole)
        await asyncio.sleep(min(0.5, left))


async def _look(window: _Window, looker: Runtime, channels: dict[int, Connection]) -> None:
    for pid, use in window.uses.items():
        process = psutil.Process(pid)
        use.memory.append(process.memory_info().rss)
        use.files.append(process.num_fds())
    for _ in range(_REPLICAS):
        pid, tasks = await looker.ask(Anycast(ECHO), Census())
        window.uses[pid].tasks.append(tasks)
    for pid, channel in channels.items():
        channel.send("tasks")
        await readable(channel.fileno())
        window.uses[pid].tasks.append(channel.recv())


def _ask_on(endpoint: str, count: int, hurry: int, channel: Connection) -> None:
    """Be a process with so many requesters: it tells its tasks when asked, and in the end what it counted."""
    asyncio.run(_requesters(endpoint, count, hurry, channel))


async def _requesters(endpoint: str, count: int, hurry: int, channel: Connection) -> None:
    async with AsyncExitStack() as stack:
        loads = []
        for _ in range(count):
            runtime = await stack.enter_async_context(Runtime(endpoint, identity=SharedSecret(SECRET)))
            # What is remembered of the asks must not grow either.
            loads.append(Load(runtime, ECHO, callers=1, pause=_PAUSE, hurry=hurry, work=0.001, keep=100))
            # One after the other: it is not the start that is tested.
            await loads[-1].passes(1)
        while True:
            await readable(channel.fileno())
            if channel.recv() == "stop":
                break
            channel.send(len(asyncio.all_tasks()))
        await asyncio.gather(*(load.stop() for load in loads))
        counted = Tally()
        for load in loads:
            counted.add(load.tally)
        channel.send(counted)
        # Killed by whoever started it.
        await asyncio.Event().wait()
