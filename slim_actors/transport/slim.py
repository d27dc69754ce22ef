"""The transport over SLIM.

Every port has a `Service` of its own, which is a connection of its own to the node. So a frozen receiver
holds up only the sessions of its own sender (SLIM's back-pressure is per connection), replicas in one process
are found as fairly as replicas in many (discovery goes round per connection, and prefers an app of the
caller's own service), and a port reaches other instances of its own name.

Facts about the bindings that the code below rests on are measured ones; the comments name them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from slim_actors.endpoints import Endpoint, no_node
from slim_actors.errors import (
    ConfigurationError,
    NodeUnreachable,
    NoRoute,
    SlimActorsError,
)
from slim_actors.names import Address
from slim_actors.settings import check_secret
from slim_actors.transport.base import MAX_PAYLOAD, Payload, SessionClosed, SessionOptions
from slim_actors.transport.bindings import innermost, new_service, no_delay, slim

__all__ = ["SlimTransport"]

T = TypeVar("T")

_WATCH_INTERVAL = 1.0
_CONNECT_WITHIN = 4.0
_PROBE_WITHIN = 1.5
_RECONNECT_INTERVAL = 0.2
_CLOSE_WITHIN = 1.0
_FRAMED = "slim-actors"
_NOWHERE = ("connection not found", "no matching found", "remote subscription ack error")


class SlimTransport:
    """The connection of this process to a SLIM node.

    Args:
        endpoint: The node.
        secret: The shared secret by which agents know each other.

    Raises:
        ConfigurationError: The secret is too short.
    """

    def __init__(self, endpoint: Endpoint, secret: str) -> None:
        self.endpoint = endpoint
        self._secret = check_secret(secret)
        self._ports: list[SlimPort] = []
        self._returned: list[Callable[[], None]] = []
        self._up = asyncio.Event()
        self._up.set()
        self._watcher: asyncio.Task[None] | None = None

    async def open(self, name: str) -> SlimPort:
        """See `Transport.open`."""
        port = SlimPort(self, name, self._secret)
        await port.join()
        self._ports.append(port)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="slim-watch")
        return port

    def on_return(self, callback: Callable[[], None]) -> None:
        """See `Transport.on_return`."""
        self._returned.append(callback)

    def forget_return(self, callback: Callable[[], None]) -> None:
        """See `Transport.forget_return`."""
        self._returned.remove(callback)

    async def available(self) -> None:
        """See `Transport.available`."""
        await self._up.wait()

    @property
    def is_available(self) -> bool:
        """See `Transport.is_available`."""
        return self._up.is_set()

    async def check(self) -> bool:
        """See `Transport.check`. If the node is away, the watch sees to the repair."""
        if self._up.is_set() and not all(await asyncio.gather(*(port.reachable() for port in self._ports))):
            self._up.clear()
        return self._up.is_set()

    def forget(self, port: SlimPort) -> None:
        """Leave a closed port out of the watch."""
        with contextlib.suppress(ValueError):
            self._ports.remove(port)

    async def close(self) -> None:
        """See `Transport.close`."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await asyncio.gather(*(port.close() for port in list(self._ports)))

    async def _watch(self) -> None:
        for turn in itertools.count():
            await asyncio.sleep(_WATCH_INTERVAL)
            no_delay.apply()
            if not self._ports:
                continue
            # One port a turn: all of them hang on the same node, and a thousand need not ask at once.
            if self._up.is_set() and await self._ports[turn % len(self._ports)].reachable():
                continue
            self._up.clear()
            await self._repair()
            self._up.set()
            for callback in list(self._returned):
                callback()

    async def _repair(self) -> None:
        waiting = list(self._ports)
        while waiting:
            await asyncio.gather(*(port.reconnect_if_given_up() for port in waiting))
            healthy = await asyncio.gather(*(port.reachable() for port in waiting))
            waiting = [
                port
                for port, is_healthy in zip(waiting, healthy, strict=True)
                if not is_healthy and port in self._ports
            ]
            no_delay.apply()
            if waiting:
                await asyncio.sleep(_RECONNECT_INTERVAL)


class SlimPort:
    """One SLIM app: a name with an instance id, on a connection of its own."""

    def __init__(self, transport: SlimTransport, name: str, secret: str) -> None:
        self._transport = transport
        self._service = new_service()
        # The synchronous constructor: the asynchronous one panics in the bindings.
        try:
            self._app = self._service.create_app_with_secret(slim.Name(*name.split("/")), secret)
        except slim.SlimError as error:
            raise ConfigurationError(f"SLIM refuses the identity of {name}: {innermost(error)}.") from None
        self._address = Address(name, self._app.id())
        self._connection = -1
        self._spelling = 0
        self._sessions: set[SlimSession] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._listening: asyncio.Future[slim.Session] | None = None

    @property
    def address(self) -> Address:
        """See `Port.address`."""
        return self._address

    async def join(self) -> None:
        """Connect to the node and subscribe to the name."""
        endpoint = self._transport.endpoint
        if not await endpoint.listening():
            raise no_node(endpoint)
        config = slim.new_insecure_client_config(endpoint.respelled(self._spelling))
        # This policy governs reconnects too, so it must not run out; the time-out bounds the first connect.
        backoff: Any = slim.BackoffConfig.FIXED_INTERVAL(
            config=slim.FixedIntervalBackoff(
                interval=timedelta(seconds=_RECONNECT_INTERVAL), max_attempts=2**31
            )
        )
        config.backoff = backoff
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                self._connection = await self._service.connect_async(config)
                no_delay.apply()
                await self._app.subscribe_async(self._app.name(), self._connection)
        except (TimeoutError, slim.SlimError) as error:
            why = (
                innermost(error)
                if isinstance(error, slim.SlimError)
                else f"silent for {_CONNECT_WITHIN:.0f} s"
            )
            raise NodeUnreachable(
                f"Something listens at {endpoint}, but does not answer as a SLIM node does: {why}."
            ) from None

    async def connect(self, target: Address, options: SessionOptions) -> SlimSession:
        """See `Port.connect`."""
        config = slim.SessionConfig(
            session_type=slim.SessionType.POINT_TO_POINT,
            max_retries=options.max_retries,
            interval=timedelta(seconds=options.timeout),
            metadata={_FRAMED: "1"} if options.framed else {},
            mls_settings=_MLS if options.mls else None,
        )
        creation = self._background(self._create(config, self._name_of(target), target, options))
        try:
            return await asyncio.shield(creation)
        except asyncio.CancelledError:
            # The bindings would lose the half-made session; let it come up, and close it then.
            creation.add_done_callback(self._close_unwanted)
            raise

    async def accept(self) -> SlimSession:
        """See `Port.accept`."""
        if self._closed:
            raise SessionClosed(f"{self._address} is closed.")
        self._listening = asyncio.ensure_future(self._app.listen_for_session_async(None))
        try:
            session = await self._listening
        except asyncio.CancelledError:
            if self._closed:
                raise SessionClosed(f"{self._address} is closed.") from None
            raise
        except slim.SlimError as error:
            raise SessionClosed(f"{self._address} takes no more sessions: {innermost(error)}.") from None
        finally:
            self._listening = None
        return self._adopt(session, _address_of(session.destination()), framed=_FRAMED in session.metadata())

    async def withdraw(self) -> None:
        """See `Port.withdraw`."""
        with contextlib.suppress(slim.SlimError, TimeoutError):
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._app.unsubscribe_async(self._app.name(), self._connection)

    async def close(self) -> None:
        """See `Port.close`."""
        if self._closed:
            return
        self._closed = True
        self._transport.forget(self)
        await self.withdraw()
        if self._listening is not None:
            self._listening.cancel()
        for session in list(self._sessions):
            await session.close()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=_CLOSE_WITHIN)
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(slim.SlimError):
            self._service.disconnect(self._connection)

    async def reachable(self) -> bool:
        """Tell whether the node acknowledges a subscription: the only sign of life that it gives."""
        # With an id: a name without one can be subscribed to but not unsubscribed from.
        probe = slim.Name.new_with_id("slim-actors", "local", "probe", self._address.instance)
        try:
            async with asyncio.timeout(_PROBE_WITHIN):
                await self._app.subscribe_async(probe, self._connection)
                await self._app.unsubscribe_async(probe, self._connection)
        except (slim.SlimError, TimeoutError):
            return False
        return True

    async def reconnect_if_given_up(self) -> None:
        """Connect afresh if the bindings stopped trying, as they do when a dying node accepts and resets."""
        try:
            async with asyncio.timeout(_PROBE_WITHIN):
                await self._app.set_route_async(slim.Name("slim-actors", "local", "route"), self._connection)
        except TimeoutError:
            return
        except slim.SlimError as error:
            if "connection not found" not in str(error):
                return
            self._spelling += 1
            with contextlib.suppress(NodeUnreachable):
                await self.join()

    async def _create(
        self, config: slim.SessionConfig, name: slim.Name, target: Address, options: SessionOptions
    ) -> SlimSession:
        try:
            session = await self._app.create_session_and_wait_async(config, name)
        except slim.SlimError as error:
            text = str(error)
            if any(sign in text for sign in _NOWHERE) and not await self._transport.check():
                raise NodeUnreachable(f"The SLIM node at {self._transport.endpoint} is away.") from None
            waited = (options.max_retries + 1) * options.timeout
            raise NoRoute(
                f"Nobody answers at {target} (waited {waited:.3g} s): no such agent is running there, "
                "or it has another shared secret."
            ) from None
        others = (participant.name for participant in session.participants_list())
        peer = next((_address_of(other) for other in others if other.id() != self._app.id()), target)
        return self._adopt(session, peer, framed=options.framed)

    @staticmethod
    def _name_of(target: Address) -> slim.Name:
        org, namespace, service = target.name.split("/")
        if not target.instance:
            return slim.Name(org, namespace, service)
        return slim.Name.new_with_id(org, namespace, service, target.instance)

    def _adopt(self, session: slim.Session, peer: Address, *, framed: bool) -> SlimSession:
        adopted = SlimSession(session, peer, self, framed=framed)
        self._sessions.add(adopted)
        return adopted

    def _close_unwanted(self, creation: asyncio.Task[SlimSession]) -> None:
        if not creation.cancelled() and creation.exception() is None:
            self._background(creation.result().close())

    def _background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def discard(self, session: SlimSession, handle: slim.Session) -> None:
        """Delete a session without waiting: to a dead peer it takes as long as all retransmissions."""
        if session in self._sessions:
            self._sessions.discard(session)
            self._background(self._delete(handle))

    async def _delete(self, handle: slim.Session) -> None:
        with contextlib.suppress(slim.SlimError):
            await self._app.delete_session_async(handle)


class SlimSession:
    """One SLIM point-to-point session."""

    def __init__(self, session: slim.Session, peer: Address, port: SlimPort, *, framed: bool) -> None:
        self._session = session
        self._port = port
        self._peer = peer
        self._framed = framed
        self._mls = session.config().mls_settings is not None

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
        await self._publish(data, payload_type)

    async def receive(self) -> Payload:
        """See `Session.receive`."""
        while True:
            try:
                message = await self._session.get_message_async(None)
            except slim.SlimError as error:
                if "session closed" in str(error):
                    raise SessionClosed(f"{self._peer} closed the session.") from None
                # "participant disconnected" comes just before it; deleting the session already at that would
                # cut off the peer's goodbye, and it would wait for the answer.
                await asyncio.sleep(0)
                continue
            return Payload(message.payload, message.context.payload_type)

    async def alive(self, data: bytes | None, payload_type: str, within: float) -> bool:
        """See `Session.alive`."""
        try:
            if data is not None:
                handle = await self._publish(data, payload_type)
                await handle.wait_for_async(timedelta(seconds=within))
        except (slim.SlimError, SlimActorsError):
            return False
        # A reliable handle completes without an error even when every retransmission was in vain.
        return all(
            who.status is not slim.ParticipantStatus.OFFLINE for who in self._session.participants_list()
        )

    async def close(self) -> None:
        """See `Session.close`."""
        self._port.discard(self, self._session)

    async def _publish(self, data: bytes, payload_type: str | None) -> slim.CompletionHandle:
        if len(data) > MAX_PAYLOAD:
            raise ConfigurationError(f"A payload of {len(data)} bytes is over SLIM's limit of {MAX_PAYLOAD}.")
        try:
            return await self._session.publish_async(data, payload_type, None)
        except slim.SlimError as error:
            raise SessionClosed(f"The session with {self._peer} is over: {innermost(error)}.") from None


_MLS = slim.MlsSettings(header_integrity_validation_percent=100, max_seen_control_message_ids_size=None)


def _address_of(name: slim.Name) -> Address:
    return Address("/".join(name.components()), name.id())
