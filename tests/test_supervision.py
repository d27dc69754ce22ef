"""Promise 6 in a process: what becomes of an instance that fails, and of the messages that wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from attrs import frozen

from slim_actors import (
    Address,
    Agent,
    AgentFailed,
    Anycast,
    Backoff,
    Cancelled,
    ConfigurationError,
    Context,
    DeclarationError,
    Denied,
    Expired,
    Forward,
    Mailbox,
    PeerLost,
    RemoteError,
    Request,
    Restart,
    Runtime,
    Stopped,
    every,
    handler,
)
from slim_actors.intensity import Intensity
from slim_actors.supervision import Verdict
from slim_actors.testing import TestRuntime
from tests.agents_for_tests import Gate, Note, Wait
from tests.conftest import Starter, World, eventually

NAME = "test/ns/clumsy"
ROUTE = Anycast(NAME)
SOON = Backoff(0.01, 0.02)
ERRORS: dict[str, type[Exception]] = {
    error.__name__: error for error in (ValueError, KeyError, OSError, RuntimeError, PeerLost)
}


@frozen
class Count(Request[int]):
    """Count what this instance has handled, itself included."""


@frozen
class Break(Request[None]):
    """Raise this."""

    error: str = "RuntimeError"


@frozen
class Retire(Request[None]):
    """Stop from the inside."""


class Book:
    """What outlives the instances."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.notes: list[str] = []
        self.made = 0
        self.gate = Gate()
        self.failing_starts = 0


class Clumsy(Agent, name=NAME):
    def __init__(self, book: Book) -> None:
        book.made += 1
        self.book = book
        self.number = book.made
        self.count = 0

    async def started(self, ctx: Context) -> None:
        if self.number > 1 and self.book.failing_starts:
            self.book.failing_starts -= 1
            raise OSError("not yet")
        self.book.log.append(f"started {self.number}")

    async def stopped(self, ctx: Context) -> None:
        self.book.log.append(f"stopped {self.number}")

    @handler
    async def counts(self, message: Count) -> int:
        self.count += 1
        return self.count

    @handler
    async def breaks(self, message: Break) -> None:
        raise ERRORS[message.error]("clumsy")

    @handler
    async def waits(self, message: Wait) -> str:
        self.book.gate.began.append(message.name)
        try:
            await self.book.gate.open.wait()
        except asyncio.CancelledError:
            self.book.gate.cancelled.append(message.name)
            raise ValueError("the clean-up failed too") from None
        if message.name == "break":
            raise RuntimeError(message.name)
        return message.name

    @handler
    async def note(self, message: Note) -> None:
        self.book.notes.append(f"{self.number} {message.text}")

    @handler
    async def retire(self, message: Retire, ctx: Context) -> None:
        ctx.stop()


class Restarting(Clumsy):
    restart = Restart(
        limit=3,
        within=3600,
        backoff=SOON,
        on={ValueError: "resume", LookupError: "stop", OSError: "escalate"},
    )


class Permanent(Clumsy):
    restart = Restart("permanent", backoff=SOON)


class Temporary(Clumsy):
    restart = Restart("temporary")


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.ERROR, "slim_actors"):
        yield


async def test_without_a_policy_an_instance_keeps_its_state_when_a_handler_raises(
    runtime: Runtime, book: Book
) -> None:
    ref = await runtime.spawn(lambda: Clumsy(book))
    for number in range(1, 9):
        assert await runtime.ask(ROUTE, Count()) == number
        with pytest.raises(RemoteError, match="RuntimeError: clumsy"):
            await runtime.ask(ROUTE, Break())
    assert book.log == ["started 1"]
    await ref.stop()
    assert await ref.wait() is None


async def test_a_failure_reaches_its_caller_and_a_fresh_instance_goes_on_under_the_same_id(
    runtime: Runtime, book: Book
) -> None:
    ref = await runtime.spawn(lambda: Restarting(book))
    assert await runtime.ask(ref.route, Count()) == 1
    with pytest.raises(RemoteError, match="RuntimeError: clumsy"):
        await runtime.ask(ref.route, Break())
    # The same pinned session: the restart cannot be seen from outside, but for the state.
    assert await runtime.ask(ref.route, Count()) == 1
    assert book.log == ["started 1", "stopped 1", "started 2"]
    await ref.stop()
    assert book.log == ["started 1", "stopped 1", "started 2", "stopped 2"]


async def test_what_waits_is_kept_and_handled_by_the_fresh_instance_in_its_order(
    runtime: Runtime, book: Book
) -> None:
    ref = await runtime.spawn(lambda: Restarting(book))
    broken = asyncio.create_task(runtime.ask(ref.route, Wait("break")))
    await eventually(lambda: book.gate.began == ["break"])
    await runtime.tell_many(ref.route, [Note(str(number)) for number in range(20)])
    counted = asyncio.create_task(runtime.ask(ref.route, Count()))
    await eventually(lambda: ref.stats.depth == 21)
    book.gate.open.set()
    with pytest.raises(RemoteError, match="RuntimeError: break"):
        await broken
    assert await counted == 1
    assert book.notes == [f"2 {number}" for number in range(20)]
    assert not runtime.dead_letters.total


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        ("ValueError", "resume"),
        ("PeerLost", "resume"),
        ("RuntimeError", "restart"),
        ("KeyError", "stop"),
        ("OSError", "escalate"),
    ],
)
async def test_the_type_of_the_exception_decides(
    runtime: Runtime, book: Book, error: str, verdict: Verdict
) -> None:
    ref = await runtime.spawn(lambda: Restarting(book))
    assert await runtime.ask(ref.route, Count()) == 1
    with pytest.raises(RemoteError, match=f"{error}: .*clumsy"):
        await runtime.ask(ref.route, Break(error))
    if verdict in ("resume", "restart"):
        assert await runtime.ask(ref.route, Count()) == (2 if verdict == "resume" else 1)
        return
    failure = await ref.wait()
    assert isinstance(failure, AgentFailed)
    assert str(failure).startswith(f"{ref.address} has stopped: it failed with {error}: ")
    assert isinstance(failure.__cause__, ERRORS[error])
    assert book.log == ["started 1", "stopped 1"]


@pytest.mark.parametrize(
    ("agent", "after_failure", "after_stop"),
    [(Permanent, True, True), (Restarting, True, False), (Temporary, False, False)],
)
async def test_the_kind_says_after_which_ends_a_fresh_instance_follows(
    runtime: Runtime, agent: type[Clumsy], after_failure: bool, after_stop: bool
) -> None:
    for message, follows in ((Break(), after_failure), (Retire(), after_stop)):
        book = Book()
        ref = await runtime.spawn(lambda book=book: agent(book))  # type: ignore[misc]
        call = asyncio.gather(runtime.ask(ref.route, message), return_exceptions=True)
        await call
        if follows:
            await eventually(lambda book=book: book.log == ["started 1", "stopped 1", "started 2"])  # type: ignore[misc]
            assert await runtime.ask(ref.route, Count()) == 1
            await ref.stop()
        else:
            failure = await ref.wait()
            assert (failure is not None) is isinstance(message, Break)
            assert book.log == ["started 1", "stopped 1"]


async def test_an_instance_that_stops_itself_finishes_what_it_has_accepted(
    runtime: Runtime, book: Book
) -> None:
    ref = await runtime.spawn(lambda: Restarting(book))
    held = asyncio.create_task(runtime.ask(ref.route, Wait("held")))
    await eventually(lambda: book.gate.began == ["held"])
    retiring = asyncio.create_task(runtime.ask(ref.route, Retire()))
    await eventually(lambda: ref.stats.depth == 1)
    await runtime.tell(ref.route, Note("after"))
    book.gate.open.set()
    assert await held == "held"
    await retiring
    assert await ref.wait() is None
    assert book.notes == ["1 after"]


async def test_too_many_failures_end_in_a_stop_that_is_said_once(
    world: World, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    host, caller = await world.runtime(), await world.runtime()
    ref = await host.spawn(lambda: Restarting(book))
    for _ in range(3):
        with pytest.raises(RemoteError):
            await caller.ask(ref.route, Break())
    last = asyncio.create_task(caller.ask(ref.route, Wait("break")))
    await eventually(lambda: book.gate.began == ["break"])
    waiting = [asyncio.create_task(caller.ask(ref.route, Count())) for _ in range(3)]
    await caller.tell(ref.route, Note("in vain"))
    await eventually(lambda: ref.stats.depth == 4)
    book.gate.open.set()
    with pytest.raises(RemoteError, match="RuntimeError: break"):
        await last
    for call in waiting:
        with pytest.raises(Stopped) as caught:
            await call
        assert not caught.value.may_have_run
    said = f"{ref.address} has stopped: it failed 4 times within 3600 s, last with RuntimeError: break."
    assert str(await ref.wait()) == said
    assert [record.getMessage() for record in caplog.records if record.name.endswith("supervision")] == [said]
    (letter,) = host.dead_letters
    assert letter.message == Note("in vain")
    assert isinstance(letter.cause, Stopped)
    assert book.made == 4
    # The name is free: another instance under it is found.
    await host.spawn(lambda: Restarting(book))
    assert await caller.ask(ROUTE, Count()) == 1


async def test_failures_that_are_far_apart_are_no_storm(runtime: Runtime, book: Book) -> None:
    class Rarely(Clumsy):
        restart = Restart(limit=1, within=0.1, backoff=Backoff(0, 0))

    ref = await runtime.spawn(lambda: Rarely(book))
    for _ in range(3):
        with pytest.raises(RemoteError):
            await runtime.ask(ref.route, Break())
        assert await runtime.ask(ref.route, Count()) == 1
        ends = asyncio.get_running_loop().time() + 0.11
        await eventually(lambda ends=ends: asyncio.get_running_loop().time() > ends)  # type: ignore[misc]


async def test_a_started_that_fails_after_a_restart_is_the_next_failure(runtime: Runtime, book: Book) -> None:
    book.failing_starts = 2
    ref = await runtime.spawn(lambda: Restarting(book))
    with pytest.raises(RemoteError):
        await runtime.ask(ref.route, Break())
    assert await runtime.ask(ref.route, Count()) == 1
    # An instance that did not start is not stopped either.
    assert book.log == ["started 1", "stopped 1", "started 4"]


async def test_a_started_that_goes_on_failing_is_a_storm(runtime: Runtime, book: Book) -> None:
    book.failing_starts = 9
    ref = await runtime.spawn(lambda: Restarting(book))
    with pytest.raises(RemoteError):
        await runtime.ask(ref.route, Break())
    assert "failed 4 times within 3600 s, last with OSError: not yet" in str(await ref.wait())
    assert book.log == ["started 1", "stopped 1"]


async def test_a_started_that_fails_the_first_time_fails_the_spawn(runtime: Runtime) -> None:
    class Never(Clumsy):
        restart = Restart("permanent")

        async def started(self, ctx: Context) -> None:
            raise OSError("never")

    with pytest.raises(OSError, match="never"):
        await runtime.spawn(lambda: Never(Book()))


async def test_a_factory_that_gives_the_same_instance_again_is_told(runtime: Runtime, book: Book) -> None:
    same = Restarting(book)
    ref = await runtime.spawn(lambda: same)
    with pytest.raises(RemoteError):
        await runtime.ask(ref.route, Break())
    assert "gave the same instance again" in str(await ref.wait())


async def test_the_pauses_grow_and_messages_wait_or_expire_meanwhile(world: World, book: Book) -> None:
    class Slow(Clumsy):
        restart = Restart(backoff=Backoff(0.4, 5, jitter=0))

    runtime = await world.runtime()
    loop = asyncio.get_running_loop()
    ref = await runtime.spawn(lambda: Slow(book))
    pauses = []
    for _ in range(2):
        with pytest.raises(RemoteError):
            await runtime.ask(ref.route, Break())
        began = loop.time()
        with pytest.raises(Expired):
            await runtime.ask(ref.route, Count(), timeout=0.1)
        assert await runtime.ask(ref.route, Count()) == 1
        pauses.append(loop.time() - began)
    assert 0.3 < pauses[0] < pauses[1]


def test_a_pause_doubles_up_to_its_limit_and_jitters() -> None:
    exact = Backoff(0.5, 3, jitter=0)
    assert [exact.pause(attempt) for attempt in (0, 1, 2, 3, 10_000)] == [0.5, 1.0, 2.0, 3, 3]
    pauses = {Backoff(1, 8, jitter=0.5).pause(1) for _ in range(50)}
    assert len(pauses) > 25
    assert all(1 <= pause <= 3 for pause in pauses)


def test_an_instance_that_kept_well_begins_with_the_first_pause_again() -> None:
    intensity = Intensity(Restart(limit=9, within=10, backoff=Backoff(1, 100, jitter=0)))
    assert [intensity.pause(0.0), intensity.pause(1.0), intensity.pause(3.0)] == [1, 2, 4]
    intensity.began(7.0)
    assert intensity.pause(16.9) == 8
    intensity.began(24.9)
    assert intensity.pause(34.9) == 1


def test_the_limit_counts_failures_within_its_seconds() -> None:
    intensity = Intensity(Restart(limit=2, within=10, backoff=Backoff(0, 0)))
    assert [intensity.pause(now) for now in (0.0, 6.0, 11.0, 15.0)] == [0, 0, 0, None]
    assert Intensity(Restart(limit=0)).pause(0.0) is None


async def test_handlers_beside_the_one_that_failed_are_cancelled_and_their_callers_told(
    runtime: Runtime, book: Book
) -> None:
    class Wide(Restarting):
        concurrency = 3

    ref = await runtime.spawn(lambda: Wide(book))
    beside = [asyncio.create_task(runtime.ask(ref.route, Wait(str(number)))) for number in range(2)]
    await eventually(lambda: len(book.gate.began) == 2)
    with pytest.raises(RemoteError, match="clumsy"):
        await runtime.ask(ref.route, Break())
    for call in beside:
        with pytest.raises(Cancelled, match="ended while") as caught:
            await call
        assert caught.value.may_have_run
    assert sorted(book.gate.cancelled) == ["0", "1"]
    # All three workers are there again, and what the cancelled ones raised has counted as no failure.
    again = [asyncio.create_task(runtime.ask(ref.route, Wait(f"again {number}"))) for number in range(3)]
    await eventually(lambda: len(book.gate.began) == 5)
    book.gate.open.set()
    await asyncio.gather(*again)
    assert book.made == 2


async def test_a_handler_that_swallows_its_cancellation_does_not_hold_up_a_restart(
    runtime: Runtime, book: Book
) -> None:
    ended = asyncio.Event()

    class Stubborn(Restarting):
        concurrency = 2

        @handler
        async def swallow(self, message: str) -> str:
            book.gate.began.append(message)
            while not ended.is_set():
                try:
                    await ended.wait()
                except asyncio.CancelledError:
                    book.gate.cancelled.append(message)
            return message

    ref = await runtime.spawn(lambda: Stubborn(book))
    stuck = asyncio.create_task(runtime.ask(ref.route, "stuck"))
    await eventually(lambda: book.gate.began == ["stuck"])
    with pytest.raises(RemoteError):
        await runtime.ask(ref.route, Break())
    with pytest.raises(Cancelled):
        await stuck
    assert await runtime.ask(ref.route, Count()) == 1
    ended.set()
    assert await runtime.ask(ref.route, Count()) == 2


async def test_who_may_call_is_decided_by_the_fresh_instance(runtime: Runtime, book: Book) -> None:
    class Choosy(Restarting):
        def allow(self, sender: Address) -> bool:
            return self.number == 1

    ref = await runtime.spawn(lambda: Choosy(book))
    with pytest.raises(RemoteError, match="clumsy"):
        await runtime.ask(ref.route, Break())
    await eventually(lambda: book.made == 2)
    with pytest.raises(Denied):
        await runtime.ask(ref.route, Count())


async def test_a_forward_and_its_answer_outlive_a_restart(runtime: Runtime, book: Book) -> None:
    class Front(Restarting, name="test/ns/front"):
        @handler
        async def pass_on(self, message: str) -> Forward:
            return Forward(ROUTE, Wait(message))

    await runtime.spawn(lambda: Clumsy(book))
    front = await runtime.spawn(lambda: Front(Book()))
    forwarded = asyncio.create_task(runtime.ask(front.route, "forwarded"))
    await eventually(lambda: book.gate.began == ["forwarded"])
    with pytest.raises(RemoteError):
        await runtime.ask(front.route, Break())
    assert await runtime.ask(front.route, Count()) == 1
    book.gate.open.set()
    assert await forwarded == "forwarded"


async def test_a_stream_ends_with_the_failure_of_its_handler_or_of_one_beside_it(
    runtime: Runtime, book: Book
) -> None:
    class Streaming(Restarting):
        concurrency = 2

        @handler
        async def stream(self, message: str) -> AsyncIterator[int]:
            yield self.number
            if message == "break":
                raise RuntimeError("mid-stream")
            await asyncio.Event().wait()

    ref = await runtime.spawn(lambda: Streaming(book))
    with pytest.raises(RemoteError, match="mid-stream"):
        _ = [item async for item in runtime.stream(ref.route, "break")]
    beside = aiter(runtime.stream(ref.route, "beside"))
    assert await anext(beside) == 2
    with pytest.raises(RemoteError, match="clumsy"):
        await runtime.ask(ref.route, Break())
    with pytest.raises(Cancelled):
        await anext(beside)
    assert await runtime.ask(ref.route, Count()) == 1


async def test_a_started_that_is_cancelled_or_stopped_leaves_nothing_behind(
    runtime: Runtime, book: Book
) -> None:
    class Odd(Restarting):
        async def started(self, ctx: Context) -> None:
            if self.number in (2, 3):
                raise asyncio.CancelledError
            if self.number == 5:
                ctx.stop()
                await asyncio.sleep(0.1)

    ref = await runtime.spawn(lambda: Odd(book))
    with pytest.raises(RemoteError):
        await runtime.ask(ref.route, Break())
    assert await runtime.ask(ref.route, Count()) == 1
    assert book.made == 4
    with pytest.raises(Stopped, match="has ended"):
        await runtime.spawn(lambda: Odd(book))
    await ref.stop()
    assert not runtime._refs


async def test_leaving_the_runtime_ends_what_is_still_being_started(world: World) -> None:
    class Slow(Clumsy):
        async def started(self, ctx: Context) -> None:
            self.book.gate.began.append("started")
            await self.book.gate.open.wait()

    runtime, book = await world.runtime(), Book()
    spawning = asyncio.create_task(runtime.spawn(lambda: Slow(book)))
    await eventually(lambda: book.gate.began == ["started"])
    await runtime.stop()
    assert not runtime._refs
    book.gate.open.set()
    with pytest.raises(Stopped, match="has ended"):
        await spawning
    assert book.log == []


async def test_a_caller_that_gives_up_does_not_restart_the_agent(runtime: Runtime, book: Book) -> None:
    ref = await runtime.spawn(lambda: Restarting(book))
    # Again if it was not even there in time, on a busy machine.
    while not book.gate.began:
        with pytest.raises(Expired):
            await runtime.ask(ref.route, Wait("too long"), timeout=0.1)
    await eventually(lambda: book.gate.cancelled == book.gate.began)
    assert await runtime.ask(ref.route, Count()) == 1
    assert book.made == 1


async def test_timers_begin_anew_with_the_fresh_instance(runtime: Runtime, book: Book) -> None:
    class Ticking(Restarting):
        @every(seconds=0.05)
        async def tick(self) -> None:
            self.book.notes.append(f"tick {self.number}")

        @handler
        async def later(self, message: float, ctx: Context) -> None:
            ctx.after(message, Note("later"))

    ref = await runtime.spawn(lambda: Ticking(book))
    await eventually(lambda: "tick 1" in book.notes)
    await runtime.ask(ref.route, 0.3)
    with pytest.raises(RemoteError):
        await runtime.ask(ref.route, Break())
    book.notes.clear()
    await eventually(lambda: book.notes.count("tick 2") >= 10)
    assert set(book.notes) == {"tick 2"}


async def test_a_failing_timer_is_a_failure(runtime: Runtime, book: Book) -> None:
    class Ticking(Restarting):
        @every(seconds=0.01)
        async def tick(self) -> None:
            raise RuntimeError("tock")

    ref = await runtime.spawn(lambda: Ticking(book))
    assert "failed 4 times within 3600 s, last with RuntimeError: tock" in str(await ref.wait())
    assert book.made == 4


async def test_stopping_in_the_middle_of_a_restart_ends_everything(world: World, book: Book) -> None:
    class Slow(Clumsy):
        restart = Restart(backoff=Backoff(60, 60))

    before = asyncio.all_tasks()
    runtime = await world.runtime()
    ref = await runtime.spawn(lambda: Slow(book))
    with pytest.raises(RemoteError):
        await runtime.ask(ref.route, Break())
    waiting = asyncio.create_task(runtime.ask(ref.route, Count()))
    await eventually(lambda: ref.stats.depth == 1)
    await ref.stop(drain=0.1)
    with pytest.raises(Stopped):
        await waiting
    assert await ref.wait() is None
    assert book.log == ["started 1", "stopped 1"]
    await runtime.stop()
    await eventually(lambda: asyncio.all_tasks() <= before)


async def test_a_started_that_swallows_its_cancellation_does_not_hold_up_a_stop() -> None:
    gate, lives = asyncio.Event(), 0

    class Stubborn(Agent, name="test/ns/stubborn"):
        restart = Restart(backoff=Backoff(0.01, 0.1))

        async def started(self, ctx: Context) -> None:
            nonlocal lives
            lives += 1
            while lives > 1 and not gate.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await gate.wait()

        async def receive(self, message: str) -> None:
            raise ValueError

    async with TestRuntime() as runtime:
        ref = await runtime.spawn(Stubborn)
        with pytest.raises(RemoteError):
            await runtime.ask(ref.route, "fail")
        await eventually(lambda: lives == 2)
        try:
            async with asyncio.timeout(20):
                await ref.stop(drain=0.5)
        finally:
            gate.set()
        await asyncio.sleep(10)
        assert lives == 2


async def test_a_drain_waits_for_a_restart_that_is_under_way(runtime: Runtime, book: Book) -> None:
    ref = await runtime.spawn(lambda: Restarting(book))
    broken = asyncio.create_task(runtime.ask(ref.route, Wait("break")))
    await eventually(lambda: book.gate.began == ["break"])
    await runtime.tell(ref.route, Note("kept"))
    stopping = asyncio.create_task(ref.stop())
    await eventually(lambda: ref._cell.is_draining)
    book.gate.open.set()
    with pytest.raises(RemoteError):
        await broken
    await stopping
    assert book.notes == ["2 kept"]
    assert book.log == ["started 1", "stopped 1", "started 2", "stopped 2"]


async def test_a_stopped_hook_that_fails_or_hangs_does_not_hold_up_a_restart(
    runtime: Runtime, book: Book
) -> None:
    class Dying(Restarting):
        async def stopped(self, ctx: Context) -> None:
            if self.number == 1:
                raise RuntimeError("cannot even stop")
            if self.number == 2:
                await asyncio.Event().wait()

    ref = await runtime.spawn(lambda: Dying(book))
    for _ in range(2):
        with pytest.raises(RemoteError):
            await runtime.ask(ref.route, Break())
        assert await runtime.ask(ref.route, Count()) == 1


async def test_a_full_mailbox_keeps_its_senders_waiting_through_a_restart(
    runtime: Runtime, book: Book
) -> None:
    class Small(Restarting):
        mailbox = Mailbox(2)

    ref = await runtime.spawn(lambda: Small(book))
    broken = asyncio.create_task(runtime.ask(ref.route, Wait("break")))
    await eventually(lambda: book.gate.began == ["break"])
    asks = [asyncio.create_task(runtime.ask(ref.route, Count())) for _ in range(10)]
    await eventually(lambda: ref.stats.depth == 2)
    book.gate.open.set()
    with pytest.raises(RemoteError):
        await broken
    assert await asyncio.gather(*asks) == list(range(1, 11))


async def test_a_replica_whose_agent_cannot_be_kept_ends_with_the_reason_and_is_started_again(
    start: Starter, endpoint: str
) -> None:
    run = start("run", "tests/storming.py", "--endpoint", endpoint)
    run.until("^joined")
    for message, told in (
        ("fail", "lost .*it failed with RuntimeError: not with me"),
        ("stop", r"stopped .*\(The agent stopped itself;"),
    ):
        async with Runtime(endpoint) as runtime:
            await asyncio.gather(runtime.ask(Anycast("test/ns/storming"), message), return_exceptions=True)
            run.until(f"^{told}.*starting it again")
            run.until("^restarted")
            assert await runtime.ask(Anycast("test/ns/storming"), "hello") == "hello"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("sometimes",), "permanent"),
        (("transient", {"limit": -1}), "limit"),
        (("transient", {"limit": True}), "limit"),
        (("transient", {"within": float("nan")}), "within"),
        (("transient", {"backoff": 1.0}), "Backoff"),
        (("transient", {"on": {ValueError: "retry"}}), "'retry'"),
        (("transient", {"on": {"ValueError": "resume"}}), "exception classes"),
        (("transient", {"on": [ValueError]}), "a dict"),
    ],
)
def test_a_policy_refuses_values_that_cannot_work(words: tuple[Any, ...], why: str) -> None:
    kind, *options = words
    with pytest.raises(ConfigurationError, match=why):
        Restart(kind, **(options[0] if options else {}))


@pytest.mark.parametrize("words", [{"first": -1}, {"most": "1"}, {"jitter": 2}])
def test_a_backoff_refuses_values_that_cannot_work(words: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        Backoff(**words)


def test_a_restart_that_is_none_is_refused_at_the_class() -> None:
    with pytest.raises(DeclarationError, match="Restart"):

        class Bad(Agent, name="t/t/bad"):
            restart = "permanent"  # type: ignore[assignment]


def test_the_nearest_class_decides_and_the_gravest_of_a_group() -> None:
    policy = Restart(on={Exception: "resume", OSError: "stop", ConnectionError: "escalate"})
    verdicts = [policy.verdict(error) for error in (ValueError(), OSError(), ConnectionResetError())]
    assert verdicts == ["resume", "stop", "escalate"]
    assert policy.verdict(ExceptionGroup("", [ValueError(), ExceptionGroup("", [OSError()])])) == "stop"
    assert policy.verdict(AgentFailed("a child")) == "restart"
    assert Restart("temporary").verdict(ValueError()) == "stop"
    assert Restart(on={PeerLost: "restart"}).verdict(PeerLost()) == "restart"
    assert Restart().verdict(Expired()) == "resume"
