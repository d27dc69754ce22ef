"""Batching alone: what is left of slim-actors without all that it promises, so that one sees what that costs.

Messages that are sent while a payload is under way go into the next one, and payloads go to Rust as those of
slim-actors do, which has one thread here as there. There are no types, deadlines, credit, dedupe, mailboxes,
supervision or errors.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

import slim_bindings as slim
from msgspec.msgpack import Decoder, encode

from benchmarks.systems import bare
from benchmarks.systems.base import (
    MESSAGE,
    Client,
    NotSupported,
    Setup,
    address,
    folder,
    program,
    resident,
)
from slim_actors.transport.bindings import calls, initialise

__all__ = ["open_client"]

_MOST = 512
_TYPE = "sketch"

Message = tuple[int, Any]
"""An id, 0 where no reply is wanted, and what is sent."""

_decode = Decoder(list[Message]).decode


class Line:
    """One end of a session."""

    def __init__(self, session: slim.Session, take: Callable[[Message], None]) -> None:
        self._session = session
        self._take = take
        self._waiting: list[Message] = []
        self._writer: asyncio.Task[None] | None = None
        self.reader = asyncio.create_task(self._read())

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages, with whatever else is sent before the next payload goes."""
        self._waiting += messages
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._waiting:
            now, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            await calls.publish(self._session, encode(now), _TYPE)
        self._writer = None

    async def _read(self) -> None:
        while True:
            try:
                message = await calls.receive(self._session)
            except slim.SlimError:
                return
            for each in _decode(message.payload):
                self._take(each)


class SketchClient(Client):
    """See `Client`."""

    def __init__(self, session: slim.Session) -> None:
        self._ids = itertools.count(1)
        self._outcomes: dict[int, asyncio.Future[Any]] = {}
        self._line = Line(session, lambda message: self._outcomes.pop(message[0]).set_result(message[1]))

    async def ask(self) -> None:
        """See `Client.ask`."""
        number = next(self._ids)
        outcome = self._outcomes[number] = asyncio.get_running_loop().create_future()
        self._line.send([(number, MESSAGE)])
        assert await outcome == MESSAGE, "it is an echo"

    async def send(self, count: int) -> None:
        """See `Client.send`."""
        self._line.send([(0, MESSAGE)] * (count - 1))
        await self.ask()


@asynccontextmanager
async def open_client(setup: Setup) -> AsyncIterator[Client]:
    """Start a node, the agent and a client."""
    if setup != Setup(setup.transport, setup.mls) or setup.transport == "process":
        raise NotSupported
    async with AsyncExitStack() as stack:
        endpoint = address(setup.transport, await stack.enter_async_context(folder()))
        await stack.enter_async_context(program("-m", "benchmarks.systems.bare", "node", endpoint))
        initialise()
        mine = bare.service(f"client-{os.getpid()}")
        connection = await mine.connect_async(slim.new_insecure_client_config(endpoint))
        app = await bare.join(mine, connection, "client")
        began = perf_counter()
        ready = await stack.enter_async_context(program("-m", "benchmarks.systems.sketch", endpoint))
        agent = slim.Name(*bare.AGENT)
        client = SketchClient(await app.create_session_and_wait_async(bare.config(mls=setup.mls), agent))
        await client.ask()
        client.first_reply, client.memory = perf_counter() - began, resident(int(ready[0][1]))
        yield client


async def _answer(session: slim.Session) -> None:
    line = Line(session, lambda message: line.send([message]) if message[0] else None)
    await line.reader


if __name__ == "__main__":
    initialise()
    asyncio.run(bare.be_agent(sys.argv[1], _answer))
