"""A frozen replica: what is sent to it must not hold up what is sent to others."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import pytest

from slim_actors import Runtime, Unicast
from tests.conftest import Starter
from tests.test_failover import ALICE, start_alices


@pytest.mark.parametrize(("size", "count"), [(100, 200), (60_000, 12), (2_000_000, 2)])
async def test_many_sessions_with_a_frozen_replica_hold_up_no_message_to_another(
    start: Starter, endpoint: str, size: int, count: int
) -> None:
    _, alices = start_alices(start, endpoint, 2)
    (frozen, pid), (other, _) = alices.items()
    async with AsyncExitStack() as stack:
        # Nobody is given up, so whatever SLIM retransmits comes on top.
        bob = await stack.enter_async_context(Runtime(endpoint, lost_after=60))
        pins = [await stack.enter_async_context(bob.pin(Unicast(ALICE, instance=frozen))) for _ in range(12)]
        for pin in pins:
            assert await pin.ask("hello") == "hello"
        assert await bob.ask(Unicast(ALICE, instance=other), "hello") == "hello"
        os.kill(pid, signal.SIGSTOP)
        try:
            held = [
                asyncio.create_task(pin.ask("x" * size, timeout=60)) for _ in range(count) for pin in pins
            ]
            for number in range(220):
                assert await bob.ask(Unicast(ALICE, instance=other), number, timeout=10) == number
                await asyncio.sleep(0.01)
            assert not any(task.done() for task in held)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {len(answer) for answer in await asyncio.gather(*held)} == {size}
