"""slim-actors, by its public words and with its defaults: reliable, typed, supervised."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

from attrs import frozen

from benchmarks.systems.base import MESSAGE, Client, Setup, address, folder, program, resident
from slim_actors import Agent, Anycast, Request, Runtime, SharedSecret, StreamRequest, handler

__all__ = ["open_client"]

SECRET = "a secret for benchmarks, 32 bytes or more"  # noqa: S105 (of nobody)
NAME = "bench/ns/echo"
_FILE = __file__


@frozen
class Work(Request[dict[str, Any]]):
    number: int
    text: str


@frozen
class Note:
    number: int
    text: str


@frozen
class Items(StreamRequest[Note]):
    count: int


WORK = Work(**MESSAGE)  # type: ignore[arg-type]
NOTE = Note(**MESSAGE)  # type: ignore[arg-type]


class Echo(Agent, name=NAME):
    @handler
    async def work(self, message: Work) -> Work:
        return message

    @handler
    async def note(self, message: Note) -> None:
        pass

    @handler
    async def items(self, message: Items) -> AsyncIterator[Note]:
        for _ in range(message.count):
            yield NOTE

    @handler
    async def data(self, message: bytes) -> bytes:
        return message


class OurClient(Client):
    """See `Client`."""

    def __init__(self, runtimes: list[Runtime], route: Anycast) -> None:
        self._next: Callable[[], Runtime] = itertools.cycle(runtimes).__next__
        self._route = route

    async def ask(self) -> None:
        """See `Client.ask`."""
        await self.requester()()

    def requester(self) -> Callable[[], Awaitable[None]]:
        """See `Client.requester`."""
        runtime = self._next()

        async def ask() -> None:
            assert await runtime.ask(self._route, WORK) == MESSAGE, "it is an echo"

        return ask

    async def send(self, count: int) -> None:
        """See `Client.send`."""
        await self._next().tell_many(self._route, [NOTE] * count)

    async def stream(self, count: int) -> None:
        """See `Client.stream`."""
        async for _ in self._next().stream(self._route, Items(count)):
            pass

    async def echo(self, data: bytes) -> bytes:
        """See `Client.echo`."""
        return bytes(await self._next().ask(self._route, data))


@asynccontextmanager
async def open_client(setup: Setup) -> AsyncIterator[Client]:
    """Start a node, supervised agents, and a client; or all in this process."""
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(folder())
        endpoint = address("unix" if setup.transport == "process" else setup.transport, path)
        inside = setup.transport == "process"
        os.environ["SLIM_SHARED_SECRET"] = SECRET
        if not inside:
            node = ("-m", "slim_actors", "node", "--endpoint", endpoint)
            await stack.enter_async_context(program(*node, until="listening at"))
        secret = SharedSecret(SECRET)
        runtimes = [Runtime(endpoint, embed_node=inside, identity=secret) for _ in range(setup.requesters)]
        for runtime in runtimes:
            await stack.enter_async_context(runtime)
        began = perf_counter()
        if inside:
            pid = os.getpid()
            before = resident(pid)
            for _ in range(setup.agents):
                await runtimes[0].spawn(Echo)
            start_each = (perf_counter() - began) / setup.agents
            memory_each = (resident(pid) - before) / setup.agents
        else:
            words = ("run", f"{_FILE}:Echo", "--replicas", str(setup.replicas), "--endpoint", endpoint)
            joined = r"joined.*\(pid (\d+)\)"
            run = program("-m", "slim_actors", *words, until=joined, times=setup.replicas)
            pid = int((await stack.enter_async_context(run))[0][1])
        client = OurClient(runtimes, Anycast(NAME, mls=setup.mls))
        await client.ask()
        client.first_reply, client.memory = perf_counter() - began, resident(pid)
        if inside:
            client.start_each, client.memory_each = start_each, memory_each
        yield client
