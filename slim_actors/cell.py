"""The cell: one running instance of an agent. It takes messages from the mailbox and hands them to handlers.

No network in here: envelopes come in by `Cell.deliver`, outcomes leave by the envelope.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

from slim_actors.agent import Agent, Declaration, Handler, declaration_of
from slim_actors.context import Context
from slim_actors.errors import Cancelled, DeclarationError, Expired, RemoteError, Stopped
from slim_actors.mailbox import Envelope, MailboxQueue, State
from slim_actors.routing.router import Router

__all__ = ["Cell", "Factory", "make"]

Factory = Callable[[], Agent]
"""Makes a fresh instance of an agent; an agent class without arguments is one."""

_YIELD_AFTER = 64
"""Messages handled in a row before other tasks get their turn: a handler need never wait for anything."""


class Cell:
    """One instance of an agent, its mailbox and its workers.

    Args:
        agent: The instance.
        router: What it sends messages with.
    """

    def __init__(self, agent: Agent, router: Router) -> None:
        self.agent = agent
        self.declaration: Declaration = declaration_of(type(agent))
        self._router = router
        self._mailbox = MailboxQueue(agent.mailbox.capacity)
        self._workers: list[asyncio.Task[None]] = []
        self._running: dict[Envelope, asyncio.Task[None]] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._draining = False
        self._stopping = False

    @property
    def is_draining(self) -> bool:
        """Whether it takes no new messages."""
        return self._draining

    async def start(self) -> None:
        """Call the agent's ``started``, then begin with the messages."""
        await self.agent.started(Context(self._router))
        self._workers = [
            asyncio.create_task(self._work(), name=f"{self._router.address}")
            for _ in range(self.agent.concurrency)
        ]

    def deliver(self, envelope: Envelope) -> None:
        """Put a message into the mailbox; one that comes during the drain is handed back."""
        if self._draining:
            envelope.fail(Stopped(f"{self._router.address} is stopping."))
        else:
            self._quiet.clear()
            self._mailbox.put(envelope)

    def cancel(self, envelope: Envelope) -> None:
        """Cancel a message: a waiting one is never handled, a running one is cancelled at its next await."""
        worker = self._running.get(envelope)
        envelope.fail(Cancelled("The caller cancelled the message."))
        if worker is not None:
            worker.cancel()

    async def drain(self, within: float) -> None:
        """Take nothing new, and finish what was accepted, in so many seconds at the most."""
        self._draining = True
        for envelope in self._mailbox.clear_parked():
            envelope.fail(Stopped(f"{self._router.address} is stopping."))
        try:
            async with asyncio.timeout(within):
                await self._quiet.wait()
        except TimeoutError:
            for envelope in self._mailbox.clear():
                envelope.fail(Stopped(f"{self._router.address} stopped before the message was started."))

    async def stop(self) -> None:
        """Stop the workers and call the agent's ``stopped``."""
        self._draining = self._stopping = True
        for envelope in list(self._running):
            envelope.fail(Cancelled(f"{self._router.address} stopped while the message was handled."))
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        await self.agent.stopped(Context(self._router))

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None, "a coroutine runs in a task"
        in_a_row = 0
        while not self._stopping:
            if not len(self._mailbox) and not self._running:
                self._quiet.set()
            envelope = await self._mailbox.take()
            if envelope.expires <= asyncio.get_running_loop().time():
                envelope.fail(Expired("The deadline passed while the message waited in the mailbox."))
                continue
            envelope.state = State.RUNNING
            self._running[envelope] = worker
            try:
                await self._handle(envelope)
            finally:
                del self._running[envelope]
            # A cancelled message must not end the worker that had it, whatever its handler made of that.
            while worker.cancelling() and not self._stopping:
                worker.uncancel()
            in_a_row += 1
            if in_a_row >= _YIELD_AFTER:
                in_a_row = 0
                await asyncio.sleep(0)

    async def _handle(self, envelope: Envelope) -> None:
        found: Handler = envelope.handler
        method = getattr(self.agent, found.method)
        try:
            if found.takes_ctx:
                value = await method(envelope.message, Context(self._router, envelope))
            else:
                value = await method(envelope.message)
        except asyncio.CancelledError as error:
            if self._stopping:
                raise
            # Cancelled by its caller, then it has its outcome; or by something that the handler waited for.
            envelope.fail(RemoteError.of(error))
        except Exception as error:
            logger = Context(self._router, envelope).logger
            logger.exception("%s.%s failed", type(self.agent).__name__, found.method)
            envelope.fail(RemoteError.of(error))
        else:
            envelope.reply(value)


def make(factory: Factory) -> Agent:
    """Make an instance of an agent.

    Raises:
        DeclarationError: The factory is not one, or gives something else.
    """
    if isinstance(factory, Agent):
        raise DeclarationError(
            f"Spawn the class or a function that makes the agent, not an instance: "
            f"lambda: {type(factory).__name__}(...)."
        )
    if not callable(factory):
        raise DeclarationError(f"{factory!r} is neither an agent class nor a function that makes an agent.")
    if inspect.isclass(factory) and not issubclass(factory, Agent):
        raise DeclarationError(f"{factory.__name__} is not an agent: derive it from slim_actors.Agent.")
    try:
        agent = factory()
    except TypeError as error:
        raise DeclarationError(f"The agent cannot be made: {error}.") from error
    if not isinstance(agent, Agent):
        raise DeclarationError(f"The factory gave {agent!r}, which is not an agent.")
    return agent
