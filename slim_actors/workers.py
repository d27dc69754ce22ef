"""The workers of an instance: they take messages from its mailbox and hand them to its handlers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from slim_actors.context import HANDLED, Context
from slim_actors.errors import Cancelled, DeliveryError, Expired
from slim_actors.forward import Forward
from slim_actors.mailbox import DONE, RUNNING, Envelope
from slim_actors.timers import TICK

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from slim_actors.cell import Cell
    from slim_actors.declaration import Handler
    from slim_actors.life import Life

__all__ = ["STOP_WITHIN", "Workers"]

_MOST_IN_A_ROW, _YIELD_AFTER = 256, 0.02
"""Messages, and seconds, after which other tasks get their turn: a handler need never wait for anything. Not
after a few: replies made in a row leave in one payload, which costs as much as dozens of messages."""

STOP_WITHIN = 2.0
"""Seconds that a handler may take to end which was cancelled."""

_logger = logging.getLogger("slim_actors.cell")


class _Raised(Struct, frozen=True, eq=False):
    """What a handler raised."""

    error: BaseException
    is_news: bool
    """Whether it is the outcome of the message: a cancelled one had its outcome already."""


class Workers:
    """The workers of one life.

    Args:
        cell: Whose mailbox they take from, and who gets the outcomes.
        life: Whose handlers they call.
        count: How many messages are handled at the same time.
    """

    def __init__(self, cell: Cell, life: Life, count: int) -> None:
        self._cell = cell
        self._life = life
        self._tasks = {asyncio.create_task(self._work(), name=str(cell.address)) for _ in range(count)}

    def have(self, task: asyncio.Task[None]) -> bool:
        """Tell whether a task is a worker, and not a forward or what is left of an earlier life."""
        return task in self._tasks

    def halt(self, *, let_finish: bool = False) -> None:
        """End the idle workers; what the others handle is cancelled, or may finish. The life must be over."""
        busy = {worker: envelope for envelope, worker in self._cell.running.items()}
        for worker in self._tasks:
            envelope = busy.get(worker)
            if envelope is None:
                worker.cancel()
            elif not let_finish and envelope.state is not DONE:
                why = f"{self._cell.address} ended while the message was handled."
                self._cell.fail(envelope, Cancelled(why))
                worker.cancel()

    async def end(self, finish_within: float = 0.0) -> None:
        """Wait until the workers that were halted have ended; cancel what takes longer to finish."""
        for seconds in (finish_within, STOP_WITHIN):
            # A handler that swallows its cancellation must not keep everybody waiting.
            if any(not worker.done() for worker in self._tasks):
                await asyncio.wait(self._tasks, timeout=seconds)
            self.halt()

    async def _work(self) -> None:
        cell, life = self._cell, self._life
        mailbox, loop = cell.mailbox, asyncio.get_running_loop()
        worker = asyncio.current_task()
        assert worker is not None, "a coroutine runs in a task"
        handle = self._observed if cell.hooks.handling else self._handle
        in_a_row, began = 0, loop.time()
        now = began
        while not life.is_over:
            envelope = mailbox.next()
            if envelope is None:
                # Whoever waits keeps nothing of what was handled last.
                HANDLED.set(None)
                envelope = await mailbox.take()
                in_a_row, began = 0, loop.time()
                now = began
            HANDLED.set((cell, envelope))
            if envelope.expires <= now:
                mailbox.expired += 1
                cell.fail(envelope, Expired("The deadline passed while the message waited."))
                cell.quiet_if_idle()
            elif (room := envelope.origin.room()) is not None:
                cell.hold_back(envelope, room)
            else:
                envelope.state = RUNNING
                cell.running[envelope] = worker
                try:
                    raised = await handle(envelope)
                    if raised is not None:
                        self._failed(raised)
                        raised = None
                except Exception:
                    # Not the handler's, whose errors are outcomes: a mistake of ours must not end the agent.
                    _logger.exception("%s stumbled over a message", cell.address)
                finally:
                    cell.not_running(envelope, worker)
                # A cancelled message must not end the worker that had it, whatever its handler made of that.
                while worker.cancelling() and not life.is_over:
                    worker.uncancel()
            in_a_row += 1
            now = loop.time()
            if in_a_row >= _MOST_IN_A_ROW or now - began >= _YIELD_AFTER:
                await asyncio.sleep(0)
                in_a_row, began = 0, loop.time()
                now = began
        cell.quiet_if_idle()

    def _failed(self, raised: _Raised) -> None:
        error = raised.error
        if raised.is_news and isinstance(error, Exception) and self._life is self._cell.life:
            # What recovers is no part of the message.
            HANDLED.set(None)
            self._cell.recovery.failed(self._cell, error)

    async def _observed(self, envelope: Envelope) -> _Raised | None:
        """Handle a message while hooks look on: they see what its handler raises."""
        hooks, raised = self._cell.hooks, None
        try:
            with hooks.around(hooks.handling, Context(self._cell, envelope), envelope.message):
                raised = await self._handle(envelope)
                if raised is not None:
                    raise raised.error  # noqa: TRY301 (for the hooks)
        except BaseException as error:
            if raised is None or error is not raised.error:
                raise
        return raised

    async def _handle(self, envelope: Envelope) -> _Raised | None:
        """Bring a message to its outcome; give what its handler raised, which is an outcome too."""
        cell, found = self._cell, envelope.handler
        keeps = cell.keeper.has_store
        assert found is not None, "what has no handler is refused at the door"
        if envelope.outlet is None and envelope.expires < cell.deadlines.next:
            # A caller cancels at its deadline; this is for one that cannot any more, or never does.
            cell.deadlines.watch(envelope.expires)
        try:
            if keeps and (kept := cell.keeper.ready(envelope)) is not None:
                await kept
            called = self._call(found, envelope)
            value = await (self._stream(called, envelope) if found.streams else called)
            if keeps:
                value = cell.keeper.stage(envelope, value, Context(cell, envelope).forwarded)
        except BaseException as error:
            raised = _Raised(error, is_news=cell.failed(envelope, error))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return raised
        if isinstance(value, Forward) and envelope.state is not DONE:
            forward = cell.running[envelope] = asyncio.create_task(self._forward(envelope, value))
            # Not in the task itself, which may be cancelled before its first step.
            forward.add_done_callback(lambda task: cell.not_running(envelope, task))
        elif keeps:
            cell.replied(envelope, value)
        else:
            cell.reply(envelope, value)
        return None

    def _call(self, found: Handler, envelope: Envelope) -> Any:
        method = getattr(self._life.agent, found.method)
        if not found.takes:
            return method() if found.declared is TICK else method(envelope.message)
        given = [Context(self._cell, envelope) if role == "ctx" else envelope.inlet for role in found.takes]
        return method(*given) if found.declared is TICK else method(envelope.message, *given)

    @staticmethod
    async def _stream(called: AsyncGenerator[Any], envelope: Envelope) -> None:
        assert envelope.outlet is not None, "who does not want a stream is refused at the door"
        put = envelope.outlet.put
        async with aclosing(called) as items:
            async for item in items:
                if (turn := put(item)) is not None:
                    await turn

    async def _forward(self, envelope: Envelope, forward: Forward) -> None:
        """Let another agent answer; the worker is free for the next message meanwhile."""
        cell = self._cell
        try:
            context = Context(cell, envelope).forwarded()
            value = await cell.router.forward(forward.route, forward.message, envelope, context)
        except asyncio.CancelledError:
            if envelope.state is not DONE:
                raise
        except DeliveryError as error:
            # The caller gets the error of the agent that was to answer, as if it had asked that one; but a
            # handler has run, and must not run on another replica because of it.
            error.may_have_run = True
            cell.fail(envelope, error)
        except Exception as error:  # noqa: BLE001 (what was forwarded could not be sent)
            cell.failed(envelope, error)
        else:
            cell.replied(envelope, value)
