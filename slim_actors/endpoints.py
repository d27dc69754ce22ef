"""Endpoints: where a SLIM node listens, and whether anybody listens there now."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from slim_actors.checks import is_passable
from slim_actors.errors import ConfigurationError, NodeUnreachable

__all__ = ["DEFAULT_ENDPOINT", "Endpoint", "is_this_machine", "no_node"]

DEFAULT_ENDPOINT = "http://127.0.0.1:46357"

_SCHEMES = ("http", "https", "ws", "wss", "unix")
_MOST_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""What fits into the address of a Unix socket."""
_MOST_SPELLING_BITS = 12


class Endpoint(Struct, frozen=True):
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
            ConfigurationError: It is not one; the text says what one looks like. Or it is a Unix path
                longer than the system takes.

        Example:
            >>> str(Endpoint.parse("127.0.0.1:46357"))
            'http://127.0.0.1:46357'
        """
        wrong = _no_endpoint(text)
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            scheme, rest = "http", scheme
        if scheme not in _SCHEMES:
            raise wrong
        if scheme == "unix":
            if not rest.startswith(("/", ".")) or not is_passable(rest):
                raise wrong
            # Absolute, for the node and its clients may run in different folders.
            return cls(scheme, path=_fitting(str(Path(rest).absolute())))
        if _has_more(rest):
            raise wrong
        try:
            parts = urlsplit(f"//{rest}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise wrong from None
        if not host or parts.path not in ("", "/"):
            raise wrong
        if not port:
            raise _no_endpoint(text, ", for it has no port")
        return cls(scheme, host=host, port=port)

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.scheme == "unix" else f"{self.scheme}://{self._authority}"

    @property
    def _authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_secure(self) -> bool:
        """Whether TLS protects the way to it."""
        return self.scheme in ("https", "wss")

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, and reached without leaving it."""
        return self.scheme == "unix" or is_this_machine(self.host)

    @property
    def is_everywhere(self) -> bool:
        """Whether it stands for every address of a machine: a node can listen there."""
        return self.host in ("0.0.0.0", "::")  # noqa: S104 (nothing is bound here)

    def to_listen(self) -> str:
        """Give the form that a listening SLIM node takes: plain ``host:port`` for HTTP."""
        if self.scheme in ("http", "https"):
            return f"127.0.0.1:{self.port}" if self.host == "localhost" else self._authority
        return str(self)

    def respelled(self, number: int) -> str:
        """Give the same place in other letters: a few more, however large the number.

        The bindings refuse a second connection to an endpoint that they still list, even when that
        connection is dead for good; written differently, it is another endpoint to them. They list it as
        long as the process lives, so there are as many spellings as fit, 4096 at the most.
        """
        if self.scheme != "unix":
            number %= 2**_MOST_SPELLING_BITS
            return f"{self}/r{number}" if number else str(self)
        # One or two bytes a bit, or long paths would outgrow what the system takes.
        bits = min(_MOST_SPELLING_BITS, (_MOST_PATH_BYTES - len(os.fsencode(self.path))) // 2)
        number %= 2**bits
        if not number:
            return str(self)
        folder, slash, file = self.path.rpartition("/")
        detour = f"{number:b}".replace("1", "./").replace("0", "/")
        return f"unix://{folder}{slash}{detour}{file}"

    def remove_socket(self) -> None:
        """Remove the file of a Unix socket that nobody listens at, and nothing that is not a socket.

        Raises:
            ConfigurationError: Something else is there, or the folder is missing or closed to this user.
        """
        path = Path(self.path)
        try:
            if not path.parent.is_dir():
                raise ConfigurationError(f"There is no folder {path.parent} for the socket {self}.")
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigurationError(f"{path} exists and is not a socket: give another path.")
            path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigurationError(f"The socket {path} cannot be made anew: {error.strerror}.") from None

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


def is_this_machine(host: str) -> bool:
    """Tell whether a host is reached without leaving this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _has_more(text: str) -> bool:
    """Tell whether there is a user, a query or a fragment, each of which may have a secret in it."""
    return any(mark in text for mark in "@?#")


def _no_endpoint(text: str, why: str = "") -> ConfigurationError:
    forms = "write http://HOST:PORT, https://HOST:PORT, ws://HOST:PORT or unix:///PATH"
    if not _has_more(text):
        return ConfigurationError(f"{text!r} is not an endpoint{why}: {forms}.")
    return ConfigurationError(
        f"The endpoint has '@', '?' or '#', and is not shown, for a secret may be in it: {forms}. A login at "
        "the node is given by --node-user and --node-password."
    )


def _fitting(path: str) -> str:
    size = len(os.fsencode(path))
    if size > _MOST_PATH_BYTES:
        raise ConfigurationError(
            f"The path {path} has {size} bytes, but a Unix socket's may have {_MOST_PATH_BYTES} at the most."
        )
    return path


def no_node(endpoint: Endpoint) -> NodeUnreachable:
    """Make the error that no node listens, with the command that would start one."""
    command = "slim-actors node"
    if str(endpoint) != DEFAULT_ENDPOINT:
        command += f" --endpoint {endpoint}"
    return NodeUnreachable(f"No SLIM node listens at {endpoint}. Start one with: {command}")
