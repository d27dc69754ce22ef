"""xoscar: actors in pools, over TCP."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

import xoscar as xo

from benchmarks.systems.base import (
    MESSAGE,
    Client,
    NotSupported,
    Setup,
    address,
    folder,
    program,
    resident,
    say_ready,
)

__all__ = ["open_client"]

_UID = "echo"


class Echo(xo.Actor):
    async def work(self, message: Any) -> Any:
        return message

    async def nothing(self, message: Any) -> None:
        pass

    @xo.generator
    async def items(self, count: int) -> AsyncIterator[Any]:
        for _ in range(count):
            yield MESSAGE


class _Client(Client):
    def __init__(self, refs: list[Any]) -> None:
        self._turn = itertools.cycle(refs)

    async def ask(self) -> None:
        assert await next(self._turn).work(MESSAGE) == MESSAGE, "it is an echo"

    async def send(self, count: int) -> None:
        ref = next(self._turn)
        for _ in range(count - 1):
            await ref.nothing.tell(MESSAGE)
        await self.ask()

    async def stream(self, count: int) -> None:
        async for _ in await next(self._turn).items(count):
            pass

    async def echo(self, data: bytes) -> bytes:
        return bytes(await next(self._turn).work(data))


@asynccontextmanager
async def open_client(setup: Setup) -> AsyncIterator[Client]:
    """Start the agents and a client."""
    if setup.mls or setup.transport == "process":
        raise NotSupported
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(folder())
        began = perf_counter()
        refs, pids = [], []
        for _ in range(setup.replicas):
            where = address("tcp", path).removeprefix("http://")
            agent = program("-m", "benchmarks.systems.xo", where)
            pids.append(int((await stack.enter_async_context(agent))[0][1]))
            refs.append(await xo.actor_ref(address=where, uid=_UID))
        client = _Client(refs)
        await client.ask()
        client.first_reply, client.memory = perf_counter() - began, resident(pids[0])
        yield client


async def _serve(where: str) -> None:
    pool = await xo.create_actor_pool(address=where, n_process=0)
    await xo.create_actor(Echo, uid=_UID, address=where)
    say_ready()
    await pool.join()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
