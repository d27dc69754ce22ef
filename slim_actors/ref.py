"""The handle on one running instance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from slim_actors.cell import Cell
from slim_actors.errors import AgentFailed
from slim_actors.inbound import Inbound
from slim_actors.mailbox import MailboxStats
from slim_actors.names import Address
from slim_actors.routes import Unicast
from slim_actors.routing.router import Router
from slim_actors.supervision import DRAIN
from slim_actors.transport.base import Port

__all__ = ["Ref"]


class Ref:
    """One running instance of an agent. It stays the same when the instance is restarted.

    Attributes:
        address: Its name and its id.

    Example:
        .. code-block:: python

            ref = await runtime.spawn(Echo)
            await runtime.ask(ref.route, "hello")
            print(ref.address, ref.stats.handled)
            await ref.stop()
    """

    def __init__(self, address: Address, cell: Cell, inbound: Inbound, router: Router, port: Port) -> None:
        self.address = address
        self._cell = cell
        self._inbound = inbound
        self._router = router
        self._port = port
        self._stopping: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()
        self._failure: AgentFailed | None = None
        self._callbacks: dict[object, Callable[[str], None]] = {}
        cell.ends = self._end

    def __repr__(self) -> str:
        return f"Ref({self.address})"

    @property
    def route(self) -> Unicast:
        """The route to exactly this instance."""
        return Unicast(self.address.name, instance=self.address.instance)

    @property
    def stats(self) -> MailboxStats:
        """What went through its mailbox so far."""
        return self._cell.stats

    @property
    def depth(self) -> int:
        """How many messages wait in its mailbox now; unlike `stats` it may be read in any thread."""
        return self._cell.depth

    async def stop(self, drain: float = DRAIN) -> None:
        """Stop the instance: callers go elsewhere, what it accepted is finished, then it leaves its name.

        Its children stop after its last message and before its ``stopped`` hook, the last one first. Does
        nothing the second time.

        Args:
            drain: Seconds that the messages it has accepted may take, and those of its children; the rest is
                handed back.

        Raises:
            Exception: Whatever the agent's ``stopped`` raises, after the instance has left its name.
        """
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(drain))
        await asyncio.shield(self._stopping)

    async def wait(self) -> AgentFailed | None:
        """Wait until the instance has ended; give the failure that ended it, or None if it was stopped.

        Example:
            .. code-block:: python

                ref = await runtime.spawn(Worker)
                failure = await ref.wait()
                if failure is not None:
                    raise failure
        """
        await self._ended.wait()
        return self._failure

    def on_end(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back once with the reason when it has ended, at once if it has; give what forgets that."""
        if self._ended.is_set():
            callback(self._reason)
            return lambda: None
        key = object()
        self._callbacks[key] = callback

        def forget() -> None:
            self._callbacks.pop(key, None)

        return forget

    @property
    def _reason(self) -> str:
        return "it was stopped" if self._failure is None else str(self._failure)

    def _end(self, failure: AgentFailed | None) -> None:
        """End it from the inside: at once after a failure, as `stop` does otherwise."""
        if self._stopping is not None:
            self._cell.hand_back()
        else:
            self._failure = failure
            self._stopping = asyncio.ensure_future(self._stop(DRAIN if failure is None else 0.0))
            # What its hook raises is logged; nobody waits for it.
            self._stopping.add_done_callback(self._cell.report)

    async def _stop(self, drain: float) -> None:
        async with AsyncExitStack() as stack:
            # Last comes first: each step is taken whatever became of those before it.
            stack.callback(self._tell)
            stack.push_async_callback(self._port.close)
            stack.push_async_callback(self._router.close)
            stack.push_async_callback(self._inbound.close)
            stack.push_async_callback(self._cell.keeper.close)
            stack.push_async_callback(self._cell.stop)
            # The name goes last: without it SLIM brings this instance no acknowledgements any more, and its
            # callers would take it for dead in the middle of the drain. Who finds it until then is sent on.
            self._inbound.say_leaving()
            await self._cell.drain(drain)
            await self._inbound.farewell()
            await self._port.withdraw()

    def _tell(self) -> None:
        self._ended.set()
        while self._callbacks:
            _, callback = self._callbacks.popitem()
            callback(self._reason)
