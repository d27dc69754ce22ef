"""Promise 1, by model: whatever happens to messages, agents and the network, each message has one outcome."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from attrs import define, frozen
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from slim_actors import (
    Agent,
    Anycast,
    Backoff,
    Call,
    DeadLetter,
    DeliveryError,
    Middleware,
    RemoteError,
    Request,
    Restart,
    Unicast,
    handler,
)
from slim_actors.ref import Ref
from slim_actors.testing import MemoryNetwork, TestRuntime, VirtualClock

NAME = "test/ns/journal"
T = TypeVar("T")
Fate = Literal["", "resume", "restart", "stop"]
"""What a handler brings about when it fails; nothing where it does not."""


class Resume(Exception): ...


class Stop(Exception): ...


class Crash(Exception): ...


RAISED: dict[str, type[Exception]] = {"resume": Resume, "restart": Crash, "stop": Stop}


@frozen
class Work(Request[int]):
    key: int
    takes: float
    fails: Fate


@define(eq=False)
class Sent:
    """What the model knows of one message."""

    kind: Literal["ask", "tell"]
    work: Work
    task: asyncio.Task[Any]
    call: Call[Any]
    cancelled: bool = False


@define(eq=False)
class SentMany:
    """What the model knows of messages that were told at once."""

    works: list[Work]
    task: asyncio.Task[None]
    cancelled: bool = False


class Letters(Middleware):
    """Counts the dead letters, also those beyond what is kept of them."""

    def __init__(self) -> None:
        self.count: Counter[int] = Counter()

    def dead_letter(self, letter: DeadLetter) -> None:
        self.count[letter.message.key] += 1


class Journal(Agent, name=NAME):
    """Writes down what it does, in a book that outlives it."""

    concurrency = 2
    restart = Restart(limit=3, within=30, backoff=Backoff(0.05, 2), on={Resume: "resume", Stop: "stop"})

    def __init__(self, begun: Counter[int], ended: Counter[int]) -> None:
        self.begun = begun
        self.ended = ended

    @handler
    async def work(self, message: Work) -> int:
        self.begun[message.key] += 1
        if message.takes:
            await asyncio.sleep(message.takes)
        self.ended[message.key] += 1
        if message.fails:
            raise RAISED[message.fails](message.key)
        return message.key


class OneOutcome(RuleBasedStateMachine):
    """Asks, tells, fails, restarts, cancels, kills, stops, drops, splits, heals, and lets time pass."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.loop = asyncio.new_event_loop()
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.sent: list[Sent] = []
        self.many: list[SentMany] = []
        self.letters = Letters()
        self.replicas: list[Ref] = []
        self.killed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(seed=st.integers(0, 1000), has_store=st.booleans())
    def begin(self, seed: int, has_store: bool) -> None:
        async def begin() -> None:
            self.clock = VirtualClock().__enter__()
            self.network = MemoryNetwork(seed)
            self.host = TestRuntime(network=self.network, middleware=[self.letters])
            if not has_store:
                # Handlers are called by a shorter way then.
                self.host._store = None
            await self.host.__aenter__()
            self.caller = await TestRuntime(network=self.network).__aenter__()
            for _ in range(2):
                self.replicas.append(await self.host.spawn(lambda: Journal(self.begun, self.ended)))

        self.run(begin())

    @rule(
        kind=st.sampled_from(["ask", "tell"]),
        anycast=st.booleans(),
        takes=st.sampled_from([0.0, 0.0, 0.1, 2.0, 60.0]),
        fails=st.sampled_from(["", "", "", "resume", "restart", "stop"]),
        timeout=st.sampled_from([0.05, 1.0, 10.0, 30.0]),
        count=st.integers(1, 5),
    )
    def send(
        self,
        kind: Literal["ask", "tell"],
        anycast: bool,
        takes: float,
        fails: Fate,
        timeout: float,
        count: int,
    ) -> None:
        async def send() -> None:
            for _ in range(count):
                work = Work(len(self.sent), takes, fails)
                route = Anycast(NAME) if anycast else Unicast(NAME)
                verb: Any = self.caller.ask if kind == "ask" else self.caller.tell
                call = verb(route, work, timeout=timeout)
                self.sent.append(Sent(kind, work, asyncio.create_task(call), call))
            await asyncio.sleep(0)

        self.run(send())

    @rule(
        anycast=st.booleans(),
        takes=st.sampled_from([0.0, 0.0, 0.1, 60.0]),
        fails=st.sampled_from(["", "", "resume", "restart"]),
        timeout=st.sampled_from([0.05, 1.0, 10.0, 30.0]),
        count=st.sampled_from([1, 2, 7, 300, 1500]),
    )
    def send_many(self, anycast: bool, takes: float, fails: Fate, timeout: float, count: int) -> None:
        async def send() -> None:
            first = 1_000_000 * (len(self.many) + 1)
            # The first of them does it all, so that the others show what that does to them.
            works = [Work(first, takes, fails), *(Work(first + one, 0.0, "") for one in range(1, count))]
            route = Anycast(NAME) if anycast else Unicast(NAME)
            call = self.caller.tell_many(route, works, timeout=timeout)
            self.many.append(SentMany(works, asyncio.create_task(call)))
            await asyncio.sleep(0)

        self.run(send())

    @precondition(lambda self: self.many)
    @rule(data=st.data())
    def cancel_many(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from(self.many))
        sent.cancelled = sent.task.cancel() or sent.cancelled

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.5, 3.0, 12.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from(self.sent))
        sent.cancelled = sent.task.cancel() or sent.cancelled

    @precondition(lambda self: len(self.replicas) > 1)
    @rule(kill=st.booleans())
    def lose_a_replica(self, kill: bool) -> None:
        ref = self.replicas.pop(0)
        self.killed = self.killed or kill
        self.run(self.host.kill(ref) if kill else ref.stop(drain=1.0))

    @precondition(lambda self: len(self.replicas) < 4 and self.network.is_up)
    @rule()
    def add_a_replica(self) -> None:
        self.replicas.append(self.run(self.host.spawn(lambda: Journal(self.begun, self.ended))))

    @rule(
        fault=st.sampled_from(["drop", "duplicate", "delay"]),
        probability=st.sampled_from([0.1, 0.5, 1.0]),
        towards=st.sampled_from(["", NAME]),
    )
    def disturb(self, fault: str, probability: float, towards: str) -> None:
        if fault == "delay":
            self.network.delay(0.3, probability=probability, target=towards)
        else:
            getattr(self.network, fault)(probability=probability, target=towards)

    @rule()
    def split(self) -> None:
        self.network.partition(NAME, self.caller_name)

    @rule()
    def heal(self) -> None:
        self.network.heal()

    @rule()
    def go_away_or_come_back(self) -> None:
        async def change() -> None:
            if self.network.is_up:
                self.network.outage()
            else:
                self.network.restore()

        self.run(change())

    @property
    def caller_name(self) -> str:
        return "slim-actors/local/runtime"

    def teardown(self) -> None:
        try:
            if hasattr(self, "clock"):
                self.run(self.finish())
        finally:
            if hasattr(self, "clock"):
                self.run(self.tidy())
            self.loop.close()
            logging.disable(logging.NOTSET)

    async def finish(self) -> None:
        self.network.heal()
        if not self.network.is_up:
            self.network.restore()
        # Longer than any deadline: nothing may still be waiting after it.
        await asyncio.sleep(120)
        tasks = [*(sent.task for sent in self.sent), *(many.task for many in self.many)]
        assert all(task.done() for task in tasks), "a message has no outcome"
        letters = self.letters.count
        for sent in self.sent:
            self.check(sent, letters)
        for many in self.many:
            self.check_many(many, letters)
        await self.caller.stop()
        await self.host.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"

    async def tidy(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.clock.__exit__()

    def check(self, sent: Sent, letters: Counter[int]) -> None:
        key = sent.work.key
        assert self.begun[key] <= 1, "a handler ran twice for one message"
        if sent.task.cancelled():
            assert sent.cancelled, "a message was cancelled by nobody"
            return
        error = sent.task.exception()
        if error is None and sent.kind == "ask":
            assert sent.task.result() == key
            assert self.ended[key] == 1
        elif error is None:
            # Accepted: handled, or a dead letter; or it died with its process.
            handled = self.ended[key] == 1 and not sent.work.fails
            assert handled + letters[key] == 1 or (self.killed and handled + letters[key] == 0)
        elif isinstance(error, RemoteError):
            assert sent.work.fails
            assert self.ended[key] == 1
        else:
            assert isinstance(error, DeliveryError), f"not an outcome: {error!r}"
            assert error.may_have_run or self.begun[key] == 0, "what may not have run has run"

    def check_many(self, sent: SentMany, letters: Counter[int]) -> None:
        keys = [work.key for work in sent.works]
        failing = {work.key for work in sent.works if work.fails}
        assert all(self.begun[key] <= 1 for key in keys), "a handler ran twice for one message"
        if sent.task.cancelled():
            assert sent.cancelled, "messages were cancelled by nobody"
            return
        error = sent.task.exception()
        ends = [(self.ended[key] == 1 and key not in failing) + letters[key] for key in keys]
        assert max(ends) <= 1
        accepted = len(keys)
        if error is not None:
            assert isinstance(error, DeliveryError), f"not an outcome: {error!r}"
            (note,) = error.__notes__ if hasattr(error, "__notes__") else [f"0 of {accepted} "]
            assert f" of {accepted} " in note
            accepted = int(note.partition(" ")[0])
            assert accepted < len(keys)
        assert accepted <= sum(ends) or self.killed


TestOneOutcome = OneOutcome.TestCase
TestOneOutcome.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
