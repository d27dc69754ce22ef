"""What waits for its turn in the window to a replica: it is sent in order, and ends like everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from random import Random

import pytest
from attrs import frozen

from slim_actors import DeliveryError, Expired, MalformedMessage, Request, Runtime, Unicast, wire
from slim_actors.messages import RAW
from slim_actors.receipts import WINDOW
from slim_actors.routing.expiry import Expiry
from slim_actors.routing.outgoing import Chunk, Late, Outgoing, Pending
from slim_actors.routing.window import Window
from slim_actors.testing import TestRuntime
from tests.agents_for_tests import Gate, Wait, Worker
from tests.conftest import World, eventually, next_of, say

ROOM = WINDOW + 50
"""More than the window to an agent, its mailbox and its worker have room for."""
MANY = ROOM + 100

ROUTE = Unicast("test/ns/worker")


@frozen
class Odd(Request[str]):
    name: object


async def held(runtime: Runtime) -> tuple[Gate, list[asyncio.Task[str]]]:
    """Ask so much of an agent which stands still that the last messages wait here."""
    gate = Gate()
    await runtime.spawn(lambda: Worker(gate))
    tasks = [asyncio.create_task(runtime.ask(ROUTE, Wait("0")))]
    await eventually(lambda: len(gate.began) == 1)
    tasks += [asyncio.create_task(runtime.ask(ROUTE, Wait(str(number)))) for number in range(1, MANY)]
    await asyncio.sleep(0)
    return gate, tasks


async def test_what_waited_is_handled_in_the_order_in_which_it_was_sent(runtime: Runtime) -> None:
    gate, tasks = await held(runtime)
    gate.open.set()
    await asyncio.gather(*tasks)
    assert gate.ended == [str(number) for number in range(MANY)]


async def test_what_is_cancelled_while_it_waits_is_never_sent(runtime: Runtime) -> None:
    gate, tasks = await held(runtime)
    late = tasks[ROOM:]
    for task in late:
        task.cancel()
    await asyncio.wait(late)
    gate.open.set()
    await asyncio.gather(*tasks[:ROOM])
    assert gate.began == [str(number) for number in range(ROOM)]


async def test_what_waits_expires_at_its_deadline(test_runtime: TestRuntime) -> None:
    gate, tasks = await held(test_runtime)
    with pytest.raises(Expired, match="last sign of life"):
        await test_runtime.ask(ROUTE, Wait("too late"), timeout=0.5)
    gate.open.set()
    await asyncio.gather(*tasks)
    assert "too late" not in gate.began


async def test_a_message_that_turns_out_to_have_no_form_on_the_wire_fails_alone(runtime: Runtime) -> None:
    gate, tasks = await held(runtime)
    odd = asyncio.create_task(runtime.ask(ROUTE, Odd(object())))
    after = asyncio.create_task(runtime.ask(ROUTE, Wait("after")))
    await asyncio.sleep(0)
    gate.open.set()
    with pytest.raises(MalformedMessage, match="cannot be sent"):
        await odd
    await asyncio.gather(*tasks, after)
    assert gate.ended[-1] == "after"


async def test_what_waits_for_a_replica_that_is_lost_has_not_run(test_runtime: TestRuntime) -> None:
    gate, tasks = await held(test_runtime)
    (ref,) = test_runtime.instances
    await ref.stop(drain=0.0)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert not gate.ended
    waited = [error for error in errors[ROOM:] if isinstance(error, DeliveryError)]
    assert len(waited) == MANY - ROOM
    assert not any(error.may_have_run for error in waited)


class Looked(Window):
    """Counts how many messages are looked at."""

    looked = 0

    def __iter__(self) -> Iterator[Pending]:
        for pending in super().__iter__():
            self.looked += 1
            yield pending


@pytest.mark.parametrize("timeouts", [[20.0], [20.0, 20.0, 20.0, 1.0], [0.1, 5.0, 10.0, 40.0]])
async def test_each_message_expires_at_its_own_deadline_and_few_are_looked_at_for_each(
    test_runtime: TestRuntime, timeouts: list[float]
) -> None:
    loop, random, count = asyncio.get_running_loop(), Random(1), 6000
    window = Looked(100, lambda pending: 1)
    expiry = Expiry(window)
    expired: list[float] = []
    early: list[float] = []
    answered = 0

    def ended(pending: Pending, _: object) -> None:
        window.remove(pending)
        if isinstance(pending.outcome.exception(), Late):
            expired.append(pending.message.expires)
            early.extend([pending.message.expires] * (loop.time() < pending.message.expires))

    for number in range(1, count + 1):
        expires = loop.time() + random.choice(timeouts) * random.choice([1.0, 1.0, random.random()])
        message = Outgoing(wire.Ask, number, "int", 1, expires, RAW)
        pending = Pending(message, loop.create_future())
        window.put(pending)
        if expires < expiry.horizon:
            expiry.watch(message)
        pending.outcome.add_done_callback(partial(ended, pending))
        if random.random() < 0.3:
            answered += 1
            pending.end("well")
        await asyncio.sleep(0.005)
    await eventually(lambda: not len(window), within=100)
    assert len(expired) == count - answered
    assert expired == sorted(expired)
    assert not early
    assert window.looked < 20 * count


async def test_what_goes_in_one_frame_counts_as_many_messages_for_what_goes_by_itself() -> None:
    def message(first: int, body: object, kind: type[wire.Tell | wire.Tells]) -> Outgoing:
        return Outgoing(kind, first, "int", body, 0.0, RAW)

    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sent: list[int] = []

    def send(pending: Pending) -> int:
        sent.append(pending.message.id)
        return 1

    window = Window(10, send)
    many = message(1, [b"\x01"] * 10, wire.Tells)
    window.put_chunk(Chunk(many, outcome, told=lambda chunk, ids, _: None, others=set()))
    window.put(Pending(message(11, b"\x01", wire.Tell), outcome))
    assert sent == [1]
    window.credit(1)
    assert sent == [1, 11]


@pytest.mark.parametrize("count", [1, 2, 10])
async def test_an_ask_of_which_its_agent_says_that_it_was_accepted_has_no_reply(
    world: World, count: int
) -> None:
    elsewhere, caller = await world.runtime(), await world.runtime()
    port = await elsewhere._transport.open("test/ns/worker")
    route = Unicast("test/ns/worker", mls=True)
    asking = [asyncio.create_task(caller.ask(route, Wait(str(number)))) for number in range(2)]
    session = await port.accept()
    ids = [(await next_of(session, wire.Ask)).id for _ in asking]
    await say(session, wire.Accepted([(ids[0], count)]), wire.Reply(ids[1], "well"))  # type: ignore[arg-type]
    first, second = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(first, MalformedMessage)
    assert first.may_have_run
    assert second == "well" if count == 1 else isinstance(second, MalformedMessage)
