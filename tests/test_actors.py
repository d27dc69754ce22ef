"""What agents do beside answering: forward, keep out of circles, refuse, tick, and leave letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from attrs import frozen

from slim_actors import (
    Agent,
    Anycast,
    Busy,
    CallCycle,
    ConfigurationError,
    Context,
    DeclarationError,
    Expired,
    Forward,
    Mailbox,
    Middleware,
    RemoteError,
    Request,
    Runtime,
    Sending,
    StreamRequest,
    UnhandledMessage,
    Unicast,
    every,
    handler,
)
from slim_actors.testing import TestRuntime, VirtualClock
from tests.agents_for_tests import Fail, Gate, Note, Relay, Say, Wait, Worker
from tests.conftest import World, eventually

WORKER = Anycast("test/ns/worker")


@frozen
class Ask(Request[str]):
    """Ask the agents in this order, each the next."""

    path: list[str]


@frozen
class Split(StreamRequest[str]):
    text: str


class Hop(Agent):
    """Asks, or forwards to, the next agent of a path."""

    @handler
    async def ask(self, message: Ask, ctx: Context) -> str:
        if not message.path:
            return f"end at {ctx.me.name}"
        return await ctx.ask(Anycast(message.path[0]), Ask(message.path[1:]))

    @handler
    async def forward(self, message: list[str], ctx: Context) -> Any:
        if not message:
            return [ctx.me.name, ctx.message_id, ctx.remaining < 30, str(ctx.sender)]
        return Forward(Anycast(message[0]), message[1:])

    @handler
    async def stream(self, message: Split) -> Any:
        return Forward(Anycast("test/ns/words"), message)


class Words(Agent, name="test/ns/words"):
    @handler
    async def words(self, message: Split) -> AsyncIterator[str]:
        for word in message.text.split():
            yield word


async def spawn_hops(runtime: Runtime, *names: str) -> None:
    for name in names:
        await runtime.spawn(Hop, name=f"test/ns/{name}")


async def test_forward_lets_another_agent_answer_the_caller(runtime: Runtime) -> None:
    await spawn_hops(runtime, "a", "b", "c")
    name, message_id, has_deadline, sender = await runtime.ask(
        Anycast("test/ns/a"), ["test/ns/b", "test/ns/c"], timeout=29
    )
    assert name == "test/ns/c"
    assert has_deadline
    assert message_id.endswith(":1")
    # Who forwards is who sends: SLIM's word, not the message's.
    assert sender.startswith("test/ns/b/")


async def test_forward_passes_errors_streams_and_tells_on(runtime: Runtime) -> None:
    worker = Worker()
    await runtime.spawn(lambda: worker)
    await runtime.spawn(Words)
    await spawn_hops(runtime, "a")

    class Front(Agent, name="test/ns/front"):
        async def receive(self, message: Any) -> Any:
            return Forward(WORKER, Fail("no")) if message == "fail" else Forward(WORKER, Note(message))

    await runtime.spawn(Front)
    with pytest.raises(RemoteError, match="ValueError: no"):
        await runtime.ask(Anycast("test/ns/front"), "fail")
    await runtime.tell(Anycast("test/ns/front"), "noted")
    await eventually(lambda: worker.notes == ["noted"])
    words = runtime.stream(Anycast("test/ns/a"), Split("to be or not to be"))
    assert [word async for word in words] == ["to", "be", "or", "not", "to", "be"]


async def test_cancelling_reaches_the_agent_that_it_was_forwarded_to(runtime: Runtime) -> None:
    gate = Gate()
    await runtime.spawn(lambda: Worker(gate))

    class Front(Agent, name="test/ns/front"):
        async def receive(self, message: Any) -> Any:
            return Forward(WORKER, Wait("forwarded"))

    await runtime.spawn(Front)
    task = asyncio.create_task(runtime.ask(Anycast("test/ns/front"), "go"))
    await eventually(lambda: gate.began == ["forwarded"])
    task.cancel()
    await eventually(lambda: gate.cancelled == ["forwarded"])


@pytest.mark.parametrize("path", [["b", "a"], ["b", "c", "a"]])
async def test_a_circle_of_asks_raises_at_once_and_names_the_chain(runtime: Runtime, path: list[str]) -> None:
    await spawn_hops(runtime, "a", "b", "c")
    names = [f"test/ns/{name}" for name in path]
    with pytest.raises(RemoteError, match=r"CallCycle: .*test/ns/a/\S+ asks .*test/ns/a/") as caught:
        await runtime.ask(Anycast("test/ns/a"), Ask(names), timeout=5)
    assert "CallCycle" in str(caught.value)
    assert await runtime.ask(Anycast("test/ns/a"), Ask(["test/ns/b"])) == "end at test/ns/b"


async def test_an_instance_that_asks_itself_is_told_at_once(runtime: Runtime) -> None:
    class Selfish(Agent, name="test/ns/selfish"):
        async def receive(self, message: Any, ctx: Context) -> Any:
            return await ctx.ask(Unicast(ctx.me.name, instance=ctx.me.instance), message)

    await runtime.spawn(Selfish)
    with pytest.raises(RemoteError, match=r"CallCycle: .*itself"):
        await runtime.ask(Anycast("test/ns/selfish"), "x", timeout=5)


async def test_a_circle_of_forwards_is_caught(runtime: Runtime) -> None:
    await spawn_hops(runtime, "a", "b")
    with pytest.raises(CallCycle, match="circle"):
        await runtime.ask(Anycast("test/ns/a"), ["test/ns/b", "test/ns/a"], timeout=5)


async def test_a_circle_that_another_replica_can_break_is_none(runtime: Runtime) -> None:
    await spawn_hops(runtime, "a", "a", "b")
    for _ in range(4):
        assert await runtime.ask(Anycast("test/ns/a"), Ask(["test/ns/b", "test/ns/a"])) == "end at test/ns/a"


async def test_a_busy_mailbox_refuses_and_anycast_tries_another_replica(runtime: Runtime) -> None:
    class Small(Worker, name="test/ns/small"):
        mailbox = Mailbox(1, overflow="busy", retry_after=0.5)

    gates = [Gate(), Gate()]
    refs = [await runtime.spawn(lambda gate=gate: Small(gate)) for gate in gates]  # type: ignore[misc]
    route = Anycast("test/ns/small")
    asks = [asyncio.create_task(runtime.ask(route, Wait(str(number)))) for number in range(4)]
    await eventually(lambda: sum(ref.stats.depth for ref in refs) == 2)
    with pytest.raises(Busy, match="1 messages wait") as caught:
        await runtime.ask(route, Wait("one too many"))
    assert caught.value.retry_after == 0.5
    assert sum(ref.stats.refused for ref in refs) >= 2
    for gate in gates:
        gate.open.set()
    assert sorted(await asyncio.gather(*asks)) == ["0", "1", "2", "3"]


async def test_drop_oldest_makes_room_for_the_newest(runtime: Runtime) -> None:
    class Latest(Worker, name="test/ns/latest"):
        mailbox = Mailbox(2, overflow="drop_oldest")

    gate = Gate()
    agent = Latest(gate)
    ref = await runtime.spawn(lambda: agent)
    held = asyncio.create_task(runtime.ask(ref.route, Wait("held")))
    await eventually(lambda: gate.began == ["held"])
    for number in range(5):
        await runtime.tell(ref.route, Note(str(number)))
    asked = asyncio.create_task(runtime.ask(ref.route, Say("old")))
    await eventually(lambda: ref.stats.dropped == 4)
    await runtime.tell(ref.route, Note("5"))
    await runtime.tell(ref.route, Note("6"))
    with pytest.raises(Busy, match="made room"):
        await asked
    gate.open.set()
    await held
    await eventually(lambda: agent.notes == ["5", "6"])
    assert ref.stats.dropped == 6
    assert [letter.message.text for letter in runtime.dead_letters] == ["0", "1", "2", "3", "4"]


async def test_what_expires_in_the_mailbox_is_never_handled_and_counted(runtime: Runtime) -> None:
    gate = Gate()
    ref = await runtime.spawn(lambda: Worker(gate))
    held = asyncio.create_task(runtime.ask(WORKER, Wait("held")))
    await eventually(lambda: gate.began == ["held"])
    await runtime.tell(ref.route, Note("too late"), timeout=0.2)
    with pytest.raises(Expired):
        await runtime.ask(WORKER, Wait("late"), timeout=0.3)
    # The caller's cancel has taken it out of the mailbox.
    await eventually(lambda: ref.stats.depth == 1)
    gate.open.set()
    await held
    await eventually(lambda: ref.stats.depth == 0)
    assert await runtime.ask(WORKER, Say("x")) == "x"
    assert gate.began == ["held"]
    assert (ref.stats.expired, ref.stats.cancelled) == (1, 1)
    (letter,) = runtime.dead_letters
    assert isinstance(letter.cause, Expired)


async def test_the_mailbox_counts_what_goes_through_it(runtime: Runtime) -> None:
    gate = Gate()
    ref = await runtime.spawn(lambda: Worker(gate))
    assert ref.stats.depth == ref.stats.accepted == 0
    held = asyncio.create_task(runtime.ask(WORKER, Wait("held")))
    await eventually(lambda: gate.began == ["held"])
    tells = [asyncio.create_task(runtime.tell(WORKER, Note(str(number)))) for number in range(3)]
    await asyncio.gather(*tells)
    await eventually(lambda: ref.stats.oldest_age > 0)
    assert ref.stats.depth == 3
    gate.open.set()
    await held
    with pytest.raises(RemoteError):
        await runtime.ask(WORKER, Fail("x"))
    assert (ref.stats.accepted, ref.stats.handled, ref.stats.failed) == (5, 4, 1)


async def test_a_tell_that_fails_is_a_dead_letter(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    ref = await runtime.spawn(Worker)
    with caplog.at_level(logging.WARNING, "slim_actors"):
        await runtime.tell(WORKER, Fail("in vain"))
        await eventually(lambda: len(runtime.dead_letters) == 1)
    (letter,) = runtime.dead_letters
    assert letter.message == Fail("in vain")
    assert letter.recipient == ref.address
    assert letter.sender.name == "slim-actors/local/runtime"
    assert "ValueError: in vain" in str(letter.cause)
    assert runtime.dead_letters.total == 1
    assert "died at test/ns/worker" in caplog.text
    assert "Traceback" in caplog.text


async def test_tracebacks_travel_only_when_the_agent_allows_it(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    class Open(Worker, name="test/ns/open"):
        send_tracebacks = True

    await runtime.spawn(Worker)
    await runtime.spawn(Open)
    for name, shown in (("test/ns/worker", False), ("test/ns/open", True)):
        with caplog.at_level(logging.CRITICAL), pytest.raises(RemoteError) as caught:
            await runtime.ask(Anycast(name), Fail("x"))
        assert ("raise ValueError(message.text)" in caught.value.remote_traceback) is shown


async def test_tell_many_is_done_when_all_are_accepted(runtime: Runtime) -> None:
    agent = Worker()
    ref = await runtime.spawn(lambda: agent)
    await runtime.tell_many(ref.route, [Note(str(number)) for number in range(500)])
    await eventually(lambda: len(agent.notes) == 500)
    assert agent.notes == [str(number) for number in range(500)]
    with pytest.raises(UnhandledMessage) as caught:
        await runtime.tell_many(ref.route, [Note("x"), "nobody takes text", Note("y")])
    assert caught.value.__notes__ == ["2 of 3 messages were accepted."]


async def test_timers_take_their_turn_in_the_mailbox(runtime: Runtime) -> None:
    class Clock(Agent, name="test/ns/clock"):
        def __init__(self) -> None:
            self.log: list[str] = []
            self.running = 0

        @every(seconds=0.05)
        async def tick(self, ctx: Context) -> None:
            self.running += 1
            assert self.running == 1
            self.log.append("tick")
            await asyncio.sleep(0.12)
            self.running -= 1

        @handler
        async def remind(self, message: Note, ctx: Context) -> None:
            assert self.running == 0
            self.log.append(message.text)
            if message.text == "first":
                ctx.after(0.1, Note("second"))
                ctx.after(0.2, Note("never")).cancel()

    clock = Clock()
    ref = await runtime.spawn(lambda: clock)
    await runtime.tell(ref.route, Note("first"))
    await eventually(lambda: "second" in clock.log and clock.log.count("tick") >= 3)
    assert "never" not in clock.log
    await ref.stop()
    assert all(timer.done() for timer in ref._cell.life.timers._ticking)


@pytest.mark.parametrize("delay", ["1", -1, float("nan"), None])
async def test_a_delay_that_is_no_time_is_refused(test_runtime: TestRuntime, delay: Any) -> None:
    class Clock(Agent, name="test/ns/clock"):
        async def receive(self, message: str, ctx: Context) -> None:
            with pytest.raises(ConfigurationError, match="A delay of"):
                ctx.after(delay, message)

    ref = await test_runtime.spawn(Clock)
    await test_runtime.ask(ref.route, "x")


async def test_a_failing_timer_is_a_dead_letter_and_ticks_on(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    class Clock(Agent, name="test/ns/clock"):
        @every(seconds=0.01)
        async def tick(self) -> None:
            raise ValueError("tock")

    with caplog.at_level(logging.CRITICAL):
        await runtime.spawn(Clock)
        await eventually(lambda: runtime.dead_letters.total >= 2)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), "1", True])
def test_an_interval_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(DeclarationError, match="seconds above 0"):
        every(seconds=seconds)


def test_a_timer_that_takes_messages_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"async def tick\(self, ctx\)"):

        class Bad(Agent, name="t/t/bad"):
            @every(seconds=1)
            async def tick(self, message: int, ctx: Context) -> None: ...


async def test_middleware_sees_every_step_and_can_send_something_along(world: World) -> None:
    steps: list[str] = []

    class Watch(Middleware):
        def sending(self, sending: Sending) -> None:
            sending.context.setdefault("trace", "t1")
            steps.append(f"sending {type(sending.message).__name__}")

        def received(self, ctx: Context, message: Any) -> None:
            steps.append(f"received {type(message).__name__} {ctx.context['trace']}")

        def handling(self, ctx: Context, message: Any) -> None:
            steps.append(f"handling {type(message).__name__}")

        def outcome(self, ctx: Context, message: Any, error: Exception | None) -> None:
            steps.append(f"outcome {type(message).__name__} {type(error).__name__}")

    runtime = await world.runtime(middleware=[Watch()])
    await runtime.spawn(Worker)
    await runtime.spawn(Worker, name="test/ns/front")
    assert await runtime.ask(Anycast("test/ns/front"), Relay("test/ns/worker", "x")) == "x"
    assert steps == [
        "sending Relay",
        "received Relay t1",
        "handling Relay",
        "sending Say",
        "received Say t1",
        "handling Say",
        "outcome Say NoneType",
        "outcome Relay NoneType",
    ]


async def test_a_broken_hook_changes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Middleware):
        def handling(self, ctx: Context, message: Any) -> None:
            raise RuntimeError("oops")

    runtime = await world.runtime(middleware=[Broken()])
    await runtime.spawn(Worker)
    with caplog.at_level(logging.ERROR, "slim_actors"):
        assert await runtime.ask(WORKER, Say("x")) == "x"
    assert "Broken.handling failed" in caplog.text


async def test_a_virtual_clock_keeps_nobody_waiting() -> None:
    loop = asyncio.get_running_loop()
    real = loop.time
    with VirtualClock() as clock:
        began = loop.time()
        await asyncio.sleep(3600)
        clock.advance(10)
        assert loop.time() - began >= 3610
    assert loop.time == real
