"""The agent's end of its sessions: frames become envelopes in the mailbox, outcomes become frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import Any

import msgspec

from slim_actors import wire
from slim_actors.cell import Cell
from slim_actors.declaration import Handler
from slim_actors.errors import (
    Busy,
    DeliveryError,
    Denied,
    MalformedMessage,
    RemoteError,
    TooLarge,
    UnhandledMessage,
    to_wire,
)
from slim_actors.link import Link, Pulse
from slim_actors.mailbox import Envelope, State
from slim_actors.outcomes import Outcomes
from slim_actors.speaker import DEFAULT_TIMEOUT
from slim_actors.streams import ITEMS_AHEAD, Inlet, Outlet
from slim_actors.transport.base import MAX_PAYLOAD, Payload, Port, Session, SessionClosed

__all__ = ["WINDOW", "Inbound"]

WINDOW = 1024
"""Messages that each caller may have under way which the mailbox has not accepted yet."""

_CREDIT_EVERY = WINDOW // 4
_RETRY_AFTER = 0.1
_GOODBYE_WITHIN = 1.0
_LONGEST_TTL = 7 * 24 * 3600.0


class Inbound:
    """Accepts the sessions of one instance.

    Args:
        port: Where callers find the instance.
        cell: Who handles the messages.
        pulse: Who watches whether callers are alive.
    """

    def __init__(self, port: Port, cell: Cell, pulse: Pulse) -> None:
        self._port = port
        self._cell = cell
        self._pulse = pulse
        self._outcomes = Outcomes()
        self._conversations: set[_Conversation] = set()
        self._acceptor = asyncio.create_task(self._accept(), name=f"accept {port.address}")

    def say_leaving(self) -> None:
        """Tell all callers to send their next messages elsewhere."""
        for conversation in self._conversations:
            conversation.say_leaving()

    async def farewell(self) -> None:
        """Wait a moment for callers that know the instance is leaving to end their conversations.

        They do when they have all their outcomes, so nothing is on its way when the last door closes.
        """
        framed = [conversation for conversation in self._conversations if conversation.link.framed]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_WITHIN):
                await asyncio.gather(*(conversation.ended.wait() for conversation in framed))

    async def close(self) -> None:
        """End all conversations, and accept no more."""
        self._acceptor.cancel()
        await asyncio.wait([self._acceptor])
        closing = (conversation.link.close() for conversation in list(self._conversations))
        await asyncio.gather(*closing, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                session = await self._port.accept()
            except SessionClosed:
                return
            self._conversations.add(
                _Conversation(session, self._cell, self._outcomes, self._pulse, self._conversations)
            )


class _Conversation:
    """One caller's session."""

    def __init__(
        self,
        session: Session,
        cell: Cell,
        outcomes: Outcomes,
        pulse: Pulse,
        conversations: set[_Conversation],
    ) -> None:
        self._cell = cell
        self._outcomes = outcomes
        self._conversations = conversations
        self._open: dict[int, Envelope] = {}
        self._received = 0
        self._taken = 0
        self._credited = 0
        self._plain = _PlainOrigin(self)
        self._plain_ids = 0
        self.ended = asyncio.Event()
        self.link = Link(session, self, pulse)
        if session.framed:
            self.link.send(wire.Hello(wire.VERSION, WINDOW, cell.declaration.idempotent))
            if cell.is_draining:
                self.say_leaving()

    def say_leaving(self) -> None:
        """Tell the caller to send its next messages elsewhere."""
        if self.link.framed:
            self.link.send(wire.Leaving())

    async def room(self) -> None:
        """See `Origin.room`."""
        await self.link.room()

    @property
    def busy(self) -> bool:
        """See `LinkOwner.busy`: a caller that is gone must not keep handlers running."""
        return bool(self._open)

    def frame(self, frame: wire.Frame) -> None:
        """See `LinkOwner.frame`."""
        match frame:
            case wire.Ask() | wire.Tell() | wire.Stream():
                self._message(frame)
            case wire.Item():
                envelope = self._open.get(frame.id)
                if envelope is not None and envelope.inlet is not None:
                    envelope.inlet.item(frame.number, frame.body)
            case wire.End():
                envelope = self._open.get(frame.id)
                if envelope is not None and envelope.inlet is not None:
                    envelope.inlet.end(frame.count)
            case wire.Grant():
                envelope = self._open.get(frame.id)
                if envelope is not None and envelope.outlet is not None:
                    envelope.outlet.grant(frame.total)
            case wire.Cancel():
                envelope = self._open.get(frame.id)
                if envelope is not None:
                    self._cell.cancel(envelope)
            case _:
                pass

    def problem(self, problem: wire.Problem) -> None:
        """See `LinkOwner.problem`."""
        self.link.send(
            wire.Error(problem.id, MalformedMessage.code, f"A frame cannot be read: {problem.reason}.")
        )

    def plain(self, payload: Payload) -> None:
        """See `LinkOwner.plain`: a peer without our wire format is answered in plain bytes."""
        untyped = self._cell.declaration.untyped
        self._plain_ids -= 1
        expires = _expires(DEFAULT_TIMEOUT)
        envelope = Envelope(self._plain_ids, payload.data, untyped, self.link.peer, expires, self._plain)
        self._open[envelope.id] = envelope
        self._plain.expect(envelope)
        self._receive(envelope)

    def closed(self) -> None:
        """See `LinkOwner.closed`: nobody waits any more for what this caller asked."""
        self._conversations.discard(self)
        self.ended.set()
        for envelope in list(self._open.values()):
            if envelope.origin in (self, self._plain):
                # No outcome to remember: whoever asks again under the same id asks anew.
                self._outcomes.forget(envelope)
                self._cell.cancel(envelope)

    def accepted(self, envelope: Envelope) -> None:
        """See `Origin.accepted`."""
        self.taken()
        if not envelope.wants_reply and envelope.state is State.WAITING:
            # From here on the message is the agent's: neither its caller's end nor its cancel concerns it.
            self._open.pop(envelope.id, None)
            self._outcomes.end(envelope, self.link.send(wire.Accepted([envelope.id])))

    def replied(self, envelope: Envelope, value: Any) -> None:
        """See `Origin.replied`."""
        if not envelope.wants_reply:
            return
        self._open.pop(envelope.id, None)
        try:
            frame = self._last(envelope, value)
        except TooLarge as error:
            error.may_have_run = True
            frame = self._error(envelope.id, error)
        except Exception as error:  # noqa: BLE001 (encoding runs code of the user's classes)
            frame = self._error(envelope.id, RemoteError.of(TypeError(f"the reply cannot be sent: {error}")))
        self._outcomes.end(envelope, frame)

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """See `Origin.failed`."""
        if self._open.pop(envelope.id, None) is None:
            return
        if not envelope.was_accepted:
            self.taken()
        self._outcomes.end(envelope, self._error(envelope.id, error))

    def done(self, envelope: Envelope) -> None:
        """Take note that a message has its outcome."""
        self._open.pop(envelope.id, None)

    def taken(self) -> None:
        """Count a message that no longer waits at the door; the caller gets credit for the next ones."""
        self._taken += 1
        if self._taken - self._credited >= _CREDIT_EVERY and self.link.framed:
            self._credited = self._taken
            self.link.send(wire.Credit(self._taken))

    def _last(self, envelope: Envelope, value: Any) -> bytes:
        """Send the frame that ends a message well."""
        outlet = envelope.outlet
        if outlet is None:
            return self.link.send(wire.Reply(envelope.id, value))
        if envelope.handler is not None and not envelope.handler.streams and value is not None:
            # A handler that returns makes a stream of one.
            self._send_item(envelope.id, outlet.count, value)
            outlet.count += 1
        return self.link.send(wire.End(envelope.id, outlet.count))

    def _send_item(self, message_id: int, number: int, value: Any) -> None:
        self.link.send(wire.Item(message_id, number, value))

    def _grant(self, message_id: int, total: int) -> None:
        self.link.send(wire.Grant(message_id, total))

    def _message(self, frame: wire.Incoming) -> None:
        seen = self._outcomes.find(self.link.peer, frame.id)
        if isinstance(seen, bytes):
            self.link.send_encoded(seen)
        elif seen is not None:
            # Sent again while it is under way: its outcome goes to where it was sent from last.
            seen.origin = self
            self._open[frame.id] = seen
        else:
            found = self._cell.declaration.find(frame.type)
            envelope = Envelope(
                frame.id, None, found, self.link.peer, _expires(frame.ttl), self, frame.context or {}
            )
            envelope.wants_reply = not isinstance(frame, wire.Tell)
            self._prepare_flows(envelope, frame)
            self._outcomes.begin(envelope)
            self._open[frame.id] = envelope
            self._receive(envelope, frame)

    def _prepare_flows(self, envelope: Envelope, frame: wire.Incoming) -> None:
        found = envelope.handler
        if isinstance(frame, wire.Stream):
            outlet = Outlet(lambda number, value: self._send_item(frame.id, number, value), frame.granted)
            envelope.outlet = outlet
        if found is None or found.items_body is None:
            return
        envelope.inlet = Inlet(found.items_body, lambda total: self._grant(frame.id, total), frame.type)
        if isinstance(frame, wire.Tell) or not frame.items:
            envelope.inlet.end(0)
        else:
            self._grant(frame.id, ITEMS_AHEAD)

    def _receive(self, envelope: Envelope, frame: wire.Incoming | None = None) -> None:
        self._received += 1
        found: Handler | None = envelope.handler
        accepts = self._cell.declaration.accepts
        if self._cell.agent.require_mls and not self.link.mls:
            envelope.fail(
                Denied("This agent takes messages from end-to-end encrypted sessions only (mls=True).")
            )
        elif self._received - self._taken > 2 * WINDOW:
            envelope.fail(Busy(f"{2 * WINDOW} messages of this caller wait already.", _RETRY_AFTER))
        elif found is None and frame is not None:
            envelope.fail(
                UnhandledMessage(f"There is no handler for {frame.type[:200]}; this agent takes {accepts}.")
            )
        elif found is None:
            envelope.fail(UnhandledMessage(f"This agent does not take plain bytes; it takes {accepts}."))
        elif found.streams and envelope.outlet is None:
            what = "plain bytes" if frame is None else frame.type
            envelope.fail(UnhandledMessage(f"{what} is answered with a stream: call stream(...) for it."))
        elif (
            envelope.inlet is None and frame is not None and not isinstance(frame, wire.Tell) and frame.items
        ):
            envelope.fail(UnhandledMessage(f"The handler for {frame.type} takes no items."))
        else:
            try:
                if frame is not None:
                    envelope.message = found.read(frame.body, frame.type)
            except MalformedMessage as error:
                envelope.fail(error)
            else:
                self._cell.deliver(envelope)

    def _error(self, message_id: int, error: DeliveryError) -> bytes:
        return self.link.send(wire.Error(message_id, *to_wire(error)))


class _PlainOrigin:
    """Where the outcomes of plain messages go: back as plain bytes, in the order of the messages."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation
        self._answers: OrderedDict[Envelope, bytes | None] = OrderedDict()

    def expect(self, envelope: Envelope) -> None:
        """Keep a place for the answer to a message."""
        self._answers[envelope] = None

    def accepted(self, envelope: Envelope) -> None:
        """See `Origin.accepted`."""
        self._conversation.taken()

    def replied(self, envelope: Envelope, value: Any) -> None:
        """See `Origin.replied`."""
        try:
            self._answer(envelope, _plain(value))
        except Exception as error:  # noqa: BLE001 (encoding runs code of the user's classes)
            self._answer(envelope, f"error: {RemoteError.of(error)}".encode())

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """See `Origin.failed`."""
        if not envelope.was_accepted:
            self._conversation.taken()
        self._answer(envelope, f"error: {error}".encode(errors="replace"))

    async def room(self) -> None:
        """See `Origin.room`."""
        await self._conversation.room()

    def _answer(self, envelope: Envelope, data: bytes) -> None:
        self._conversation.done(envelope)
        if len(data) > MAX_PAYLOAD:
            data = b"error: The reply has more bytes than one message may have."
        self._answers[envelope] = data
        while self._answers:
            first = next(iter(self._answers))
            answer = self._answers[first]
            if answer is None:
                return
            del self._answers[first]
            self._conversation.link.send_plain(answer)


def _plain(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


def _expires(seconds: float) -> float:
    return asyncio.get_running_loop().time() + min(seconds, _LONGEST_TTL)
