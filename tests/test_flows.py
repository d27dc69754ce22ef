"""How flows are held back: by items and by bytes, whatever their sizes; and how long others wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from attrs import frozen
from msgspec import Raw

from slim_actors import (
    Address,
    Agent,
    Expired,
    Limits,
    MalformedMessage,
    PeerLost,
    StreamRequest,
    handler,
    wire,
)
from slim_actors.admission import Admission
from slim_actors.messages import Body
from slim_actors.streams import Inlet
from slim_actors.testing import TestRuntime
from slim_actors.transport.base import SessionOptions
from slim_actors.transport.memory import MemorySession
from tests.conftest import say

NAME = "t/t/flows"
MIB = 2**20


@frozen
class Give(StreamRequest[bytes]):
    """Give a short item, and then so many of 1 MiB."""

    count: int


class Flows(Agent, name=NAME):
    def __init__(self) -> None:
        self.made = 0

    @handler
    async def give(self, message: Give) -> AsyncIterator[bytes]:
        yield b"header"
        for _ in range(message.count):
            self.made += 1
            yield bytes(MIB)

    @handler
    async def count(self, pause: float, items: AsyncIterator[bytes]) -> int:
        count = 0
        async for _ in items:
            count += 1
            await asyncio.sleep(pause)
        return count

    @handler
    async def check(self, message: str, items: AsyncIterator[int]) -> list[int]:
        counts = [0, 0]
        while True:
            try:
                await anext(items)
            except MalformedMessage:
                counts[1] += 1
            except StopAsyncIteration:
                return counts
            else:
                counts[0] += 1

    @handler
    async def quick(self, message: int) -> int:
        await asyncio.sleep(0.01)
        return message


class Others(Flows, name=NAME):
    concurrency = 4


async def items_of(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield bytes(size)


async def two(pause: float) -> AsyncIterator[bytes]:
    yield b"1"
    await asyncio.sleep(pause)
    yield b"2"


@pytest.mark.parametrize(
    "sizes",
    [[6] + [MIB] * 80, [20 * MIB] * 6, [MIB, 6] * 40, [6] * 2000 + [3 * MIB, 6 * MIB] * 10],
    ids=["a short one before large ones", "very large", "in turn", "large after many short ones"],
)
async def test_items_of_any_sizes_come_to_a_handler_that_needs_a_moment_for_each(
    test_runtime: TestRuntime, sizes: list[int]
) -> None:
    ref = await test_runtime.spawn(Flows)
    assert await test_runtime.ask(ref.route, 0.01, items=items_of(*sizes), timeout=1e6) == len(sizes)


async def test_no_more_than_8_mib_of_items_wait_at_a_slow_reader_whatever_came_first(
    test_runtime: TestRuntime,
) -> None:
    agent = Flows()
    ref = await test_runtime.spawn(lambda: agent)
    taken = 0
    async for _ in test_runtime.stream(ref.route, Give(50), timeout=1e6):
        await asyncio.sleep(0.1)
        # One more has been made, and waits for its turn.
        assert agent.made - taken <= 8 + 1
        taken += 1
    assert taken == 51


async def test_a_reader_that_takes_large_items_slowly_is_no_reader_that_takes_none(
    test_runtime: TestRuntime,
) -> None:
    ref = await test_runtime.spawn(Flows)
    async with TestRuntime(network=test_runtime.network) as other:
        waiting = None
        async for _ in other.stream(ref.route, Give(20), timeout=1e6):
            waiting = waiting or asyncio.create_task(test_runtime.ask(ref.route, 1, timeout=1e6))
            await asyncio.sleep(2)
        assert waiting is not None
        assert await waiting == 1


async def test_a_peer_that_grants_whatever_can_be_and_reads_nothing_gets_no_more_made(
    monkeypatch: pytest.MonkeyPatch, test_runtime: TestRuntime
) -> None:
    send, evil = MemorySession.send, "evil/ns/mallory"

    async def stuck(self: MemorySession, data: bytes, payload_type: str | None) -> None:
        if self.peer.name == evil:
            await asyncio.Event().wait()
        await send(self, data, payload_type)

    monkeypatch.setattr(MemorySession, "send", stuck)
    agent = Flows()
    await test_runtime.spawn(lambda: agent)
    port = await test_runtime._transport.open(evil)
    session = await port.connect(Address(NAME), SessionOptions())
    body = Raw(msgspec.msgpack.encode({"count": 1000}))
    await say(session, wire.Stream(1, "test_flows.Give", body, 1e6, granted=2**62))
    for more in range(1000):
        await say(session, wire.Grant(1, 2**62 + more))
        await asyncio.sleep(0.01)
    assert 8 <= agent.made < 20


async def test_a_flow_that_brings_far_more_bytes_than_it_may_is_ended() -> None:
    inlet = Inlet(Body(bytes), lambda total: None, "the stream")
    item = Raw(msgspec.msgpack.encode(bytes(MIB)))
    for number in range(20):
        inlet.take_in(wire.Item(1, number, item))
    with pytest.raises(PeerLost, match="more bytes of items waiting than it may"):
        for _ in range(20):
            await anext(inlet)


@pytest.mark.parametrize("together", [True, False])
async def test_items_that_cannot_be_read_are_items_that_were_taken_out(
    test_runtime: TestRuntime, together: bool
) -> None:
    async def mixed(count: int) -> AsyncIterator[Any]:
        for number in range(count):
            yield number if number % 2 else "wrong"
            if not together:
                await asyncio.sleep(0)

    ref = await test_runtime.spawn(Flows)
    assert await test_runtime.ask(ref.route, "x", items=mixed(3000)) == [1500, 1500]


async def test_bytes_of_items_are_counted_out_as_they_were_counted_in() -> None:
    visit = Admission(Limits(max_waiting=1000)).enter(Address("t/t/peer", "1"))
    wrong = [msgspec.msgpack.encode(text) for text in ["wrong", *["x" * 100] * 5]]
    for _ in range(3):
        inlet = Inlet(Body(int), lambda total: None, "the stream", hold=visit.hold_item)
        other = Inlet(Body(bytes), lambda total: None, "the stream", hold=visit.hold_item)
        inlet.take_in(wire.Items(2, 0, Raw(wire.join(wrong))))
        other.take_in(wire.Item(1, 0, Raw(msgspec.msgpack.encode(bytes(5000)))))
        with pytest.raises(MalformedMessage):
            await anext(inlet)
        assert visit._peer.items == sum(map(len, wrong[1:])) + 5003
        inlet.discard()
        other.discard()
        assert visit._peer.items == 0


async def test_a_stream_may_keep_others_waiting_for_its_patience_from_when_they_began_to_wait(
    test_runtime: TestRuntime,
) -> None:
    ref = await test_runtime.spawn(Flows)
    loop = asyncio.get_running_loop()
    async with TestRuntime(network=test_runtime.network) as other:
        began = loop.time()
        upload = asyncio.create_task(other.ask(ref.route, 0.0, items=two(9.9), timeout=1e6))
        await asyncio.sleep(4.99)
        assert await test_runtime.ask(ref.route, 1) == 1
        assert await upload == 2
        assert loop.time() - began > 9
        upload = asyncio.create_task(other.ask(ref.route, 0.0, items=two(100), timeout=1e6))
        await asyncio.sleep(12)
        began = loop.time()
        assert await test_runtime.ask(ref.route, 1) == 1
        assert 4.9 < loop.time() - began < 5.1
        with pytest.raises((PeerLost, Expired)):
            await upload


async def test_a_stream_that_stands_keeps_nobody_waiting_where_other_workers_are_free(
    test_runtime: TestRuntime,
) -> None:
    ref = await test_runtime.spawn(Others)
    async with TestRuntime(network=test_runtime.network) as other:
        upload = asyncio.create_task(other.ask(ref.route, 0.0, items=two(30), timeout=1e6))

        async def ask_on() -> None:
            while not upload.done():
                await test_runtime.ask(ref.route, 1)

        # Some always wait, but each for a moment only.
        await asyncio.gather(*(ask_on() for _ in range(8)))
        assert await upload == 2
