"""The router of one instance: takes a message and a route, and brings the message to its one outcome."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import Raw

from slim_actors import wire
from slim_actors.call import Call
from slim_actors.errors import (
    DeliveryError,
    NodeUnreachable,
    NoRoute,
)
from slim_actors.limits import Limits
from slim_actors.messages import RAW, body_of, reply_body
from slim_actors.middleware import NOBODY, Hooks, Sending, Verb
from slim_actors.names import Address
from slim_actors.pulse import Pulse
from slim_actors.routes import Anycast, Route, Unicast
from slim_actors.routing.breaker import Breaker
from slim_actors.routing.bulk import Bulk
from slim_actors.routing.items import Items
from slim_actors.routing.origin import Origin
from slim_actors.routing.outgoing import Late, Outgoing, Trials, too_late
from slim_actors.routing.peer import Peer
from slim_actors.routing.pin import AnyPeer, Pin
from slim_actors.routing.pool import NothingLeft
from slim_actors.routing.table import RoutingTable
from slim_actors.routing.watch import Watch
from slim_actors.streams import Inlet
from slim_actors.transport.base import Port, Transport

if TYPE_CHECKING:
    from slim_actors.mailbox import Envelope

__all__ = ["Router"]

_KINDS: dict[Verb, type[wire.Incoming]] = {"ask": wire.Ask, "tell": wire.Tell, "stream": wire.Stream}
_VERBS: dict[type[Any], Verb] = {kind: verb for verb, kind in _KINDS.items()}

Attempt = Callable[[Any, Outgoing], Awaitable[Any]]
"""What is tried with a replica: to deliver a message, or to begin a stream."""


class Router:
    """Sends messages from one port.

    Args:
        transport: The network.
        port: Where the messages come from.
        pulse: Who watches whether peers are alive.
        hooks: Told what is sent.
        limits: How much the answers may bring.
    """

    def __init__(self, transport: Transport, port: Port, pulse: Pulse, hooks: Hooks, limits: Limits) -> None:
        self._transport = transport
        self._origin = Origin(transport, port)
        self._pulse = pulse
        self._hooks = hooks
        self._ids = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._table = RoutingTable(self._origin, pulse, limits)
        transport.on_return(self._table.resend)

    @property
    def address(self) -> Address:
        """Who sends."""
        return self._origin.address

    def take_ids(self, count: int) -> int:
        """Give the first of so many ids that follow each other."""
        first = next(self._ids)
        self._ids = itertools.count(first + count)
        return first

    def too_late(self, call: Call[Any] | None) -> DeliveryError:
        """Make the error that a deadline has passed: that of a message, or of what none is sent for."""
        return too_late(call, is_available=self._transport.is_available)

    def ask(
        self,
        call: Call[Any],
        route: Route | Pin,
        message: object,
        expires: float,
        context: dict[str, Any],
        items: Items | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """See `Verbs.ask`."""
        try:
            outgoing = self._outgoing(wire.Ask, message, expires, context, items)
        except Exception as error:  # noqa: BLE001 (its class cannot be a message)
            return _failed(error)
        if self._hooks.sending or items is not None:
            # Nothing is begun before it is awaited, which it may never be.
            return self._deliver_watched(call, route, message, outgoing)
        # As nearly always; without a layer that only passes on what comes.
        return self.deliver(call, route, outgoing)

    async def tell(
        self, call: Call[Any], route: Route | Pin, message: object, expires: float, context: dict[str, Any]
    ) -> None:
        """See `Verbs.tell`."""
        outgoing = self._outgoing(wire.Tell, message, expires, _for_tell(context))
        await self._deliver_watched(call, route, message, outgoing)

    async def tell_many(
        self, route: Route | Pin, messages: Iterable[object], expires: float, context: dict[str, Any]
    ) -> None:
        """See `Verbs.tell_many`."""
        messages = tuple(messages)
        if not self._hooks.sending:
            pool = self._table.pool(route) if isinstance(route, Anycast) else None
            with NOBODY if pool is None else pool.in_use():
                await Bulk(self, route, pool, messages, expires, _for_tell(context)).send()
            return
        # Each by itself, so that the hooks see it so.
        tells = [self.tell(Call(), route, message, expires, context) for message in messages]
        results = await asyncio.gather(*tells, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            errors[0].add_note(f"{len(results) - len(errors)} of {len(results)} messages were accepted.")
            raise errors[0]

    @asynccontextmanager
    async def stream(
        self,
        route: Route | Pin,
        message: object,
        expires: float,
        context: dict[str, Any],
        items: Items | None = None,
    ) -> AsyncIterator[Inlet]:
        """Give the replies; see `Verbs.stream`."""
        call: Call[Any] = Call()
        outgoing = self._outgoing(wire.Stream, message, expires, context, items)
        with self._watched(call, route, message, outgoing):
            async with self._flow(call, route, outgoing) as replies:
                yield replies

    async def forward(
        self, route: Route, message: object, envelope: Envelope, context: dict[str, Any]
    ) -> Any:
        """Send a message so that its outcome becomes that of an envelope; give the reply unread."""
        call: Call[Any] = Call()
        kind = _KINDS[envelope.verb]
        outgoing = self._outgoing(kind, message, envelope.expires, context, raw=True)
        with self._watched(call, route, message, outgoing):
            if envelope.outlet is None:
                return await self.deliver(call, route, outgoing)
            async with self._flow(call, route, outgoing) as replies:
                async for item in replies:
                    if (turn := envelope.outlet.put(item)) is not None:
                        await turn
            return None

    async def relay(
        self, route: Route, wire_type: str, body: Raw, expires: float, context: dict[str, Any]
    ) -> None:
        """Send a message that is encoded already; done when it was handled."""
        message = Outgoing(wire.Ask, next(self._ids), wire_type, body, expires, RAW, context)
        await self.deliver(Call(), route, message)

    async def pin(self, route: Unicast, expires: float) -> Pin:
        """Open an explicit pin; whoever opens it closes it."""
        pin = self._table.open_pin(route)
        try:
            await self._within(expires, self._when_there(pin.acquire))
        except BaseException:
            await self._table.close_pin(pin)
            raise
        return pin

    async def watch(self, route: Unicast, expires: float, ended: Callable[[str], None]) -> Watch:
        """Watch an instance; whoever begins that stops it."""
        options = self._table.options(route)
        target = Address(route.name, route.instance or "")

        async def begin() -> Watch:
            session = await self._when_there(lambda: self._origin.connect(target, options))
            watch = Watch(session, self._pulse, ended)
            await watch.begun()
            return watch

        watch: Watch = await self._within(expires, begin())
        return watch

    async def close(self) -> None:
        """End all conversations."""
        self._transport.forget_return(self._table.resend)
        await self._table.close()
        await self._origin.close()

    def _outgoing(
        self,
        kind: type[wire.Incoming],
        message: object,
        expires: float,
        context: dict[str, Any],
        items: Items | None = None,
        *,
        raw: bool = False,
    ) -> Outgoing:
        wire_type, body = body_of(message)
        replies = RAW if raw else reply_body(type(message))
        return Outgoing(kind, next(self._ids), wire_type, body, expires, replies, context, items)

    def _watched(
        self, call: Call[Any], route: Route | Pin, message: object, outgoing: Outgoing
    ) -> AbstractContextManager[object]:
        """Give what is to be held while a message is under way, so that the hooks see it."""
        if not self._hooks.sending:
            return NOBODY
        verb = _VERBS[outgoing.kind]
        message_id = outgoing.context.get("id") or f"{self.address.instance}:{outgoing.id}"
        known = route.route if isinstance(route, Pin) else route
        sending = Sending(verb, known, message, message_id, self.address, outgoing.context, call)
        return self._hooks.around(self._hooks.sending, sending)

    async def _deliver_watched(
        self, call: Call[Any], route: Route | Pin, message: object, outgoing: Outgoing
    ) -> Any:
        with self._watched(call, route, message, outgoing):
            return await self.deliver(call, route, outgoing)

    def deliver(self, call: Call[Any], route: Route | Pin, message: Outgoing) -> Coroutine[Any, Any, Any]:
        """Bring a message to its outcome."""
        if not isinstance(route, Anycast):
            return self._to_one(call, route, message)
        work = self._to_any(call, route, message, Peer.deliver)
        return work if message.items is None else self._within(message.expires, work, call)

    def retry(self, call: Call[Any], route: Anycast, trials: Trials) -> Awaitable[Any]:
        """Bring a message to its outcome after what has been tried so far."""
        return self._to_any(call, route, trials.message, Peer.deliver, trials)

    # Nearly all messages have somebody at hand to go to. All that may have to be waited for then is a place
    # and the outcome, and the peer keeps the deadline for both: so no timer and no retry need be got ready.

    async def _to_any(
        self,
        call: Call[Any],
        route: Anycast,
        message: Outgoing,
        attempt: Attempt,
        trials: Trials | None = None,
    ) -> Any:
        """Try one replica after the other, and tell the breaker how each did, until there is an outcome."""
        peer = None
        if trials is None:
            pool = self._table.pool(route)
            breaker = pool.breaker(message.type)
            peer = pool.at_hand(breaker, self._loop.time()) if self._transport.is_available else None
        while True:
            if peer is None:
                trials = trials or Trials(message)
                finding = self._somebody(route, trials)
                peer, breaker = await self._within(message.expires, finding, call)
            began = self._loop.time()
            call.replica = peer
            try:
                outcome = await attempt(peer, message)
            except Late:
                late = self.too_late(call)
                breaker.record(peer, began, message.expires, late)
                raise late from None
            except BaseException as error:
                breaker.record(peer, began, message.expires, error)
                if not isinstance(error, DeliveryError):
                    raise
                trials = trials or Trials(message)
                trials.failed(peer, error)
                peer = None
            else:
                breaker.record(peer, began, message.expires)
                return outcome

    async def _somebody(self, route: Anycast, trials: Trials) -> tuple[Peer, Breaker]:
        """Wait for the replica that a message is tried with next."""
        try:
            pool = self._table.pool(route)
            breaker = pool.breaker(trials.message.type)
            with pool.in_use():
                peer: Peer = await self._when_there(
                    lambda: pool.acquire(breaker, trials.refused, ask_first=bool(trials.losses))
                )
        except DeliveryError as error:
            if trials.losses:
                # That nobody else takes it says nothing of what became of it there.
                raise trials.losses[-1] from None
            # Whoever there was refused; the last word counts.
            last = next(reversed(trials.refused.values()), None)
            if last is not None and isinstance(error, NothingLeft | NoRoute):
                raise last from None
            if isinstance(error, NothingLeft):
                raise NoRoute(f"Nobody takes messages for {route.name} now.") from None
            raise
        return peer, breaker

    async def _to_one(self, call: Call[Any], route: Unicast | Pin, message: Outgoing) -> Any:
        peer = self.at_hand(route) if message.items is None else None
        if peer is not None:
            try:
                return await self._attempt(call, peer, peer.deliver(message))
            except DeliveryError:
                self.forget_if_lost(route)
                raise
        work = self._pinned(call, route, message, _delivered)
        return await self._within(message.expires, work, call)

    def at_hand(self, route: Route | Pin, breaker: Breaker | None = None) -> Peer | None:
        """Give a replica that is known without waiting for anything; of several, one that is fit."""
        if not self._transport.is_available:
            return None
        if isinstance(route, Anycast):
            return None if breaker is None else self._table.pool(route).at_hand(breaker, self._loop.time())
        peer = self._table.known_peer(route) if isinstance(route, Unicast) else route.peer
        return peer if isinstance(peer, Peer) and not peer.is_lost else None

    def forget_if_lost(self, route: Route | Pin) -> None:
        """See `RoutingTable.forget_if_lost`."""
        if isinstance(route, Unicast):
            self._table.forget_if_lost(route)

    @asynccontextmanager
    async def _flow(self, call: Call[Any], route: Route | Pin, message: Outgoing) -> AsyncIterator[Inlet]:
        peers: list[AnyPeer] = []

        async def begin(peer: AnyPeer, message: Outgoing) -> Inlet:
            inlet = await peer.stream(message)
            peers.append(peer)
            return inlet

        if isinstance(route, Anycast):
            work = self._to_any(call, route, message, begin)
        else:
            work = self._pinned(call, route, message, begin)
        inlet: Inlet = await self._within(message.expires, work, call)
        try:
            yield inlet
        finally:
            await peers[0].finish(message)

    async def _within(self, expires: float, work: Awaitable[Any], call: Call[Any] | None = None) -> Any:
        try:
            async with asyncio.timeout_at(expires if expires < float("inf") else None) as deadline:
                return await work
        except TimeoutError:
            if not deadline.expired():
                raise
        raise self.too_late(call)

    async def _pinned(
        self, call: Call[Any], route: Unicast | Pin, message: Outgoing, attempt: Attempt
    ) -> Any:
        """Try the one replica of a route."""
        pin = self._table.pin(route) if isinstance(route, Unicast) else route
        try:
            peer: AnyPeer = await self._when_there(pin.acquire)
            return await self._attempt(call, peer, attempt(peer, message))
        except DeliveryError:
            if isinstance(route, Unicast):
                self._table.forget_if_lost(route, pin)
            raise

    async def _attempt(self, call: Call[Any], peer: AnyPeer, work: Awaitable[Any]) -> Any:
        call.replica = peer
        try:
            return await work
        except Late:
            raise self.too_late(call) from None

    async def _when_there(self, acquire: Callable[[], Awaitable[Any]]) -> Any:
        """Acquire a peer; while the node is away, wait for it to come back and try again."""
        while True:
            try:
                return await acquire()
            except NodeUnreachable:
                await self._origin.returned()


async def _failed(error: Exception) -> NoReturn:
    """Fail where the outcome is awaited: one of many messages must not keep the others from being sent."""
    raise error


def _delivered(peer: AnyPeer, message: Outgoing) -> Awaitable[Any]:
    return peer.deliver(message)


def _for_tell(context: dict[str, Any]) -> dict[str, Any]:
    """Leave the chain out: nobody waits for what a tell does, so it cannot close a circle."""
    return {key: value for key, value in context.items() if key != "chain"}
