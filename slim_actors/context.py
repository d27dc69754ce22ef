"""What a handler knows about the message that it handles, and the verbs with which it sends others."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from slim_actors.errors import ConfigurationError
from slim_actors.middleware import Verb
from slim_actors.names import Address
from slim_actors.speaker import DEFAULT_TIMEOUT
from slim_actors.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from slim_actors.cell import Cell
    from slim_actors.mailbox import Envelope
    from slim_actors.routes import Route
    from slim_actors.routing.router import Router

__all__ = ["Context", "chain_of"]

_logger = logging.getLogger("slim_actors.agent")


class Context(Verbs):
    """Given to a handler with each message, and to ``started`` and ``stopped`` without one.

    It has the same verbs as `Runtime`. What is sent through it comes from this instance, and ends with the
    deadline of the message that is being handled.
    """

    __slots__ = ("_cell", "_envelope")

    def __init__(self, cell: Cell, envelope: Envelope | None = None) -> None:
        self._cell = cell
        self._envelope = envelope

    @property
    def me(self) -> Address:
        """This instance."""
        return self._cell.address

    @property
    def sender(self) -> Address:
        """Who sent the message, as SLIM knows it; this instance itself where nobody else did."""
        return self._envelope.sender if self._envelope else self.me

    @property
    def message_id(self) -> str:
        """The id that the first caller gave to the message, the same after a `Forward`; empty without one."""
        if self._envelope is None or not self._envelope.id:
            return ""
        given = self._envelope.context.get("id")
        return given if isinstance(given, str) else f"{self._envelope.sender.instance}:{self._envelope.id}"

    @property
    def context(self) -> dict[str, Any]:
        """What travels along with the message, from hop to hop: what middleware put there."""
        return self._envelope.context if self._envelope else {}

    @property
    def verb(self) -> Verb:
        """How the message was sent: ``"ask"``, ``"tell"`` or ``"stream"``; by this instance itself: tell."""
        return "tell" if self._envelope is None else self._envelope.verb

    @property
    def waited(self) -> float:
        """Seconds since the message came to this instance's mailbox."""
        if self._envelope is None or self._envelope.arrived_at is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._envelope.arrived_at

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, in seconds on the event loop's clock; None where nobody waits."""
        if (
            self._envelope is None
            or self._envelope.outlet is not None
            or self._envelope.expires == float("inf")
        ):
            return None
        return self._envelope.expires

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never below 0; infinite where there is none."""
        deadline = self.deadline
        return float("inf") if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry ``agent`` and ``message_id``."""
        return logging.LoggerAdapter(_logger, {"agent": str(self.me), "message_id": self.message_id})

    def after(self, delay: float, message: Any) -> asyncio.TimerHandle:
        """Send a message to this instance after so many seconds, through its mailbox.

        One that is not due when the instance stops is never delivered. What is returned has ``cancel()``.

        Raises:
            ConfigurationError: The delay is negative.

        Example:
            .. code-block:: python

                ctx.after(60, Remind("still there?"))
        """
        if not delay >= 0:
            raise ConfigurationError(f"A delay of {delay!r} is not a number of seconds from 0 up.")
        return self._cell.after(delay, message)

    def forwarded(self) -> dict[str, Any]:
        """Give what goes along with a message that this one is forwarded as."""
        return {**self._travelling(), "id": self.message_id}

    async def _sender(self) -> Router:
        return self._cell.router

    async def _post(self, route: Route, messages: Iterable[object], timeout: float | None) -> None:
        await self._cell.keeper.post(self._envelope, route, messages, timeout, self._travelling())

    def _expires(self, timeout: float | None) -> float:
        now = asyncio.get_running_loop().time()
        expires = now + (DEFAULT_TIMEOUT if timeout is None else timeout)
        deadline = self.deadline
        return expires if deadline is None else min(expires, deadline)

    def _travelling(self) -> dict[str, Any]:
        travelling = {
            key: value for key, value in self.context.items() if key not in ("id", "chain", "durable")
        }
        if self._envelope is not None and self._envelope.wants_reply:
            # Whoever waits for this message waits for what it asks.
            travelling["chain"] = [*chain_of(self.context), str(self.me)]
        return travelling


def chain_of(context: dict[str, Any]) -> list[str]:
    """Give the instances that wait for a message, the first caller's first; a peer may claim anything."""
    chain = context.get("chain")
    if not isinstance(chain, list):
        return []
    return [link for link in chain if isinstance(link, str)]
