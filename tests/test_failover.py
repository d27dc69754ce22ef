"""Processes and nodes that die: replicas killed with -9, a node that goes away and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import pytest

from slim_actors import Anycast, PeerLost, Runtime, Unicast
from tests.agents_for_tests import Gate, Once, Wait, Worker
from tests.conftest import Command, Starter, eventually, free_endpoint

ALICE = "agntcy/ns/alice"
_AWAY = "away; what is sent waits for it."
JOINED = rf"^joined +replica (\d) {ALICE}/(\S+) \(pid (\d+)\)"


def start_node(start: Starter, endpoint: str) -> Command:
    node = start("node", "--endpoint", endpoint)
    node.until("listening at")
    return node


def start_alices(start: Starter, endpoint: str, count: int) -> tuple[Command, dict[str, int]]:
    """Give the command, and the process of each instance."""
    run = start("run", "agents/echo.py", "--replicas", str(count), "--endpoint", endpoint)
    return run, {match[2]: int(match[3]) for match in run.until(JOINED, times=count)}


async def test_anycast_survives_the_death_of_a_replica_and_finds_its_replacement(
    start: Starter, endpoint: str
) -> None:
    run, alices = start_alices(start, endpoint, 3)
    async with Runtime(endpoint) as bob:
        for number in range(6):
            assert await bob.ask(Anycast(ALICE), number) == number
        victim, pid = next(iter(alices.items()))
        os.kill(pid, signal.SIGKILL)
        for number in range(12):
            assert await bob.ask(Anycast(ALICE), number, timeout=10) == number
        run.until(rf"^lost .*{victim}.*killed by SIGKILL")
        (replacement,) = run.until(rf"^restarted +replica \d {ALICE}/(\S+)")

        async def found() -> bool:
            call = bob.ask(Anycast(ALICE), "x")
            await call
            return call.peer is not None and call.peer.instance == replacement[1]

        await eventually(found)


async def test_a_pinned_caller_learns_within_5_seconds_that_its_replica_is_dead(
    start: Starter, endpoint: str
) -> None:
    _, alices = start_alices(start, endpoint, 3)
    async with Runtime(endpoint) as bob, bob.pin(ALICE) as alice:
        assert await alice.ask("hello") == "hello"
        os.kill(alices[alice.peer.instance], signal.SIGKILL)
        with pytest.raises(PeerLost, match="no sign of life"):
            await alice.ask("are you there?", timeout=5)
        with pytest.raises(PeerLost):
            await alice.ask("and now?", timeout=5)
        assert await bob.ask(Unicast(ALICE), "another one") == "another one"


async def test_a_frozen_replica_is_lost_and_a_busy_one_is_not(start: Starter, endpoint: str) -> None:
    busy = start("run", "tests/blocking.py", "--endpoint", endpoint)
    busy.until("^joined")
    _, alices = start_alices(start, endpoint, 1)
    (frozen,) = alices.values()
    async with Runtime(endpoint, lost_after=1.0) as bob:
        assert await bob.ask(Unicast(ALICE), "x") == "x"
        os.kill(frozen, signal.SIGSTOP)
        try:
            with pytest.raises(PeerLost):
                await bob.ask(Unicast(ALICE), "x", timeout=10)
        finally:
            os.kill(frozen, signal.SIGCONT)
        # Its Python does nothing but calculate for twice as long as a silence may last.
        assert await bob.ask(Unicast("test/ns/blocking"), 2.0, timeout=10) == "done"


async def test_a_replica_that_wakes_up_before_it_counts_as_lost_goes_on_at_once(
    start: Starter, endpoint: str
) -> None:
    _, alices = start_alices(start, endpoint, 2)
    (frozen, pid), (other, _) = alices.items()
    # With these SLIM itself would give it up after 0.2 s, and find it again with its next heartbeat.
    route = Unicast(ALICE, instance=frozen, max_retries=1, timeout=0.1)
    async with Runtime(endpoint, lost_after=30) as bob:
        assert await bob.ask(route, "before") == "before"
        os.kill(pid, signal.SIGSTOP)
        try:
            held = []
            for number in range(120):
                assert await bob.ask(Unicast(ALICE, instance=other), number) == number
                if not number % 60:
                    held.append(asyncio.create_task(bob.ask(route, number, timeout=8)))
                await asyncio.sleep(0.01)
            assert not any(task.done() for task in held)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await asyncio.gather(*held) == [0, 60]
        assert await bob.ask(route, "after", timeout=8) == "after"


async def test_a_handler_is_cancelled_when_its_caller_disappears(start: Starter, endpoint: str) -> None:
    gate = Gate()
    async with Runtime(endpoint, lost_after=1.0) as host:
        await host.spawn(lambda: Worker(gate))
        caller = start("-m", "tests.asking", endpoint, python=True)
        await eventually(lambda: gate.began == ["for the one who dies"])
        caller.process.kill()
        await eventually(lambda: gate.cancelled == ["for the one who dies"])


@pytest.mark.parametrize("scheme", ["http", "unix", "ws"])
async def test_everybody_goes_on_after_the_node_was_killed_and_started_again(
    start: Starter, scheme: str, tmp_path: os.PathLike[str], caplog: pytest.LogCaptureFixture
) -> None:
    where = free_endpoint()
    endpoint = {"http": where, "ws": where.replace("http", "ws"), "unix": f"unix://{tmp_path}/slim.sock"}[
        scheme
    ]
    node = start_node(start, endpoint)
    _, alices = start_alices(start, endpoint, 2)
    async with Runtime(endpoint) as bob, bob.pin(ALICE) as pinned:
        for number in range(4):
            assert await bob.ask(Anycast(ALICE), number) == number
            assert await pinned.ask(number) == number
        node.stop(signal.SIGKILL)
        during = [asyncio.create_task(bob.ask(Anycast(ALICE), f"during {n}", timeout=20)) for n in range(4)]
        during_pin = asyncio.create_task(pinned.ask("during", timeout=20))
        await eventually(lambda: not bob._transport.is_available)
        start_node(start, endpoint)
        async with asyncio.timeout(10):
            assert await asyncio.gather(*during) == [f"during {n}" for n in range(4)]
            assert await during_pin == "during"
        answered: Counter[str] = Counter()
        for number in range(8):
            call = bob.ask(Anycast(ALICE), number)
            assert await call == number
            assert call.peer is not None
            answered[call.peer.instance] += 1
        assert set(answered) == set(alices)
        await eventually(lambda: "is back." in caplog.text)
    said = [record.getMessage() for record in caplog.records if record.name == "slim_actors.transport"]
    assert said == [f"The SLIM node at {endpoint} is {what}" for what in (_AWAY, "back.")]


async def test_a_message_that_is_sent_again_after_an_outage_runs_once(start: Starter) -> None:
    endpoint = free_endpoint()
    node = start_node(start, endpoint)
    gate = Gate()
    async with Runtime(endpoint) as host, Runtime(endpoint) as caller:
        await host.spawn(lambda: Worker(gate))
        asked = asyncio.create_task(caller.ask(Anycast("test/ns/worker"), Wait("once"), timeout=25))
        await eventually(lambda: gate.began == ["once"])
        node.stop(signal.SIGKILL)
        await eventually(lambda: not caller._transport.is_available and not host._transport.is_available)
        # The handler ends while nobody can be told.
        gate.open.set()
        await eventually(lambda: gate.ended == ["once"])
        start_node(start, endpoint)
        assert await asked == "once"
        assert gate.began == ["once"]


async def test_a_drain_may_take_longer_than_a_loss(start: Starter, endpoint: str) -> None:
    run = start("run", "tests/slow.py", "--endpoint", endpoint)
    run.until("^joined")
    async with Runtime(endpoint) as caller:
        accepted = [
            asyncio.create_task(caller.ask(Unicast("test/ns/slow"), seconds))
            for seconds in (4.5, 4.5, 4.5, 4.5)
        ]
        await asyncio.to_thread(run.until, "^working", 4)
        run.process.send_signal(signal.SIGTERM)
        assert await asyncio.gather(*accepted) == ["done"] * 4
        assert await asyncio.to_thread(run.wait) == 0


async def test_rolling_through_replicas_loses_nothing(start: Starter, endpoint: str) -> None:
    async with Runtime(endpoint) as host, Runtime(endpoint) as caller:
        refs = [await host.spawn(Once) for _ in range(3)]
        stopped = asyncio.Event()
        answered = 0

        async def load() -> None:
            nonlocal answered
            while not stopped.is_set():
                assert await caller.ask(Anycast("test/ns/once"), answered) is not None
                answered += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(32):
                group.create_task(load())
            for _ in range(6):
                done = answered
                await eventually(lambda done=done: answered > done + 200)  # type: ignore[misc]
                refs.append(await host.spawn(Once))
                await refs.pop(0).stop()
            stopped.set()


async def test_a_stream_ends_within_5_seconds_when_its_process_is_killed(
    start: Starter, endpoint: str
) -> None:
    run = start("run", "tests/slow.py", "--endpoint", endpoint)
    (joined,) = run.until(r"^joined.*pid (\d+)")
    got = []
    async with Runtime(endpoint) as caller, asyncio.timeout(10):
        with pytest.raises(PeerLost, match="no sign of life"):
            async for item in caller.stream(Unicast("test/ns/slow"), "drop"):
                got.append(item)
                if len(got) == 5:
                    os.kill(int(joined[1]), signal.SIGKILL)
    assert len(got) >= 5
