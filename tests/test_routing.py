"""Which replica gets a message: Anycast spreads evenly and finds newcomers, Unicast stays or says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from itertools import pairwise
from typing import Any

import pytest
from aiostream import stream

from slim_actors import (
    Agent,
    Anycast,
    Backoff,
    Context,
    DeliveryError,
    Expired,
    Forward,
    NodeUnreachable,
    NoRoute,
    PeerLost,
    RemoteError,
    Runtime,
    Stopped,
    Unicast,
    handler,
    wire,
)
from slim_actors.names import Address
from slim_actors.routing import discovery, table
from slim_actors.testing import TestRuntime
from slim_actors.transport.base import SessionOptions
from slim_actors.transport.memory import MemoryPort, MemorySession
from tests.agents_for_tests import Echo, Gate, Once, Wait, Worker
from tests.conftest import World, eventually

ECHO = Anycast("test/ns/echo")


async def answered_by(runtime: Runtime, route: Anycast | Unicast, count: int) -> Counter[str]:
    """Send messages one at a time, and count who answered."""
    counts: Counter[str] = Counter()
    for number in range(count):
        call = runtime.ask(route, number)
        assert await call == number
        assert call.peer is not None
        counts[call.peer.instance] += 1
    return counts


@pytest.mark.parametrize("mls", [False, True])
@pytest.mark.parametrize(("replicas", "messages"), [(1, 5), (3, 12), (3, 13), (5, 7)])
async def test_anycast_spreads_evenly_from_the_first_message_on(
    world: World, replicas: int, messages: int, mls: bool
) -> None:
    host, fresh = await world.runtime(), await world.runtime()
    for _ in range(replicas):
        await host.spawn(Echo)
    counts = await answered_by(fresh, Anycast("test/ns/echo", mls=mls), messages)
    assert len(counts) == min(replicas, messages)
    assert all(abs(count - messages / replicas) <= 1 for count in counts.values())


async def test_replicas_in_the_callers_process_get_no_more_than_others(world: World) -> None:
    here, elsewhere = await world.runtime(), await world.runtime()
    local = await here.spawn(Echo)
    for _ in range(2):
        await elsewhere.spawn(Echo)
    counts = await answered_by(here, ECHO, 12)
    assert counts[local.address.instance] == 4
    assert sorted(counts.values()) == [4, 4, 4]


async def burst(caller: Runtime, messages: int) -> None:
    """Ask many at once, and see that each of three replicas has its part."""
    calls = [caller.ask(ECHO, number) for number in range(messages)]
    await asyncio.gather(*calls)
    counts = Counter(call.peer.instance for call in calls if call.peer)
    assert len(counts) == 3
    assert min(counts.values()) >= messages / 5


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may be slow to set sessions up."""
    monkeypatch.setattr(discovery, "_WAIT_FOR_OTHERS", 10.0)


@pytest.mark.parametrize("asked_before", [0, 1, 2])
@pytest.mark.parametrize("messages", [30, 300])
async def test_a_burst_that_comes_before_all_are_known_reaches_every_replica(
    world: World, messages: int, asked_before: int, patient: None
) -> None:
    host, caller = await world.runtime(), await world.runtime()
    for _ in range(3):
        await host.spawn(Echo)
    for number in range(asked_before):
        await caller.ask(ECHO, number)
    await burst(caller, messages)


async def test_a_burst_reaches_every_replica_also_long_after_some_were_met(test_runtime: TestRuntime) -> None:
    for _ in range(3):
        await test_runtime.spawn(Echo)
    for number in range(2):
        await test_runtime.ask(ECHO, number)
        await asyncio.sleep(5)
    await burst(test_runtime, 300)


async def test_a_burst_reaches_every_replica_also_after_nobody_was_there(
    test_runtime: TestRuntime, patient: None
) -> None:
    asked = [test_runtime.ask(ECHO, number) for number in range(20)]
    assert {type(error) for error in await asyncio.gather(*asked, return_exceptions=True)} == {NoRoute}
    for _ in range(2):
        refs = [await test_runtime.spawn(Echo) for _ in range(3)]
        await test_runtime.ask(ECHO, 0)
        await burst(test_runtime, 300)
        # Others come in their place, once all have gone.
        for ref in refs:
            await ref.stop()


async def test_set_ups_that_come_to_nothing_hold_messages_up_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def in_vain(self: MemoryPort, target: Address, options: SessionOptions) -> MemorySession:
        await asyncio.sleep(3)
        raise NoRoute("silence")

    async with TestRuntime() as runtime:
        await runtime.spawn(Echo)
        await runtime.ask(ECHO, 1)
        monkeypatch.setattr(MemoryPort, "connect", in_vain)
        loop, ended = asyncio.get_running_loop(), []
        for _ in range(4):
            began = loop.time()
            await asyncio.gather(*(runtime.ask(ECHO, number) for number in range(50)))
            # On the virtual clock, where only waiting takes time.
            ended.append(loop.time() - began)
    assert 0 < ended[0] < 1
    assert max(ended[1:]) < 0.1


async def test_a_replica_that_was_busy_for_a_while_is_not_made_to_do_all_afterwards(
    runtime: Runtime,
) -> None:
    gates, route = [Gate(), Gate()], Anycast("test/ns/worker")
    for gate in gates:
        await runtime.spawn(lambda gate=gate: Worker(gate))  # type: ignore[misc]
    held = [asyncio.ensure_future(runtime.ask(route, Wait(f"held {number}"))) for number in range(2)]
    await eventually(lambda: all(gate.began for gate in gates))
    gates[0].open.set()
    await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
    for number in range(20):
        await runtime.ask(route, Wait(f"alone {number}"))
    gates[1].open.set()
    await asyncio.gather(*held)
    # It catches up with eight, not with all that the other has done meanwhile.
    before = [len(gate.ended) for gate in gates]
    assert before == [21, 1]
    for number in range(20):
        await runtime.ask(route, Wait(f"both {number}"))
    assert [len(gate.ended) - had for gate, had in zip(gates, before, strict=True)] == [6, 14]


async def test_the_least_busy_replica_is_chosen(runtime: Runtime) -> None:
    gates = [Gate(), Gate()]
    for gate in gates:
        await runtime.spawn(lambda gate=gate: Worker(gate))  # type: ignore[misc]
        gate.open.set()
    route = Anycast("test/ns/worker")

    async def both_are_known() -> bool:
        await runtime.ask(route, Wait("hello"))
        return all(gate.ended for gate in gates)

    await eventually(both_are_known)
    for gate in gates:
        gate.open.clear()
        gate.began.clear()
        gate.ended.clear()
    held = [asyncio.create_task(runtime.ask(route, Wait(str(number)))) for number in range(2)]
    await eventually(lambda: all(len(gate.began) == 1 for gate in gates))
    gates[0].open.set()
    await eventually(lambda: len(gates[0].ended) == 1)
    # Its reply is here, too: else both replicas are as busy as each other.
    await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
    for number in range(5):
        assert await runtime.ask(route, Wait(f"free {number}")) == f"free {number}"
    assert len(gates[0].ended) == 6
    gates[1].open.set()
    await asyncio.gather(*held)


async def test_what_is_sent_together_stays_together_where_loads_are_nearly_alike(runtime: Runtime) -> None:
    gate, route = Gate(), Anycast("test/ns/worker")
    for _ in range(3):
        await runtime.spawn(lambda: Worker(gate))
    gate.open.set()
    for _ in range(8):
        await runtime.ask(route, Wait("hello"))
    # Then all are known.
    await eventually(lambda: not any(task.get_name().startswith("anycast") for task in asyncio.all_tasks()))
    gate.open.clear()
    calls = [runtime.ask(route, Wait(str(number))) for number in range(100)]
    held = [asyncio.ensure_future(call) for call in calls]
    await eventually(lambda: all(call.peer for call in calls))
    went_to = [call.peer for call in calls]
    # While there is little to do, each goes to the least busy one.
    assert set(Counter(went_to[:12]).values()) == {4}
    # Then they go on in runs, and yet nobody gets more than a quarter, and one, beyond another.
    assert sum(one != other for one, other in pairwise(went_to[50:])) <= 10
    for sent in range(12, 101):
        least, *_, most = sorted(Counter(went_to[:sent]).values())
        assert most - least <= least // 4 + 1
    gate.open.set()
    await asyncio.gather(*held)


async def test_a_replica_that_appears_later_is_found_within_5_seconds(runtime: Runtime) -> None:
    await runtime.spawn(Echo)
    assert len(await answered_by(runtime, ECHO, 4)) == 1
    newcomer = await runtime.spawn(Echo)

    async def found() -> bool:
        return newcomer.address.instance in await answered_by(runtime, ECHO, 2)

    await eventually(found, within=5)


async def test_where_nobody_comes_or_goes_discovery_is_hardly_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_ups = 0
    connect = MemoryPort.connect

    async def counted(self: MemoryPort, target: Address, options: SessionOptions) -> MemorySession:
        nonlocal set_ups
        set_ups += 1
        return await connect(self, target, options)

    async with TestRuntime() as runtime:
        await runtime.spawn(Echo)
        await answered_by(runtime, ECHO, 4)
        monkeypatch.setattr(MemoryPort, "connect", counted)
        for _ in range(300):
            await runtime.ask(ECHO, 1)
            # On the virtual clock: a minute in all.
            await asyncio.sleep(0.2)
    # Two each time: one replica, and one more that there may be. After 2 s, 4 s more, 8, 16, 30. And one of
    # the replica's own, which tells others of its name that it has come.
    assert 2 <= set_ups <= 11


async def test_a_lone_replica_costs_its_caller_four_set_ups_however_fast_it_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_ups = 0
    connect = MemoryPort.connect

    async def slow(self: MemoryPort, target: Address, options: SessionOptions) -> MemorySession:
        nonlocal set_ups
        set_ups += 1
        # So that messages come while others are looked for.
        await asyncio.sleep(0.05)
        return await connect(self, target, options)

    async with TestRuntime() as runtime:
        await runtime.spawn(Echo)
        # The replica tells of itself, in vain.
        await asyncio.sleep(1.0)
        monkeypatch.setattr(MemoryPort, "connect", slow)
        await runtime.ask(ECHO, 1)
        await runtime.ask(ECHO, 2)
        # Its set-up led to the same one, so it is looked round once more, for all that come meanwhile.
        await asyncio.gather(*(runtime.ask(ECHO, number) for number in range(20)))
        assert len(await answered_by(runtime, ECHO, 5)) == 1
    # The first message, the second, and two at once: one for the known replica, one for another.
    assert set_ups == 4


async def test_newcomers_are_told_of_and_callers_look_for_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So nobody looks unless he is told.
    monkeypatch.setattr(discovery, "_LOOK_AGAIN", Backoff(3600.0, 3600.0))
    host, caller = await world.runtime(), await world.runtime()
    await host.spawn(Echo)
    assert len(await answered_by(caller, ECHO, 4)) == 1
    newcomers = {(await host.spawn(Echo)).address.instance for _ in range(3)}

    async def all_found() -> bool:
        return newcomers <= set(await answered_by(caller, ECHO, 4))

    await eventually(all_found, within=15)


async def test_only_one_of_the_same_name_is_believed_that_there_is_a_newcomer(
    test_runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_LOOK_AGAIN", Backoff(3600.0, 3600.0))
    told = asyncio.Event()
    monkeypatch.setattr(discovery.Discovery, "look_again", lambda _: told.set())
    ref = await test_runtime.spawn(Echo)
    assert await test_runtime.ask(ECHO, "x") == "x"
    port = await test_runtime._transport.open("test/ns/stranger")
    sibling = await test_runtime._transport.open("test/ns/echo")
    for each in (port, sibling):
        assert not told.is_set()
        session = await each.connect(ref.address, SessionOptions())
        question = wire.Ask(1, "str", "x", 5.0)  # type: ignore[arg-type]
        frames = [wire.encode(frame) for frame in (wire.Newcomer(), question)]
        await session.send(wire.join(frames), wire.PAYLOAD_TYPE)
        # Its hello, and what it answers to this.
        for _ in range(2):
            await session.receive()
    async with asyncio.timeout(5):
        await told.wait()


async def test_a_replica_that_stops_leaves_the_pool_at_once(runtime: Runtime) -> None:
    refs = [await runtime.spawn(Echo) for _ in range(3)]
    assert len(await answered_by(runtime, ECHO, 6)) == 3
    await refs[0].stop()
    counts = await answered_by(runtime, ECHO, 12)
    assert refs[0].address.instance not in counts
    assert sorted(counts.values()) == [6, 6]


@pytest.mark.parametrize("callers", [1, 16])
async def test_the_only_replica_hands_over_to_its_successor_and_no_ask_fails(
    world: World, callers: int
) -> None:
    host, caller = await world.runtime(), await world.runtime()
    ref = await host.spawn(Once)
    answered = 0
    failed: list[DeliveryError] = []
    stopped = asyncio.Event()

    async def load() -> None:
        nonlocal answered
        while not stopped.is_set():
            try:
                await caller.ask(Anycast("test/ns/once"), answered)
            except DeliveryError as error:
                failed.append(error)
            answered += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(load())
        for _ in range(6):
            done = answered
            await eventually(lambda done=done: answered > done + 20)  # type: ignore[misc]
            successor = await host.spawn(Once)
            await ref.stop()
            ref = successor
        stopped.set()
    assert failed == []


async def test_nobody_is_looked_for_in_vain_for_long_when_the_last_replica_has_stopped(
    runtime: Runtime,
) -> None:
    ref = await runtime.spawn(Echo)
    route = Anycast("test/ns/echo", timeout=0.1)
    assert await runtime.ask(route, "x") == "x"
    await ref.stop()
    with pytest.raises((NoRoute, Stopped)):
        await runtime.ask(route, "x", timeout=10)


async def test_a_name_that_was_there_is_looked_for_twice_and_one_that_never_was_once(
    test_runtime: TestRuntime,
) -> None:
    ref = await test_runtime.spawn(Echo)
    async with TestRuntime(network=test_runtime.network, name="test/ns/caller") as caller:
        assert await caller.ask(ECHO, "x") == "x"
        await test_runtime.kill(ref)
        await asyncio.sleep(30)
        await test_runtime.spawn(Echo)
        test_runtime.network.partition("test/ns/echo", "test/ns/caller")
        asked = asyncio.create_task(caller.ask(ECHO, "x", timeout=10))
        # A set-up that is not answered in 3 s has failed.
        await asyncio.sleep(1)
        test_runtime.network.heal()
        assert await asked == "x"
        with pytest.raises(NoRoute):
            await caller.ask(Anycast("test/ns/nobody"), "x", timeout=5)


async def test_a_retry_goes_to_a_live_replica_however_many_have_died(
    test_runtime: TestRuntime,
) -> None:
    refs = [await test_runtime.spawn(Echo) for _ in range(9)]
    async with TestRuntime(network=test_runtime.network) as caller:
        await answered_by(caller, ECHO, 18)
        for ref in refs[1:]:
            await test_runtime.kill(ref)
        for number in range(3):
            assert await caller.ask(ECHO, number) == number


async def test_unicast_stays_with_one_replica(runtime: Runtime) -> None:
    for _ in range(3):
        await runtime.spawn(Echo)
    assert list((await answered_by(runtime, Unicast("test/ns/echo"), 12)).values()) == [12]
    assert list((await answered_by(runtime, Unicast("test/ns/echo", mls=True), 12)).values()) == [12]


async def test_unicast_can_name_the_instance(runtime: Runtime) -> None:
    refs = [await runtime.spawn(Echo) for _ in range(3)]
    for ref in refs:
        assert await answered_by(runtime, ref.route, 3) == {ref.address.instance: 3}


async def test_unicast_says_that_its_replica_is_lost_before_it_takes_another(runtime: Runtime) -> None:
    refs = {ref.address.instance: ref for ref in [await runtime.spawn(Echo) for _ in range(2)]}
    route = Unicast("test/ns/echo")
    ((first, _),) = (await answered_by(runtime, route, 3)).items()
    await refs.pop(first).stop()
    with pytest.raises(PeerLost, match=first):
        await runtime.ask(route, "x")
    assert set(await answered_by(runtime, route, 3)) == set(refs)


async def test_what_is_asked_while_a_pin_is_made_comes_in_the_order_of_asking(
    test_runtime: TestRuntime,
) -> None:
    came: list[int] = []

    class Journal(Agent, name="test/ns/journal"):
        @handler
        async def note(self, message: int) -> None:
            came.append(message)

    await test_runtime.spawn(Journal)
    async with TestRuntime(network=test_runtime.network) as caller:
        # Encrypted, so that nothing waits for the hello: the first one goes out as soon as it may.
        route = Unicast("test/ns/journal", mls=True)
        asks: list[asyncio.Task[None]] = []
        while not asks or not asks[0].done():
            asks += [asyncio.create_task(caller.ask(route, len(asks) + more)) for more in range(3)]
            await asyncio.sleep(0)
        await asyncio.gather(*asks)
    assert came == list(range(len(asks)))


async def test_a_pin_that_is_being_made_is_kept_and_one_that_failed_is_not(
    test_runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MANY", 2)
    pins = (await test_runtime._own.get())._table
    nobody, nobody_else = Unicast("test/ns/nobody"), Unicast("test/ns/nobody-else")
    pin = pins.pin(nobody)
    with pytest.raises(NoRoute):
        await pin.acquire()
    again = asyncio.create_task(pin.acquire())
    await asyncio.sleep(0.1)
    # The first one learns only now that it failed.
    pins.forget_if_lost(nobody, pin)
    assert pins.pin(nobody) is pin
    # A deadline cancels the second one; who looks for a replica goes on, in vain.
    again.cancel()
    await asyncio.wait([again])
    pins.pin(nobody_else)
    assert pins.pin(nobody) is pin
    await asyncio.sleep(60)
    pins.pin(Unicast("test/ns/nobody-at-all"))
    assert pins.pin(nobody) is not pin


async def test_a_failed_set_up_fails_every_waiting_message_with_its_own_error(runtime: Runtime) -> None:
    route = Anycast("test/ns/nobody", timeout=0.05)
    results = await asyncio.gather(*(runtime.ask(route, n) for n in range(20)), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["NoRoute"] * 20
    assert len({id(result) for result in results}) == 20


@pytest.mark.parametrize("route", [Anycast("test/ns/desk"), Unicast("test/ns/desk")])
async def test_who_forwards_to_an_agent_that_stops_is_not_taken_for_the_one_that_stops(
    world: World, route: Anycast | Unicast
) -> None:
    host, caller = await world.runtime(), await world.runtime()
    gate = Gate()
    worker = await host.spawn(lambda: Worker(gate))

    class Desk(Agent, name="test/ns/desk"):
        @handler
        async def pass_on(self, message: Wait) -> Forward:
            return Forward(worker.route, message)

        @handler
        async def echo(self, message: str) -> str:
            return message

    await host.spawn(Desk)
    held = asyncio.create_task(caller.ask(route, Wait("held")))
    await eventually(lambda: gate.began == ["held"])
    stopping = asyncio.create_task(worker.stop())
    with pytest.raises(Stopped, match="test/ns/worker"):
        await caller.ask(route, Wait("too late"))
    # The session with the desk goes on, and so does everything in it.
    assert await caller.ask(route, "hello") == "hello"
    gate.open.set()
    assert await held == "held"
    await stopping
    assert await caller.ask(route, "hello again") == "hello again"


@pytest.mark.parametrize("has_sent_before", [False, True])
async def test_while_the_node_is_away_every_verb_says_so_and_that_nothing_was_sent(
    test_runtime: TestRuntime, *, has_sent_before: bool
) -> None:
    await test_runtime.spawn(Echo)
    route = Unicast("test/ns/nobody")
    if has_sent_before:
        assert await test_runtime.ask(ECHO, "x") == "x"
    test_runtime.network.outage()

    async def pinned() -> None:
        async with test_runtime.pin("test/ns/nobody"):
            pytest.fail("there is nobody")

    verbs: list[Awaitable[object]] = [
        test_runtime.ask(Anycast("test/ns/nobody"), "x"),
        test_runtime.ask(route, "x"),
        test_runtime.tell(route, "x"),
        test_runtime.tell_many(route, ["x", "y"]),
        stream.list(test_runtime.stream(route, "x")),
        pinned(),
    ]
    errors = await asyncio.gather(*verbs, return_exceptions=True)
    assert [type(error) for error in errors] == [NodeUnreachable] * len(verbs)
    assert not any(error.may_have_run for error in errors if isinstance(error, DeliveryError))


async def test_a_deadline_that_passes_before_anybody_is_found_says_that_nothing_was_sent(
    test_runtime: TestRuntime,
) -> None:
    with pytest.raises(Expired, match="before anybody was found") as caught:
        await test_runtime.ask(Unicast("test/ns/nobody", timeout=60), "x", timeout=1)
    assert not caught.value.may_have_run


async def test_an_idempotent_message_is_tried_six_times_at_the_most(test_runtime: TestRuntime) -> None:
    begun: list[str] = []

    class Fragile(Agent, name="test/ns/fragile"):
        @handler(idempotent=True)
        async def die(self, message: str, ctx: Context) -> None:
            begun.append(ctx.me.instance)
            test_runtime.network.kill(ctx.me.instance)

    for _ in range(9):
        await test_runtime.spawn(Fragile)
    with pytest.raises(PeerLost) as caught:
        await test_runtime.ask(Anycast("test/ns/fragile"), "this takes you down", timeout=600)
    assert caught.value.may_have_run
    assert len(begun) == len({*begun}) == 6


@pytest.mark.parametrize("mls", [False, True])
async def test_an_agent_talks_with_the_others_of_its_name(world: World, *, mls: bool) -> None:
    name = "test/ns/many"
    told: list[str] = []

    class One(Agent, name=name):
        @handler
        async def pass_on(self, message: str, ctx: Context) -> list[Any]:
            others = [ref.address for ref in refs if ref.address != ctx.me]
            (other,) = others
            one = Unicast(name, instance=other.instance, mls=mls)
            await ctx.tell(one, 1.5)
            async with ctx.pin(one) as pinned:
                answers = [
                    await pinned.ask(1),
                    await ctx.ask(one, 2),
                    await ctx.ask(Anycast(name, mls=mls), 3),
                ]
            return [*answers, [item async for item in ctx.stream(one, b"")]]

        @handler
        async def answer(self, message: int, ctx: Context) -> str:
            assert ctx.sender.name == f"{name}.self"
            assert ctx.sender.subject == name
            return f"{message} by {ctx.me.instance}"

        @handler
        async def take(self, message: float, ctx: Context) -> None:
            told.append(ctx.me.instance)

        @handler
        async def items(self, message: bytes, ctx: Context) -> AsyncIterator[str]:
            yield ctx.me.instance

    runtimes = [await world.runtime(), await world.runtime()]
    refs = [await runtime.spawn(One) for runtime in runtimes]
    asked, other = (ref.address.instance for ref in refs)
    caller = await world.runtime()
    answers = await caller.ask(Unicast(name, instance=asked, mls=mls), "x")
    # Anycast passes by the one that waits for the answer itself.
    assert answers == [*(f"{number} by {other}" for number in (1, 2, 3)), [other]]
    await eventually(lambda: told == [other])


async def test_who_is_the_only_one_of_its_name_is_told_at_once_that_it_waits_for_itself(world: World) -> None:
    class Lonely(Agent, name="test/ns/lonely"):
        @handler
        async def ask_them(self, message: str, ctx: Context) -> Any:
            return await ctx.ask(Anycast("test/ns/lonely"), 1)

        @handler
        async def answer(self, message: int) -> int:
            return message

    runtime = await world.runtime()
    await runtime.spawn(Lonely)
    with pytest.raises(RemoteError, match="CallCycle: The call goes round in a circle"):
        await runtime.ask(Anycast("test/ns/lonely"), "x", timeout=5)


@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("route", [Anycast("test/ns/nobody"), Unicast("test/ns/nobody")])
async def test_who_waits_for_a_replica_of_a_runtime_that_is_stopped_is_told_so_and_not_cancelled(
    test_runtime: TestRuntime, route: Anycast | Unicast, *, is_away: bool
) -> None:
    with pytest.raises(NoRoute):
        await test_runtime.ask(Anycast("test/ns/somebody"), "x")
    if is_away:
        test_runtime.network.outage()

    async def read() -> None:
        async for _ in test_runtime.stream(route, "x"):
            pass

    async with asyncio.timeout(1):
        works: list[Awaitable[object]] = [
            test_runtime.ask(route, "x"),
            test_runtime.tell(route, "x"),
            test_runtime.tell_many(route, ["x", "y"]),
            read(),
        ]
        waiting = [asyncio.ensure_future(work) for work in works]
        await asyncio.sleep(0.1)
        await test_runtime.stop()
        for task in waiting:
            with pytest.raises(Stopped, match="stopped before anybody was found") as stopped:
                await task
            assert not stopped.value.may_have_run


async def test_a_node_that_is_there_and_takes_nobody_is_tried_again_now_and_then(
    test_runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def refuse(*_: object) -> MemorySession:
        nonlocal tries
        tries += 1
        raise NodeUnreachable("It takes no new connections.")

    monkeypatch.setattr(MemoryPort, "connect", refuse)
    with pytest.raises(Expired):
        await test_runtime.ask(Unicast("test/ns/nobody"), "x", timeout=2)
    assert 2 <= tries <= 20


@pytest.mark.parametrize("times", [1, 2])
async def test_a_pin_that_is_left_and_cancelled_meanwhile_keeps_no_session(
    test_runtime: TestRuntime, times: int
) -> None:
    ref = await test_runtime.spawn(Echo)
    assert await test_runtime.ask(ref.route, 0) == 0
    before = test_runtime.sessions

    async def tell() -> None:
        async with test_runtime.pin("test/ns/echo") as pinned:
            await pinned.ask("x")

    for turns in range(40):
        # Once in each turn of the loop in which it may be.
        task = asyncio.create_task(tell())
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
    await eventually(lambda: test_runtime.sessions == before, within=60)


async def test_pools_without_a_replica_are_forgotten_and_those_of_use_are_not(
    test_runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MANY", 4)
    ref = await test_runtime.spawn(Echo)
    assert await test_runtime.ask(ECHO, 0) == 0
    pools = (await test_runtime._own.get())._table
    known = pools.pool(ECHO)

    async def ask_nobody(first: int) -> None:
        for number in range(first, first + 20):
            with pytest.raises(NoRoute):
                await test_runtime.ask(Anycast(f"test/nobody/n{number}"), "x")

    await ask_nobody(0)
    assert len(pools._pools) <= 4
    assert pools.pool(ECHO) is known
    # One for which somebody waits until the node is there again is kept, whoever else comes meanwhile.
    test_runtime.network.outage()
    route = Anycast("test/ns/waited-for")
    waiting = asyncio.create_task(test_runtime.ask(route, "x", timeout=1000))
    await asyncio.sleep(1)
    waited_for = pools.pool(route)
    for number in range(20):
        pools.pool(Anycast(f"test/nobody/m{number}"))
    assert pools.pool(route) is waited_for
    test_runtime.network.restore()
    with pytest.raises(NoRoute):
        await waiting
    await ref.stop()
    await ask_nobody(20)
    assert known not in pools._pools.values()
    assert waited_for not in pools._pools.values()
    assert len(pools._pools) <= 4
