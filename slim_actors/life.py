"""A life: what belongs to one instance of an agent and ends with it: its timers, its children, its watches.

A restart ends one life and begins the next; the cell, its name and its mailbox stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol, TypeVar

from slim_actors.access import Guard
from slim_actors.agent import Agent
from slim_actors.context import Context
from slim_actors.errors import AgentFailed, Stopped
from slim_actors.factory import Factory
from slim_actors.names import Address
from slim_actors.supervision import Restart, Strategy
from slim_actors.timers import Timers
from slim_actors.watching import Watches

if TYPE_CHECKING:
    from slim_actors.cell import Cell
    from slim_actors.recovery import Recovery
    from slim_actors.ref import Ref
    from slim_actors.supervisor import Supervisor

__all__ = ["Child", "Host", "Life", "stop_all", "stop_by"]

_HOOK_WITHIN = 5.0

_logger = logging.getLogger("slim_actors.supervision")


class Child(Protocol):
    """What stops with its parent: an instance or a group."""

    async def stop(self, drain: float = ...) -> None:
        """Stop it; does nothing the second time."""

    def on_end(self, callback: Callable[[str], None]) -> object:
        """Call back when it has ended."""


class Host(Protocol):
    """What an instance needs to have others beside it."""

    def find(self, address: Address) -> Ref | None:
        """Give a running instance of this process."""

    async def start(
        self, factory: Factory, name: str | None, *, parent: Life | None, recovery: Recovery | None = None
    ) -> Ref:
        """Start an instance."""


C = TypeVar("C", bound=Child)


class Life:
    """One instance, from its start to its end.

    Args:
        cell: Where it lives.
        agent: The instance.

    Raises:
        DeclarationError: Its ``allow`` is none of what it may be.
    """

    def __init__(self, cell: Cell, agent: Agent) -> None:
        self.cell = cell
        self.agent = agent
        self.guard = Guard(agent, cell.address.name)
        self.timers = Timers(cell)
        self.watches = Watches(cell)
        self.is_over = False
        """Whether it takes no further message."""
        self._is_started = False
        self._needs_stopped = False
        """Whether the agent's ``started`` has returned, whatever became of the start after that."""
        self._children: list[Child] = []
        self._failure: AgentFailed | None = None
        self._ending: asyncio.Future[None] | None = None

    async def begin(self) -> None:
        """Restore the agent's state, and call its ``started``.

        Raises:
            AgentFailed: A child failed meanwhile.
            Stopped: It was stopped meanwhile.
            StoreError: Its state cannot be restored or kept.
            ConfigurationError: It has a state, and the runtime no store.
            Exception: What ``started`` raises. Whatever it is, nothing of the life is left then.
        """
        async with AsyncExitStack() as on_error:
            on_error.push_async_callback(self.end)
            await self.cell.keeper.restore(self.agent)
            await self.agent.started(Context(self.cell))
            self._needs_stopped = True
            await self.cell.keeper.keep_first()
            if self._failure is not None:
                raise self._failure
            self._check()
            on_error.pop_all()
        self._is_started = True

    async def spawn(self, factory: Factory, name: str | None) -> Ref:
        """See `Context.spawn`."""
        self._check()
        return await self._adopt(await self.cell.host.start(factory, name, parent=self))

    async def supervise(
        self, agents: tuple[Factory, ...], strategy: Strategy, restart: Restart | None
    ) -> Supervisor:
        """See `Context.supervise`."""
        # Here, not at the top: a group is made of instances, and so of lives.
        from slim_actors.supervisor import Supervisor

        self._check()
        group = Supervisor(self.cell.host, strategy, restart, parent=self)
        await group.start(agents)
        return await self._adopt(group)

    def child_failed(self, failure: AgentFailed) -> None:
        """Take the failure of a child for one of this instance."""
        if self._is_started:
            self.cell.recovery.failed(self.cell, failure)
        else:
            self._failure = failure

    async def stop_children(self, within: float = 0.0) -> None:
        """Stop the children, the last one first, in so many seconds for all of them."""
        ends = asyncio.get_running_loop().time() + within
        async with AsyncExitStack() as stack:
            for child in list(self._children):
                stack.push_async_callback(stop_by, child, ends)

    async def end(self) -> None:
        """End the life: its timers, its watches, its children, and last the agent's ``stopped``.

        Cancelling this does not stop it half-way; calling it again waits for the same end.

        Raises:
            Exception: What ``stopped`` raises.
        """
        self.is_over = True
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        self.timers.stop()
        self.watches.close()
        async with AsyncExitStack() as stack:
            if self._needs_stopped:
                stack.push_async_callback(self._stopped)
            stack.push_async_callback(self.timers.ended)
            stack.push_async_callback(self.stop_children)

    async def _stopped(self) -> None:
        try:
            async with asyncio.timeout(_HOOK_WITHIN) as limit:
                await self.agent.stopped(Context(self.cell))
        except TimeoutError:
            if not limit.expired():
                raise
            _logger.warning("%s: stopped took more than %g s", self.cell.address, _HOOK_WITHIN)

    async def _adopt(self, child: C) -> C:
        if self.is_over:
            await child.stop(0.0)
            self._check()
        self._children.append(child)
        child.on_end(lambda _: self._children.remove(child))
        return child

    def _check(self) -> None:
        if self.is_over:
            raise Stopped(f"{self.cell.address} has ended, and nothing is started any more.")


async def stop_all(running: Iterable[Child], drain: float) -> list[BaseException]:
    """Stop what runs side by side; give what went wrong."""
    stops = [one.stop(drain) for one in list(running)]
    return [error for error in await asyncio.gather(*stops, return_exceptions=True) if error]


async def stop_by(child: Child, ends: float) -> None:
    """Stop a child, or a member of a group, in what is left of the time for all of them."""
    await child.stop(max(0.0, ends - asyncio.get_running_loop().time()))
