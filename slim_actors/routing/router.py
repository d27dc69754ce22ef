"""The router of one instance: takes a message and a route, and brings the message to its one outcome."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from slim_actors.errors import (
    Busy,
    DeliveryError,
    Expired,
    NodeUnreachable,
    PeerLost,
    Stopped,
)
from slim_actors.link import Pulse
from slim_actors.messages import body_of, reply_body
from slim_actors.names import Address
from slim_actors.routes import Anycast, Route, Unicast
from slim_actors.routing.peer import Outgoing, Peer
from slim_actors.routing.pin import AnyPeer, Pin
from slim_actors.routing.plain import PlainPeer
from slim_actors.routing.pool import NothingLeft, Pool
from slim_actors.transport.base import Port, SessionOptions, Transport
from slim_actors.verbs import Call

__all__ = ["Router"]


class Router:
    """Sends messages from one port.

    Args:
        transport: The network.
        port: Where the messages come from.
        pulse: Who watches whether peers are alive.
    """

    def __init__(self, transport: Transport, port: Port, pulse: Pulse) -> None:
        self._transport = transport
        self._port = port
        self._pulse = pulse
        self._ids = itertools.count(1)
        self._pools: dict[Anycast, Pool] = {}
        self._pins: dict[Unicast, Pin] = {}
        self._explicit: set[Pin] = set()
        transport.on_return(self._resend)

    @property
    def address(self) -> Address:
        """Who sends."""
        return self._port.address

    async def ask(self, call: Call[Any], route: Route | Pin, message: object, expires: float) -> Any:
        """See `Verbs.ask`."""
        outgoing = self._outgoing(message, expires, wants_reply=True)
        raw = await self._deliver(call, route, outgoing)
        if isinstance(raw, bytes):
            return raw
        return reply_body(type(message)).read(raw, f"The reply to {outgoing.type}")

    async def tell(self, call: Call[None], route: Route | Pin, message: object, expires: float) -> None:
        """See `Verbs.tell`."""
        await self._deliver(call, route, self._outgoing(message, expires, wants_reply=False))

    async def pin(self, route: Unicast, expires: float) -> Pin:
        """Open an explicit pin; whoever opens it closes it."""
        pin = self._new_pin(route)
        await self._within(expires, self._when_there(pin.acquire))
        self._explicit = {known for known in self._explicit if known.peer and not known.peer.is_lost} | {pin}
        return pin

    async def close(self) -> None:
        """End all conversations."""
        ends: list[Pool | Pin] = [*self._pools.values(), *self._pins.values(), *self._explicit]
        await asyncio.gather(*(end.close() for end in ends))

    def _outgoing(self, message: object, expires: float, *, wants_reply: bool) -> Outgoing:
        wire_type, body = body_of(message)
        return Outgoing(next(self._ids), wire_type, body, expires, wants_reply)

    async def _deliver(self, call: Call[Any], route: Route | Pin, message: Outgoing) -> Any:
        if isinstance(route, Anycast):
            work = self._anycast(call, self._pool(route), message)
        elif isinstance(route, Unicast):
            work = self._unicast(call, route, message)
        else:
            work = self._pinned(call, route, message)
        return await self._within(message.expires, work)

    async def _within(self, expires: float, work: Any) -> Any:
        try:
            async with asyncio.timeout_at(expires) as deadline:
                return await work
        except TimeoutError:
            if not deadline.expired():
                raise
        if self._transport.is_available:
            raise Expired("The deadline passed before the outcome was known.")
        raise Expired("The deadline passed while the SLIM node was away.")

    async def _anycast(self, call: Call[Any], pool: Pool, message: Outgoing) -> Any:
        refused: dict[str, DeliveryError] = {}
        while True:
            try:
                peer = await self._when_there(lambda: pool.acquire(refused))
            except NothingLeft:
                # Everybody refused; the last word counts.
                raise list(refused.values())[-1] from None
            call.peer = peer.address
            try:
                return await peer.deliver(message)
            except Busy as error:
                refused[peer.address.instance] = error
            except Stopped:
                # It was not started there, and the pool knows now that this replica is leaving.
                continue
            except PeerLost as error:
                if error.may_have_run and not peer.is_idempotent(message.type):
                    raise

    async def _unicast(self, call: Call[Any], route: Unicast, message: Outgoing) -> Any:
        pin = self._pins.get(route)
        if pin is None:
            pin = self._pins[route] = self._new_pin(route)
        try:
            return await self._pinned(call, pin, message)
        except PeerLost:
            # Now that the loss has been said, the route may choose afresh.
            if self._pins.get(route) is pin:
                del self._pins[route]
            raise

    async def _pinned(self, call: Call[Any], pin: Pin, message: Outgoing) -> Any:
        peer = await self._when_there(pin.acquire)
        call.peer = peer.address
        return await peer.deliver(message)

    async def _when_there(self, acquire: Callable[[], Any]) -> Any:
        """Acquire a peer; while the node is away, wait for it to come back and try again."""
        while True:
            try:
                return await acquire()
            except NodeUnreachable:
                await self._transport.available()

    def _pool(self, route: Anycast) -> Pool:
        pool = self._pools.get(route)
        if pool is None:
            options = SessionOptions(route.mls, route.max_retries, route.timeout)

            async def find() -> Peer:
                return Peer(await self._port.connect(Address(route.name), options), self._pulse)

            pool = self._pools[route] = Pool(find)
        return pool

    def _new_pin(self, route: Unicast) -> Pin:
        framed = route.wire == "frames"
        options = SessionOptions(route.mls, route.max_retries, route.timeout, framed)
        target = Address(route.name, route.instance or "")

        async def find() -> AnyPeer:
            session = await self._port.connect(target, options)
            return Peer(session, self._pulse) if framed else PlainPeer(session, self._pulse)

        return Pin(find)

    def _resend(self) -> None:
        for pool in self._pools.values():
            for peer in pool.peers:
                peer.resend()
        for pin in (*self._pins.values(), *self._explicit):
            if pin.peer is not None:
                pin.peer.resend()
