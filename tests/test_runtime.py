"""Agents and verbs, over a real node and in memory: one behaviour."""

from __future__ import annotations

import asyncio
import logging
import re
from contextvars import ContextVar
from typing import Any

import attrs
import pytest
from attrs import frozen

from slim_actors import (
    Agent,
    Anycast,
    ConfigurationError,
    Context,
    DeclarationError,
    Expired,
    MalformedMessage,
    NoRoute,
    PeerLost,
    RemoteError,
    Request,
    Runtime,
    TooLarge,
    UnhandledMessage,
    Unicast,
    handler,
)
from tests.agents_for_tests import Echo, Fail, Gate, Note, Relay, Say, Wait, WhoAmI, Worker
from tests.conftest import World, eventually

WORKER = Anycast("test/ns/worker")


async def test_ask_gives_the_typed_reply_and_says_who_gave_it(runtime: Runtime) -> None:
    ref = await runtime.spawn(Worker)
    call = runtime.ask(WORKER, Say("hi"))
    assert await call == "hi"
    assert call.peer == ref.address


@pytest.mark.parametrize("message", ["text", b"bytes", 7, 1.5, True, None, [1, [2]], {"a": {"b": None}}, ""])
@pytest.mark.parametrize("mls", [False, True])
async def test_an_untyped_agent_gets_plain_values_as_they_are(
    runtime: Runtime, message: Any, mls: bool
) -> None:
    await runtime.spawn(Echo)
    assert await runtime.ask(Anycast("test/ns/echo", mls=mls), message) == message


async def test_hooks_are_called_once_around_the_messages(runtime: Runtime) -> None:
    worker = Worker()
    ref = await runtime.spawn(lambda: worker)
    assert worker.hooks == ["started test/ns/worker"]
    await runtime.ask(ref.route, Say("x"))
    await ref.stop()
    assert worker.hooks == ["started test/ns/worker", "stopped test/ns/worker"]


async def test_an_agent_that_fails_to_start_fails_the_spawn(runtime: Runtime) -> None:
    class Broken(Echo, name="test/ns/broken"):
        async def started(self, ctx: Context) -> None:
            raise KeyError("config")

    with pytest.raises(KeyError, match="config"):
        await runtime.spawn(Broken)


async def test_an_agent_without_a_name_gets_one_at_the_spawn_or_is_refused(runtime: Runtime) -> None:
    class Nameless(Agent):
        async def receive(self, message: Any) -> Any:
            return message

    with pytest.raises(DeclarationError, match="has no name"):
        await runtime.spawn(Nameless)
    with pytest.raises(ConfigurationError, match="three parts"):
        await runtime.spawn(Nameless, name="x")
    ref = await runtime.spawn(Nameless, name="test/ns/named")
    assert await runtime.ask(Anycast("test/ns/named"), 1) == 1
    assert ref.address.name == "test/ns/named"


async def test_a_failing_handler_fails_its_caller_with_the_real_cause_and_goes_on(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    await runtime.spawn(Worker)
    with caplog.at_level(logging.CRITICAL), pytest.raises(RemoteError, match="ValueError: too bad") as caught:
        await runtime.ask(WORKER, Fail("too bad"))
    assert (caught.value.remote_type, caught.value.remote_message) == ("ValueError", "too bad")
    assert await runtime.ask(WORKER, Say("still here")) == "still here"


async def test_a_reply_that_cannot_be_sent_is_an_error_at_the_caller(runtime: Runtime) -> None:
    await runtime.spawn(Worker)
    with pytest.raises(RemoteError, match="the reply cannot be sent"):
        await runtime.ask(WORKER, 1.5)


@frozen
class Count(Request[int]):
    replies: Any


class Counter(Agent, name="test/ns/counter"):
    @handler
    async def count(self, message: Count) -> Any:
        return message.replies


async def test_a_reply_that_is_not_of_the_declared_type_fails_its_own_ask_alone(runtime: Runtime) -> None:
    await runtime.spawn(Counter)
    counts = [runtime.ask(Anycast("test/ns/counter"), Count(reply)) for reply in (1, "two", 3, [4], 5)]
    replies = await asyncio.gather(*counts, return_exceptions=True)
    assert [reply for reply in replies if isinstance(reply, int)] == [1, 3, 5]
    for error in (replies[1], replies[3]):
        assert isinstance(error, MalformedMessage)
        assert re.match(r"The reply to .*Count does not fit its declaration: Expected `int`", str(error))
        assert error.may_have_run


TENANT: ContextVar[str] = ContextVar("tenant")


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("there is no text")


class Hard(BaseException):
    pass


def check(_: object, __: object, text: str) -> None:
    if text == "speechless":
        raise Speechless
    if text == "hard":
        raise Hard
    if text == "tenant" and TENANT.get() != "acme":
        raise ValueError("It is another's.")


@frozen
class Checked:
    text: str = attrs.field(validator=check)


@frozen
class Check(Request[Checked]):
    text: str


class Checker(Agent, name="test/ns/checker"):
    @handler
    async def check(self, message: Check) -> Any:
        return {"text": message.text}

    @handler
    async def checked(self, message: Checked) -> str:
        return message.text


async def test_whatever_the_class_of_a_reply_raises_is_the_outcome_of_its_own_ask(runtime: Runtime) -> None:
    await runtime.spawn(Checker)
    route = Anycast("test/ns/checker")
    for _ in range(2):
        asking = [runtime.ask(route, Check(text)) for text in ("a", "speechless", "b", "hard", "c")]
        replies = await asyncio.gather(*asking, return_exceptions=True)
        assert [reply.text for reply in replies if isinstance(reply, Checked)] == ["a", "b", "c"]
        assert all(isinstance(reply, MalformedMessage) for reply in replies[1::2])


async def test_the_class_of_a_reply_finds_the_context_variables_of_who_asked(runtime: Runtime) -> None:
    await runtime.spawn(Checker)
    TENANT.set("acme")
    assert (await runtime.ask(Anycast("test/ns/checker"), Check("tenant"))).text == "tenant"


@pytest.mark.parametrize("text", ["speechless", "hard"])
async def test_whatever_the_class_of_a_message_raises_refuses_that_one_alone(
    runtime: Runtime, text: str
) -> None:
    await runtime.spawn(Checker)
    bad = Checked("a")
    object.__setattr__(bad, "text", text)
    asking = [runtime.ask(Anycast("test/ns/checker"), one) for one in (Checked("a"), bad, Checked("b"))]
    replies = await asyncio.gather(*asking, return_exceptions=True)
    assert (replies[0], replies[2]) == ("a", "b")
    assert isinstance(replies[1], MalformedMessage)


async def test_a_message_without_a_handler_is_an_error_that_says_what_is_taken(runtime: Runtime) -> None:
    await runtime.spawn(Worker)
    with pytest.raises(UnhandledMessage, match=r"no handler for str; .* takes .*Say"):
        await runtime.ask(WORKER, "untyped")


async def test_a_message_that_does_not_fit_its_type_names_the_field(runtime: Runtime) -> None:
    await runtime.spawn(Worker)
    with pytest.raises(MalformedMessage, match=r"Expected `str`, got `int` - at `\$.text`"):
        await runtime.ask(WORKER, Say(3))  # type: ignore[arg-type]


async def test_a_message_that_cannot_be_encoded_fails_at_the_caller(runtime: Runtime) -> None:
    await runtime.spawn(Echo)
    for bad in (object(), 2**70, "\ud800", [object()]):
        with pytest.raises(MalformedMessage, match="cannot be sent"):
            await runtime.ask(Anycast("test/ns/echo"), bad)
    assert await runtime.ask(Anycast("test/ns/echo"), 1) == 1


@frozen
class Private:
    _kept: int = 0


async def test_a_class_that_cannot_be_a_message_fails_its_own_ask_alone(runtime: Runtime) -> None:
    await runtime.spawn(Echo)
    asks = [runtime.ask(Anycast("test/ns/echo"), message) for message in (1, Private(), 2)]
    first, failed, last = await asyncio.gather(*asks, return_exceptions=True)
    assert (first, last) == (1, 2)
    assert isinstance(failed, MalformedMessage)
    assert "its field _kept is private" in str(failed)


async def test_a_message_over_the_limit_is_refused_before_it_costs_the_connection(runtime: Runtime) -> None:
    await runtime.spawn(Echo)
    with pytest.raises(TooLarge, match="one message may have"):
        await runtime.ask(Anycast("test/ns/echo"), bytes(64 * 1024 * 1024 + 1))
    assert await runtime.ask(Anycast("test/ns/echo"), "x") == "x"


async def test_nobody_at_the_name_is_known_long_before_the_deadline(runtime: Runtime) -> None:
    async with asyncio.timeout(5):
        for route in (Anycast("test/ns/nobody", timeout=0.1), Unicast("test/ns/nobody", timeout=0.1)):
            with pytest.raises(NoRoute, match="Nobody answers at test/ns/nobody"):
                await runtime.ask(route, "hello")


async def test_every_ask_has_a_deadline_and_the_handler_is_cancelled_with_it(runtime: Runtime) -> None:
    gate = Gate()
    await runtime.spawn(lambda: Worker(gate))
    with pytest.raises(Expired, match="deadline"):
        await runtime.ask(WORKER, Wait("slow"), timeout=0.5)
    await eventually(lambda: gate.cancelled == ["slow"])
    assert await runtime.ask(WORKER, Say("next")) == "next"


async def test_cancelling_the_caller_cancels_the_handler(runtime: Runtime) -> None:
    gate = Gate()
    await runtime.spawn(lambda: Worker(gate))
    task = asyncio.create_task(runtime.ask(WORKER, Wait("unwanted")))
    await eventually(lambda: gate.began == ["unwanted"])
    task.cancel()
    await eventually(lambda: gate.cancelled == ["unwanted"])
    assert await runtime.ask(WORKER, Say("next")) == "next"


async def test_one_message_at_a_time_in_the_order_sent(runtime: Runtime) -> None:
    gate = Gate()
    await runtime.spawn(lambda: Worker(gate))
    names = [f"{number}" for number in range(40)]
    async with runtime.pin("test/ns/worker") as worker:
        asks = [asyncio.create_task(worker.ask(Wait(name))) for name in names]
        await eventually(lambda: len(gate.began) == 1)
        gate.open.set()
        assert await asyncio.gather(*asks) == names
    assert gate.began == gate.ended == names


async def test_concurrency_lets_an_instance_handle_several(runtime: Runtime) -> None:
    class Parallel(Worker, name="test/ns/parallel"):
        concurrency = 3

    gate = Gate()
    await runtime.spawn(lambda: Parallel(gate))
    asks = [asyncio.create_task(runtime.ask(Anycast("test/ns/parallel"), Wait(str(n)))) for n in range(5)]
    await eventually(lambda: len(gate.began) == 3)
    gate.open.set()
    assert await asyncio.gather(*asks) == ["0", "1", "2", "3", "4"]


async def test_tell_is_done_when_the_mailbox_has_accepted_the_message(runtime: Runtime) -> None:
    gate = Gate()
    worker = Worker(gate)
    await runtime.spawn(lambda: worker)
    held = asyncio.create_task(runtime.ask(WORKER, Wait("first")))
    await eventually(lambda: gate.began == ["first"])
    for number in range(4):
        await runtime.tell(WORKER, Note(str(number)))
    assert not worker.notes
    # The mailbox has room for four, and has them; the fifth is accepted only when one is taken out.
    fifth = asyncio.create_task(runtime.tell(WORKER, Note("4")))
    assert not fifth.done()
    gate.open.set()
    await held
    await fifth
    await eventually(lambda: worker.notes == ["0", "1", "2", "3", "4"])


async def test_tell_says_when_nobody_takes_the_message(runtime: Runtime) -> None:
    await runtime.spawn(Worker)
    with pytest.raises(UnhandledMessage):
        await runtime.tell(WORKER, "untyped")


async def test_the_sender_is_who_slim_says_it_is(runtime: Runtime) -> None:
    ref = await runtime.spawn(Worker)
    sender = await runtime.ask(WORKER, WhoAmI())
    assert sender.startswith("slim-actors/local/runtime/")
    assert sender != str(ref.address)


async def test_an_agent_can_pin_whoever_asked_it(runtime: Runtime) -> None:
    class Asker(Echo, name="test/ns/asker"):
        @handler
        async def start(self, message: str, ctx: Context) -> int:
            return await ctx.ask(WORKER, 41)  # type: ignore[no-any-return]

        concurrency = 2

    await runtime.spawn(Worker)
    await runtime.spawn(Asker)
    assert await runtime.ask(Anycast("test/ns/asker"), "go") == 42


async def test_agents_ask_each_other_within_the_callers_deadline(runtime: Runtime) -> None:
    gate = Gate()
    await runtime.spawn(lambda: Worker(gate))
    await runtime.spawn(Worker, name="test/ns/front")
    assert await runtime.ask(Anycast("test/ns/front"), Relay("test/ns/worker", "hi")) == "hi"

    class Patient(Agent, name="test/ns/patient"):
        async def receive(self, message: str, ctx: Context) -> Any:
            assert ctx.deadline is not None
            assert ctx.remaining <= 1.0
            assert ctx.message_id
            try:
                return await ctx.ask(WORKER, Wait("nested"), timeout=60)
            finally:
                left.append(ctx.remaining)

    left: list[float] = []
    await runtime.spawn(Patient)
    with pytest.raises(Expired):
        await runtime.ask(Anycast("test/ns/patient"), "go", timeout=1.0)
    await eventually(lambda: gate.cancelled == ["nested"])
    assert left


async def test_a_pin_stays_with_one_replica_and_says_when_it_is_lost(runtime: Runtime) -> None:
    refs = [await runtime.spawn(Echo) for _ in range(3)]
    async with runtime.pin("test/ns/echo", mls=True) as peer:
        assert peer.peer in [ref.address for ref in refs]
        calls = [peer.ask(number) for number in range(6)]
        assert [await call for call in calls] == list(range(6))
        assert {call.peer for call in calls} == {peer.peer}
        await next(ref for ref in refs if ref.address == peer.peer).stop()
        for _ in range(2):
            with pytest.raises(PeerLost):
                await peer.ask("gone", timeout=5)


async def test_a_pin_that_is_not_open_says_so(runtime: Runtime) -> None:
    with pytest.raises(ConfigurationError, match="async with"):
        await runtime.pin("test/ns/echo").ask("x")
    with pytest.raises(ConfigurationError, match="three parts"):
        runtime.pin("echo")


async def test_what_is_no_route_or_no_timeout_is_refused(runtime: Runtime) -> None:
    with pytest.raises(ConfigurationError, match="is not a route"):
        runtime.ask("test/ns/echo", "x")  # type: ignore[call-overload]
    for timeout in (0, -1, "5", True):
        with pytest.raises(ConfigurationError, match="is not a number of seconds"):
            await runtime.ask(WORKER, "x", timeout=timeout)  # type: ignore[arg-type]


async def test_a_pin_takes_its_options_from_the_route_or_from_the_call(runtime: Runtime) -> None:
    await runtime.spawn(Echo)
    async with runtime.pin("test/ns/echo", mls=True) as peer:
        assert await peer.ask("x") == "x"
    # In silence it would not be encrypted.
    with pytest.raises(ConfigurationError, match="mls: say that in the Unicast"):
        runtime.pin(Unicast("test/ns/echo"), mls=True)


async def test_stopping_finishes_what_was_accepted(world: World) -> None:
    gate = Gate()
    caller, host = await world.runtime(), await world.runtime()
    ref = await host.spawn(lambda: Worker(gate))
    asks = [asyncio.create_task(caller.ask(ref.route, Wait(name))) for name in "abc"]
    await eventually(lambda: gate.began == ["a"])
    stopping = asyncio.create_task(host.stop())
    await eventually(lambda: ref._cell.is_draining)
    gate.open.set()
    assert await asyncio.gather(*asks) == ["a", "b", "c"]
    await stopping


async def test_thousands_of_messages_in_flight_are_all_answered(runtime: Runtime) -> None:
    await runtime.spawn(Echo)
    numbers = range(3000)
    assert await asyncio.gather(*(runtime.ask(Anycast("test/ns/echo"), n) for n in numbers)) == list(numbers)


async def test_calls_go_wherever_coroutines_go(runtime: Runtime) -> None:
    await runtime.spawn(Echo)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runtime.ask(Anycast("test/ns/echo"), "x"))
    assert task.result() == "x"
    assert await asyncio.wait_for(runtime.ask(Anycast("test/ns/echo"), "y"), 5) == "y"


async def test_an_encrypted_only_agent_refuses_plain_sessions(runtime: Runtime) -> None:
    from slim_actors import Denied

    class Private(Echo, name="test/ns/private"):
        require_mls = True

    await runtime.spawn(Private)
    with pytest.raises(Denied, match="mls=True"):
        await runtime.ask(Anycast("test/ns/private"), "x")
    assert await runtime.ask(Anycast("test/ns/private", mls=True), "x") == "x"
