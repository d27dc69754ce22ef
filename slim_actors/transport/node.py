"""A SLIM node inside this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from slim_actors.endpoints import Endpoint
from slim_actors.errors import ConfigurationError, EndpointInUse
from slim_actors.transport.bindings import initialise, innermost, new_service, no_delay, slim, warm_up
from slim_actors.transport.security import server_config

if TYPE_CHECKING:
    from slim_actors.auth import Auth, TokenCheck
    from slim_actors.tls import Tls

__all__ = ["SlimNode"]

_CLOSE_WITHIN = 1.0
_IN_USE = "Something already listens at {}: stop it, or give another --endpoint."


class SlimNode:
    """A SLIM node inside this process.

    Args:
        endpoint: Where it listens.
        tls: Its certificate, for ``https://`` and ``wss://``, and the CA that its clients' must be from.
        auth: What clients must give, besides.
    """

    def __init__(
        self, endpoint: Endpoint, tls: Tls | None = None, auth: Auth | TokenCheck | None = None
    ) -> None:
        self.endpoint = endpoint
        self._tls = tls
        self._auth = auth
        self._service: slim.Service | None = None
        self._socket: tuple[int, int] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            EndpointInUse: Something else already listens there.
            ConfigurationError: It is no place to listen at, and whatever is there is left as it is; or the
                certificates cannot be used.
        """
        endpoint = self.endpoint
        config = server_config(endpoint, self._tls, self._auth)
        if endpoint.scheme == "unix":
            if await endpoint.listening():
                raise EndpointInUse(_IN_USE.format(endpoint))
            # A node that was killed leaves its socket file behind, and the next one cannot bind to it.
            endpoint.remove_socket()
        initialise(for_node=True)
        warming = warm_up()
        service = new_service()
        try:
            await service.run_server_async(config)
        except slim.SlimError as error:
            if "in use" in str(error):
                raise EndpointInUse(_IN_USE.format(endpoint)) from None
            raise ConfigurationError(f"No node can listen at {endpoint}: {innermost(error)}.") from None
        # Accepted sockets inherit the option from the listener.
        no_delay.apply()
        # What listens is ready: else the first connection would wait for it.
        warming.join()
        self._service = service
        self._socket = self._file()

    async def stop(self) -> None:
        """Stop listening, in the way that lets clients reconnect later."""
        service, self._service = self._service, None
        if service is None:
            return
        with contextlib.suppress(slim.SlimError):
            service.stop_server(self.endpoint.to_listen())
        with contextlib.suppress(slim.SlimError, TimeoutError):
            async with asyncio.timeout(_CLOSE_WITHIN):
                await service.shutdown_async()
        # What took its place meanwhile is not this node's to remove.
        if self._socket is not None and self._socket == self._file():
            with contextlib.suppress(ConfigurationError):
                self.endpoint.remove_socket()

    def _file(self) -> tuple[int, int] | None:
        """Tell which file the Unix socket is."""
        if self.endpoint.scheme == "unix":
            with contextlib.suppress(OSError):
                status = os.lstat(self.endpoint.path)
                return status.st_dev, status.st_ino
        return None
