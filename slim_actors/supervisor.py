"""Groups: instances that are started in order, restarted as a strategy says, and stopped in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from slim_actors.errors import AgentFailed, ConfigurationError
from slim_actors.factory import Factory
from slim_actors.intensity import Intensity
from slim_actors.life import stop_by
from slim_actors.recovery import Recovery
from slim_actors.supervision import DRAIN, Restart, Strategy, check_strategy

if TYPE_CHECKING:
    from slim_actors.cell import Cell
    from slim_actors.life import Host, Life
    from slim_actors.ref import Ref

__all__ = ["Supervisor", "give_up_alone"]

_logger = logging.getLogger("slim_actors.supervision")


def give_up_alone(parent: Life | None) -> Callable[[Cell, AgentFailed], None]:
    """Give what is done when a single instance cannot be kept: it ends, and its parent has failed."""

    def give_up(cell: Cell, failure: AgentFailed) -> None:
        _logger.error("%s", failure)
        cell.ends(failure)
        if parent is not None:
            parent.child_failed(failure)

    return give_up


class Supervisor:
    """A group of instances; made by `Runtime.supervise` and `Context.supervise`.

    Example:
        .. code-block:: python

            group = await runtime.supervise(Index, Search, strategy="one_for_all")
            index, search = group.refs
            failure = await group.wait()
    """

    def __init__(
        self, host: Host, strategy: Strategy, restart: Restart | None, parent: Life | None = None
    ) -> None:
        if restart is not None and not isinstance(restart, Restart):
            raise ConfigurationError(f"restart is {restart!r}, but must be a Restart(...).")
        self._host = host
        self._strategy = check_strategy(strategy)
        self._intensity = Intensity(restart or Restart())
        self._parent = parent
        self._refs: list[Ref] = []
        self._failure: AgentFailed | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()
        self._callbacks: list[Callable[[str], None]] = []

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The members, in the order of their start; also those that have ended."""
        return tuple(self._refs)

    async def start(self, agents: tuple[Factory, ...]) -> None:
        """Start the members in order; if one cannot be started, the others are stopped again.

        Raises:
            Exception: As `Runtime.spawn` does.
        """
        if not agents:
            raise ConfigurationError("There is nobody to supervise: name one agent or more.")
        self._living = len(agents)
        together = self._recovery()
        async with AsyncExitStack() as on_error:
            on_error.push_async_callback(self.stop, 0.0)
            for agent in agents:
                recovery = self._recovery() if self._strategy == "one_for_one" else together
                ref = await self._host.start(agent, None, parent=None, recovery=recovery)
                self._refs.append(ref)
                ref.on_end(self._left)
                if self._failure is not None:
                    # It stopped when it failed, without this one.
                    await ref.stop(0.0)
                    raise self._failure
            on_error.pop_all()

    async def stop(self, drain: float = DRAIN) -> None:
        """Stop the members, the last one first. Does nothing the second time.

        Args:
            drain: Seconds that what they have accepted may take, for all of them together.

        Raises:
            Exception: Whatever a member's ``stopped`` raises, after all of them have stopped.
        """
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(drain))
        await asyncio.shield(self._stopping)

    async def wait(self) -> AgentFailed | None:
        """Wait until all members have ended; give the failure that ended the group, or None."""
        await self._ended.wait()
        return self._failure

    def on_end(self, callback: Callable[[str], None]) -> None:
        """Call back when all members have ended, at once if they have."""
        if self._ended.is_set():
            callback("")
        else:
            self._callbacks.append(callback)

    def _recovery(self) -> Recovery:
        reaches_back = self._strategy != "rest_for_one"
        return Recovery(self._intensity, self._give_up, reaches_back=reaches_back)

    def _give_up(self, cell: Cell, failure: AgentFailed) -> None:
        cell.ends(failure)
        if self._stopping is not None:
            return
        _logger.error("%s Its group ends with it.", failure)
        self._failure = failure
        self._stopping = asyncio.ensure_future(self._stop(0.0))
        self._stopping.add_done_callback(cell.report)
        if self._parent is not None:
            self._parent.child_failed(failure)

    async def _stop(self, drain: float) -> None:
        ends = asyncio.get_running_loop().time() + drain
        async with AsyncExitStack() as stack:
            stack.callback(self._end)
            for ref in self._refs:
                stack.push_async_callback(stop_by, ref, ends)

    def _left(self, _: str) -> None:
        self._living -= 1
        if not self._living and self._stopping is None:
            self._end()

    def _end(self) -> None:
        self._ended.set()
        while self._callbacks:
            self._callbacks.pop()("")
