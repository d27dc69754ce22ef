"""The pin: discovery picks one replica, and everything goes there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import copy

from slim_actors.errors import DeliveryError
from slim_actors.names import Address
from slim_actors.routes import Unicast
from slim_actors.routing.peer import Peer
from slim_actors.routing.plain import PlainPeer
from slim_actors.shared import Shared

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
        self._found = Shared(find)

    @property
    def peer(self) -> AnyPeer | None:
        """The replica, once there is one and all have it who waited for it."""
        return self._found.at_hand

    @property
    def is_of_use(self) -> bool:
        """Whether there is a live replica, or one is being looked for."""
        peer = self._found.value
        return self._found.is_wanted or (peer is not None and not peer.is_lost)

    @property
    def address(self) -> Address:
        """Who it is; the pin must be set."""
        peer = self._found.value
        assert peer is not None, "a pin has a peer once it is set"
        return peer.address

    async def acquire(self) -> AnyPeer:
        """Give the replica, in the order of asking; whoever comes while it is being found waits for it.

        Raises:
            NoRoute: Nobody answers to the name. The next call looks again.
            PeerLost: The replica is gone; so is every further message to this pin.
        """
        try:
            peer = await self._found.get()
        except DeliveryError as error:
            # All who waited get it, and each raises an error of its own: a note on one is on no other.
            raise copy(error) from None
        if peer.is_lost:
            raise peer.lost(may_have_run=False)
        return peer

    def resend(self) -> None:
        """See `Peer.resend`."""
        peer = self._found.value
        if peer is not None:
            peer.resend()

    async def close(self) -> None:
        """End the conversation."""
        peer = await self._found.stop()
        if peer is not None:
            await peer.close()
