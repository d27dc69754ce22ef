"""The mailbox: bounded, in order, and every message taken out once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from slim_actors import Agent, handler
from slim_actors.errors import DeliveryError
from slim_actors.mailbox import Envelope, Mailbox, State
from slim_actors.mailqueue import MailboxQueue
from slim_actors.names import Address
from slim_actors.testing import TestRuntime
from tests.conftest import eventually


class Log:
    def __init__(self) -> None:
        self.accepted_ids: list[int] = []

    def accepted(self, envelope: Envelope) -> None:
        self.accepted_ids.append(envelope.id)

    def accepted_all(self, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            self.accepted(envelope)

    def replied(self, envelope: Envelope, value: Any) -> None: ...

    def failed(self, envelope: Envelope, error: DeliveryError) -> None: ...

    async def room(self) -> None: ...


def envelope(number: int, log: Log, size: int = 0) -> Envelope:
    return Envelope(number, None, None, Address("t/t/t"), float("inf"), log, size=size)


async def test_what_does_not_fit_waits_outside_until_there_is_room() -> None:
    log, box = Log(), MailboxQueue(Mailbox(2))
    for number in range(4):
        box.put(envelope(number, log))
    assert len(box) == 2
    assert log.accepted_ids == [0, 1]
    assert (await box.take()).id == 0
    await eventually(lambda: log.accepted_ids == [0, 1, 2])
    assert [(await box.take()).id for _ in range(3)] == [1, 2, 3]


async def test_a_message_that_is_taken_out_makes_room() -> None:
    log, box = Log(), MailboxQueue(Mailbox(1))
    first, second, third = envelope(1, log), envelope(2, log), envelope(3, log)
    for each in (first, second, third):
        box.put(each)
    box.discard(second)
    box.discard(first)
    assert await box.take() is third
    assert log.accepted_ids == [1, 3]


async def test_an_envelope_has_one_outcome() -> None:
    only = envelope(1, Log())
    only.reply(1)
    assert only.state is State.DONE
    only.fail(DeliveryError("too late"))
    only.reply(2)


async def test_a_taker_that_is_cancelled_passes_its_turn_on() -> None:
    log, box = Log(), MailboxQueue(Mailbox(5))
    first, second = asyncio.ensure_future(box.take()), asyncio.ensure_future(box.take())
    await asyncio.sleep(0)
    box.put(envelope(1, log))
    first.cancel()
    assert (await second).id == 1
    assert first.cancelled()


async def test_clearing_gives_what_had_no_outcome() -> None:
    log, box = Log(), MailboxQueue(Mailbox(1))
    box.put(envelope(1, log))
    box.put(envelope(2, log))
    assert [left.id for left in box.clear_parked()] == [2]
    assert [left.id for left in box.clear()] == [1]
    assert len(box) == 0


async def test_dropping_the_oldest_makes_room_for_large_messages_too() -> None:
    log, box = Log(), MailboxQueue(Mailbox(1000, overflow="drop_oldest"))
    mib = 2**20
    sizes = [0] * 900 + [mib] * 300
    dropped = [gone for number, size in enumerate(sizes) for gone in box.put(envelope(number, log, size))]
    waiting = box.clear()
    assert sum(left.size for left in waiting) == 64 * mib
    assert [one.id for one in dropped + waiting] == list(range(len(sizes)))


async def test_many_that_have_expired_give_others_their_turn(test_runtime: TestRuntime) -> None:
    many, began, gate = 2000, asyncio.Event(), asyncio.Event()

    class Held(Agent, name="test/ns/held"):
        mailbox = Mailbox(capacity=many)

        @handler
        async def hold(self, message: str) -> None:
            began.set()
            await gate.wait()

        @handler
        async def note(self, message: int) -> None: ...

    ref = await test_runtime.spawn(Held)
    held = asyncio.ensure_future(test_runtime.ask(ref.route, "hold"))
    await began.wait()
    await test_runtime.tell_many(ref.route, range(many), timeout=1.0)
    await asyncio.sleep(2.0)
    gate.set()
    seen = [0]
    while ref.stats.depth:
        await asyncio.sleep(0)
        seen.append(ref.stats.expired)
    assert seen[-1] == many
    await held
    assert max(after - before for before, after in pairwise(seen)) <= 256
