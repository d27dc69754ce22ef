"""A watch over an instance somewhere on the network: a session whose loss is the signal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from slim_actors import wire
from slim_actors.batches import Problem
from slim_actors.errors import DeliveryError, from_wire
from slim_actors.link import Link
from slim_actors.names import Address
from slim_actors.owner import Takes, one_by_one
from slim_actors.pulse import Pulse
from slim_actors.transport.base import Payload, Session

__all__ = ["Watch"]


class Watch:
    """Calls back once, when the instance at the other end has ended or says that it is leaving.

    Args:
        session: A session to it.
        pulse: Who looks whether it is alive.
        ended: Called with the reason, if `begun` has returned.
    """

    outstanding = 1
    """See `LinkOwner.outstanding`: a sign of life is always expected."""

    def __init__(self, session: Session, pulse: Pulse, ended: Callable[[str], None]) -> None:
        self._ended: Callable[[str], None] | None = ended
        self._greeting: asyncio.Future[DeliveryError | None] = asyncio.get_running_loop().create_future()
        self.takes: Takes = {
            wire.Hello: one_by_one(self._greeted),
            wire.Error: one_by_one(self._failed),
            wire.Leaving: one_by_one(self._left),
        }
        """See `LinkOwner.takes`."""
        self._link = Link(session, self, pulse)

    @property
    def address(self) -> Address:
        """Who is watched."""
        return self._link.peer

    async def begun(self) -> None:
        """Wait until the instance has said hello: then it is known who it is, and that it is there.

        Raises:
            DeliveryError: It refused the session, or is gone already.
        """
        try:
            error = await self._greeting
        except asyncio.CancelledError:
            self.stop()
            raise
        if error is not None:
            self.stop()
            raise error

    def stop(self) -> None:
        """Watch no longer, and call nobody back."""
        self._ended = None
        self._link.end("it is watched no longer")

    def problem(self, problem: Problem) -> None:
        """See `LinkOwner.problem`."""

    def plain(self, payload: Payload) -> None:
        """See `LinkOwner.plain`."""

    def closed(self) -> None:
        """See `LinkOwner.closed`."""
        lost = self._link.lost(may_have_run=False)
        self._greet(lost)
        self._over(str(lost))

    def _greeted(self, _: wire.Hello) -> None:
        # It expects to hear something that makes sense.
        self._link.send(wire.Ping())
        self._greet(None)

    def _failed(self, frame: wire.Error) -> None:
        if not frame.id:
            self._greet(from_wire(frame.code, frame.message, frame.detail))

    def _left(self, _: wire.Leaving) -> None:
        self._over("it is stopping")
        self._link.end("it is stopping")

    def _greet(self, error: DeliveryError | None) -> None:
        if not self._greeting.done():
            self._greeting.set_result(error)

    def _over(self, reason: str) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(reason)
