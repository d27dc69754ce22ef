"""Forwards: another agent answers, and the one that was asked has nothing more to do with it."""

from __future__ import annotations

import asyncio

import pytest

from slim_actors import Agent, Anycast, Busy, Forward, Mailbox, Unicast, handler
from slim_actors.context import HANDLED
from slim_actors.testing import TestRuntime
from tests.conftest import eventually

BACK = Unicast("t/t/back")


class Back(Agent, name="t/t/back"):
    mailbox = Mailbox(capacity=1, overflow="busy", retry_after=0.5)

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    @handler
    async def wait(self, message: str) -> str:
        await self.gate.wait()
        return message


async def test_a_handler_runs_once_however_busy_the_agent_is_that_it_forwards_to(
    test_runtime: TestRuntime,
) -> None:
    ran: list[str] = []

    class Front(Agent, name="t/t/front"):
        @handler
        async def pass_on(self, message: str) -> Forward:
            ran.append(message)
            return Forward(BACK, message)

    for _ in range(3):
        await test_runtime.spawn(Front)
    back = await test_runtime.spawn(Back)
    first = asyncio.create_task(test_runtime.ask(BACK, "first"))
    await eventually(lambda: back.stats.accepted == 1 and back.depth == 0)
    second = asyncio.create_task(test_runtime.ask(BACK, "second"))
    await eventually(lambda: back.depth == 1)
    with pytest.raises(Busy) as caught:
        await test_runtime.ask(Anycast("t/t/front"), "third")
    assert ran == ["third"]
    assert caught.value.may_have_run
    assert caught.value.retry_after == 0.5
    for ask in (first, second):
        ask.cancel()


async def test_a_forward_that_is_cancelled_before_it_begins_is_forgotten(test_runtime: TestRuntime) -> None:
    class Front(Agent, name="t/t/front"):
        @handler
        async def pass_on(self, message: str) -> Forward:
            handled = HANDLED.get()
            assert handled is not None
            cell, envelope = handled
            asyncio.get_running_loop().call_soon(cell.cancel, envelope)
            return Forward(BACK, message)

    ref = await test_runtime.spawn(Front)
    asks = [asyncio.create_task(test_runtime.ask(ref.route, "x")) for _ in range(3)]
    await asyncio.wait(asks)
    assert not ref._cell.running
    loop = asyncio.get_running_loop()
    before = loop.time()
    await ref.stop()
    assert loop.time() - before < 1
