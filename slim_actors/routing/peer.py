"""The caller's end of a link: what is under way to one replica, and how each message ends."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from attrs import define, frozen
from msgspec import Raw

from slim_actors import wire
from slim_actors.errors import DeliveryError, MalformedMessage, PeerLost, Stopped, from_wire
from slim_actors.link import Link, Pulse
from slim_actors.names import Address
from slim_actors.transport.base import Payload, Session

__all__ = ["Outgoing", "Peer"]

_FIRST_WINDOW = 256
"""Messages that may be under way before the agent's hello has said how many."""


@frozen
class Outgoing:
    """One message as it is sent, to one replica or, on a retry, to another."""

    id: int
    type: str
    body: Any
    expires: float
    """On the clock of the event loop, in seconds."""
    wants_reply: bool

    def frame(self, now: float) -> wire.Frame:
        """Make the frame; the deadline travels as what is left of it."""
        kind = wire.Ask if self.wants_reply else wire.Tell
        return kind(self.id, self.type, self.body, max(0.0, self.expires - now))


@define(eq=False)
class _Pending:
    message: Outgoing
    outcome: asyncio.Future[Any]


class Peer:
    """One replica, as one caller speaks with it.

    Args:
        session: A session to it.
        pulse: Who watches whether it is alive.
    """

    def __init__(self, session: Session, pulse: Pulse) -> None:
        self._pending: dict[int, _Pending] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._window = _FIRST_WINDOW
        self._sent = 0
        self._credited = 0
        self._idempotent: frozenset[str] = frozenset()
        self._loss: str | None = None
        self.last_used = 0
        self.is_leaving = False
        """Whether the replica said that it is stopping."""
        self._link = Link(session, self, pulse)

    @property
    def address(self) -> Address:
        """Who it is."""
        return self._link.peer

    @property
    def outstanding(self) -> int:
        """How many messages have no outcome yet."""
        return len(self._pending) + len(self._waiting)

    @property
    def busy(self) -> bool:
        """See `LinkOwner.busy`."""
        return bool(self._pending)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent to it any more."""
        return self._loss is not None

    def is_idempotent(self, wire_type: str) -> bool:
        """Tell whether the replica said that messages of this type may be handled twice."""
        return wire_type in self._idempotent or "*" in self._idempotent

    async def deliver(self, message: Outgoing) -> Any:
        """Send a message and wait for its outcome: the raw reply, or None for one that wants no reply.

        Cancelling this cancels the message at the replica.

        Raises:
            DeliveryError: The outcome is not a reply.
        """
        await self._credit()
        loop = asyncio.get_running_loop()
        pending = _Pending(message, loop.create_future())
        self._link.send(message.frame(loop.time()))
        self._sent += 1
        self._pending[message.id] = pending
        try:
            return await pending.outcome
        except asyncio.CancelledError:
            self._link.send(wire.Cancel(message.id))
            raise
        finally:
            del self._pending[message.id]
            self._admit()

    @property
    def _room(self) -> int:
        # What has its outcome is no longer waiting at the door, whatever the last credit said.
        return self._window - min(self._sent - self._credited, len(self._pending))

    def resend(self) -> None:
        """Send again what has no outcome, after an outage in which it may have been lost.

        The replica remembers ids, so it runs nothing twice.
        """
        now = asyncio.get_running_loop().time()
        for pending in list(self._pending.values()):
            if not pending.outcome.done():
                self._link.send(pending.message.frame(now))

    async def close(self) -> None:
        """End the conversation; what has no outcome is lost."""
        await self._link.close()

    def frame(self, frame: wire.Frame) -> None:
        """See `LinkOwner.frame`."""
        match frame:
            case wire.Reply():
                self._end(frame.id, result=frame.body)
            case wire.Error():
                self._failed(frame)
            case wire.Accepted():
                for message_id in frame.ids:
                    self._end(message_id, result=None)
            case wire.Credit():
                self._credited = max(self._credited, min(frame.total, self._sent))
                self._admit()
            case wire.Hello():
                self._window = max(1, frame.window)
                self._idempotent = frozenset(frame.idempotent)
                self._admit()
            case _:
                pass

    def problem(self, problem: wire.Problem) -> None:
        """See `LinkOwner.problem`."""
        error = MalformedMessage(f"The answer of {self.address} cannot be read: {problem.reason}.")
        self._end(problem.id, error=error)

    def plain(self, payload: Payload) -> None:
        """See `LinkOwner.plain`."""
        del payload
        error = MalformedMessage(
            f"{self.address} answered in plain bytes: use Unicast({self.address.name!r}, wire='bytes')."
        )
        for message_id in list(self._pending):
            self._end(message_id, error=error)

    def closed(self, reason: str) -> None:
        """See `LinkOwner.closed`."""
        self._loss = f"{self.address} is lost: {reason}."
        for pending in self._pending.values():
            if not pending.outcome.done():
                pending.outcome.set_exception(PeerLost(self._loss))
        self._admit()

    def lost(self, *, may_have_run: bool) -> PeerLost:
        """Make the error that says so."""
        error = PeerLost(self._loss or f"{self.address} is lost.")
        error.may_have_run = may_have_run
        return error

    async def _credit(self) -> None:
        while not self.is_lost and self._room <= 0:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._admit()
                raise
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
        if self.is_lost:
            raise self.lost(may_have_run=False)

    def _admit(self) -> None:
        free = len(self._waiting) if self.is_lost else self._room
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def _failed(self, frame: wire.Error) -> None:
        error = from_wire(frame.code, frame.message, frame.detail)
        self.is_leaving = self.is_leaving or isinstance(error, Stopped)
        if frame.id:
            self._end(frame.id, error=error)
            return
        # About the payload as a whole: nobody knows whose message was in it.
        for message_id in list(self._pending):
            self._end(message_id, error=error)

    def _end(self, message_id: int, *, result: Raw | None = None, error: DeliveryError | None = None) -> None:
        pending = self._pending.get(message_id)
        if pending is None or pending.outcome.done():
            return
        if error is not None:
            pending.outcome.set_exception(error)
        else:
            pending.outcome.set_result(result)
