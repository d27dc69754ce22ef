"""The workers of an instance: they take messages from its mailbox and hand them to its handlers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from slim_actors.context import Context
from slim_actors.errors import Cancelled, DeliveryError, Expired
from slim_actors.forward import Forward
from slim_actors.mailbox import DONE, RUNNING, Envelope
from slim_actors.middleware import NOBODY
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
        self._tasks = [asyncio.create_task(self._work(), name=str(cell.address)) for _ in range(count)]

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
        in_a_row, began = 0, loop.time()
        now = began
        while not life.is_over:
            envelope = mailbox.next()
            if envelope is None:
                envelope = await mailbox.take()
                in_a_row, began = 0, loop.time()
                now = began
            if envelope.expires <= now:
                mailbox.expired += 1
                cell.fail(envelope, Expired("The deadline passed while the message waited."))
                cell.quiet_if_idle()
                continue
            envelope.state = RUNNING
            cell.running[envelope] = worker
            try:
                await self._handle(envelope)
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

    async def _handle(self, envelope: Envelope) -> None:
        cell = self._cell
        found = envelope.handler
        assert found is not None, "what has no handler is refused at the door"
        ctx = Context(cell, envelope)
        if envelope.outlet is None:
            # A caller cancels at its deadline; this is for one that cannot any more, or never does.
            cell.deadlines.watch(envelope.expires)
        handling = cell.hooks.handling
        raised: BaseException | None = None
        is_news = False
        try:
            with cell.hooks.around(handling, ctx, envelope.message) if handling else NOBODY:
                try:
                    if (room := envelope.origin.room()) is not None:
                        await room
                    if cell.keeper.has_store and (kept := cell.keeper.ready(envelope)) is not None:
                        await kept
                    called = self._call(found, envelope, ctx)
                    value = await (self._stream(called, envelope) if found.streams else called)
                    if cell.keeper.has_store:
                        value = cell.keeper.stage(envelope, value, ctx.forwarded)
                except BaseException as error:
                    raised = error
                    is_news = cell.failed(envelope, error)
                    raise
                if isinstance(value, Forward) and envelope.state is not DONE:
                    cell.running[envelope] = asyncio.create_task(self._forward(envelope, ctx, value))
                else:
                    cell.replied(envelope, value)
        except BaseException as error:
            # What the handler raised is the outcome; it went on only for the hooks around it to see.
            if error is not raised or isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            # A cancelled message had its outcome already: what its handler makes of that is no failure.
            if is_news and isinstance(error, Exception) and self._life is cell.life:
                cell.recovery.failed(cell, error)

    def _call(self, found: Handler, envelope: Envelope, ctx: Context) -> Any:
        method = getattr(self._life.agent, found.method)
        given = [ctx if role == "ctx" else envelope.inlet for role in found.takes] if found.takes else ()
        return method(*given) if found.declared is TICK else method(envelope.message, *given)

    @staticmethod
    async def _stream(called: AsyncGenerator[Any], envelope: Envelope) -> None:
        assert envelope.outlet is not None, "who does not want a stream is refused at the door"
        put = envelope.outlet.put
        async with aclosing(called) as items:
            async for item in items:
                if (turn := put(item)) is not None:
                    await turn

    async def _forward(self, envelope: Envelope, ctx: Context, forward: Forward) -> None:
        """Let another agent answer; the worker is free for the next message meanwhile."""
        cell = self._cell
        try:
            value = await cell.router.forward(forward.route, forward.message, envelope, ctx.forwarded())
        except asyncio.CancelledError:
            if envelope.state is not DONE:
                raise
        except DeliveryError as error:
            # The caller gets the error of the agent that was to answer, as if it had asked that one.
            cell.fail(envelope, error)
        except Exception as error:  # noqa: BLE001 (what was forwarded could not be sent)
            cell.failed(envelope, error)
        else:
            cell.replied(envelope, value)
        finally:
            cell.not_running(envelope, asyncio.current_task())
