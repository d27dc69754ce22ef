"""Large messages: split below SLIM's limit, joined at the other end, and not in the way of the small ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from attrs import frozen

from slim_actors import (
    Agent,
    Anycast,
    Limits,
    PeerLost,
    Request,
    Runtime,
    StreamRequest,
    TooLarge,
    Unicast,
    handler,
    wire,
)
from slim_actors.batches import Problem, decode_batch, decode_joined
from slim_actors.limits import BATCH_BYTES, MAX_PAYLOAD, no_account
from slim_actors.names import Address
from slim_actors.parts import Joiner, Splitter
from slim_actors.testing import TestRuntime, VirtualClock
from slim_actors.transport.base import Session, SessionOptions
from tests.conftest import World, next_of, say

NAME = "test/ns/large"
LARGE = Unicast(NAME)
MIB = 1024 * 1024
MOST = 64 * MIB
PART = 129 * 1024


@frozen
class Give(Request[bytes]):
    size: int


@frozen
class GiveMany(StreamRequest[bytes]):
    sizes: list[int]


@frozen
class Total(Request[int]):
    pass


class Large(Agent, name=NAME):
    def __init__(self) -> None:
        self.told: list[int] = []

    @handler
    async def echo(self, message: bytes) -> bytes:
        return message

    @handler
    async def tell(self, message: str) -> None:
        self.told.append(len(message))

    @handler
    async def give(self, message: Give) -> bytes:
        return content(message.size)

    @handler
    async def give_many(self, message: GiveMany) -> AsyncIterator[bytes]:
        for size in message.sizes:
            yield content(size)

    @handler
    async def total(self, message: Total, items: AsyncIterator[bytes]) -> int:
        return sum([len(item) async for item in items])


def content(size: int) -> bytes:
    """Bytes in which a part that is missing, moved or doubled shows."""
    return (
        random.Random(size).randbytes(min(size, 4096)) + bytes(max(0, size - 4097)) + b"\x01" * (size > 4096)
    )


@pytest.fixture
async def large(runtime: Runtime) -> Large:
    agent = Large()
    await runtime.spawn(lambda: agent)
    return agent


@pytest.mark.parametrize("around", [PART, BATCH_BYTES, 2 * PART, MAX_PAYLOAD, 4 * MIB], ids=str)
async def test_a_byte_around_each_boundary_changes_nothing(
    runtime: Runtime, large: Large, around: int
) -> None:
    for size in (around - 64, around - 9, around - 8, around - 5, around - 1, around, around + 1):
        data = content(size)
        assert await runtime.ask(LARGE, data) == data


@pytest.mark.parametrize("size", [5 * MIB, MOST])
async def test_megabytes_come_back_as_they_were_sent(runtime: Runtime, large: Large, size: int) -> None:
    data = content(size)
    assert await runtime.ask(LARGE, data) == data


async def test_one_byte_over_the_limit_is_refused_on_either_side(world: World) -> None:
    host, caller = await world.runtime(limits=Limits(max_payload=MIB)), await world.runtime()
    await host.spawn(Large)
    assert len(await caller.ask(LARGE, content(MIB))) == MIB
    with pytest.raises(TooLarge, match=f"has {MIB + 6} bytes; one message may have {MIB}") as refused:
        await caller.ask(LARGE, content(MIB + 1))
    assert not refused.value.may_have_run
    with pytest.raises(TooLarge, match=f"one message may have {MIB}") as unsendable:
        await caller.ask(LARGE, Give(MIB + 1))
    assert unsendable.value.may_have_run
    assert await caller.ask(LARGE, b"x") == b"x"


async def test_a_reply_over_the_callers_limit_is_refused_and_its_rest_is_not_sent(world: World) -> None:
    host, caller = await world.runtime(), await world.runtime(limits=Limits(max_payload=MIB))
    await host.spawn(Large)
    with pytest.raises(TooLarge, match=f"one message may have {MIB}") as refused:
        await caller.ask(LARGE, Give(8 * MIB))
    assert refused.value.may_have_run
    assert await caller.ask(LARGE, b"x") == b"x"


async def test_the_limit_can_be_raised_above_64_mib(world: World) -> None:
    if world.endpoint is not None:
        pytest.skip("one world is enough for that")
    limits = Limits(max_payload=70 * MIB)
    runtime = await world.runtime(limits=limits)
    await runtime.spawn(Large)
    assert len(await runtime.ask(LARGE, Give(70 * MIB))) == 70 * MIB


async def test_tells_and_items_may_be_large_in_both_directions(runtime: Runtime, large: Large) -> None:
    await runtime.tell(LARGE, "x" * (2 * MIB))
    sizes = [3 * MIB, 1, BATCH_BYTES, 2 * MIB, 0]
    got = [len(item) async for item in runtime.stream(LARGE, GiveMany(sizes))]
    assert got == sizes

    async def items() -> AsyncIterator[bytes]:
        for size in sizes:
            yield content(size)

    assert await runtime.ask(LARGE, Total(), items=items()) == sum(sizes)
    assert large.told == [2 * MIB]


async def test_small_messages_go_between_the_parts_of_a_large_one(runtime: Runtime, large: Large) -> None:
    await runtime.ask(LARGE, b"")
    during = 0
    # Again where this side was too slow to see it.
    for _ in range(10):
        big = asyncio.ensure_future(runtime.ask(LARGE, content(32 * MIB)))
        during = 0
        while not big.done():
            assert await runtime.ask(LARGE, b"x") == b"x"
            during += not big.done()
        assert len(await big) == 32 * MIB
        if during > 3:
            break
    # One went before it, and one after it, in their order; any other between the parts of its reply.
    assert during > 3


async def test_a_cancelled_large_message_is_not_sent_to_its_end(runtime: Runtime, large: Large) -> None:
    await runtime.ask(LARGE, b"")
    call = asyncio.ensure_future(runtime.tell(LARGE, "x" * (32 * MIB)))
    await runtime.ask(LARGE, b"x")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await runtime.ask(LARGE, content(MIB)) == content(MIB)
    assert large.told == []


async def test_a_lost_part_is_sent_again_after_an_outage() -> None:
    async with TestRuntime() as runtime:
        agent = Large()
        await runtime.spawn(lambda: agent)
        await runtime.ask(LARGE, b"")
        # In the middle of the message, and in the middle of the reply.
        for source, target in (("", NAME), (NAME, "")):
            fault = runtime.network.drop(nth=5, source=source, target=target)
            call = asyncio.ensure_future(runtime.ask(LARGE, content(2 * MIB), timeout=20))
            await asyncio.sleep(1)
            assert fault.struck
            assert not call.done()
            runtime.network.outage()
            await asyncio.sleep(1)
            runtime.network.restore()
            assert await call == content(2 * MIB)


async def test_parts_that_come_twice_do_no_harm() -> None:
    async with TestRuntime() as runtime:
        await runtime.spawn(Large)
        runtime.network.duplicate()
        assert await runtime.ask(LARGE, content(2 * MIB)) == content(2 * MIB)


# What a hostile or broken peer does with parts.


def part(message_id: int, size: int, offset: int, data: bytes) -> wire.Part:
    return wire.Part(message_id, size, offset, memoryview(data))


class Intruder:
    """Sends what it likes to an agent."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    async def of(cls, world: World) -> Intruder:
        port = await (await world.runtime())._transport.open("evil/ns/mallory")
        return cls(await port.connect(Address(NAME), SessionOptions()))

    async def send(self, *frames: wire.Frame) -> None:
        await say(self.session, *frames)

    async def error(self, message_id: int) -> wire.Error:
        error: wire.Error = await next_of(self.session, wire.Error)
        assert error.id == message_id
        return error


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([part(7, MOST + MIB, 0, b"x")], "too-large"),
        ([part(7, 2**63 - 1, 0, b"x")], "too-large"),
        ([part(7, 10, 0, b"x" * 11)], "malformed"),
        ([part(7, 100, 0, b"x" * 10), part(7, 100, 5, b"x" * 10)], "malformed"),
        ([part(7, 100, 0, b"x" * 10), part(7, 200, 10, b"x" * 10)], "malformed"),
        ([part(7, 10, 0, b"x" * 10)], "malformed"),
        ([part(7, 4, 0, b"\xdd\xff\xff\xff")], "malformed"),
    ],
    ids=["too-many", "absurd", "more-than-said", "overlap", "other-size", "no-frame", "cut-frame"],
)
async def test_parts_that_make_no_sense_get_one_error(
    world: World, large: Large, parts: list[wire.Part], code: str
) -> None:
    intruder = await Intruder.of(world)
    for each in [*parts, *parts[1:]]:
        await intruder.send(each)
    await intruder.send(wire.Ask(8, "int", msgspec.Raw(b"\x01"), 30.0))
    assert (await intruder.error(7)).code == code
    assert (await intruder.error(8)).code == "unhandled"


async def test_parts_that_never_end_are_given_up(world: World, large: Large) -> None:
    if world.endpoint is not None:
        pytest.skip("in memory the 30 s take no time")
    intruder = await Intruder.of(world)
    await intruder.send(part(7, MIB, 0, b"x" * 10))
    error = await intruder.error(7)
    assert (error.code, error.message) == ("peer-lost", "Parts of the message were lost on their way.")


async def test_parts_within_parts_are_nobodys(world: World, large: Large) -> None:
    intruder = await Intruder.of(world)
    inner = wire.encode(part(7, 2, 0, b"xx"))
    await intruder.send(part(7, len(inner), 0, inner))
    await intruder.send(wire.Ask(8, "int", msgspec.Raw(b"\x01"), 30.0))
    assert (await intruder.error(8)).code == "unhandled"


async def test_a_peer_with_many_sessions_gets_no_more_room_for_parts() -> None:
    async with TestRuntime(limits=Limits(max_payload=4 * MIB, max_waiting=4 * MIB)) as runtime:
        ref = await runtime.spawn(Large)
        port = await runtime._transport.open("evil/ns/mallory")
        sessions = [Intruder(await port.connect(Address(NAME), SessionOptions())) for _ in range(4)]
        piece = bytes(MIB)
        for intruder in sessions:
            for number in range(3):
                await intruder.send(part(7, 4 * MIB, number * MIB, piece))
        assert (await sessions[2].error(7)).code == "busy"
        assert ref._inbound._admission._all.parts <= 9 * MIB
        for intruder in sessions:
            await intruder.session.close()
        await asyncio.sleep(1)
        assert ref._inbound._admission._all.parts == 0
        assert await runtime.ask(LARGE, content(3 * MIB)) == content(3 * MIB)


# The two halves alone.


class Halves:
    def __init__(self, max_payload: int = MOST) -> None:
        self.held = 0
        self.problems: list[Problem] = []
        self.splitter = Splitter()
        self.joiner = Joiner(max_payload, self._hold, lambda problem, _: self.problems.append(problem))

    def _hold(self, size: int) -> bool:
        self.held += size
        return True

    def pieces(self) -> list[wire.Frame]:
        got: list[wire.Frame] = []
        while self.splitter:
            (frame,) = decode_batch(self.splitter.next()[0]).frames
            got.append(frame)
        return got


async def test_whatever_is_split_is_joined_in_order() -> None:
    halves = Halves()
    sizes = [PART + 1, 3 * PART, 5 * PART - 7]
    frames = [wire.encode(wire.Reply(number, content(size))) for number, size in enumerate(sizes, 1)]  # type: ignore[arg-type]
    for number, frame in enumerate(frames, 1):
        halves.splitter.add(number, frame)
    joined: list[wire.Frame] = []
    for piece in halves.pieces():
        assert isinstance(piece, wire.Part)
        assert len(piece.data) <= PART
        whole = halves.joiner.add(piece)
        if whole is not None:
            joined += decode_joined(whole, piece.id, Limits()).frames
    bodies = [msgspec.msgpack.decode(frame.body) for frame in joined if isinstance(frame, wire.Reply)]
    assert bodies == [content(size) for size in sizes]
    assert halves.held == 0
    assert halves.problems == []


async def test_what_is_dropped_gives_its_bytes_back() -> None:
    splitter = Splitter()
    for message_id in (1, 2, 1):
        splitter.add(message_id, bytes(3 * PART))
    _, sent = splitter.next()
    assert splitter.drop(1) == 6 * PART - sent
    assert (1 in splitter, 2 in splitter) == (False, True)
    assert splitter.drop(1) == 0
    assert sum(splitter.next()[1] for _ in range(3)) == 3 * PART
    assert not splitter


async def test_after_a_gap_nothing_is_kept_and_the_sender_is_told() -> None:
    with VirtualClock():
        halves = Halves()
        add = halves.joiner.add
        add(part(1, 100, 0, b"x" * 10))
        add(part(1, 100, 20, b"x" * 10))
        assert halves.held == 0
        assert add(part(1, 100, 10, b"x" * 90)) is None
        await asyncio.sleep(31)
        assert [problem.code for problem in halves.problems] == [PeerLost.code]
        add(part(1, 3, 0, b"a"))
        assert bytes(add(part(1, 3, 1, b"bc")) or b"") == b"\x91abc"


async def test_random_parts_never_hold_more_than_one_message() -> None:
    chance = random.Random(5)
    halves = Halves(max_payload=1000)
    for _ in range(20_000):
        size, offset = chance.randrange(1200), chance.choice([0, chance.randrange(1200)])
        halves.joiner.add(part(chance.randrange(3), size, offset, bytes(chance.randrange(400))))
        assert 0 <= halves.held <= 1200
    halves.joiner.close()
    assert halves.held == 0
    assert no_account(1)


def test_anycast_takes_large_messages_too() -> None:
    async def run() -> Any:
        async with TestRuntime() as runtime:
            await runtime.spawn(Large)
            return await runtime.ask(Anycast(NAME), content(MIB))

    assert asyncio.run(run()) == content(MIB)


async def test_what_has_its_reply_is_not_sent_behind_a_long_message(world: World) -> None:
    elsewhere, caller = await world.runtime(), await world.runtime()
    port = await elsewhere._transport.open(NAME)
    route = Unicast(NAME, mls=True)
    first = asyncio.create_task(caller.ask(route, 0))
    session = await port.accept()

    async def answer(message_id: int) -> None:
        await say(session, wire.Reply(message_id, "well"))  # type: ignore[arg-type]

    await say(session, wire.Hello(wire.VERSION, 1024, [], 2**26, 2**26))
    await answer((await next_of(session, wire.Ask)).id)
    assert await first == "well"
    # So long that the reply comes long before all of it has been sent.
    asking = [asyncio.create_task(caller.ask(route, body)) for body in (content(24 * MIB), "behind it")]
    long = await next_of(session, wire.Part)
    # As after an outage, when it is sent once more, and the reply to the first time comes.
    await answer(long.id + 1)
    assert await asking[1] == "well"
    last = asyncio.create_task(caller.ask(route, "last"))
    assert (await next_of(session, wire.Ask)).id == long.id + 2
    await answer(long.id)
    await answer(long.id + 2)
    assert [await asking[0], await last] == ["well", "well"]
