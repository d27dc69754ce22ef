"""One SLIM app: a name with an instance id, on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from msgspec import structs

from slim_actors.backoff import Backoff
from slim_actors.credentials import credentials_of
from slim_actors.errors import Busy, Denied, NodeUnreachable, NoRoute, NotANode, Untrusted
from slim_actors.identity import Identity, StaticJwt
from slim_actors.names import Address
from slim_actors.transport.base import SessionClosed, SessionOptions
from slim_actors.transport.bindings import innermost, new_service, no_delay, slim
from slim_actors.transport.door import Door
from slim_actors.transport.flight import Flight
from slim_actors.transport.identities import create_app
from slim_actors.transport.security import Connection, tls_problem
from slim_actors.transport.session import Checks, SlimSession

__all__ = ["LOOK_EVERY", "SlimPort"]

T = TypeVar("T")

LOOK_EVERY = 0.2
"""Seconds between looks at a connection that is away, which go no farther than the bindings."""
_CONNECT_WITHIN = 4.0
_PROBE_WITHIN = 1.5
_CLOSE_WITHIN = 1.0
_ACCEPT_PAUSE = 0.01
_COME_BACK_WITHIN = 3.0
_RECONNECT = Backoff(0.2, 2.0, jitter=0.8)
_LOOK_AFTER = 1.0
_KNOCK_AFTER = 1.0
_LATE = 5.0
_FRAMED = "slim-actors"


class _Transport(Protocol):
    connection: Connection

    def forget(self, port: SlimPort) -> None: ...

    async def check(self) -> bool: ...


class SlimPort:
    """One SLIM app: a name with an instance id, on a connection of its own."""

    def __init__(self, transport: _Transport, name: str, identity: Identity, subject: str) -> None:
        self._transport = transport
        self._service = new_service()
        credentials = credentials_of(identity, subject)
        token_subject = credentials.id if credentials is not None else ""
        self._app = create_app(self._service, name, identity, token_subject)
        self._checks = Checks(credentials, introduces=isinstance(identity, StaticJwt))
        self._door = Door(self._service, name, credentials) if credentials is not None else None
        self._address = Address(name, self._app.id())
        self._connection = -1
        self._spelling = 0
        self._tries = 0
        self._try_at = 0.0
        self._sessions: set[SlimSession] = set()
        self._flights: WeakValueDictionary[str, Flight] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._listening: asyncio.Future[slim.Session] | None = None

    @property
    def address(self) -> Address:
        """See `Port.address`."""
        return self._address

    async def join(self) -> None:
        """Connect to the node and subscribe to the name."""
        joining = self.background(self._join())
        await asyncio.wait([joining], timeout=_LOOK_AFTER)
        connection = self._transport.connection
        if not joining.done() and connection.endpoint.is_secure:
            # The bindings would try for ever with a certificate that is not trusted.
            problem = await tls_problem(connection)
            if problem is not None:
                joining.cancel()
                raise NotANode(f"The node at {connection.endpoint} cannot be used: {problem}.")
        try:
            await joining
        except (TimeoutError, slim.SlimError) as error:
            raise await self._no_node(error) from None

    async def _join(self) -> None:
        async with asyncio.timeout(_CONNECT_WITHIN):
            connection = self._transport.connection
            self._connection = await self._service.connect_async(connection.config(self._spelling))
            if connection.endpoint.scheme != "unix":
                no_delay.apply(thoroughly=bool(self._spelling))
            await self._app.subscribe_async(self._app.name(), self._connection)
            if self._door is not None:
                await self._door.join(self._connection)

    async def connect(self, target: Address, options: SessionOptions) -> SlimSession:
        """See `Port.connect`."""
        creation = self.background(self._open_lasting(target, options))
        try:
            return await asyncio.shield(creation)
        except asyncio.CancelledError:
            # The bindings would lose the half-made session; let it come up, and close it then.
            creation.add_done_callback(self._close_unwanted)
            raise

    async def accept(self) -> SlimSession:
        """See `Port.accept`."""
        if self._door is not None:
            self._door.serve()
        while not self._closed:
            self._listening = asyncio.ensure_future(self._app.listen_for_session_async(None))
            try:
                session = await self._listening
                framed = _FRAMED in session.metadata()
                peer = _address_of(session.destination())
                return self._adopt(session, peer, framed=framed, is_caller=False)
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
        if self._door is not None:
            await self._door.close()
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
        loop = asyncio.get_running_loop()
        until = loop.time() + _COME_BACK_WITHIN
        # In seconds: on a connection that is blocked each look alone takes some.
        while loop.time() < until:
            await self.reconnect_if_given_up()
            if self._closed or await self.reachable():
                return
            await asyncio.sleep(LOOK_EVERY)

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
            await self._reconnect()

    async def _reconnect(self) -> None:
        # With pauses of its own: all the ports that a dying node has turned away must not come back as one.
        now = asyncio.get_running_loop().time()
        if self._tries and now < self._try_at:
            return
        self._try_at = now + _RECONNECT.pause(self._tries)
        self._tries += 1
        if self._closed or not await self._transport.connection.endpoint.listening():
            return
        self._spelling += 1
        with contextlib.suppress(NodeUnreachable):
            await self.join()
            self._tries = 0

    async def _no_node(self, error: Exception) -> NotANode:
        """Make the error that says why it could not be connected to."""
        from slim_actors.transport.login import refusal

        connection = self._transport.connection
        why = innermost(error) if isinstance(error, slim.SlimError) else f"silent for {_CONNECT_WITHIN:.0f} s"
        problem = await tls_problem(connection)
        if problem is None and ("401" in why or "link negotiation" in why):
            problem = refusal(connection.auth)
        if (
            problem is None
            and connection.endpoint.scheme in ("ws", "wss")
            and isinstance(error, TimeoutError)
        ):
            # Over WebSocket the bindings do not say that the node refuses the login.
            problem = f"it is {why}; perhaps {refusal(connection.auth)}"
        if problem is not None:
            return NotANode(f"The node at {connection.endpoint} cannot be used: {problem}.")
        return NotANode(
            f"Something listens at {connection.endpoint}, but does not answer as a SLIM node does: {why}."
        )

    async def _open_lasting(self, target: Address, options: SessionOptions) -> SlimSession:
        session = await self._open(target, options)
        if options.lost_after <= _waited(options):
            return session
        # SLIM gives up a peer that has left all retransmissions unanswered, and then holds back what is sent
        # to it until its next heartbeat, up to half a minute after it woke up. But whether anybody is there
        # at all is to be known sooner: so one session finds the peer, and another one lasts.
        await session.close()
        pause = options.lost_after / (options.max_retries + 1)
        return await self._open(session.peer, structs.replace(options, timeout=pause))

    async def _open(self, target: Address, options: SessionOptions) -> SlimSession:
        creation = self.background(self._create(target, options))
        # SLIM drops in silence whom it does not believe, so if no answer comes, ask at the door why.
        await asyncio.wait([creation], timeout=_KNOCK_AFTER)
        if not creation.done() or isinstance(creation.exception(), NoRoute):
            why = await self._door.knock(target) if self._door is not None else None
            if why is not None:
                creation.add_done_callback(self._close_unwanted)
                raise why
        # One that the node dies in the middle of may never return.
        await asyncio.wait([creation], timeout=_waited(options) + _LATE)
        if not creation.done():
            creation.add_done_callback(self._close_unwanted)
            await self._raise_if_away()
            raise NoRoute(f"Nobody answers at {target}: the set-up of a session came to no end.")
        return await creation

    async def _raise_if_away(self) -> None:
        if not await self._transport.check():
            raise NodeUnreachable(
                f"The SLIM node at {self._transport.connection.endpoint} is away."
            ) from None

    async def _create(self, target: Address, options: SessionOptions) -> SlimSession:
        config = slim.SessionConfig(
            session_type=slim.SessionType.POINT_TO_POINT,
            max_retries=options.max_retries,
            interval=timedelta(seconds=options.timeout),
            metadata={_FRAMED: "1"} if options.framed else {},
            mls_settings=_MLS if options.mls else None,
        )
        try:
            session = await self._app.create_session_and_wait_async(config, self._name_of(target))
        except slim.SlimError as error:
            if "duplicate" in innermost(error):
                raise Denied(
                    f"{target} has the same subject as this side, and two ends of one MLS session must not."
                ) from None
            await self._raise_if_away()
            waited = f"{_waited(options):.3g} s"
            raise NoRoute(
                f"Nobody answers at {target} (waited {waited}): no such agent is running there."
            ) from None
        try:
            others = [participant.name for participant in session.participants_list()]
        except slim.SlimError:
            # It is closed already, by the other end.
            raise Busy(f"{target} takes no more sessions now.") from None
        peer = next((_address_of(other) for other in others if other.id() != self._app.id()), target)
        adopted = self._adopt(session, peer, framed=options.framed, is_caller=True)
        try:
            await adopted.introduced()
        except SessionClosed as error:
            await adopted.close()
            raise Untrusted(f"{error}.") from None
        except BaseException:
            await adopted.close()
            raise
        return adopted

    @staticmethod
    def _name_of(target: Address) -> slim.Name:
        org, namespace, service = target.name.split("/")
        if not target.instance:
            return slim.Name(org, namespace, service)
        return slim.Name.new_with_id(org, namespace, service, target.instance)

    def _adopt(self, session: slim.Session, peer: Address, *, framed: bool, is_caller: bool) -> SlimSession:
        adopted = SlimSession(session, peer, self, self._checks, framed=framed, is_caller=is_caller)
        self._sessions.add(adopted)
        return adopted

    def _close_unwanted(self, creation: asyncio.Task[SlimSession]) -> None:
        if not creation.cancelled() and creation.exception() is None:
            self.background(creation.result().close())

    def flight(self, peer: Address) -> Flight:
        """Give what the sessions with one peer share."""
        flight = self._flights.get(peer.instance)
        if flight is None:
            flight = self._flights[peer.instance] = Flight(self.background)
        return flight

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


def _waited(options: SessionOptions) -> float:
    return (options.max_retries + 1) * options.timeout


def _address_of(name: slim.Name) -> Address:
    return Address("/".join(name.components()), name.id())
