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
from collections.abc import Callable

from slim_actors.credentials import Refused, credentials_of
from slim_actors.endpoints import Endpoint, no_node
from slim_actors.errors import NodeUnreachable
from slim_actors.identity import Identity, SharedSecret, StaticJwt
from slim_actors.transport.bindings import no_delay, warm_up
from slim_actors.transport.port import LOOK_EVERY, SlimPort
from slim_actors.transport.security import Connection

__all__ = ["SlimTransport"]

_logger = logging.getLogger("slim_actors.transport")

_WATCH_INTERVAL = 1.0
_PROBE = "slim-actors/local/probe"


def _warn_of_own_token(identity: StaticJwt) -> None:
    """Warn if peers with the same keys would not believe the token; it may be renewed in its file."""
    credentials = credentials_of(identity, _PROBE)
    assert credentials is not None, "slim-actors checks issued tokens"
    try:
        credentials.verify(credentials.token())
    except Refused as why:
        _logger.warning("%s is not believed by its own keys: %s.", identity.token, why)


class SlimTransport:
    """The connection of this process to a SLIM node.

    Args:
        connection: How to connect to the node.
        identity: Who the agents are, and whom they believe.

    Raises:
        ConfigurationError: The certificates or the identity's files cannot be used.
    """

    def __init__(self, connection: Connection, identity: Identity) -> None:
        warm_up()
        connection.check()
        self.connection = connection
        self._identity = identity
        self._ports: list[SlimPort] = []
        self._returned: list[Callable[[], None]] = []
        self._up = asyncio.Event()
        self._up.set()
        self._probing = asyncio.Lock()
        self._probe: SlimPort | None = None
        self._watcher: asyncio.Task[None] | None = None
        if isinstance(identity, SharedSecret) and not connection.endpoint.is_local:
            _logger.warning(
                "A shared secret is for testing: whoever has it can be any agent at %s. Use tokens.",
                connection.endpoint,
            )

        elif isinstance(identity, StaticJwt):
            _warn_of_own_token(identity)

    @property
    def endpoint(self) -> Endpoint:
        """Where the node is."""
        return self.connection.endpoint

    async def open(self, name: str, subject: str = "") -> SlimPort:
        """See `Transport.open`."""
        port = await self._join(name, subject)
        self._ports.append(port)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="slim-watch")
        return port

    async def _join(self, name: str, subject: str = "") -> SlimPort:
        if not await self.endpoint.listening():
            raise no_node(self.endpoint)
        port = SlimPort(self, name, self._identity, subject or name)
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
        if self._up.is_set() and not await self._is_there():
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
        await asyncio.gather(*(port.close() for port in self._ports))
        # Only now: a port that sets up a session may have been about to open it.
        if self._probe is not None:
            await self._probe.close()

    async def _watch(self) -> None:
        for turn in itertools.count():
            await asyncio.sleep(_WATCH_INTERVAL)
            try:
                no_delay.apply()
                if self._up.is_set() and await self._is_there():
                    if self._ports:
                        await self._ports[turn % len(self._ports)].reconnect_if_given_up()
                    continue
                self._up.clear()
                _logger.warning("The SLIM node at %s is away; what is sent waits for it.", self.endpoint)
                await self._repair()
                self._up.set()
                _logger.warning("The SLIM node at %s is back.", self.endpoint)
                for callback in list(self._returned):
                    callback()
            except Exception:
                # Whatever it was: without the watch nobody would ever reconnect.
                _logger.exception("The watch over the SLIM node stumbled")

    async def _is_there(self) -> bool:
        """Tell whether the node answers the probe."""
        # Of two that come first together, one waits for the port that the other opens.
        async with self._probing:
            if self._probe is None:
                # A port without traffic: what blocks the others must not pass for an outage. It is not opened
                # at the start, for the first message of a process would wait for it.
                try:
                    self._probe = await self._join(_PROBE)
                except NodeUnreachable:
                    return False
        return await self._probe.reachable()

    async def _repair(self) -> None:
        while not await self._is_there():
            if self._probe is not None:
                await self._probe.reconnect_if_given_up()
            no_delay.apply()
            await asyncio.sleep(LOOK_EVERY)
        await asyncio.gather(*(port.come_back() for port in list(self._ports)))
        no_delay.apply()
