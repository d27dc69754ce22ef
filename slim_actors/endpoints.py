"""Endpoints: where a SLIM node listens, and whether anybody listens there now."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from slim_actors.errors import ConfigurationError, NodeUnreachable

__all__ = ["DEFAULT_ENDPOINT", "Endpoint", "no_node"]

DEFAULT_ENDPOINT = "http://127.0.0.1:46357"

_SCHEMES = ("http", "https", "ws", "wss", "unix")


@frozen
class Endpoint:
    """A node's address: ``http://host:port``, ``https://``, ``ws://``, ``wss://`` or ``unix:///path``.

    Make one with `parse`; a bare ``host:port`` means ``http://``.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read an endpoint as a user writes it.

        Raises:
            ConfigurationError: It is not one; the text says what one looks like.

        Example:
            >>> str(Endpoint.parse("127.0.0.1:46357"))
            'http://127.0.0.1:46357'
        """
        wrong = ConfigurationError(
            f"{text!r} is not an endpoint: write http://HOST:PORT, https://HOST:PORT, ws://HOST:PORT "
            "or unix:///PATH."
        )
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            scheme, rest = "http", scheme
        if scheme not in _SCHEMES:
            raise wrong
        if scheme == "unix":
            if not rest.startswith(("/", ".")):
                raise wrong
            return cls(scheme, path=rest)
        try:
            parts = urlsplit(f"//{rest}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise wrong from None
        if not host or not port or parts.path not in ("", "/"):
            raise wrong
        return cls(scheme, host=host, port=port)

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.scheme == "unix" else f"{self.scheme}://{self._authority}"

    @property
    def _authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return False

    def to_listen(self) -> str:
        """Give the form that a listening SLIM node takes: plain ``host:port`` for HTTP."""
        if self.scheme in ("http", "https"):
            return self._authority.replace("localhost", "127.0.0.1")
        return str(self)

    def respelled(self, number: int) -> str:
        """Give the same place in other letters.

        The bindings refuse a second connection to an endpoint that they still list, even when that
        connection is dead for good; written differently, it is another endpoint to them.
        """
        if number == 0:
            return str(self)
        if self.scheme == "unix":
            folder, _, file = self.path.rpartition("/")
            return f"unix://{folder}/{'./' * number}{file}"
        return f"{self}/r{number}"

    def remove_socket(self) -> None:
        """Remove the file of a Unix socket that nobody listens at."""
        Path(self.path).unlink(missing_ok=True)

    async def listening(self, within: float = 2.0) -> bool:
        """Tell whether something accepts connections there, waiting so many seconds at the most."""
        try:
            async with asyncio.timeout(within):
                if self.scheme == "unix":
                    _, writer = await asyncio.open_unix_connection(self.path)
                else:
                    _, writer = await asyncio.open_connection(self.host, self.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True


def no_node(endpoint: Endpoint) -> NodeUnreachable:
    """Make the error that no node listens, with the command that would start one."""
    command = "slim-actors node"
    if str(endpoint) != DEFAULT_ENDPOINT:
        command += f" --endpoint {endpoint}"
    return NodeUnreachable(f"No SLIM node listens at {endpoint}. Start one with: {command}")
