"""The edges of a life: what is asked for when it has ended, or ends when it has only just begun."""

from __future__ import annotations

import asyncio

import pytest

from slim_actors import (
    Agent,
    Anycast,
    Backoff,
    ConfigurationError,
    Context,
    Expired,
    RemoteError,
    Restart,
    StoreError,
    handler,
)
from slim_actors.replicas.deaths import Deaths
from slim_actors.store import Save
from slim_actors.testing import MemoryStore, TestRuntime, VirtualClock
from slim_actors.transport.base import Port
from tests.agents_for_tests import Note, Worker
from tests.conftest import World, eventually
from tests.keeping import LEDGER, Add, Enter, Ledger
from tests.storing import Breakdown, Stores

ROUTE = Anycast(LEDGER)
NAME = "test/ns/edge"
EDGE = Anycast(NAME)
SOON = Restart(backoff=Backoff(0.01, 0.02))


class Idle(Agent, name="test/ns/idle"):
    async def receive(self, message: str) -> None:
        """Do nothing."""


async def test_timers_that_were_cancelled_are_not_kept() -> None:
    class Patient(Agent, name=NAME):
        @handler
        async def remind(self, message: int, ctx: Context) -> None:
            for _ in range(message):
                ctx.after(3600, 0).cancel()

    async with TestRuntime(store=MemoryStore()) as runtime:
        ref = await runtime.spawn(Patient)
        await runtime.ask(EDGE, 1000)
        # The event loop itself lets go of them now and then.
        await eventually(lambda: len(ref._cell.life.timers._later) < 200)


async def test_a_reminder_that_an_ended_life_asks_for_does_not_come_to_the_next_one() -> None:
    heard: list[str] = []
    contexts: list[Context] = []

    class Fickle(Agent, name=NAME):
        restart = SOON

        @handler
        async def hear(self, message: str, ctx: Context) -> None:
            heard.append(message)
            contexts.append(ctx)
            if message == "fail":
                raise ValueError(message)

    async with TestRuntime() as runtime:
        await runtime.spawn(Fickle)
        with pytest.raises(RemoteError):
            await runtime.ask(EDGE, "fail")
        await runtime.ask(EDGE, "in the next life")
        contexts[0].after(0, "late")
        contexts[1].after(0, "in time")
        await eventually(lambda: "in time" in heard)
    assert heard == ["fail", "in the next life", "in time"]


async def test_a_reminder_that_nobody_could_take_is_refused_at_once() -> None:
    class Forgetful(Agent, name=NAME):
        @handler
        async def remind(self, message: str, ctx: Context) -> None:
            ctx.after(3600, 2.5)

    async with TestRuntime() as runtime:
        await runtime.spawn(Forgetful)
        with pytest.raises(RemoteError, match="has no handler for float"):
            await runtime.ask(EDGE, "go")


async def test_a_restart_that_is_taken_over_while_a_state_is_kept_leaves_the_state_usable() -> None:
    starts: list[str] = []

    class Counting(Ledger):
        async def started(self, ctx: Context) -> None:
            starts.append(str(ctx.me))
            self.book.total += 1

    class Clumsy(Agent, name=NAME):
        async def receive(self, message: str) -> None:
            raise ValueError(message)

    store = MemoryStore()
    async with TestRuntime(store=store) as runtime:
        group = await runtime.supervise(Counting, Clumsy, Idle, strategy="one_for_all", restart=SOON)
        breakdown = Breakdown(store, Save, fails=False)
        with pytest.raises(RemoteError):
            await runtime.ask(EDGE, "fail")
        await breakdown.has_begun.wait()
        # A member that leaves lets the restart of the others begin anew.
        await group.refs[2].stop(drain=0.0)
        await eventually(lambda: len(starts) == 3)
        breakdown.may_go_on.set()
        assert await runtime.ask(ROUTE, Add(0)) == 3


async def test_a_started_that_returned_is_followed_by_a_stopped_also_where_the_start_fails_then(
    world: World, stores: Stores
) -> None:
    hooks: list[str] = []

    class Counting(Ledger):
        async def started(self, ctx: Context) -> None:
            hooks.append("started")
            self.book.total += 1

        async def stopped(self, ctx: Context) -> None:
            hooks.append("stopped")

    store = stores("host")
    runtime = await world.runtime(store=store)
    breakdown = Breakdown(store, Save)
    breakdown.may_go_on.set()
    with pytest.raises(StoreError, match="The disk is away"):
        await runtime.spawn(Counting)
    assert hooks == ["started", "stopped"]


async def test_a_stopped_that_fails_leaves_nothing_of_the_runtime_behind() -> None:
    class Bad(Idle):
        async def stopped(self, ctx: Context) -> None:
            raise LookupError("no end")

    runtime = TestRuntime()
    async with runtime:
        await runtime.spawn(Bad)
        runtime.network.outage()
        telling = asyncio.create_task(runtime.tell(EDGE, Note("x"), timeout=60))
        opening = runtime._own
        await eventually(lambda: opening.is_wanted)
        with pytest.raises(LookupError, match="no end"):
            await runtime.stop()
        telling.cancel()
        await asyncio.wait([telling])
        assert not opening.is_wanted


async def test_what_is_spawned_while_the_runtime_stops_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Port] = []
    may_go_on = asyncio.Event()
    async with TestRuntime() as runtime:
        join = runtime._transport.open

        async def slow(name: str) -> Port:
            opened.append(await join(name))
            await may_go_on.wait()
            return opened[0]

        monkeypatch.setattr(runtime._transport, "open", slow)
        spawning = asyncio.create_task(runtime.spawn(Worker))
        await eventually(lambda: bool(opened))
        await runtime.stop()
        may_go_on.set()
        with pytest.raises(ConfigurationError, match="The runtime is not open"):
            await spawning
        assert runtime.instances == ()


async def test_a_durable_tell_expires_also_where_nothing_could_ever_be_sent() -> None:
    async with TestRuntime(virtual_clock=False) as runtime:
        runtime.network.outage()
        await runtime.tell(ROUTE, Enter(1), durable=True, timeout=0.3)
        await eventually(lambda: len(runtime.dead_letters) == 1)
        (letter,) = runtime.dead_letters
        assert isinstance(letter.cause, Expired)
        assert "was not handled in its time" in str(letter.cause)


async def test_the_pauses_before_a_replica_is_started_again_grow_to_5_s_and_begin_anew() -> None:
    with VirtualClock():
        deaths = Deaths(1)
        pauses = []
        for _ in range(8):
            # Not so often that it is given up.
            await asyncio.sleep(8)
            pauses.append(deaths.add("a test"))
        assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0], rel=0.2)
        deaths.began()
        await asyncio.sleep(30)
        assert deaths.add("a test") == pytest.approx(0.1, rel=0.2)
