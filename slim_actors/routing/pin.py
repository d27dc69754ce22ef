"""The pin: discovery picks one replica, and everything goes there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from slim_actors.names import Address
from slim_actors.routes import Unicast
from slim_actors.routing.peer import Peer
from slim_actors.routing.plain import PlainPeer

__all__ = ["Pin"]

AnyPeer = Peer | PlainPeer


class Pin:
    """A lasting choice of one replica, made at the first use.

    Args:
        route: What it was made for.
        find: Opens a session to the replica that discovery picks.
    """

    def __init__(self, route: Unicast, find: Callable[[], Awaitable[AnyPeer]]) -> None:
        self.route = route
        self._find = find
        self._finding: asyncio.Future[None] | None = None
        self._peer: AnyPeer | None = None

    @property
    def peer(self) -> AnyPeer | None:
        """The replica, once there is one."""
        return self._peer

    @property
    def address(self) -> Address:
        """Who it is; the pin must be set."""
        assert self._peer is not None, "a pin has a peer once it is set"
        return self._peer.address

    async def acquire(self) -> AnyPeer:
        """Give the replica; whoever comes while it is being found waits for the same one.

        Raises:
            NoRoute: Nobody answers to the name. The next call looks again.
            PeerLost: The replica is gone; so is every further message to this pin.
        """
        if self._peer is None:
            if self._finding is None or self._finding.done():
                self._finding = asyncio.ensure_future(self._set())
            await asyncio.shield(self._finding)
        assert self._peer is not None, "finding sets the peer or raises"
        if self._peer.is_lost:
            raise self._peer.lost(may_have_run=False)
        return self._peer

    async def close(self) -> None:
        """End the conversation."""
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.wait([self._finding])
        if self._peer is not None:
            await self._peer.close()

    async def _set(self) -> None:
        self._peer = await self._find()
