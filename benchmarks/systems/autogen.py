"""AutoGen's distributed runtime: a gRPC host, and agents and clients as its workers."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

from autogen_core import (
    AgentId,
    MessageContext,
    RoutedAgent,
    TopicId,
    TypeSubscription,
    message_handler,
    try_get_known_serializers_for_type,
)
from autogen_ext.runtimes.grpc import GrpcWorkerAgentRuntime, GrpcWorkerAgentRuntimeHost

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
    until_stopped,
)

__all__ = ["open_client"]

_MODULE = ("-m", "benchmarks.systems.autogen")


@dataclasses.dataclass
class Work:
    number: int
    text: str


@dataclasses.dataclass
class Note:
    number: int
    text: str


@dataclasses.dataclass
class Count:
    number: int


WORK, NOTE = Work(**MESSAGE), Note(**MESSAGE)  # type: ignore[arg-type]
TOPIC = TopicId("notes", "default")


class Echo(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("echo")
        self._notes = 0

    @message_handler
    async def note(self, message: Note, ctx: MessageContext) -> None:
        self._notes += 1

    @message_handler
    async def count(self, message: Count, ctx: MessageContext) -> Count:
        return Count(self._notes)

    @message_handler
    async def work(self, message: Work, ctx: MessageContext) -> Work:
        return message


class _Client(Client):
    def __init__(self, runtime: GrpcWorkerAgentRuntime, types: list[str]) -> None:
        self._runtime = runtime
        self._sent = 0
        self._turn = itertools.cycle(AgentId(each, "default") for each in types)

    async def _work(self, work: Work) -> Any:
        return await self._runtime.send_message(work, next(self._turn))

    async def ask(self) -> None:
        assert await self._work(WORK) == WORK, "it is an echo"

    async def send(self, count: int) -> None:
        for _ in range(count):
            await self._runtime.publish_message(NOTE, TOPIC)
        self._sent += count
        # Nothing says that they have come, so the agent is asked.
        agent = next(self._turn)
        come = 0
        while come < self._sent:
            come = (await self._runtime.send_message(Count(0), agent)).number

    async def echo(self, data: bytes) -> bytes:
        # It has messages as JSON, and so no bytes: text stands for them.
        text = data.hex()[: len(data)]
        assert (await self._work(Work(1, text))).text == text, "it is an echo"
        return data


@asynccontextmanager
async def open_client(setup: Setup) -> AsyncIterator[Client]:
    """Start the host, the agents and a client."""
    if setup.mls or setup.transport == "process":
        raise NotSupported
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(folder())
        where = address("tcp", path).removeprefix("http://")
        await stack.enter_async_context(program(*_MODULE, "host", where))
        began = perf_counter()
        types = [f"echo{number}" for number in range(setup.replicas)]
        agents = [program(*_MODULE, each, where) for each in types]
        found = await asyncio.gather(*(stack.enter_async_context(agent) for agent in agents))
        runtime = await _worker(where)
        client = _Client(runtime, types)
        await client.ask()
        client.first_reply, client.memory = perf_counter() - began, resident(int(found[0][0][1]))
        yield client
        await runtime.stop()


async def _worker(where: str) -> GrpcWorkerAgentRuntime:
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    runtime = GrpcWorkerAgentRuntime(host_address=where, extra_grpc_config=unlimited)
    for each in (Work, Note, Count):
        runtime.add_message_serializer(try_get_known_serializers_for_type(each))
    await runtime.start()
    return runtime


async def _main(role: str, where: str) -> None:
    if role == "host":
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        GrpcWorkerAgentRuntimeHost(address=where, extra_grpc_config=unlimited).start()
    else:
        runtime = await _worker(where)
        await Echo.register(runtime, role, Echo)
        await runtime.add_subscription(TypeSubscription(TOPIC.type, role))
    say_ready()
    await until_stopped()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
