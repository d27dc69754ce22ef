"""What a handler knows about the message that it handles, and the verbs with which it sends others."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from slim_actors.names import Address
from slim_actors.verbs import DEFAULT_TIMEOUT, Verbs

if TYPE_CHECKING:
    from slim_actors.mailbox import Envelope
    from slim_actors.routing.router import Router

__all__ = ["Context"]

_logger = logging.getLogger("slim_actors.agent")


class Context(Verbs):
    """Given to a handler with each message, and to ``started`` and ``stopped`` without one.

    It has the same verbs as `Runtime`: ``ask``, ``tell`` and ``pin``. What is sent through it comes from this
    instance, and ends with the deadline of the message that is being handled.
    """

    __slots__ = ("_envelope", "_router")

    def __init__(self, router: Router, envelope: Envelope | None = None) -> None:
        self._router = router
        self._envelope = envelope

    @property
    def me(self) -> Address:
        """This instance."""
        return self._router.address

    @property
    def sender(self) -> Address:
        """Who sent the message, as SLIM knows it; this instance itself where there is no message."""
        return self._envelope.sender if self._envelope else self.me

    @property
    def message_id(self) -> str:
        """The id that the caller gave to the message, unique in the whole network; empty without one."""
        return f"{self._envelope.sender.instance}:{self._envelope.id}" if self._envelope else ""

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, on the clock of the event loop, in seconds."""
        return self._envelope.expires if self._envelope else None

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never below 0; infinite where there is none."""
        if self._envelope is None:
            return float("inf")
        return max(0.0, self._envelope.expires - asyncio.get_running_loop().time())

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry ``agent`` and ``message_id``."""
        return logging.LoggerAdapter(_logger, {"agent": str(self.me), "message_id": self.message_id})

    async def _sender(self) -> Router:
        return self._router

    def _expires(self, timeout: float | None) -> float:
        now = asyncio.get_running_loop().time()
        expires = now + (DEFAULT_TIMEOUT if timeout is None else timeout)
        return expires if self._envelope is None else min(expires, self._envelope.expires)
