"""Many tells at once: each is worth as much as one by itself, whatever befalls the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
from attrs import frozen

from slim_actors import (
    Agent,
    Anycast,
    Busy,
    DeliveryError,
    Expired,
    Limits,
    Mailbox,
    MalformedMessage,
    Middleware,
    NoRoute,
    PeerLost,
    Runtime,
    Sending,
    TooLarge,
    Unicast,
    handler,
    wire,
)
from slim_actors.routing.bulk import Bulk
from slim_actors.testing import TestRuntime
from tests.conftest import World, eventually, next_of, say

NAME = "test/ns/list"


@frozen
class Add:
    number: int
    ballast: bytes = b""


@frozen
class Other:
    number: int


class Lister(Agent, name=NAME):
    """Keeps the numbers that it is told; after the first it waits until it may go on."""

    def __init__(self, *, held: bool = False) -> None:
        self.numbers: list[int] = []
        self.may_go_on = asyncio.Event()
        if not held:
            self.may_go_on.set()

    @handler
    async def add(self, message: Add) -> None:
        self.numbers.append(message.number)
        await self.may_go_on.wait()

    @handler
    async def other(self, message: Other) -> None:
        self.numbers.append(message.number)


class Choosy(Lister, name=NAME):
    mailbox = Mailbox(5, overflow="busy")


@pytest.fixture
async def memory() -> AsyncIterator[TestRuntime]:
    """A runtime whose network can be made to fail."""
    async with TestRuntime() as runtime:
        yield runtime


def same(agent: Lister) -> Lister:
    return agent


def adds(count: int, first: int = 0) -> list[Add]:
    return [Add(number) for number in range(first, first + count)]


@pytest.mark.parametrize("mls", [False, True])
async def test_unicast_keeps_the_order_beyond_every_window(world: World, mls: bool) -> None:
    host, caller = await world.runtime(), await world.runtime()
    agent = Lister()
    await host.spawn(lambda: agent)
    # Of two types and some of them large, so they cannot all go together.
    kinds = [
        Add(n, bytes(70_000 if n % 1000 == 500 else n % 100)) if n % 700 else Other(n) for n in range(5000)
    ]
    await caller.tell_many(Unicast(NAME, mls=mls), kinds)
    await eventually(lambda: len(agent.numbers) == 5000)
    assert agent.numbers == list(range(5000))


async def test_anycast_gives_every_replica_its_part(world: World) -> None:
    host, caller = await world.runtime(), await world.runtime()
    agents = [Lister() for _ in range(3)]
    for agent in agents:
        await host.spawn(partial(same, agent))
    await caller.tell_many(Anycast(NAME), adds(30))
    before = [len(agent.numbers) for agent in agents]
    assert sum(before) == 30
    assert min(before) >= 6
    await caller.tell_many(Anycast(NAME), adds(900))
    await eventually(lambda: sum(len(agent.numbers) for agent in agents) == 930)
    assert min(len(agent.numbers) for agent in agents) >= 250


@pytest.mark.parametrize("size", [1, 4, 7])
async def test_anycast_is_even_also_over_many_small_ones(memory: TestRuntime, size: int) -> None:
    agents = [Lister() for _ in range(3)]
    for agent in agents:
        await memory.spawn(partial(same, agent))
    for _ in range(60):
        await memory.tell_many(Anycast(NAME), adds(size))
    had = [len(agent.numbers) for agent in agents]
    assert sum(had) == 60 * size
    assert max(had) - min(had) <= size + 2


async def test_what_one_replica_refuses_another_takes(world: World) -> None:
    host, caller = await world.runtime(), await world.runtime()
    choosy, willing = Choosy(held=True), Lister()
    await host.spawn(lambda: choosy)
    await host.spawn(lambda: willing)
    await caller.tell_many(Anycast(NAME), adds(200))
    choosy.may_go_on.set()
    await eventually(lambda: len(choosy.numbers) + len(willing.numbers) == 200)
    assert sorted(choosy.numbers + willing.numbers) == list(range(200))


async def test_the_first_failure_is_raised_and_says_how_many_were_accepted(world: World) -> None:
    host, caller = await world.runtime(), await world.runtime()
    agent = Choosy(held=True)
    await host.spawn(lambda: agent)
    with pytest.raises(Busy) as caught:
        await caller.tell_many(Unicast(NAME), adds(200))
    (note,) = caught.value.__notes__
    accepted = int(note.partition(" ")[0])
    assert note == f"{accepted} of 200 messages were accepted."
    assert 5 <= accepted <= 6
    agent.may_go_on.set()


async def test_what_cannot_be_sent_fails_alone(world: World) -> None:
    host, caller = await world.runtime(limits=Limits(max_payload=1000)), await world.runtime()
    agent = Lister()
    await host.spawn(lambda: agent)
    wrong: list[tuple[Any, type[Exception]]] = [
        (object(), MalformedMessage),
        (Add(10**30), MalformedMessage),
        (Add(-1, bytes(2000)), TooLarge),
    ]
    for message, error in wrong:
        agent.numbers.clear()
        with pytest.raises(error) as caught:
            await caller.tell_many(Unicast(NAME), [*adds(10), message, *adds(10, first=10)])
        assert caught.value.__notes__ == ["20 of 21 messages were accepted."]
        await eventually(lambda: agent.numbers == list(range(20)))


async def test_what_is_nested_too_deep_is_refused_alone(world: World) -> None:
    host, caller = await world.runtime(limits=Limits(max_depth=20)), await world.runtime()
    probe: list[Any] = []

    class Taker(Agent, name=NAME):
        @handler
        async def take(self, message: list[Any]) -> None:
            probe.append(message)

    await host.spawn(Taker)
    deep: list[Any] = []
    for _ in range(30):
        deep = [deep, 1, 2, 3]
    with pytest.raises(MalformedMessage, match="goes deeper than 20") as caught:
        await caller.tell_many(Unicast(NAME), [[1], deep, [2]])
    assert caught.value.__notes__ == ["2 of 3 messages were accepted."]
    await eventually(lambda: probe == [[1], [2]])


async def test_nobody_is_looked_for_more_than_once_for_all_of_them(memory: TestRuntime) -> None:
    loop = asyncio.get_running_loop()
    for route in (Anycast("test/ns/nobody"), Unicast("test/ns/nobody")):
        began = loop.time()
        with pytest.raises(NoRoute) as caught:
            await memory.tell_many(route, adds(1000))
        assert caught.value.__notes__ == ["0 of 1000 messages were accepted."]
        # By the virtual clock: one set-up that is not answered takes 3 s.
        assert loop.time() - began < 10


async def test_who_waits_for_the_same_replica_has_a_note_of_his_own(memory: TestRuntime) -> None:
    route = Unicast("test/ns/nobody")
    tellings = [asyncio.create_task(memory.tell_many(route, adds(count))) for count in (2, 3)]
    await asyncio.wait(tellings)
    notes = [getattr(telling.exception(), "__notes__", None) for telling in tellings]
    assert notes == [["0 of 2 messages were accepted."], ["0 of 3 messages were accepted."]]


async def test_those_that_wait_at_the_deadline_expire(memory: TestRuntime) -> None:
    agent = Lister(held=True)
    await memory.spawn(lambda: agent)
    with pytest.raises(Expired) as caught:
        await memory.tell_many(Unicast(NAME), adds(5000), timeout=5)
    (note,) = caught.value.__notes__
    # The one that is handled, and as many as the mailbox holds.
    assert note == "1001 of 5000 messages were accepted."
    agent.may_go_on.set()
    await asyncio.sleep(1)
    await memory.tell_many(Unicast(NAME), adds(10, first=10_000))
    await eventually(lambda: agent.numbers[-10:] == list(range(10_000, 10_010)))


async def test_cancelling_them_cancels_what_was_not_accepted(memory: TestRuntime) -> None:
    agent = Lister(held=True)
    ref = await memory.spawn(lambda: agent)
    telling = asyncio.create_task(memory.tell_many(Unicast(NAME), adds(3000)))
    await eventually(lambda: ref.stats.accepted == 1001)
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    # What came beyond those that the mailbox holds, and was waiting at its door.
    await eventually(lambda: ref.stats.cancelled > 0)
    agent.may_go_on.set()
    await memory.tell_many(Unicast(NAME), adds(1, first=10_000))
    await eventually(lambda: agent.numbers[-1] == 10_000)
    assert agent.numbers == [*range(1001), 10_000]


async def test_a_replica_that_is_lost_with_some_of_them(memory: TestRuntime) -> None:
    class Again(Lister, name=NAME):
        idempotent = True

    agents = [Again(held=True) for _ in range(2)]
    refs = [await memory.spawn(partial(same, agent)) for agent in agents]
    await memory.tell_many(Anycast(NAME), adds(2))
    telling = asyncio.create_task(memory.tell_many(Anycast(NAME), adds(3000, first=10)))
    await eventually(lambda: all(ref.stats.depth == 1000 for ref in refs))
    await memory.kill(refs[0])
    agents[1].may_go_on.set()
    with pytest.raises(PeerLost) as caught:
        await telling
    (note,) = caught.value.__notes__
    assert int(note.partition(" ")[0]) > 2000


async def test_unicast_goes_to_no_other_replica_when_its_own_is_lost(memory: TestRuntime) -> None:
    agents = [Lister(held=True) for _ in range(2)]
    refs = [await memory.spawn(partial(same, agent)) for agent in agents]
    telling = asyncio.create_task(memory.tell_many(Unicast(NAME), adds(5000)))
    await eventually(lambda: any(ref.stats.depth == 1000 for ref in refs))
    busy, idle = (0, 1) if refs[0].stats.depth else (1, 0)
    await memory.kill(refs[busy])
    with pytest.raises(PeerLost) as caught:
        await telling
    (note,) = caught.value.__notes__
    assert int(note.partition(" ")[0]) <= 1001
    assert agents[idle].numbers == []
    agents[idle].may_go_on.set()
    await memory.tell_many(Unicast(NAME), adds(3))
    await eventually(lambda: agents[idle].numbers == [0, 1, 2])


async def test_after_an_outage_they_are_sent_again_and_none_is_handled_twice(memory: TestRuntime) -> None:
    agent = Lister()
    await memory.spawn(lambda: agent)
    await memory.tell_many(Unicast(NAME), adds(1))
    memory.network.drop(probability=0.5, target=NAME)
    telling = asyncio.create_task(memory.tell_many(Unicast(NAME), adds(700, first=1)))
    await asyncio.sleep(0)
    memory.network.outage()
    await asyncio.sleep(1)
    memory.network.heal()
    memory.network.restore()
    await telling
    await eventually(lambda: len(agent.numbers) == 701)
    assert sorted(agent.numbers) == list(range(701))


async def test_the_hooks_see_each_of_them(world: World) -> None:
    seen: list[object] = []
    ended: list[object] = []

    class Watch(Middleware):
        @contextmanager
        def sending(self, sending: Sending) -> Iterator[None]:
            seen.append(sending.message)
            yield
            ended.append(sending.message)

    host, caller = await world.runtime(), await world.runtime(middleware=[Watch()])
    agent = Lister()
    await host.spawn(lambda: agent)
    await caller.tell_many(Unicast(NAME), adds(50))
    assert seen == ended == adds(50)


async def test_peers_in_plain_bytes_refuse_them_all(runtime: Runtime) -> None:
    await runtime.spawn(Lister)
    with pytest.raises(DeliveryError, match="cannot be told something") as caught:
        await runtime.tell_many(Unicast(NAME, wire="bytes"), [b"x"] * 5)
    assert caught.value.__notes__ == ["0 of 5 messages were accepted."]


async def test_none_of_them_is_none(runtime: Runtime) -> None:
    await runtime.tell_many(Anycast("test/ns/nobody"), [])


def test_the_frame_of_many_is_as_small_as_what_is_in_it() -> None:
    one = msgspec.msgpack.encode(Add(1))
    many = msgspec.msgpack.encode([Add(1)] * 256)
    assert len(many) == 3 + 256 * len(one)


async def test_what_an_agent_says_twice_of_some_is_no_word_about_the_others(world: World) -> None:
    elsewhere, caller = await world.runtime(), await world.runtime()
    port = await elsewhere._transport.open(NAME)
    telling = asyncio.create_task(caller.tell_many(Unicast(NAME, mls=True), adds(11)))
    session = await port.accept()

    async def tells() -> wire.Tells:
        while not isinstance(frame := await next_of(session, wire.Tells, wire.Tell), wire.Tells):
            await say(session, wire.Accepted([(frame.id, 1)]))
        return frame

    many = await tells()
    # As after an outage in which the first word was not lost: five of ten, and the same five once more.
    half = wire.Accepted([(many.id, 5)])
    await say(
        session, half, half, *(wire.Error(many.id + number, "busy", "Full.") for number in range(5, 10))
    )
    with pytest.raises(Busy) as caught:
        await telling
    assert caught.value.__notes__ == ["6 of 11 messages were accepted."]


async def test_what_is_cancelled_behind_a_long_message_is_not_sent_after_it(memory: TestRuntime) -> None:
    agent = Lister()
    await memory.spawn(lambda: agent)
    route = Unicast(NAME)
    await memory.tell(route, Add(0))
    long = asyncio.create_task(memory.tell(route, Add(1, bytes(16 * 1024 * 1024))))
    telling = asyncio.create_task(memory.tell_many(route, adds(10, first=10)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    telling.cancel()
    await asyncio.wait([telling, long])
    await memory.tell(route, Add(2))
    await eventually(lambda: 2 in agent.numbers)
    assert agent.numbers == [0, 1, 2]


class Counted(list[object]):
    """Counts what is gone through from its start."""

    gone_through = 0

    def __iter__(self) -> Iterator[object]:
        for message in super().__iter__():
            self.gone_through += 1
            yield message


async def test_messages_of_types_in_turn_are_gone_through_once(test_runtime: TestRuntime) -> None:
    lister = Lister()
    await test_runtime.spawn(lambda: lister)
    route = Unicast(NAME)
    await test_runtime.tell(route, Add(0))
    messages = Counted(Other(number) if number % 2 else Add(number) for number in range(400))
    router = await test_runtime._sender()
    expires = asyncio.get_running_loop().time() + 30
    await Bulk(router, route, None, messages, expires, {}).send()
    assert messages.gone_through <= len(messages)
