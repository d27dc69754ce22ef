"""One SLIM point-to-point session."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from slim_actors.errors import ConfigurationError, SlimActorsError
from slim_actors.names import Address
from slim_actors.transport.base import MAX_PAYLOAD, Payload, SessionClosed
from slim_actors.transport.bindings import innermost, slim

__all__ = ["SlimSession"]

T = TypeVar("T")

_ERRORS_IN_A_ROW = 5
_LOOK_AT_ACKS_EVERY = 128 * 1024
_MOST_UNACKNOWLEDGED = 512 * 1024


class _Port(Protocol):
    def background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]: ...

    def discard(self, session: SlimSession, handle: slim.Session) -> None: ...


class SlimSession:
    """One SLIM point-to-point session."""

    def __init__(self, session: slim.Session, peer: Address, port: _Port, *, framed: bool) -> None:
        self._session = session
        self._port = port
        self._peer = peer
        self._framed = framed
        self._mls = session.config().mls_settings is not None
        self._unseen = 0
        self._acks: deque[tuple[asyncio.Task[None], int]] = deque()

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

    async def send(self, data: bytes, payload_type: str | None) -> None:
        """See `Session.send`."""
        handle = await self._publish(data, payload_type)
        self._unseen += len(data)
        if self._unseen < _LOOK_AT_ACKS_EVERY:
            return
        # SLIM's back-pressure stops the whole connection, with every other session on it. So no session may
        # have so much on its way that a peer which takes nothing brings it about.
        self._acks.append((self._port.background(_acknowledged(handle)), self._unseen))
        self._unseen = 0
        while sum(size for _, size in self._acks) > _MOST_UNACKNOWLEDGED:
            await asyncio.wait([self._acks[0][0]])
            self._acks.popleft()

    async def receive(self) -> Payload:
        """See `Session.receive`."""
        for _ in range(_ERRORS_IN_A_ROW):
            try:
                message = await self._session.get_message_async(None)
            except slim.SlimError as error:
                if "session closed" in str(error):
                    break
                # "participant disconnected" comes just before it; deleting the session already at that would
                # cut off the peer's goodbye, and it would wait for the answer.
                await asyncio.sleep(0)
                continue
            return Payload(message.payload, message.context.payload_type)
        raise SessionClosed(f"{self._peer} closed the session")

    async def alive(self, data: bytes | None, payload_type: str, within: float) -> bool:
        """See `Session.alive`."""
        try:
            async with asyncio.timeout(within):
                if data is not None:
                    # Not to be cancelled half-way; on a blocked connection it goes on by itself.
                    publish = self._port.background(self._publish(data, payload_type))
                    handle = await asyncio.shield(publish)
                    await handle.wait_for_async(timedelta(seconds=within))
            # A reliable handle completes without an error even when every retransmission was in vain.
            participants = self._session.participants_list()
        except (slim.SlimError, SlimActorsError, TimeoutError):
            return False
        return all(who.status is not slim.ParticipantStatus.OFFLINE for who in participants)

    async def close(self) -> None:
        """See `Session.close`."""
        self._port.discard(self, self._session)

    async def _publish(self, data: bytes, payload_type: str | None) -> slim.CompletionHandle:
        if len(data) > MAX_PAYLOAD:
            raise ConfigurationError(f"A payload of {len(data)} bytes is over SLIM's limit of {MAX_PAYLOAD}.")
        try:
            return await self._session.publish_async(data, payload_type, None)
        except slim.SlimError as error:
            raise SessionClosed(f"The session with {self._peer} is over: {innermost(error)}") from None


async def _acknowledged(handle: slim.CompletionHandle) -> None:
    with contextlib.suppress(slim.SlimError):
        await handle.wait_async()
