"""The caller's end of a link: what is under way to one replica, and how each message ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from copy import copy
from typing import Any

from slim_actors import wire
from slim_actors.batches import Problem
from slim_actors.errors import (
    Busy,
    DeliveryError,
    Denied,
    MalformedMessage,
    PeerLost,
    Stopped,
    TooLarge,
    from_wire,
)
from slim_actors.limits import BATCH_BYTES, Limits
from slim_actors.link import Link
from slim_actors.messages import same_type
from slim_actors.names import Address
from slim_actors.owner import Takes, one_by_one
from slim_actors.pulse import Pulse
from slim_actors.routing.expiry import Expiry
from slim_actors.routing.outgoing import Chunk, Outgoing, Pending, Unread
from slim_actors.routing.window import Window
from slim_actors.streams import Inlet, Outlet
from slim_actors.transport.base import Payload, Session

__all__ = ["Peer"]

_FIRST_WINDOW = 256
"""Messages that may be under way before the agent's hello has said how many."""
_MOST_LEFT = 256
"""Flows of which it is said again after an outage that they are over."""
_SEND_AGAIN_AFTER = 0.5
"""Seconds: both ends of a session come back from an outage, and each says so."""


class Peer:
    """One replica, as one caller speaks with it.

    Args:
        session: A session to it.
        pulse: Who watches whether it is alive.
        limits: How much its answers may bring.
    """

    def __init__(self, session: Session, pulse: Pulse, limits: Limits) -> None:
        self._loop = asyncio.get_running_loop()
        # Without encryption only what it says proves who answers: so nothing is sent before its hello.
        self._window = Window(_FIRST_WINDOW if session.mls else 0, self._send)
        self._expiry = Expiry(self._window)
        # The same that the window has: each message looks here.
        self._pending = self._window.pending
        self._idempotent: frozenset[str] = frozenset()
        self.uses = 0
        """See `Replica.uses`."""
        self.last_used = 0
        self.was_greeted = False
        """Whether it has said hello."""
        self._cut_short: deque[int] = deque(maxlen=_MOST_LEFT)
        """The last messages with flows that were cancelled: the word of it may be lost in an outage."""
        self._sent_again_at = float("-inf")
        self.is_lost = False
        """Whether nothing can be sent to it any more."""
        self.news: Callable[[], None] = _nobody
        """Called when it says that another replica has come."""
        self.is_leaving = False
        """Whether the replica said that it is stopping."""
        self._refusal: DeliveryError | None = None
        self.takes: Takes = {
            wire.Reply: self._replied,
            wire.Accepted: one_by_one(self._accepted),
            wire.Error: one_by_one(self._failed),
            wire.Item: one_by_one(self._flowed),
            wire.Items: one_by_one(self._flowed),
            wire.End: one_by_one(self._flowed),
            wire.Grant: one_by_one(self._granted),
            wire.Credit: one_by_one(self._credited_more),
            wire.Leaving: one_by_one(self._left),
            wire.Newcomer: one_by_one(self._told),
            wire.Hello: one_by_one(self._greeted),
        }
        """See `LinkOwner.takes`."""
        self._link = Link(session, self, pulse, limits)

    @property
    def address(self) -> Address:
        """Who it is."""
        return self._link.peer

    @property
    def outstanding(self) -> int:
        """How many messages have no outcome yet, those too that wait for the hello."""
        return len(self._window)

    async def is_there(self) -> bool:
        """See `Link.is_there`."""
        return await self._link.is_there()

    @property
    def last_heard(self) -> float:
        """When it last gave a sign of life, on the clock of the event loop."""
        return self._link.last_heard

    def is_idempotent(self, wire_type: str) -> bool:
        """Tell whether the replica said that messages of this type may be handled twice."""
        return "*" in self._idempotent or any(same_type(known, wire_type) for known in self._idempotent)

    async def deliver(self, message: Outgoing) -> Any:
        """Send a message and wait for its outcome: the reply, or None for one that wants no reply.

        Cancelling this cancels the message at the replica.

        Raises:
            DeliveryError: The outcome is not a reply.
        """
        pending = self._begin(message)
        try:
            return await pending.outcome
        except Unread as unread:
            return message.read(unread.reply)
        finally:
            if pending.pump is None:
                if not pending.has_reply:
                    self._end_of(pending)
            else:
                await self._finish(pending)

    @property
    def max_payload(self) -> int:
        """How many bytes one message may have."""
        return self._link.max_payload

    def tell(self, chunk: Chunk) -> None:
        """Send tells, together as far as there is room; `told` must follow each, at their deadline too."""
        if self.is_lost:
            chunk.end(error=self.lost(may_have_run=False))
            return
        self._window.put_chunk(chunk)

    def told(self, chunk: Chunk, ids: Sequence[int]) -> None:
        """Give back the places of tells that have ended; those that are late are cancelled at the replica."""
        if chunk.is_late or chunk.size > BATCH_BYTES:
            # However short it is: it may be behind a long one, and must not go out after its cancels.
            self._link.forget(chunk.message.id)
        was_sent = self._window.remove_some(chunk, len(ids))
        if self.is_leaving:
            self._leave_if_done()
        if was_sent and chunk.is_late:
            for message_id in ids:
                self._link.send(wire.Cancel(message_id))

    async def stream(self, message: Outgoing) -> Inlet:
        """Send a message that wants a stream; give the replies once the first has come, or their end.

        `finish` must follow.

        Raises:
            DeliveryError: It ended before a reply came.
        """
        pending = self._begin(message)
        try:
            await pending.outcome
        except BaseException:
            await self._finish(pending)
            raise
        assert pending.inlet is not None, "a stream has an inlet"
        return pending.inlet

    async def finish(self, message: Outgoing) -> None:
        """End a stream, whether it was read to its end or not."""
        pending = self._pending.get(message.id)
        if pending is not None:
            await self._finish(pending)

    def resend(self) -> None:
        """Send again what has no outcome, after an outage in which it may have been lost.

        The replica remembers ids, so it runs nothing twice. A flow of items cannot be sent again: it ends,
        and the replica is told so, as it is of those that were left meanwhile, or they would go on for ever.
        """
        if not self.was_greeted and not self._link.mls:
            # Its hello may be lost, and without one nothing is ever sent.
            self._link.end("the network was away before it said hello")
        for pending in list(self._pending.values()):
            if pending.has_flows:
                pending.end(
                    error=PeerLost(f"The network was away while items went to and fro with {self.address}.")
                )
                self._cut_short.append(pending.message.id)
        for message_id in self._cut_short:
            self._link.send(wire.Cancel(message_id))
        self._send_again()

    def _send_again(self) -> None:
        now = self._loop.time()
        if now - self._sent_again_at < _SEND_AGAIN_AFTER:
            return
        self._sent_again_at = now
        for pending in list(self._pending.values()):
            if not pending.has_flows and not pending.outcome.done():
                self._link.forget(pending.message.id)
                for frame in pending.frames(now):
                    self._link.send(frame)

    async def close(self) -> None:
        """End the conversation; what has no outcome is lost."""
        await self._link.close()

    def problem(self, problem: Problem) -> None:
        """See `LinkOwner.problem`."""
        text = f"The answer of {self.address} cannot be taken: {problem.reason}"
        self._window.end(problem.id, from_wire(problem.code, text, {"may_have_run": True}))
        if problem.id:
            # Whatever else belongs to it need not be sent.
            self._link.send(wire.Cancel(problem.id))

    def plain(self, payload: Payload) -> None:
        """See `LinkOwner.plain`."""
        text = f"{self.address} answered in plain bytes: use Unicast({self.address.name!r}, wire='bytes')."
        error = MalformedMessage(text)
        error.may_have_run = True
        self._end_all(error)

    def closed(self) -> None:
        """See `LinkOwner.closed`."""
        self.is_lost = True
        self._expiry.close()
        self._window.close()
        for pending in list(self._window):
            pending.end(error=self.lost(may_have_run=self._window.is_sent(pending)))

    def lost(self, *, may_have_run: bool) -> DeliveryError:
        """See `Link.lost`."""
        return copy(self._refusal) or self._link.lost(may_have_run=may_have_run)

    def _begin(self, message: Outgoing) -> Pending:
        if self.is_lost:
            raise self.lost(may_have_run=False)
        pending = Pending(message, self._loop.create_future())
        if message.kind is wire.Stream:
            pending.inlet = Inlet(
                message.replies, lambda total: self._grant(message.id, total), f"the stream of {self.address}"
            )
        if message.items is not None:
            pending.outlet = Outlet(self._link, message.id)
            pending.context = copy_context()
        self._window.put(pending)
        if message.expires < self._expiry.horizon:
            self._expiry.watch(message)
        return pending

    def _send(self, pending: Pending) -> int:
        return len(self._link.send(pending.message.frame(self._loop.time())))

    async def _finish(self, pending: Pending) -> None:
        self._end_of(pending)
        if pending.pump is not None and not pending.pump.done():
            pending.pump.cancel()
            await asyncio.wait([pending.pump])

    def _end_of(self, pending: Pending) -> None:
        self._link.forget(pending.message.id)
        was_sent = self._window.remove(pending)
        if self.is_leaving:
            self._leave_if_done()
        # Whoever waits for the outcome and is cancelled cancels the future with it.
        outcome = pending.outcome
        unfinished = pending.inlet is not None and not pending.inlet.is_over
        if was_sent and (unfinished or pending.is_late or not outcome.done() or outcome.cancelled()):
            self._link.send(wire.Cancel(pending.message.id))
            if pending.has_flows:
                self._cut_short.append(pending.message.id)

    def _leave_if_done(self) -> None:
        # The agent waits for this before it closes the door, so that nothing of ours is on its way then.
        if self.is_leaving and not self._window:
            self._link.end("it is stopping")

    def _grant(self, message_id: int, total: int) -> None:
        self._link.send(wire.Grant(message_id, total))

    def _replied(self, frames: Sequence[wire.Reply]) -> None:
        has_long = self._link.has_long
        for frame in frames:
            pending = self._window.replied(frame.id)
            if pending is None:
                # Of what has its outcome, or wants no reply.
                self._window.end(frame.id)
                continue
            if has_long:
                # Whatever else belongs to it need not be sent, nor itself once more, behind others.
                self._link.forget(frame.id)
            try:
                pending.end(pending.message.replies.decode(frame.body))
            except BaseException as error:
                # Whatever it is, also of the user's own class: it is no end of those who wait for others.
                pending.end(error=Unread(frame.body))
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
        if self.is_leaving:
            self._leave_if_done()

    def _accepted(self, frame: wire.Accepted) -> None:
        if not all(self._window.accepted(first, count) for first, count in frame.runs):
            self._link.end("it says of more messages than it was sent that they were accepted")

    def _flowed(self, frame: wire.Item | wire.Items | wire.End) -> None:
        pending = self._pending.get(frame.id)
        if pending is not None and pending.inlet is not None:
            pending.inlet.take_in(frame)
            pending.end()

    def _granted(self, frame: wire.Grant) -> None:
        pending = self._pending.get(frame.id)
        if pending is not None:
            pending.grant(frame.total, self._link.send)

    def _credited_more(self, frame: wire.Credit) -> None:
        self._window.credit(frame.total)

    def _greeted(self, frame: wire.Hello) -> None:
        if self.was_greeted:
            # It was cut off for a while. How long, and what it has missed, nobody here has seen.
            self._send_again()
        self.was_greeted = True
        self._link.max_payload = frame.most_payload
        if not self._window.sent and not self._window:
            # So that the agent hears something that makes sense, however late the first message comes.
            self._link.send(wire.Ping())
        self._idempotent = frozenset(frame.idempotent)
        self._window.resize(frame.window, frame.most_bytes)

    def _told(self, frame: wire.Newcomer) -> None:
        self.news()

    def _left(self, frame: wire.Leaving) -> None:
        self.is_leaving = True
        self._leave_if_done()

    def _failed(self, frame: wire.Error) -> None:
        error = from_wire(frame.code, frame.message, frame.detail)
        if frame.id:
            # Also where it is `Stopped`: that may be the word of another agent to which it forwarded.
            self._window.end(frame.id, error)
            return
        # About all that has no outcome: nobody knows which, and so whether some of it runs.
        error.may_have_run = error.may_have_run or isinstance(error, MalformedMessage | TooLarge)
        if isinstance(error, Stopped):
            self.is_leaving = True
            # What waits has not run either, and must not go out to nobody as room is made for it.
            self._window.close()
        self._end_lost(frame.detail)
        self._end_all(error)
        if isinstance(error, Busy | Denied):
            # About the session, which the agent does not want.
            self._refusal = error
            self._link.end(frame.message, type(error))
        elif isinstance(error, Stopped):
            self._link.end("it has stopped")

    def _end_lost(self, detail: dict[str, Any] | None) -> None:
        """End what came to an agent that has stopped: its outcome, whatever it was, did not come here."""
        came = (detail or {}).get("came")
        for message_id in came if isinstance(came, list) else ():
            if isinstance(message_id, int):
                error = PeerLost(f"{self.address} has stopped, and its outcome of the message was lost.")
                self._window.end(message_id, error)

    def _end_all(self, error: DeliveryError) -> None:
        for pending in list(self._pending.values()):
            pending.end(error=copy(error))


def _nobody() -> None: ...
