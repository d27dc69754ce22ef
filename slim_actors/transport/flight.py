"""What is on its way from one port to one peer, whichever of their sessions carries it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from slim_actors.transport.bindings import calls, slim

__all__ = ["Flight"]

_MOST = 512 * 1024
_LOOK_EVERY = 256 * 1024
"""Half of the most: while one acknowledgement is awaited, as much again may go."""
_HEADER = 512
"""Bytes that SLIM puts around a payload, about."""
_LONG = 64 * 1024
"""What a payload counts for at the most. A frozen peer stops others when the buffers on the way to it are
full and its node holds 128 payloads besides, however long they are: so eight longer ones do no harm."""


class _Publish(Protocol):
    async def __call__(
        self, data: bytes, payload_type: str | None, *, tracked: bool = False
    ) -> slim.CompletionHandle | None: ...


class Flight:
    """Bounds what a peer may have on its way that its SLIM has not acknowledged.

    SLIM's back-pressure stops a whole connection, with every other session on it. So a peer that takes
    nothing, being frozen, must never have so much on its way that it brings that about, and it may have many
    sessions. Only some payloads have their acknowledgement looked at: those before them came no later.

    Args:
        background: Does something that nobody waits for.
    """

    def __init__(self, background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._background = background
        self._flying = 0
        self._unseen = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def publish(self, publish: _Publish, data: bytes, kind: str | None) -> None:
        """Send a payload once it may go; look at the acknowledgement of one now and then."""
        while self._flying > _MOST:
            self._has_room.clear()
            await self._has_room.wait()
        size = min(len(data) + _HEADER, _LONG)
        self._flying += size
        self._unseen += size
        if self._unseen < _LOOK_EVERY:
            # One that fails lands with those after it.
            await publish(data, kind)
            return
        seen, self._unseen = self._unseen, 0
        try:
            handle = await publish(data, kind, tracked=True)
            assert handle is not None, "it was asked for"
        except BaseException:
            self._landed(seen)
            raise
        self._background(_acknowledged(handle)).add_done_callback(lambda _: self._landed(seen))

    def _landed(self, size: int) -> None:
        self._flying -= size
        self._has_room.set()


async def _acknowledged(handle: slim.CompletionHandle) -> None:
    with contextlib.suppress(slim.SlimError):
        await calls.acknowledged(handle)
