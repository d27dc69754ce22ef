"""The cell: one running instance of an agent. It takes messages from the mailbox and hands them to handlers.

A restart gives it a new `Life`, with a fresh instance of the agent; its name and its mailbox stay.
No network in here: envelopes come in by `Cell.deliver`, outcomes leave by the envelope.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

from slim_actors.agent import Agent
from slim_actors.context import Context, circle_of
from slim_actors.deadletters import DeadLetter, DeadLetters
from slim_actors.deadlines import Deadlines
from slim_actors.declaration import Declaration, Handler
from slim_actors.errors import (
    AgentFailed,
    Busy,
    Cancelled,
    DeclarationError,
    DeliveryError,
    Denied,
    Expired,
    RemoteError,
    Stopped,
    UnhandledMessage,
)
from slim_actors.factory import Factory, make
from slim_actors.keeper import Keeper
from slim_actors.life import Host, Life
from slim_actors.mailbox import DONE, WAITING, Envelope, MailboxStats
from slim_actors.mailqueue import MailboxQueue
from slim_actors.middleware import Hooks
from slim_actors.names import Address
from slim_actors.recovery import Recovery
from slim_actors.routing.router import Router
from slim_actors.supervision import Restart
from slim_actors.timers import Own
from slim_actors.workers import STOP_WITHIN, Workers

__all__ = ["Cell"]

_logger = logging.getLogger("slim_actors.cell")


class Cell:
    """One instance of an agent, its mailbox and its workers.

    Args:
        factory: Makes a fresh instance for each restart.
        agent: The first instance.
        router: What it sends messages with.
        host: Where it starts and finds others.
        recovery: Restarts it when it failed.
        hooks: Told what happens.
        dead_letters: Where messages go that nobody waits for and that failed.
        keeper: Keeps what must not be lost.
    """

    ends: Callable[[AgentFailed | None], None]
    """Ends the instance from the inside: with a failure, or because it stopped itself."""

    def __init__(
        self,
        factory: Factory,
        agent: Agent,
        router: Router,
        host: Host,
        recovery: Recovery,
        hooks: Hooks,
        dead_letters: DeadLetters,
        keeper: Keeper,
    ) -> None:
        self._factory = factory
        self.router = router
        self.host = host
        self.keeper = keeper
        self.recovery = recovery
        self.policy: Restart = agent.restart or recovery.policy
        self.declaration: Declaration = type(agent).__declaration__.readable()
        self.hooks = hooks
        self._dead_letters = dead_letters
        self.mailbox = MailboxQueue(agent.mailbox)
        """Where the messages wait; it outlives restarts."""
        self.running: dict[Envelope, asyncio.Task[None]] = {}
        """What is being handled or forwarded, and by which task."""
        self.deadlines = Deadlines(self._expire)
        """Those of what is being handled."""
        self._quiet = asyncio.Event()
        """Set once it drains and has nothing left to do."""
        self._draining = False
        self.life = Life(self, agent)
        self._workers = Workers(self, self.life, 0)

    @property
    def agent(self) -> Agent:
        """The instance as it is now."""
        return self.life.agent

    @property
    def address(self) -> Address:
        """Who this is."""
        return self.router.address

    @property
    def stats(self) -> MailboxStats:
        """What went through the mailbox so far."""
        return self.mailbox.stats

    @property
    def depth(self) -> int:
        """How many messages wait in the mailbox."""
        return len(self.mailbox)

    @property
    def is_draining(self) -> bool:
        """Whether it takes no new messages."""
        return self._draining

    async def start(self) -> None:
        """Call the agent's ``started``, then begin with the messages."""
        await self.life.begin()
        self._workers = Workers(self, self.life, self.agent.concurrency)
        if not self._draining:
            self.life.timers.start()
        self.recovery.join(self)

    async def renew(self) -> None:
        """Begin a new life with a fresh instance; the messages that wait are its own from then on.

        Raises:
            DeclarationError: The factory does not give a fresh one.
            Exception: What ``started`` raises.
        """
        agent = make(self._factory)
        if agent is self.agent:
            raise DeclarationError(
                f"The factory of {self.address} gave the same instance again, so it cannot be restarted: "
                "let it make a fresh one each time."
            )
        self.life = Life(self, agent)
        await self.start()

    def halt(self, *, let_finish: bool = False) -> None:
        """Take no further message in this life; what is being handled is cancelled, or may finish."""
        self.life.is_over = True
        self._workers.halt(let_finish=let_finish)

    async def end_life(self, finish_within: float = 0.0) -> None:
        """Wait until a halted life has ended, its children and its ``stopped`` hook included.

        Raises:
            Exception: What ``stopped`` raises.
        """
        await self._workers.end(finish_within)
        await self.life.end()

    def stop_itself(self, life: Life) -> None:
        """See `Context.stop`."""
        if life.is_over or self._draining:
            return
        if self.policy.kind == "permanent":
            self.recovery.renew(self)
        else:
            self.ends(None)

    def deliver(self, envelope: Envelope) -> None:
        """Put a message into the mailbox; one that comes during the drain is handed back."""
        if self._draining:
            envelope.fail(Stopped(f"{self.address} is stopping."))
            return
        if envelope.context:
            cycle = circle_of(envelope, str(self.address), self.agent.concurrency)
            if cycle is not None:
                envelope.fail(cycle)
                return
            if self.keeper.claims(envelope, self.deliver):
                return
        if self.hooks.received:
            self.hooks.call(self.hooks.received, Context(self, envelope), envelope.message)
        try:
            dropped = self.mailbox.put(envelope)
        except Busy as error:
            self.fail(envelope, error)
        else:
            for one in dropped:
                self.fail(one, Busy("It made room in a full mailbox for a newer message."))

    def deny(self, envelope: Envelope, error: Denied) -> None:
        """Refuse a message because of who sent it."""
        self.mailbox.denied += 1
        if self.hooks.denied:
            self.hooks.call(self.hooks.denied, Context(self, envelope), error)
        envelope.fail(error)

    def deliver_own(
        self,
        message: Any,
        handler: Handler | None = None,
        *,
        ended: Callable[[], None] = lambda: None,
        keep: bool = False,
    ) -> Envelope:
        """Put a message of the instance to itself into the mailbox; ``ended`` is called when it is done.

        Raises:
            UnhandledMessage: There is no handler for its type.
        """
        handler = handler or self.own_handler(message)
        me, never = self.address, float("inf")
        envelope = Envelope(0, message, handler, me, never, Own(ended), wants_reply=False, keep=keep)
        self.deliver(envelope)
        return envelope

    def own_handler(self, message: Any) -> Handler:
        """Give the handler of a message of the instance to itself.

        Raises:
            UnhandledMessage: There is none for its type.
        """
        handler = self.declaration.find_own(type(message))
        if handler is None:
            raise UnhandledMessage(f"{self.address} has no handler for {type(message).__name__}.")
        return handler

    def take_back(self, envelope: Envelope) -> None:
        """Take a message of the instance to itself out of the mailbox, if it still waits there."""
        if envelope.state is WAITING:
            self._outcome(envelope, Cancelled("It was taken back before it was handled."))
            envelope.state = DONE
            self.mailbox.discard(envelope)
            self.quiet_if_idle()

    def cancel(self, envelope: Envelope) -> None:
        """Cancel a message: a waiting one is never handled, a running one is cancelled at its next await."""
        if envelope.state is DONE or self.keeper.outlives_its_sender(envelope):
            return
        self.mailbox.cancelled += 1
        self._end(envelope, Cancelled("The caller cancelled the message."))

    def _end(self, envelope: Envelope, error: DeliveryError) -> None:
        """End a message, wherever it is."""
        worker = self.running.get(envelope)
        self.mailbox.discard(envelope)
        self.fail(envelope, error)
        if worker is not None:
            worker.cancel()
        self.quiet_if_idle()

    def _expire(self, now: float) -> float:
        """End what is handled or held back and whose deadline has passed; give the next deadline."""
        # Not those that wait for the store: their handlers have ended.
        workers = [one for one, task in self.running.items() if self._workers.have(task)]
        running = [one for one in workers if one.state is not DONE and one.outlet is None]
        self._expired([one for one in running if one.expires <= now], "was handled")
        while late := [one for one in self.mailbox.held_back() if one.expires <= now]:
            self._expired(late, "waited")
        watched = [*running, *self.mailbox.held_back()]
        return min((one.expires for one in watched if one.expires > now), default=inf)

    def _expired(self, late: list[Envelope], why: str) -> None:
        for envelope in late:
            self.mailbox.expired += 1
            self._end(envelope, Expired(f"The deadline passed while the message {why}."))

    def hold_back(self, envelope: Envelope, room: Awaitable[None]) -> None:
        """Let a message, and its sender's others, wait until its outcome can be taken; the worker is free."""
        self.mailbox.hold_back(envelope, room)
        self.deadlines.watch(envelope.expires)

    async def drain(self, within: float) -> None:
        """Take nothing new, finish what was accepted, and stop the children, in so many seconds in all."""
        ends = asyncio.get_running_loop().time() + within
        self._draining = True
        self.life.timers.stop()
        for envelope in self.mailbox.clear_parked():
            self.fail(envelope, Stopped(f"{self.address} is stopping."))
        try:
            async with asyncio.timeout(within):
                self.quiet_if_idle()
                await self._quiet.wait()
        except TimeoutError:
            self.hand_back()
        await self.life.stop_children(max(0.0, ends - asyncio.get_running_loop().time()))

    def hand_back(self) -> None:
        """Give back what waits: somebody else may handle it."""
        for envelope in self.mailbox.clear():
            self.fail(envelope, Stopped(f"{self.address} stopped before the message was started."))
        self.quiet_if_idle()

    async def stop(self) -> None:
        """Stop the workers, and end the life."""
        self._draining = True
        self.halt()
        await self.recovery.leave(self)
        others = [(sent, task) for sent, task in self.running.items() if not self._workers.have(task)]
        for envelope, task in others:
            # A durable one was handled and waits until that is kept: given back now, it would run again.
            if not self.keeper.outlives_its_sender(envelope):
                self.fail(envelope, Cancelled(f"{self.address} stopped while the message was handled."))
                task.cancel()
        if others:
            await asyncio.wait([task for _, task in others], timeout=STOP_WITHIN)
        self.halt()
        self.deadlines.close()
        await self.end_life()

    def report(self, task: asyncio.Future[None]) -> None:
        """Log what went wrong in an end that nobody waits for."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("%s did not end well", self.address, exc_info=error)

    def replied(self, envelope: Envelope, value: Any) -> None:
        """End a message with what its handler returned, once what it changed is kept."""
        if self.keeper.has_store:
            self._when_kept(envelope, lambda: self.reply(envelope, value))
        else:
            self.reply(envelope, value)

    def reply(self, envelope: Envelope, value: Any) -> None:
        """End a message with what its handler returned, which changed nothing that is kept."""
        self.mailbox.handled += 1
        if self.hooks.replied and envelope.state is not DONE:
            self.hooks.call(self.hooks.replied, Context(self, envelope), envelope.message, None)
        envelope.reply(value)

    def failed(self, envelope: Envelope, cause: BaseException) -> bool:
        """Fail a message with what its handler raised; tell whether that is its outcome."""
        error = RemoteError.of(cause, with_traceback=self.agent.send_tracebacks)
        error.__cause__ = cause
        lost = self.keeper.reject(envelope, error)
        if envelope.state is DONE:
            return False

        def end() -> None:
            if lost is None:
                # That it failed is kept: it is not given back.
                envelope.release = None
            self._lose(envelope, lost or error)

        self._when_kept(envelope, end)
        return True

    def _lose(self, envelope: Envelope, error: DeliveryError) -> None:
        self.mailbox.failed += 1
        self.fail(envelope, error)

    def _when_kept(self, envelope: Envelope, end: Callable[[], None]) -> None:
        """Let a message end when what it changed is kept; the worker is free meanwhile."""

        def lost(error: DeliveryError) -> None:
            self._lose(envelope, error)
            self.recovery.failed(self, error)

        waiting = self.keeper.when_kept(end, lost)
        if waiting is not None:
            self.running[envelope] = waiting
            waiting.add_done_callback(lambda _: self.not_running(envelope, waiting))

    def not_running(self, envelope: Envelope, task: asyncio.Task[None] | None) -> None:
        """Take note that a task has nothing to do with a message any more."""
        if self.running.get(envelope) is task:
            del self.running[envelope]
            # What the handler has started, a session among it, keeps its context, and so the envelope.
            envelope.message = None
            if self._draining:
                self.quiet_if_idle()

    def _outcome(self, envelope: Envelope, error: Exception) -> None:
        if self.hooks.outcome:
            self.hooks.call(self.hooks.outcome, Context(self, envelope), envelope.message, error)

    def fail(self, envelope: Envelope, error: DeliveryError) -> None:
        """End a message without a reply; one that nobody waits for becomes a dead letter."""
        if envelope.state is DONE:
            return
        self._outcome(envelope, error)
        envelope.fail(error)
        if envelope.was_accepted and not envelope.wants_reply:
            self._dead_letters.add(
                DeadLetter(envelope.message, envelope.sender, self.address, error, envelope.context),
                envelope.size,
            )

    def quiet_if_idle(self) -> None:
        """Let a drain go on once there is nothing left to do."""
        if self._draining and not self.running and not len(self.mailbox):
            self._quiet.set()
