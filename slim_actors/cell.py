"""The cell: one running instance of an agent. It takes messages from the mailbox and hands them to handlers.

No network in here: envelopes come in by `Cell.deliver`, outcomes leave by the envelope.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from slim_actors.agent import Agent
from slim_actors.context import Context, chain_of
from slim_actors.deadletters import DeadLetter, DeadLetters
from slim_actors.declaration import Declaration, Handler, Timer
from slim_actors.errors import (
    Busy,
    CallCycle,
    Cancelled,
    DeliveryError,
    Denied,
    Expired,
    RemoteError,
    Stopped,
    UnhandledMessage,
)
from slim_actors.forward import Forward
from slim_actors.keeper import Keeper
from slim_actors.mailbox import Envelope, MailboxQueue, MailboxStats, State
from slim_actors.messages import type_name
from slim_actors.middleware import Hooks
from slim_actors.names import Address
from slim_actors.routing.router import Router

__all__ = ["Cell"]

_YIELD_AFTER = 64
"""Messages handled in a row before other tasks get their turn: a handler need never wait for anything."""

_MOST_HOPS = 100
_STOP_WITHIN = 2.0

_logger = logging.getLogger("slim_actors.cell")
_TICK = object()


class Cell:
    """One instance of an agent, its mailbox and its workers.

    Args:
        agent: The instance.
        router: What it sends messages with.
        hooks: Told what happens.
        dead_letters: Where messages go that nobody waits for and that failed.
        keeper: Keeps what must not be lost.
    """

    def __init__(
        self, agent: Agent, router: Router, hooks: Hooks, dead_letters: DeadLetters, keeper: Keeper
    ) -> None:
        self.agent = agent
        self.router = router
        self.keeper = keeper
        self.declaration: Declaration = type(agent).__declaration__.readable()
        self._hooks = hooks
        self._dead_letters = dead_letters
        self._mailbox = MailboxQueue(agent.mailbox)
        self._workers: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.Task[None]] = []
        self._later: set[asyncio.TimerHandle] = set()
        self._running: dict[Envelope, asyncio.Task[None]] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._draining = False
        self._stopping = False
        self.is_started = False
        """Whether the agent's ``started`` has returned."""

    @property
    def address(self) -> Address:
        """Who this is."""
        return self.router.address

    @property
    def stats(self) -> MailboxStats:
        """What went through the mailbox so far."""
        return self._mailbox.stats

    @property
    def depth(self) -> int:
        """How many messages wait in the mailbox."""
        return len(self._mailbox)

    @property
    def is_draining(self) -> bool:
        """Whether it takes no new messages."""
        return self._draining

    async def start(self) -> None:
        """Restore the agent's state and call its ``started``, then begin with the messages."""
        await self.keeper.restore(self.agent)
        await self.agent.started(Context(self))
        await self.keeper.keep_first()
        self.is_started = True
        for _ in range(self.agent.concurrency):
            self._workers.append(asyncio.create_task(self._work(), name=str(self.address)))
        for timer in self.declaration.timers:
            self._timers.append(asyncio.create_task(self._tick(timer), name=f"{self.address} {timer.method}"))

    def deliver(self, envelope: Envelope) -> None:
        """Put a message into the mailbox; one that comes during the drain is handed back."""
        if self._draining:
            envelope.fail(Stopped(f"{self.address} is stopping."))
            return
        cycle = self._cycle(envelope)
        if cycle is not None:
            envelope.fail(cycle)
            return
        if self.keeper.claims(envelope, self.deliver):
            return
        if self._hooks.received:
            self._hooks.call(self._hooks.received, Context(self, envelope), envelope.message)
        self._quiet.clear()
        try:
            dropped = self._mailbox.put(envelope)
        except Busy as error:
            self._fail(envelope, error)
        else:
            if dropped is not None:
                self._fail(dropped, Busy("It made room in a full mailbox for a newer message."))

    def deny(self, envelope: Envelope, error: Denied) -> None:
        """Refuse a message because of who sent it."""
        self._mailbox.denied += 1
        if self._hooks.denied:
            self._hooks.call(self._hooks.denied, Context(self, envelope), error)
        envelope.fail(error)

    def deliver_own(self, message: Any, handler: Handler | None = None) -> asyncio.Event:
        """Put a message of the instance to itself into the mailbox; give what is set when it is done.

        Raises:
            UnhandledMessage: There is no handler for its type.
        """
        handler = handler or self.declaration.find(type_name(type(message)))
        if handler is None:
            raise UnhandledMessage(f"{self.address} has no handler for {type(message).__name__}.")
        origin = _Own()
        envelope = Envelope(0, message, handler, self.address, float("inf"), origin, wants_reply=False)
        self.deliver(envelope)
        return origin.done

    def after(self, delay: float, message: Any) -> asyncio.TimerHandle:
        """Deliver a message to this instance after so many seconds."""

        def due() -> None:
            self._later.discard(handle)
            self.deliver_own(message)

        handle = asyncio.get_running_loop().call_later(delay, due)
        self._later.add(handle)
        return handle

    def cancel(self, envelope: Envelope) -> None:
        """Cancel a message: a waiting one is never handled, a running one is cancelled at its next await."""
        if envelope.state is State.DONE or self.keeper.outlives_its_sender(envelope):
            return
        self._mailbox.cancelled += 1
        self._end(envelope, Cancelled("The caller cancelled the message."))

    def _end(self, envelope: Envelope, error: DeliveryError) -> None:
        """End a message, wherever it is."""
        worker = self._running.get(envelope)
        self._mailbox.discard(envelope)
        self._fail(envelope, error)
        if worker is not None:
            worker.cancel()
        self._quiet_if_idle()

    def _expire(self, envelope: Envelope) -> None:
        if envelope.state is not State.DONE:
            self._mailbox.expired += 1
            self._end(envelope, Expired("The deadline passed while the message was handled."))

    async def drain(self, within: float) -> None:
        """Take nothing new, and finish what was accepted, in so many seconds at the most."""
        self._draining = True
        for timer in self._timers:
            timer.cancel()
        for handle in self._later:
            handle.cancel()
        for envelope in self._mailbox.clear_parked():
            self._fail(envelope, Stopped(f"{self.address} is stopping."))
        try:
            async with asyncio.timeout(within):
                await self._quiet.wait()
        except TimeoutError:
            for envelope in self._mailbox.clear():
                self._fail(envelope, Stopped(f"{self.address} stopped before the message was started."))

    async def stop(self) -> None:
        """Stop the workers and call the agent's ``stopped``."""
        self._draining = self._stopping = True
        tasks = {*self._workers, *self._timers, *self._running.values()}
        for envelope in list(self._running):
            self._fail(envelope, Cancelled(f"{self.address} stopped while the message was handled."))
        for task in tasks:
            task.cancel()
        if tasks:
            # A handler that swallows its cancellation must not keep everybody waiting.
            await asyncio.wait(tasks, timeout=_STOP_WITHIN)
        if self.is_started:
            await self.agent.stopped(Context(self))

    def _cycle(self, envelope: Envelope) -> CallCycle | None:
        """Tell whether a message can only wait for the end of what waits for it."""
        chain = chain_of(envelope.context)
        me = str(self.address)
        if not envelope.wants_reply or (chain.count(me) < self.agent.concurrency and len(chain) < _MOST_HOPS):
            return None
        return CallCycle(f"The call goes round in a circle: {' asks '.join([*chain, me])}.")

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None, "a coroutine runs in a task"
        in_a_row = 0
        while not self._stopping:
            self._quiet_if_idle()
            envelope = await self._mailbox.take()
            if envelope.expires <= asyncio.get_running_loop().time():
                self._mailbox.expired += 1
                self._fail(envelope, Expired("The deadline passed while the message waited."))
                continue
            envelope.state = State.RUNNING
            self._running[envelope] = worker
            try:
                await self._handle(envelope)
            except Exception:
                # Not the handler's, whose errors are outcomes: a mistake of ours must not end the agent.
                _logger.exception("%s stumbled over a message", self.address)
            finally:
                self._not_running(envelope, worker)
            # A cancelled message must not end the worker that had it, whatever its handler made of that.
            while worker.cancelling() and not self._stopping:
                worker.uncancel()
            in_a_row += 1
            if in_a_row >= _YIELD_AFTER:
                in_a_row = 0
                await asyncio.sleep(0)

    async def _handle(self, envelope: Envelope) -> None:
        ctx = Context(self, envelope)
        limit: asyncio.TimerHandle | None = None
        if ctx.deadline is not None:
            # A caller cancels at its deadline; this is for one that cannot any more, or never does.
            limit = asyncio.get_running_loop().call_at(ctx.deadline, self._expire, envelope)
        raised: BaseException | None = None
        try:
            with self._hooks.around(self._hooks.handling, ctx, envelope.message):
                try:
                    await envelope.origin.room()
                    await self.keeper.ready(envelope)
                    value = self.keeper.stage(envelope, await self._call(envelope, ctx), ctx.forwarded)
                except BaseException as error:
                    raised = error
                    # Cancelled by its caller, then it has its outcome; or by something that it waited for.
                    if not self._is_stop(error):
                        self._failed(envelope, error)
                    raise
                if isinstance(value, Forward):
                    self._running[envelope] = asyncio.create_task(self._forward(envelope, ctx, value))
                else:
                    self._replied(envelope, value)
        except BaseException as error:
            # What the handler raised is the outcome; it went on only for the hooks around it to see.
            if error is not raised or self._is_stop(error):
                raise
        finally:
            if limit is not None:
                limit.cancel()

    def _is_stop(self, error: BaseException) -> bool:
        if isinstance(error, asyncio.CancelledError):
            return self._stopping
        return isinstance(error, KeyboardInterrupt | SystemExit)

    async def _call(self, envelope: Envelope, ctx: Context) -> Any:
        found = envelope.handler
        assert found is not None, "what has no handler is refused at the door"
        given = {"ctx": ctx, "items": envelope.inlet}
        message = () if found.declared is _TICK else (envelope.message,)
        called = getattr(self.agent, found.method)(*message, *(given[role] for role in found.takes))
        if not found.streams:
            return await called
        assert envelope.outlet is not None, "who does not want a stream is refused at the door"
        async with aclosing(called) as items:
            async for item in items:
                await envelope.outlet.put(item)
        return None

    async def _forward(self, envelope: Envelope, ctx: Context, forward: Forward) -> None:
        """Let another agent answer; the worker is free for the next message meanwhile."""
        try:
            value = await self.router.forward(forward.route, forward.message, envelope, ctx.forwarded())
        except asyncio.CancelledError:
            if envelope.state is not State.DONE:
                raise
        except DeliveryError as error:
            # The caller gets the error of the agent that was to answer, as if it had asked that one.
            self._fail(envelope, error)
        except Exception as error:  # noqa: BLE001 (what was forwarded could not be sent)
            self._failed(envelope, error)
        else:
            self._replied(envelope, value)
        finally:
            self._not_running(envelope, asyncio.current_task())
            self._quiet_if_idle()

    async def _tick(self, timer: Timer) -> None:
        loop = asyncio.get_running_loop()
        handler = Handler(timer.method, _TICK, timer.takes)
        due = loop.time()
        while True:
            due = max(due + timer.seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            await self.deliver_own(None, handler).wait()

    def _replied(self, envelope: Envelope, value: Any) -> None:
        def end() -> None:
            self._mailbox.handled += 1
            if envelope.state is not State.DONE:
                self._outcome(envelope, None)
                envelope.reply(value)

        self._when_kept(envelope, end)

    def _failed(self, envelope: Envelope, cause: BaseException) -> None:
        error = RemoteError.of(cause, with_traceback=self.agent.send_tracebacks)
        error.__cause__ = cause
        lost = self.keeper.reject(envelope, error)
        if envelope.state is not State.DONE:
            self._when_kept(envelope, lambda: self._lost(envelope, lost or error))

    def _lost(self, envelope: Envelope, error: DeliveryError) -> None:
        self._mailbox.failed += 1
        self._fail(envelope, error)

    def _when_kept(self, envelope: Envelope, end: Callable[[], None]) -> None:
        """Let a message end when what it changed is kept; the worker is free meanwhile."""
        waiting = self.keeper.when_kept(end, lambda error: self._lost(envelope, error))
        if waiting is not None:
            self._running[envelope] = waiting
            waiting.add_done_callback(lambda _: self._not_running(envelope, waiting))
            waiting.add_done_callback(lambda _: self._quiet_if_idle())

    def _not_running(self, envelope: Envelope, task: asyncio.Task[None] | None) -> None:
        if self._running.get(envelope) is task:
            del self._running[envelope]

    def _outcome(self, envelope: Envelope, error: Exception | None) -> None:
        if self._hooks.outcome:
            self._hooks.call(self._hooks.outcome, Context(self, envelope), envelope.message, error)

    def _fail(self, envelope: Envelope, error: DeliveryError) -> None:
        if envelope.state is State.DONE:
            return
        self._outcome(envelope, error)
        envelope.fail(error)
        if envelope.was_accepted and not envelope.wants_reply:
            self._dead_letters.add(
                DeadLetter(envelope.message, envelope.sender, self.address, error, envelope.context)
            )

    def _quiet_if_idle(self) -> None:
        if not len(self._mailbox) and not self._running:
            self._quiet.set()


class _Own:
    """The origin of what an instance sends to itself: nobody waits for an outcome but its timers."""

    def __init__(self) -> None:
        self.done = asyncio.Event()

    def accepted(self, envelope: Envelope) -> None:
        """See `Origin.accepted`."""

    def replied(self, envelope: Envelope, value: Any) -> None:
        """See `Origin.replied`."""
        self.done.set()

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """See `Origin.failed`."""
        self.done.set()

    async def room(self) -> None:
        """See `Origin.room`."""
