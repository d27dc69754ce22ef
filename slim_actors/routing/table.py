"""The routing table of one sender: what each route leads to."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from slim_actors.errors import CallCycle
from slim_actors.limits import Limits
from slim_actors.names import Address
from slim_actors.pulse import Pulse
from slim_actors.routes import Anycast, Route, Unicast
from slim_actors.routing.discovery import Discovery
from slim_actors.routing.origin import Origin
from slim_actors.routing.peer import Peer
from slim_actors.routing.pin import AnyPeer, Pin
from slim_actors.routing.plain import PlainPeer
from slim_actors.routing.pool import Pool
from slim_actors.shared import sender_stopped
from slim_actors.transport.base import SessionOptions

__all__ = ["RoutingTable"]

R = TypeVar("R", Anycast, Unicast)
U = TypeVar("U", Pool, Pin)

_MANY = 256
"""Pools, or pins, from which on those of no use are forgotten."""


class RoutingTable:
    """The pools and pins of one sender, each made at the first use of its route.

    Args:
        origin: Opens the sessions.
        pulse: Who watches whether peers are alive.
        limits: How much the answers may bring.
    """

    def __init__(self, origin: Origin, pulse: Pulse, limits: Limits) -> None:
        self._origin = origin
        self._pulse = pulse
        self._limits = limits
        self._pools: dict[Anycast, Pool] = {}
        self._latest: tuple[Anycast, Pool] | None = None
        self._pins: dict[Unicast, Pin] = {}
        self._explicit: set[Pin] = set()
        self._most_pools = self._most_pins = _MANY
        self._is_closed = False

    def pool(self, route: Anycast) -> Pool:
        """Give the replicas of a service.

        Raises:
            Stopped: The table is closed, and they are not in it.
        """
        # Nearly always the very route of the last message; the hash of another is made of all that it says.
        if self._latest is not None and self._latest[0] is route:
            return self._latest[1]
        pool = self._pools.get(route)
        if pool is None:
            self._check_open()
            self._most_pools = _make_room(self._pools, self._most_pools)
            options = self.options(route)

            async def find() -> Peer:
                return Peer(
                    await self._origin.connect(Address(route.name), options), self._pulse, self._limits
                )

            pool = self._pools[route] = Pool(route.name, find)
        self._latest = (route, pool)
        return pool

    def pin(self, route: Unicast) -> Pin:
        """Give the pin of a route.

        Raises:
            Stopped: The table is closed, and it has no such pin.
            CallCycle: The route leads to the sender itself.
        """
        pin = self._pins.get(route)
        if pin is None:
            self._most_pins = _make_room(self._pins, self._most_pins)
            pin = self._pins[route] = self._new_pin(route)
        return pin

    def known_peer(self, route: Unicast) -> AnyPeer | None:
        """Give whom a route is pinned to, if it is."""
        pin = self._pins.get(route)
        return None if pin is None else pin.peer

    def forget_if_lost(self, route: Unicast, pin: Pin | None = None) -> None:
        """Let a route choose afresh, now that the loss of its replica has been said.

        Args:
            route: The route.
            pin: Whose loss that was, if it may have been another pin than the route has now.
        """
        known = self._pins.get(route)
        if known is None or (pin is not None and pin is not known):
            return
        if not known.is_of_use:
            del self._pins[route]

    def open_pin(self, route: Unicast) -> Pin:
        """Make an explicit pin; whoever opens it closes it.

        Raises:
            Stopped: The table is closed.
            CallCycle: The route leads to the sender itself.
        """
        pin = self._new_pin(route)
        self._explicit = {known for known in self._explicit if known.is_of_use}
        self._explicit.add(pin)
        return pin

    async def close_pin(self, pin: Pin) -> None:
        """Close an explicit pin that did not come about."""
        self._explicit.discard(pin)
        await pin.close()

    def options(self, route: Route, *, framed: bool = True) -> SessionOptions:
        """Give how the sessions of a route are set up."""
        return SessionOptions(route.mls, route.max_retries, route.timeout, framed, self._pulse.lost_after)

    def resend(self) -> None:
        """Send again what has no outcome, everywhere; see `Peer.resend`."""
        for pool in self._pools.values():
            # What was said of newcomers meanwhile was not heard.
            pool.discovery.look_again()
            for peer in pool.discovery.live:
                peer.resend()
        for pin in (*self._pins.values(), *self._explicit):
            pin.resend()

    async def close(self) -> None:
        """End all conversations, and begin none."""
        self._is_closed = True
        pins = (*self._pins.values(), *self._explicit)
        ends: list[Discovery | Pin] = [*(pool.discovery for pool in self._pools.values()), *pins]
        await asyncio.gather(*(end.close() for end in ends))

    def _check_open(self) -> None:
        if self._is_closed:
            raise sender_stopped()

    def _new_pin(self, route: Unicast) -> Pin:
        self._check_open()
        framed = route.wire == "frames"
        options = self.options(route, framed=framed)
        target = Address(route.name, route.instance or "")
        if target == self._origin.address:
            # SLIM brings nobody's messages back to himself, so this would wait for discovery in vain.
            raise CallCycle(f"{target} sends to itself; ctx.after(0, message) does that.")

        async def find() -> AnyPeer:
            session = await self._origin.connect(target, options)
            return Peer(session, self._pulse, self._limits) if framed else PlainPeer(session, self._pulse)

        return Pin(route, find)


def _make_room(known: dict[R, U], most: int) -> int:
    """Forget what has no replica, lost or never found, if there is much: who answers everybody makes many.

    Returns:
        With how many this is to be done next: it looks at all, and so not each time where all are of use.
    """
    if len(known) < most:
        return most
    useless = [route for route, one in known.items() if not one.is_of_use]
    for route in useless:
        del known[route]
    return max(_MANY, 2 * len(known))
