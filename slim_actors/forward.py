"""Forwarding: a handler lets another agent answer its caller."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from slim_actors.routes import Route, check_route

__all__ = ["Forward"]


def _is_route(_: Any, __: Attribute[Route], value: Route) -> None:
    check_route(value)


@frozen
class Forward:
    """Returned by a handler: the agent at the route gets the message and answers the original caller.

    The deadline, the message id and what else travels with the message go along. The handler's instance is
    free for its next message at once; the answer passes through its process unread. A circle of forwards ends
    in `CallCycle`.

    Attributes:
        route: Where the message goes.
        message: What that agent gets.

    Raises:
        ConfigurationError: The route is none.

    Example:
        .. code-block:: python

            @handler
            async def question(self, message: Question) -> Forward:
                return Forward(Anycast(f"acme/experts/{message.topic}"), message)
    """

    route: Route = field(validator=_is_route)
    message: Any
