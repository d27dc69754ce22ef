"""Items that follow a message: all of them come to the replica that answers, or the message fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from attrs import frozen

from slim_actors import (
    Agent,
    Anycast,
    ConfigurationError,
    Mailbox,
    Runtime,
    Stopped,
    StreamRequest,
    handler,
)
from slim_actors.testing import TestRuntime
from tests.conftest import eventually

SUM = Anycast("test/ns/sum")
WHO: ContextVar[str] = ContextVar("who", default="nobody")


@frozen
class Sums(StreamRequest[int]):
    """Ask for the sum of the items so far, after each."""


class Sum(Agent, name=SUM.name):
    mailbox = Mailbox(capacity=1, overflow="busy")

    def __init__(self) -> None:
        self.begun = 0
        self.release = asyncio.Event()

    @handler
    async def total(self, message: str, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])

    @handler
    async def totals(self, message: Sums, items: AsyncIterator[int]) -> AsyncIterator[int]:
        total = 0
        async for item in items:
            total += item
            yield total

    @handler
    async def block(self, message: float) -> None:
        self.begun += 1
        await self.release.wait()


class Numbers:
    """Gives numbers to be sent along, and remembers what became of them."""

    def __init__(self) -> None:
        self.made = 0
        self.is_closed = False

    async def __call__(self) -> AsyncIterator[int]:
        try:
            for number in range(1, 21):
                self.made += 1
                yield number
        finally:
            self.is_closed = True


def _itself(agent: Sum) -> Sum:
    return agent


async def two_replicas(runtime: TestRuntime) -> list[Sum]:
    """Start two, and see to it that both are known."""
    agents = [Sum(), Sum()]
    for agent in agents:
        await runtime.spawn(partial(_itself, agent))
    for _ in range(4):
        assert await runtime.ask(SUM, "x", items=Numbers()()) == 210
    return agents


def asks(runtime: Runtime, items: AsyncIterator[int]) -> Any:
    return runtime.ask(SUM, "x", items=items)


async def streams(runtime: Runtime, items: AsyncIterator[int]) -> int:
    return [total async for total in runtime.stream(SUM, Sums(), items=items)][-1]


@pytest.mark.parametrize("send", [asks, streams])
async def test_a_message_that_a_busy_replica_refuses_comes_to_another_with_all_its_items(
    test_runtime: TestRuntime, send: Callable[[Runtime, AsyncIterator[int]], Any]
) -> None:
    busy, _ = await two_replicas(test_runtime)
    ref = next(ref for ref in test_runtime.instances if ref._cell.life.agent is busy)
    blocked = [asyncio.create_task(test_runtime.ask(ref.route, 1.5))]
    await eventually(lambda: busy.begun == 1)
    # One is handled, and one waits: there is no room for more.
    blocked.append(asyncio.create_task(test_runtime.ask(ref.route, 1.5)))
    await eventually(lambda: len(ref._cell.mailbox) == 1)
    for _ in range(8):
        numbers = Numbers()
        assert await send(test_runtime, numbers()) == 210
        assert numbers.is_closed
    busy.release.set()
    await asyncio.gather(*blocked)


async def test_a_message_of_which_items_have_left_goes_to_no_other_replica(test_runtime: TestRuntime) -> None:
    agents = await two_replicas(test_runtime)
    refs = {ref._cell.life.agent: ref for ref in test_runtime.instances}
    blocked = [asyncio.create_task(test_runtime.ask(refs[agent].route, 1.5)) for agent in agents]
    await eventually(lambda: all(agent.begun for agent in agents))
    numbers = Numbers()
    call = test_runtime.ask(SUM, "x", items=numbers())
    asking = asyncio.create_task(call)
    # It waits in a mailbox, and the first items with it.
    await eventually(lambda: numbers.made > 1)
    ref = next(ref for ref in refs.values() if ref.address == call.peer)
    await ref.stop(drain=0.0)
    with pytest.raises(Stopped) as stopped:
        await asking
    assert not stopped.value.may_have_run
    assert numbers.is_closed
    for agent in agents:
        agent.release.set()
    await asyncio.wait(blocked)


async def test_nothing_is_made_before_the_agent_has_room_for_it(test_runtime: TestRuntime) -> None:
    class Plain(Agent, name="test/ns/plain"):
        @handler
        async def take(self, message: str) -> None: ...

    await test_runtime.spawn(Plain)
    numbers = Numbers()
    with pytest.raises(Exception, match="takes no items"):
        await test_runtime.ask(Anycast("test/ns/plain"), "x", items=numbers())
    assert numbers.made == 0


async def test_items_are_made_in_the_context_of_whoever_gave_them(test_runtime: TestRuntime) -> None:
    await test_runtime.spawn(Sum)

    async def who() -> AsyncIterator[int]:
        yield int(WHO.get())

    async def ask(number: int) -> Any:
        WHO.set(str(number))
        return await test_runtime.ask(SUM, "x", items=who())

    # The first waits for the hello of the agent, and so its items do too.
    assert await asyncio.create_task(ask(7)) == 7
    assert await asyncio.create_task(ask(8)) == 8


async def test_items_that_are_no_async_iterable_are_refused_where_they_are_given(
    test_runtime: TestRuntime,
) -> None:
    await test_runtime.spawn(Sum)
    numbers: Any = [1, 2, 3]
    with pytest.raises(ConfigurationError, match="async iterable, such as an async generator, not list"):
        test_runtime.ask(SUM, "x", items=numbers)
    with pytest.raises(ConfigurationError, match="not list"):
        test_runtime.stream(SUM, Sums(), items=numbers)
    async with test_runtime.pin(SUM.name) as pinned:
        with pytest.raises(ConfigurationError, match="not list"):
            pinned.ask("x", items=numbers)


async def test_items_that_cannot_be_begun_fail_the_ask_at_once(test_runtime: TestRuntime) -> None:
    class Broken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise OSError("no disk")

    await test_runtime.spawn(Sum)
    with pytest.raises(OSError, match="no disk"):
        await test_runtime.ask(SUM, "x", items=Broken())
