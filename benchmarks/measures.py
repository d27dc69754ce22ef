"""How each figure is measured, for whatever system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter

from benchmarks.systems.base import Client, NotSupported

__all__ = ["MEASURES"]

_MESSAGES = 1000
"""One-way messages, or items, in one go."""

Measure = Callable[[Client, float, int], Awaitable[float]]
"""Takes the client, for how many seconds to measure, and a number that the case gives."""


async def latency(client: Client, seconds: float, _: int) -> float:
    """Median of one ask at a time, in microseconds."""
    times: list[float] = []
    ends = perf_counter() + seconds
    while perf_counter() < ends or not times:
        began = perf_counter()
        await client.ask()
        times.append(perf_counter() - began)
    return median(times) * 1e6


async def asks(client: Client, seconds: float, in_flight: int) -> float:
    """Asks in a second, so many in flight."""
    began = perf_counter()
    done = 0

    async def requester() -> None:
        nonlocal done
        ask = client.requester()
        while perf_counter() < began + seconds or not done:
            await ask()
            done += 1

    await asyncio.gather(*(requester() for _ in range(in_flight)))
    return done / (perf_counter() - began)


async def one_way(client: Client, seconds: float, _: int) -> float:
    """One-way messages in a second."""
    return await _in_goes(client.send, seconds)


async def items(client: Client, seconds: float, _: int) -> float:
    """Streamed items in a second."""
    return await _in_goes(client.stream, seconds)


async def echo(client: Client, seconds: float, size: int) -> float:
    """Megabytes in a second that go there and come back, one message at a time."""
    data = os.urandom(size)
    began = perf_counter()
    done = 0
    while perf_counter() < began + seconds or not done:
        assert await client.echo(data) == data, "it is an echo"
        done += 1
    return done * size / 1e6 / (perf_counter() - began)


async def first_reply(client: Client, _: float, __: int) -> float:
    """Milliseconds from the start of the agent's process to the first reply."""
    return _known(client.first_reply) * 1e3


async def memory(client: Client, _: float, __: int) -> float:
    """MiB that the agent's process holds."""
    return _known(client.memory)


async def start_each(client: Client, _: float, __: int) -> float:
    """Milliseconds that one of many agents in a process takes to start."""
    return _known(client.start_each) * 1e3


async def memory_each(client: Client, _: float, __: int) -> float:
    """KiB that one of many agents in a process takes."""
    return _known(client.memory_each) * 1024


MEASURES: dict[str, Measure] = {
    measure.__name__: measure
    for measure in (latency, asks, one_way, items, echo, first_reply, memory, start_each, memory_each)
}


async def _in_goes(go: Callable[[int], Awaitable[None]], seconds: float) -> float:
    began = perf_counter()
    done = 0
    while perf_counter() < began + seconds or not done:
        await go(_MESSAGES)
        done += _MESSAGES
    return done / (perf_counter() - began)


def _known(value: float | None) -> float:
    if value is None:
        raise NotSupported
    return value
