"""Ray: actors of a cluster of one machine."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import ray

from benchmarks.systems.base import MESSAGE, Client, NotSupported, Setup, resident

__all__ = ["open_client"]


class Echo:
    def pid(self) -> int:
        return os.getpid()

    def work(self, message: Any) -> Any:
        return message

    def items(self, count: int) -> Iterator[Any]:
        for _ in range(count):
            yield MESSAGE


class _Client(Client):
    def __init__(self, actors: list[Any]) -> None:
        self._turn = itertools.cycle(actors)

    async def ask(self) -> None:
        assert await next(self._turn).work.remote(MESSAGE) == MESSAGE, "it is an echo"

    async def send(self, count: int) -> None:
        actor = next(self._turn)
        for _ in range(count - 1):
            actor.work.remote(MESSAGE)
        await self.ask()

    async def stream(self, count: int) -> None:
        async for item in next(self._turn).items.options(num_returns="streaming").remote(count):
            await item

    async def echo(self, data: bytes) -> bytes:
        return bytes(await next(self._turn).work.remote(data))


@asynccontextmanager
async def open_client(setup: Setup) -> AsyncIterator[Client]:
    """Start a cluster, the actors and a client."""
    if setup.mls or setup.transport == "process":
        raise NotSupported
    began = perf_counter()
    ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        actors: list[Any] = [ray.remote(num_cpus=0)(Echo).remote() for _ in range(setup.replicas)]
        client = _Client(actors)
        await client.ask()
        client.first_reply = perf_counter() - began
        client.memory = resident(await actors[0].pid.remote())
        yield client
    finally:
        ray.shutdown()
