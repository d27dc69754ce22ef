"""One message under way to a replica, and the outcome that somebody waits for."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import define

from slim_actors.routing.outgoing import Outgoing
from slim_actors.streams import Inlet, Outlet

__all__ = ["Pending"]


@define(eq=False)
class Pending:
    """One message under way."""

    message: Outgoing
    outcome: asyncio.Future[Any]
    """The reply, the acceptance, or, of a stream, that its first item came or that it ended."""
    inlet: Inlet | None = None
    outlet: Outlet | None = None
    pump: asyncio.Task[None] | None = None
    size: int = 0

    @property
    def has_flows(self) -> bool:
        """Whether items come or go with it."""
        return self.inlet is not None or self.outlet is not None

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        """Set the outcome, if there is none yet."""
        if error is not None and self.inlet is not None:
            self.inlet.fail(error)
        if self.outcome.done():
            return
        if error is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)
