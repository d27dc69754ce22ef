"""The verbs that `Runtime` and `Context` share: ask, tell, stream, pin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from slim_actors.call import Call
from slim_actors.errors import ConfigurationError
from slim_actors.pinned import Pinned
from slim_actors.routes import Route, Unicast, check_route
from slim_actors.speaker import Speaker, checked

if TYPE_CHECKING:
    from aiostream.core import Stream

    from slim_actors.messages import Request, StreamRequest

__all__ = ["Verbs"]

T = TypeVar("T")


class Verbs(Speaker):
    """The verbs, a route first."""

    __slots__ = ()

    @abstractmethod
    async def _post(self, route: Route, messages: Iterable[object], timeout: float | None) -> None:
        """Keep durable messages; they are delivered from the store."""

    @overload
    def ask(
        self,
        route: Route,
        message: Request[T],
        *,
        items: AsyncIterable[Any] | None = None,
        timeout: float | None = None,
    ) -> Call[T]: ...
    @overload
    def ask(
        self,
        route: Route,
        message: object,
        *,
        items: AsyncIterable[Any] | None = None,
        timeout: float | None = None,
    ) -> Call[Any]: ...

    def ask(
        self,
        route: Route,
        message: object,
        *,
        items: AsyncIterable[Any] | None = None,
        timeout: float | None = None,
    ) -> Call[Any]:
        """Send a message and await its one reply.

        Guarantee: it ends within the deadline, with the reply or with one of the errors below. A handler runs
        at most once for it, unless it is declared idempotent.

        Args:
            route: Where it goes: `Anycast` or `Unicast`.
            message: A typed message, or a plain value (str, bytes, number, bool, None, list, dict).
            items: What follows the message: the handler takes it as an ``AsyncIterator``. It is read only as
                fast as the handler reads, and, once it is begun, closed when the ask ends. `Anycast` tries no
                other replica then.
            timeout: Seconds until it expires; 30 by default, never more than is left in a handler.

        Raises:
            NoRoute: Nobody answers to the name.
            PeerLost: The replica that had it is gone.
            Expired: The deadline passed.
            RemoteError: The handler raised.
            Busy: Every replica refuses it for now.
            CallCycle: The agent waits for this very message to end.
            Stopped: The only replica is stopping, or the sender was stopped.
            Cancelled: The instance was stopped or restarted in the middle of the message.
            StoreError: What the handler changed could not be kept.
            Denied: The agent does not take messages from this caller.
            Untrusted: Every replica that was found has an identity that is refused here.
            UnsupportedVersion: The agent speaks another version of the wire.
            UnhandledMessage: The agent has no handler for its type.
            MalformedMessage: The message or the reply does not fit the declared type, or the message holds
                something that has no form on the wire.
            TooLarge: It has more bytes than one message may have.
            NodeUnreachable: The node was away until the deadline, and nothing was sent.
            ConfigurationError: The route, the timeout or what gives the items is none, or the runtime is not
                open.
            DeclarationError: The ``R`` of its ``Request[R]`` is no type that can be read.

        Example:
            .. code-block:: python

                reply = await runtime.ask(Anycast("agntcy/ns/alice"), "hello", timeout=5)
        """
        return self._ask(check_route(route), message, timeout, items)

    def tell(
        self, route: Route, message: object, *, durable: bool = False, timeout: float | None = None
    ) -> Call[None]:
        """Send a message that has no reply; done when the receiver's mailbox has accepted it.

        A *durable* one is done when it is in the runtime's store. It is then delivered until an agent has
        handled it, whoever dies meanwhile, the sender's process included; the agent's runtime needs a store
        too. It is handled effectively once by the replicas that share one store. What can never be handled
        becomes a dead letter. One that is sent in a handler goes to the store together with the handler's
        state, and only if the handler ends well.

        Args:
            route: Where it goes: `Anycast` or `Unicast`; a durable one to a name, not to an instance.
            message: A typed message or a plain value.
            durable: Whether it survives its sender.
            timeout: Seconds within which it must be accepted, and until which it may wait to be handled. Of a
                durable one: until it expires; never by default.

        Raises:
            DeliveryError: As for `ask`, but nothing of what the handler does.
            Busy: Of a durable one: 100,000 messages or 256 MiB are in the store already.
            StoreError: It could not be kept.
            ConfigurationError: The route or the timeout is none, or the runtime is not open. Of a durable
                one: there is no store, or the route has an instance or speaks plain bytes.

        Example:
            .. code-block:: python

                await runtime.tell(Anycast("agntcy/ns/log"), "started")
                await runtime.tell(Anycast("demo/ns/ledger"), Deposit(5), durable=True)
        """
        if durable:
            done: Call[None] = Call()
            return done.running(self._post(check_route(route), [message], checked(timeout)))
        return self._tell(check_route(route), message, timeout)

    async def tell_many(
        self,
        route: Route,
        messages: Iterable[object],
        *,
        durable: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Send many messages that have no reply; done when all of them have been accepted.

        They travel in batches. With `Anycast` each may go to another replica; with `Unicast` they are
        accepted in their order. Durable ones go into the store together or not at all; see `tell`.

        Raises:
            DeliveryError: As for `tell`: the first failure, after all have ended. A note on it says how many
                were accepted.
            ConfigurationError: As for `tell`.

        Example:
            .. code-block:: python

                await runtime.tell_many(Unicast("agntcy/ns/log"), lines)
        """
        if durable:
            await self._post(check_route(route), messages, checked(timeout))
        else:
            await self._tell_many(check_route(route), messages, timeout)

    @overload
    def stream(
        self,
        route: Route,
        message: StreamRequest[T] | Request[T],
        *,
        items: AsyncIterable[Any] | None = None,
        timeout: float | None = None,
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        route: Route,
        message: object,
        *,
        items: AsyncIterable[Any] | None = None,
        timeout: float | None = None,
    ) -> Stream[Any]: ...

    def stream(
        self,
        route: Route,
        message: object,
        *,
        items: AsyncIterable[Any] | None = None,
        timeout: float | None = None,
    ) -> Stream[Any]:
        """Send a message that is answered with a stream of replies.

        Guarantee: items come in order, each once, or the stream ends with an error. A slow reader holds the
        producer back (1,024 items ahead). Leaving the loop, by ``break``, an error or a cancellation, stops
        the producer and runs its ``finally``. What is returned is an aiostream stream, so its operators
        apply; nothing is sent until it is iterated.

        Args:
            route: Where it goes.
            message: A typed message, or a plain value.
            items: What follows the message, as in `ask`.
            timeout: Seconds that each item may take; 30 by default. There is no limit to the whole.

        Raises:
            DeliveryError: While iterating, as for `ask`. `Expired`: an item took too long. `PeerLost`: the
                producer is gone, or the network was away and items were lost.
            ConfigurationError: As for `ask`.
            DeclarationError: While iterating, as for `ask`.

        Example:
            .. code-block:: python

                async for word in runtime.stream(Anycast("demo/ns/words"), Words("to be or not to be")):
                    print(word)

                words = runtime.stream(route, Words("…")) | pipe.map(str.upper) | pipe.take(5)
                print(await stream.list(words))
        """
        return self._stream(check_route(route), message, timeout, items)

    def pin(
        self,
        route: str | Unicast,
        *,
        mls: bool | None = None,
        max_retries: int | None = None,
        retransmit: float | timedelta | None = None,
    ) -> Pinned:
        """Open an explicit conversation with one replica, for the length of an ``async with``.

        Every message in it goes to the replica that was found at its start. Once that replica is lost, every
        further message raises `PeerLost`.

        Args:
            route: The name of the service, or a whole `Unicast`, which says the rest itself.
            mls: As in `Unicast`.
            max_retries: As in `Unicast`.
            retransmit: The `timeout` of `Unicast`.

        Raises:
            NoRoute: On entering: nobody answers to the name.
            Denied: On entering: the replica refuses the identity of this side.
            Untrusted: On entering: this side refuses the identity of the replica.
            Busy: On entering: the replica takes no more sessions.
            NodeUnreachable: On entering: the node was away until the deadline.
            ConfigurationError: The name or a value is wrong, or comes beside a `Unicast`; the runtime is not
                open, or a message is sent before entering.

        Example:
            .. code-block:: python

                async with runtime.pin("agntcy/ns/alice", mls=True) as alice:
                    await alice.ask("hello")
        """
        options: dict[str, Any] = {"mls": mls, "max_retries": max_retries, "timeout": retransmit}
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(route, str):
            route = Unicast(route, **given)
        elif given:
            raise ConfigurationError(f"{', '.join(given)}: say that in the Unicast itself.")
        if not isinstance(route, Unicast):
            raise ConfigurationError(
                f'{route!r} cannot be pinned: give a name or a Unicast("org/ns/service").'
            )
        return Pinned(route, self)
