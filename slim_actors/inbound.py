"""The agent's door: accepts the sessions of one instance, and tells all callers its news."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial

from slim_actors import wire
from slim_actors.admission import Admission
from slim_actors.cell import Cell
from slim_actors.conversation import Conversation
from slim_actors.errors import (
    Busy,
    DeliveryError,
    SlimActorsError,
    to_wire,
)
from slim_actors.limits import Limits
from slim_actors.link import Link
from slim_actors.names import Address
from slim_actors.outcomes import Outcomes
from slim_actors.pulse import Pulse
from slim_actors.throttle import Throttle
from slim_actors.transport.base import Port, Session, SessionClosed, Transport

__all__ = ["Inbound"]

_GOODBYE_WITHIN = 1.0
_REFUSALS_AT_ONCE = 32
_NEWS_AFTER = 0.2
"""Seconds in which several newcomers are one piece of news."""

_logger = logging.getLogger("slim_actors.inbound")


class Inbound:
    """Accepts the sessions of one instance.

    Args:
        port: Where callers find the instance.
        cell: Who handles the messages.
        pulse: Who watches whether callers are alive.
        limits: How much callers may bring.
        transport: Says when an outage is over.
    """

    def __init__(self, port: Port, cell: Cell, pulse: Pulse, limits: Limits, transport: Transport) -> None:
        self._port = port
        self._cell = cell
        self._pulse = pulse
        self._admission = Admission(limits)
        self.outcomes = Outcomes()
        self._time_to_log = Throttle()
        self._refusals: set[asyncio.Task[None]] = set()
        self._conversations: set[Conversation] = set()
        self._news: asyncio.TimerHandle | None = None
        self._transport = transport
        transport.on_return(self._greet_all)
        self._acceptor = asyncio.create_task(self._accept(), name=f"accept {port.address}")

    def say_leaving(self) -> None:
        """Tell all callers to send their next messages elsewhere."""
        for conversation in self._conversations:
            conversation.say(wire.Leaving())

    def newcomer(self) -> None:
        """Tell all callers, soon, that another instance of the same name has come."""
        if self._news is None:
            self._news = asyncio.get_running_loop().call_later(_NEWS_AFTER, self._tell_news)

    def _tell_news(self) -> None:
        self._news = None
        for conversation in self._conversations:
            conversation.say(wire.Newcomer())

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
        self._transport.forget_return(self._greet_all)
        if self._news is not None:
            self._news.cancel()
        self._acceptor.cancel()
        await asyncio.wait([self._acceptor])
        closing = (conversation.close() for conversation in list(self._conversations))
        await asyncio.gather(*closing, return_exceptions=True)

    def _greet_all(self) -> None:
        for conversation in self._conversations:
            conversation.greet()

    async def _accept(self) -> None:
        while True:
            try:
                session = await self._port.accept()
            except SessionClosed:
                return
            try:
                visit = self._admission.enter(session.peer)
            except Busy as error:
                self.log(session.peer, "is refused a session", error)
                self._refuse(session, error)
            else:
                link = partial(
                    Link,
                    session,
                    pulse=self._pulse,
                    limits=self._admission.limits,
                    hold=visit.hold_part,
                    is_caller=False,
                )
                self._conversations.add(Conversation(self, self._cell, visit, link))

    def forget(self, conversation: Conversation) -> None:
        """Take note that a conversation is over."""
        self._conversations.discard(conversation)

    def log(self, peer: Address, what: str, why: object) -> None:
        """Log what a peer did wrong: one line a minute for each peer and each kind of wrong."""
        if self._time_to_log((peer, what)):
            _logger.warning("%s: %s %s: %s", self._port.address, peer, what, why)

    def _refuse(self, session: Session, error: DeliveryError) -> None:
        """Close a session that is too many, and say why unless that has been said a lot already."""
        if len(self._refusals) >= _REFUSALS_AT_ONCE:
            self._pulse.close_soon(session)
            return
        refusal = asyncio.create_task(_say_and_close(session, error))
        self._refusals.add(refusal)
        refusal.add_done_callback(self._refusals.discard)


async def _say_and_close(session: Session, error: DeliveryError) -> None:
    try:
        if session.framed:
            frame = wire.encode(wire.Error(0, *to_wire(error)))
            await session.send(wire.join([frame]), wire.PAYLOAD_TYPE)
        else:
            await session.send(f"error: {error}".encode(), None)
        # Whoever understands that closes the session; closed from here it would be gone before it is read.
        await asyncio.wait([asyncio.create_task(_until_closed(session))], timeout=_GOODBYE_WITHIN)
    except SlimActorsError:
        # It is gone already.
        return
    finally:
        await session.close()


async def _until_closed(session: Session) -> None:
    with contextlib.suppress(SessionClosed):
        while True:
            await session.receive()
