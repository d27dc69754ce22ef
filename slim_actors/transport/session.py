"""One SLIM point-to-point session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from attrs import evolve
from msgspec import Struct

from slim_actors.credentials import Claims, Credentials, Refused
from slim_actors.errors import ConfigurationError, Denied, SlimActorsError, Untrusted
from slim_actors.limits import MAX_PAYLOAD
from slim_actors.names import Address
from slim_actors.transport.base import Payload, SessionClosed
from slim_actors.transport.bindings import calls, innermost, slim
from slim_actors.transport.calls import Received
from slim_actors.transport.flight import Flight
from slim_actors.transport.introduction import (
    HIDDEN,
    INTRODUCTION,
    Introduction,
    Line,
    be_introduced,
    introduce,
    log_refusal,
    next_message,
)

__all__ = ["Checks", "SlimSession"]

T = TypeVar("T")

_MLS_SUBJECT = "slim-peer-subject"


class Checks(Struct, frozen=True):
    """How a session learns who its peer is.

    Attributes:
        credentials: Check the peer's tokens; None where only SLIM can.
        introduces: Whether both sides introduce themselves, since SLIM checks nothing.
    """

    credentials: Credentials | None
    introduces: bool


class _Port(Protocol):
    def background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]: ...

    def discard(self, session: SlimSession, handle: slim.Session) -> None: ...

    def flight(self, peer: Address) -> Flight: ...


class SlimSession:
    """One SLIM point-to-point session."""

    def __init__(
        self,
        session: slim.Session,
        peer: Address,
        port: _Port,
        checks: Checks,
        *,
        framed: bool,
        is_caller: bool,
    ) -> None:
        self._session = session
        self._port = port
        self._peer = peer
        self._framed = framed
        self._mls = session.config().mls_settings is not None
        self._flight = port.flight(peer)
        self._credentials = checks.credentials
        self._introduces = checks.introduces
        self._introduction: asyncio.Task[None] | None = None
        if checks.introduces:
            self._introduction = port.background(self._introduce(introduce if is_caller else be_introduced))

    @property
    def peer(self) -> Address:
        """See `Session.peer`."""
        return self._peer

    @property
    def mls(self) -> bool:
        """See `Session.mls`."""
        return self._mls

    @property
    def framed(self) -> bool:
        """See `Session.framed`."""
        return self._framed

    async def introduced(self) -> None:
        """Wait until both sides know each other, where that takes an introduction.

        Raises:
            Denied: The peer refuses this side.
            Untrusted: This side refuses the peer.
            SessionClosed: The session is over.
        """
        if self._introduction is not None:
            await asyncio.shield(self._introduction)

    async def send(self, data: bytes, payload_type: str | None) -> None:
        """See `Session.send`."""
        if self._introduction is not None:
            await self._known(self._introduction)
        await self._flight.publish(self._publish, data, payload_type)

    async def receive(self) -> Payload:
        """See `Session.receive`."""
        if self._introduction is not None:
            await self._known(self._introduction)
        while True:
            message = await next_message(self._session, self._peer)
            if not self._introduces:
                # First of all: an impostor's refusal is nobody's.
                refusal = self._check(message)
                if refusal is not None:
                    await self._refuse(refusal)
            if message.payload_type == INTRODUCTION:
                self._take_refusal(message.payload)
                continue
            return Payload(message.payload, message.payload_type)

    async def alive(self, data: bytes | None, payload_type: str, within: float) -> bool:
        """See `Session.alive`."""
        try:
            async with asyncio.timeout(within):
                if data is not None:
                    # Not to be cancelled half-way; on a blocked connection it goes on by itself.
                    publish = self._port.background(self._publish(data, payload_type, tracked=True))
                    handle = await asyncio.shield(publish)
                    assert handle is not None, "it was asked for"
                    await handle.wait_for_async(timedelta(seconds=within))
            # A reliable handle completes without an error even when every retransmission was in vain.
            participants = self._session.participants_list()
        except (slim.SlimError, SlimActorsError, TimeoutError):
            return False
        return all(who.status is not slim.ParticipantStatus.OFFLINE for who in participants)

    async def close(self) -> None:
        """See `Session.close`."""
        self._port.discard(self, self._session)

    async def _introduce(self, how: Callable[[Line, Credentials], Coroutine[Any, Any, Claims]]) -> None:
        assert self._credentials is not None, "who introduces itself has something to show"
        try:
            claims = await how(Line(self._session, str(self._peer)), self._credentials)
        except (Denied, Untrusted) as error:
            log_refusal(self._peer.name, str(error))
            raise
        self._know(claims)

    async def _known(self, introduction: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(introduction)
        except (Denied, Untrusted) as error:
            raise SessionClosed(str(error), type(error)) from None

    def _check(self, message: Received) -> str | None:
        """Learn who sent a message, or why he is refused.

        SLIM lets messages pass, without MLS, whose token it has not checked.
        """
        if self._mls and self._peer.subject:
            # SLIM has; its encryption tells who is at the other end, for the whole session.
            return None
        if self._credentials is None:
            if self._mls:
                self._know(Claims(message.metadata.get(_MLS_SUBJECT, "")))
            return None
        try:
            claims = self._credentials.verify(message.identity)
        except Refused as error:
            return str(error)
        except ConfigurationError as error:
            # What is wrong here is nothing that a stranger need know.
            log_refusal(self._peer.name, f"{self._peer} cannot be checked: {error}")
            return HIDDEN
        why = None
        if claims.is_for_introductions:
            why = "it shows a token that is for introductions only"
        elif self._mls and message.metadata.get(_MLS_SUBJECT) != claims.id:
            why = "it shows the token of somebody else"
        elif claims.subject != self._peer.subject:
            self._know(claims)
        return why

    async def _refuse(self, why: str) -> None:
        """Tell both sides, and end the session."""
        log_refusal(self._peer.name, f"{self._peer} is refused: {why.rstrip('.')}.")
        with contextlib.suppress(SessionClosed):
            await Line(self._session, str(self._peer)).send(Introduction(refused=why))
        raise SessionClosed(f"its identity is refused: {why}", Untrusted)

    def _take_refusal(self, data: bytes) -> None:
        refused = Line(self._session, str(self._peer)).read(data).refused
        if refused:
            log_refusal(self._peer.name, f"{self._peer} refuses this identity: {refused.rstrip('.')}.")
            raise SessionClosed(f"it refuses this identity: {refused}", Denied)

    def _know(self, claims: Claims) -> None:
        self._peer = evolve(self._peer, subject=claims.subject, issuer=claims.issuer)

    async def _publish(
        self, data: bytes, payload_type: str | None, *, tracked: bool = False
    ) -> slim.CompletionHandle | None:
        if len(data) > MAX_PAYLOAD:
            raise ConfigurationError(f"A payload of {len(data)} bytes is over SLIM's limit of {MAX_PAYLOAD}.")
        try:
            return await calls.publish(self._session, data, payload_type, tracked=tracked)
        except slim.SlimError as error:
            raise SessionClosed(f"The session with {self._peer} is over: {innermost(error)}") from None
