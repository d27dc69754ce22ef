"""What the rest of slim-actors needs from a transport, and what a transport promises.

Three things, from the outside in: a `Transport` is the connection of this process to the network; a `Port`
is one instance that can be found by name; a `Session` is one conversation between two ports, in order and
without loss while both are alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from slim_actors.errors import DeliveryError, PeerLost, SlimActorsError
from slim_actors.names import Address

__all__ = ["Payload", "Port", "Session", "SessionClosed", "SessionOptions", "Transport"]


class SessionClosed(SlimActorsError):
    """The session is over: the peer closed it, or this side did.

    Args:
        message: Why.
        outcome: What that means for those who wait for the peer.
    """

    def __init__(self, message: str, outcome: type[DeliveryError] = PeerLost) -> None:
        super().__init__(message)
        self.outcome = outcome


class Payload(Struct, frozen=True, gc=False):
    """What one `Session.receive` gives: the bytes, and the payload type that the sender named."""

    data: bytes
    type: str


class SessionOptions(Struct, frozen=True):
    """How a session is set up; see `slim_actors.routes` for the meaning of each value."""

    mls: bool = False
    max_retries: int = 5
    timeout: float = 0.5
    framed: bool = True
    """Whether this side will speak the wire format; the peer is told so at set-up."""
    lost_after: float = 0.0
    """Seconds for which the session outlasts a peer that is silent."""


class Session(Protocol):
    """One conversation with one peer."""

    @property
    def peer(self) -> Address:
        """The other end, as the transport knows it (never as the peer claims)."""

    @property
    def mls(self) -> bool:
        """Whether the session is encrypted end to end."""

    @property
    def framed(self) -> bool:
        """Whether the side that opened the session speaks the wire format."""

    async def send(self, data: bytes, payload_type: str | None) -> None:
        """Hand a payload to the network; returns when it took it, not when the peer has it.

        Raises:
            SessionClosed: The session is over.
        """

    async def receive(self) -> Payload:
        """Wait for the next payload. Must not be cancelled while the session is in use.

        Raises:
            SessionClosed: The session is over and everything that came before was received.
        """

    async def alive(self, data: bytes | None, payload_type: str, within: float) -> bool:
        """Send a payload and tell whether the peer's process acknowledged it within so many seconds.

        None sends nothing, and only tells what the transport knows from what was sent before.

        The acknowledgement comes from the peer's transport, so a process that is busy is alive, and one
        that is frozen, dead or cut off is not.
        """

    async def close(self) -> None:
        """End the session. Does nothing on one that is over; never raises and never waits for the peer."""


class Port(Protocol):
    """One instance on the network: it can be found by its name, and it can open sessions to others."""

    @property
    def address(self) -> Address:
        """The name and the id that the network gave to this instance."""

    async def connect(self, target: Address, options: SessionOptions) -> Session:
        """Open a session to the instance, or to any replica of the name if the address has no instance.

        Raises:
            NoRoute: Nobody answered.
            Denied: Somebody did, and refuses the identity of this side.
            Untrusted: Somebody did, and this side refuses his identity.
            NodeUnreachable: The network is away.
        """

    async def accept(self) -> Session:
        """Wait for the next session that somebody opens to this instance.

        Raises:
            SessionClosed: The port is closed.
        """

    async def withdraw(self) -> None:
        """Stop being found by name; sessions go on."""

    async def close(self) -> None:
        """Close the port and what is left of its sessions."""


class Transport(Protocol):
    """The connection of this process to the network."""

    async def open(self, name: str, subject: str = "") -> Port:
        """Join the network under a name; returns when the new instance can be found.

        Args:
            name: The name.
            subject: Whom its identity names, where that is made here; its name by default.

        Raises:
            NodeUnreachable: The network is away.
        """

    def on_return(self, callback: Callable[[], None]) -> None:
        """Call back each time the network has come back after an outage, in which payloads may be lost."""

    def forget_return(self, callback: Callable[[], None]) -> None:
        """Call back no longer."""

    @property
    def is_available(self) -> bool:
        """Whether the network was there when it was last looked at."""

    async def check(self) -> bool:
        """Look whether the network is there now."""

    async def available(self) -> None:
        """Wait until the network is there; returns at once when it is."""

    async def close(self) -> None:
        """Close every port, and a node that this transport started."""
