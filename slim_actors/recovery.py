"""Recovery: brings instances back that fail together, one alone or a group, until it happens too often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from slim_actors.errors import AgentFailed, RemoteError
from slim_actors.intensity import Intensity
from slim_actors.supervision import DRAIN, Restart
from slim_actors.workers import STOP_WITHIN

if TYPE_CHECKING:
    from slim_actors.cell import Cell

__all__ = ["Recovery"]

_logger = logging.getLogger("slim_actors.supervision")


class Recovery:
    """Restarts its members when one of them fails. They are stopped in reverse order, and started in order.

    Args:
        intensity: How often that may be.
        give_up: Called with a member and the failure that is not dealt with here.
        reaches_back: Whether those that came before a member are restarted with it, as those after it are.
    """

    def __init__(
        self,
        intensity: Intensity,
        give_up: Callable[[Cell, AgentFailed], None],
        *,
        reaches_back: bool = True,
    ) -> None:
        self._intensity = intensity
        self._give_up = give_up
        self._reaches_back = reaches_back
        self._members: list[Cell] = []
        self._down: dict[Cell, Exception | None] = {}
        self._cause: tuple[Cell, Exception | None]
        """Who failed last, and with what."""
        self._pause: float | None = None
        """Seconds before the next start; None where there were too many failures."""
        self._task: asyncio.Task[None] | None = None

    @property
    def policy(self) -> Restart:
        """What holds for members that declare no policy of their own."""
        return self._intensity.policy

    def join(self, cell: Cell) -> None:
        """Take a member that has started; does nothing for one that was restarted."""
        if cell not in self._members:
            self._members.append(cell)

    async def leave(self, cell: Cell) -> None:
        """Leave a member alone from now on; what goes on with the others goes on."""
        if cell in self._members:
            self._members.remove(cell)
        self._down.pop(cell, None)
        task = self._task
        if task is None or task.done():
            return
        task.cancel()
        # A started that swallows its cancellation must not keep everybody waiting.
        await asyncio.wait([task], timeout=STOP_WITHIN)
        if self._task is task and self._affected():
            self._task = asyncio.create_task(self._recover(None), name="recovery")

    def failed(self, cell: Cell, error: Exception) -> None:
        """Do what the member's policy says about an exception of a handler, or of a child."""
        if cell.life.is_over:
            return
        verdict = cell.policy.verdict(error)
        if verdict == "resume":
            return
        cell.halt()
        if verdict == "restart":
            self._begin(cell, error)
            return
        failure = _failure(f"{cell.address} has stopped: it failed with {_said(error)}", error)
        if verdict == "escalate":
            self._abandon(cell, failure)
        else:
            _logger.error("%s", failure)
            cell.ends(failure)

    def renew(self, cell: Cell) -> None:
        """Restart a member that has stopped itself; the handlers beside finish first."""
        if not cell.life.is_over:
            cell.halt(let_finish=True)
            self._begin(cell, None)

    def _begin(self, cell: Cell, error: Exception | None) -> None:
        self._count(cell, error)
        previous = self._task
        if previous is not None:
            previous.cancel()
        self._task = asyncio.create_task(self._recover(previous), name="recovery")

    def _count(self, cell: Cell, error: Exception | None) -> None:
        self._down[cell] = error
        self._cause = (cell, error)
        self._pause = self._intensity.pause(asyncio.get_running_loop().time())

    def _abandon(self, cell: Cell, failure: AgentFailed) -> None:
        # They all end now, and whoever fails meanwhile is not restarted.
        self._members.clear()
        self._give_up(cell, failure)

    def _affected(self) -> list[Cell]:
        """Give the members to restart: who failed, whom that takes along, and whom a restart left halted."""
        affected = [cell for cell in self._members if cell in self._down or cell.life.is_over]
        if not self._down or not affected:
            return affected
        return self._members[0 if self._reaches_back else self._members.index(affected[0]) :]

    async def _recover(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None:
            await asyncio.wait([previous])
        while affected := self._affected():
            await self._halt(affected)
            cell, error = self._cause
            if self._pause is None:
                self._abandon(cell, _failure(f"{cell.address} has stopped: {self._too_often(error)}", error))
                return
            _logger.warning("%s starts again in %.2g s after %s", cell.address, self._pause, _said(error))
            await asyncio.sleep(self._pause)
            if await self._start(affected):
                self._down.clear()
                self._intensity.began(asyncio.get_running_loop().time())

    def _too_often(self, error: Exception | None) -> str:
        limit, within = self.policy.limit, self.policy.within
        if not limit:
            return f"it failed with {_said(error)}"
        return f"it failed {limit + 1} times within {within:g} s, last with {_said(error)}"

    async def _halt(self, affected: list[Cell]) -> None:
        for cell in reversed(affected):
            if cell not in self._down:
                cell.halt()
        for cell in reversed(affected):
            # The handlers beside one that called ctx.stop() may finish.
            stopped_itself = cell in self._down and self._down[cell] is None
            try:
                await cell.end_life(DRAIN if stopped_itself else 0.0)
            except Exception:
                _logger.exception("%s failed in stopped", cell.address)

    async def _start(self, affected: list[Cell]) -> bool:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        for cell in affected:
            try:
                await cell.renew()
            except (Exception, asyncio.CancelledError) as raised:
                if task.cancelling():
                    raise
                # What is left is a started that waited for something which was cancelled.
                error = raised if isinstance(raised, Exception) else RuntimeError("started was cancelled")
                _logger.exception("%s failed to start again", cell.address)
                self._count(cell, error)
                return False
            if task.cancelling():
                # A started has swallowed it, and whoever cancelled this has gone on without it.
                raise asyncio.CancelledError
        return True


def _said(error: Exception | None) -> str:
    return "ctx.stop()" if error is None else str(RemoteError.of(error))


def _failure(text: str, error: Exception | None) -> AgentFailed:
    failure = AgentFailed(f"{text.rstrip('.')}.")
    failure.__cause__ = error
    return failure
