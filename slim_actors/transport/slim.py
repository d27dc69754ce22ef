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
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from slim_actors.endpoints import Endpoint, no_node
from slim_actors.errors import (
    ConfigurationError,
    NodeUnreachable,
    NoRoute,
    NotANode,
)
from slim_actors.names import Address
from slim_actors.settings import check_secret
from slim_actors.transport.base import SessionClosed, SessionOptions
from slim_actors.transport.bindings import innermost, new_service, no_delay, slim
from slim_actors.transport.session import SlimSession

__all__ = ["SlimTransport"]

T = TypeVar("T")

_logger = logging.getLogger("slim_actors.transport")

_WATCH_INTERVAL = 1.0
_CONNECT_WITHIN = 4.0
_PROBE_WITHIN = 1.5
_RECONNECT_INTERVAL = 0.2
_CLOSE_WITHIN = 1.0
_ACCEPT_PAUSE = 0.01
_COME_BACK_TRIES = 10
_PROBE = "slim-actors/local/probe"
_FRAMED = "slim-actors"


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
        self._probe: SlimPort | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def open(self, name: str) -> SlimPort:
        """See `Transport.open`."""
        if self._probe is None:
            # A port without traffic: what blocks the others must not pass for an outage.
            self._probe = await self._join(_PROBE)
            self._watcher = asyncio.create_task(self._watch(self._probe), name="slim-watch")
        port = await self._join(name)
        self._ports.append(port)
        return port

    async def _join(self, name: str) -> SlimPort:
        if not await self.endpoint.listening():
            raise no_node(self.endpoint)
        port = SlimPort(self, name, self._secret)
        try:
            await port.join()
        except BaseException:
            await port.close()
            raise
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
        if self._up.is_set() and self._probe is not None and not await self._probe.reachable():
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
            await asyncio.wait([self._watcher])
        ports = [*self._ports, self._probe] if self._probe is not None else self._ports
        await asyncio.gather(*(port.close() for port in ports))

    async def _watch(self, probe: SlimPort) -> None:
        for turn in itertools.count():
            await asyncio.sleep(_WATCH_INTERVAL)
            try:
                no_delay.apply()
                if self._up.is_set() and await probe.reachable():
                    if self._ports:
                        await self._ports[turn % len(self._ports)].reconnect_if_given_up()
                    continue
                self._up.clear()
                await self._repair(probe)
            except Exception:
                # Whatever it was: without the watch nobody would ever reconnect.
                _logger.exception("The watch over the SLIM node stumbled")
                continue
            self._up.set()
            for callback in list(self._returned):
                callback()

    async def _repair(self, probe: SlimPort) -> None:
        while not await probe.reachable():
            await probe.reconnect_if_given_up()
            no_delay.apply()
            await asyncio.sleep(_RECONNECT_INTERVAL)
        await asyncio.gather(*(port.come_back() for port in list(self._ports)))
        no_delay.apply()


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
        new_config = slim.new_secure_client_config if endpoint.is_secure else slim.new_insecure_client_config
        config = new_config(endpoint.respelled(self._spelling))
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
            raise NotANode(
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
        creation = self.background(self._create(config, self._name_of(target), target, options))
        try:
            return await asyncio.shield(creation)
        except asyncio.CancelledError:
            # The bindings would lose the half-made session; let it come up, and close it then.
            creation.add_done_callback(self._close_unwanted)
            raise

    async def accept(self) -> SlimSession:
        """See `Port.accept`."""
        while not self._closed:
            self._listening = asyncio.ensure_future(self._app.listen_for_session_async(None))
            try:
                session = await self._listening
                framed = _FRAMED in session.metadata()
                return self._adopt(session, _address_of(session.destination()), framed=framed)
            except asyncio.CancelledError:
                if not self._closed:
                    raise
            except slim.SlimError:
                # It was closed before anybody here looked at it; the next one may be fine.
                await asyncio.sleep(_ACCEPT_PAUSE)
            finally:
                self._listening = None
        raise SessionClosed(f"{self._address} is closed.")

    async def withdraw(self) -> None:
        """See `Port.withdraw`."""
        if self._connection < 0:
            return
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
        if self._connection >= 0:
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

    async def come_back(self) -> None:
        """Wait until the node knows this port again, for a while: a blocked one must not hold up others."""
        for _ in range(_COME_BACK_TRIES):
            await self.reconnect_if_given_up()
            if self._closed or await self.reachable():
                return
            await asyncio.sleep(_RECONNECT_INTERVAL)

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
            if self._closed or not await self._transport.endpoint.listening():
                return
            self._spelling += 1
            with contextlib.suppress(NodeUnreachable):
                await self.join()

    async def _create(
        self, config: slim.SessionConfig, name: slim.Name, target: Address, options: SessionOptions
    ) -> SlimSession:
        try:
            session = await self._app.create_session_and_wait_async(config, name)
        except slim.SlimError:
            if not await self._transport.check():
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
            self.background(creation.result().close())

    def background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something that nobody need wait for; the port sees to its end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Looked at: who started it may have gone.
            task.exception()

    def discard(self, session: SlimSession, handle: slim.Session) -> None:
        """Delete a session without waiting: to a dead peer it takes as long as all retransmissions."""
        if session in self._sessions:
            self._sessions.discard(session)
            self.background(self._delete(handle))

    async def _delete(self, handle: slim.Session) -> None:
        with contextlib.suppress(slim.SlimError):
            await self._app.delete_session_async(handle)


_MLS = slim.MlsSettings(header_integrity_validation_percent=100, max_seen_control_message_ids_size=None)


def _address_of(name: slim.Name) -> Address:
    return Address("/".join(name.components()), name.id())
