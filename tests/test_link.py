"""What goes together in one payload."""

from __future__ import annotations

import asyncio

from slim_actors import Unicast, wire
from slim_actors.batches import decode_batch
from slim_actors.transport.base import Session
from tests.conftest import World, say

NAME = "test/ns/scripted"


async def taken(session: Session, count: int) -> list[int]:
    """Answer so many asks once all have come; give how many came in each payload."""
    found: list[list[wire.Ask]] = []
    while sum(map(len, found)) < count:
        frames = decode_batch((await session.receive()).data).frames
        found.append([frame for frame in frames if isinstance(frame, wire.Ask)])
    await say(session, *(wire.Reply(ask.id, ask.body) for together in found for ask in together))
    return [len(together) for together in found if together]


async def test_asks_go_together_and_in_two_payloads_where_one_would_have_very_many(world: World) -> None:
    runtime = await world.runtime()
    port = await runtime._transport.open(NAME)
    first = asyncio.create_task(runtime.ask(Unicast(NAME), "first"))
    session = await port.accept()
    await say(session, wire.Hello(wire.VERSION, 1024, [], 2**26, 2**26))
    assert await taken(session, 1) == [1]
    assert await first == "first"
    for count, payloads in ((100, [100]), (300, [150, 150])):
        many = asyncio.gather(*(runtime.ask(Unicast(NAME), number) for number in range(count)))
        assert await taken(session, count) == payloads
        assert await many == list(range(count))
