"""Liveness: who is lost is known in time, also where nothing is under way, and costs next to nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from slim_actors import Expired, PeerLost, Runtime, Unicast
from slim_actors.testing import MemoryNetwork, TestRuntime, VirtualClock
from slim_actors.transport.memory import MemorySession
from tests.agents_for_tests import Echo, Gate, Wait, Worker
from tests.conftest import Starter, eventually
from tests.test_failover import ALICE, start_alices


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the pings to each name."""
    counts: Counter[str] = Counter()
    alive = MemorySession.alive

    async def counting(self: MemorySession, data: bytes | None, payload_type: str, within: float) -> bool:
        counts[self.peer.name] += 1
        return await alive(self, data, payload_type, within)

    monkeypatch.setattr(MemorySession, "alive", counting)
    return counts


async def pinned(stack: AsyncExitStack, caller: Runtime, host: Runtime, instances: int, times: int) -> None:
    """Open so many sessions to each of so many instances."""
    for _ in range(instances):
        ref = await host.spawn(Echo)
        for _ in range(times):
            pin = await stack.enter_async_context(caller.pin(ref.route))
            assert await pin.ask("hello") == "hello"


async def test_a_peer_that_vanishes_is_lost_within_3_seconds_although_nothing_is_expected_from_it() -> None:
    async with TestRuntime() as runtime:
        ref = await runtime.spawn(Echo)
        async with runtime.pin(ref.route) as pin:
            assert await pin.ask("hello") == "hello"
            await asyncio.sleep(20)
            before = runtime.sessions
            runtime.network.kill(ref.address.instance)
            await asyncio.sleep(3)
            # On the virtual clock: this is a promise, and no measurement.
            assert runtime.sessions < before
            with pytest.raises(PeerLost, match="no sign of life for 3 s"):
                await pin.ask("hello?")


async def test_all_idle_sessions_with_a_peer_that_vanishes_are_lost_soon() -> None:
    async with AsyncExitStack() as stack:
        stack.enter_context(VirtualClock())
        network = MemoryNetwork()
        host, caller = [await stack.enter_async_context(TestRuntime(network=network)) for _ in range(2)]
        await pinned(stack, caller, host, instances=1, times=30)
        network.kill(host.instances[0].address.instance)
        await asyncio.sleep(5)
        assert caller.sessions == 0


@pytest.mark.parametrize(("instances", "times", "most"), [(1, 50, 1.0), (5, 10, 5.0), (100, 1, 12.0)])
async def test_idle_sessions_are_pinged_seldom_and_by_the_caller_alone(
    pings: Counter[str], instances: int, times: int, most: float
) -> None:
    async with AsyncExitStack() as stack:
        stack.enter_context(VirtualClock())
        network = MemoryNetwork()
        host, caller = [
            await stack.enter_async_context(TestRuntime(network=network, name=f"test/ns/{name}"))
            for name in ("host", "caller")
        ]
        await pinned(stack, caller, host, instances, times)
        pings.clear()
        await asyncio.sleep(60)
        assert set(pings) == {"test/ns/echo"}
        assert 0.5 * most * 60 <= pings["test/ns/echo"] <= most * 60


async def test_an_outage_of_the_network_is_the_loss_of_nobody() -> None:
    async with TestRuntime() as runtime:
        ref = await runtime.spawn(Echo)
        async with runtime.pin(ref.route) as pin:
            assert await pin.ask("hello") == "hello"
            runtime.network.outage()
            await asyncio.sleep(60)
            runtime.network.restore()
            assert await pin.ask("hello") == "hello"


async def test_a_deadline_that_passes_tells_a_slow_peer_from_a_silent_one() -> None:
    async with TestRuntime() as runtime:
        gate = Gate()
        ref = await runtime.spawn(lambda: Worker(gate))
        with pytest.raises(Expired, match=r"last sign of life of test/ns/worker/\S+ came 0"):
            await runtime.ask(ref.route, Wait("long"), timeout=10)
        runtime.network.kill(ref.address.instance)
        with pytest.raises(Expired, match=r"last sign of life of test/ns/worker/\S+ came [12]"):
            await runtime.ask(ref.route, Wait("long"), timeout=1.5)


async def test_a_frozen_process_is_lost_although_nothing_is_expected_from_it(
    start: Starter, endpoint: str
) -> None:
    _, alices = start_alices(start, endpoint, 1)
    ((instance, pid),) = alices.items()
    async with Runtime(endpoint, lost_after=1.0) as bob, bob.pin(Unicast(ALICE, instance=instance)) as alice:
        assert await alice.ask("hello") == "hello"
        os.kill(pid, signal.SIGSTOP)
        try:
            await eventually(lambda: bob.sessions == 0)
        finally:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(PeerLost, match="no sign of life"):
            await alice.ask("hello?")
