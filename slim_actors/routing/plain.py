"""The caller's end of a session with a peer that speaks plain bytes.

Such a peer gives no ids back, so there is one message under way at a time, and the next payload is its
answer. After a time-out that rule no longer holds (the late answer would be taken for the next one's), so
the conversation ends there.
"""

from __future__ import annotations

import asyncio

from slim_actors.batches import Problem
from slim_actors.errors import DeliveryError, MalformedMessage
from slim_actors.link import Link
from slim_actors.names import Address
from slim_actors.owner import Takes
from slim_actors.pulse import Pulse
from slim_actors.routing.outgoing import Outgoing
from slim_actors.streams import Inlet
from slim_actors.transport.base import Payload, Session

__all__ = ["PlainPeer"]


class PlainPeer:
    """One replica that speaks plain bytes. See `Peer`, of which this has the same methods."""

    was_greeted = True
    """See `Peer.was_greeted`: such a peer says no hello, and none is waited for."""

    def __init__(self, session: Session, pulse: Pulse) -> None:
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[bytes] | None = None
        self.takes: Takes = {}
        """See `LinkOwner.takes`: such a peer sends no frames."""
        self._link = Link(session, self, pulse)

    @property
    def last_heard(self) -> float:
        """See `Peer.last_heard`."""
        return self._link.last_heard

    @property
    def address(self) -> Address:
        """Who it is."""
        return self._link.peer

    @property
    def outstanding(self) -> int:
        """See `LinkOwner.outstanding`."""
        return 0 if self._answer is None else 1

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent to it any more."""
        return self._link.is_over

    async def deliver(self, message: Outgoing) -> bytes:
        """Send bytes and wait for the next payload."""
        if not message.wants_reply:
            raise MalformedMessage(
                "A peer that speaks plain bytes cannot be told something: its answer to that would be taken "
                "for the answer to the next ask. Ask it instead."
            )
        data = _bytes_of(message.body)
        async with self._turn:
            if self.is_lost:
                raise self.lost(may_have_run=False)
            self._answer = asyncio.get_running_loop().create_future()
            try:
                self._link.send_plain(data)
                return await self._answer
            except asyncio.CancelledError:
                self._link.end("an answer in plain bytes was not waited for")
                raise
            finally:
                self._answer = None

    async def stream(self, message: Outgoing) -> Inlet:
        """Refuse: nothing in plain bytes says which payload is the last."""
        raise MalformedMessage(
            f"{message.type} wants a stream, which a peer that speaks plain bytes cannot give."
        )

    async def finish(self, message: Outgoing) -> None:
        """Do nothing: there are no streams."""

    def resend(self) -> None:
        """Do nothing: a peer that knows no ids would take it for another message."""

    async def close(self) -> None:
        """End the conversation."""
        await self._link.close()

    def problem(self, problem: Problem) -> None:
        """See `LinkOwner.problem`: such a peer sends none."""

    def plain(self, payload: Payload) -> None:
        """See `LinkOwner.plain`."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(payload.data)

    def closed(self) -> None:
        """See `LinkOwner.closed`."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self.lost(may_have_run=True))

    def lost(self, *, may_have_run: bool) -> DeliveryError:
        """See `Link.lost`."""
        return self._link.lost(may_have_run=may_have_run)


def _bytes_of(body: object) -> bytes:
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes):
        return body
    raise MalformedMessage(
        f"A peer that speaks plain bytes can be sent bytes or str, not {type(body).__name__}."
    )
