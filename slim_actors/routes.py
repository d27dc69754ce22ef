"""Routes: where a message goes, as plain values that can be made, compared and kept anywhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from attrs import Attribute, field, frozen

from slim_actors.checks import is_number, is_whole
from slim_actors.errors import ConfigurationError
from slim_actors.names import check_instance, check_name

__all__ = ["Anycast", "Route", "Unicast", "check_route"]


_MOST_RETRIES = 1000
_DAY = 24 * 3600.0


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _is_name(_: Any, __: Attribute[str], value: str) -> None:
    check_name(value)


def _not_negative(_: Any, attribute: Attribute[int], value: int) -> None:
    if not is_whole(value) or not 0 <= value <= _MOST_RETRIES:
        raise ConfigurationError(
            f"{attribute.name} is {value!r}, but must be a whole number from 0 to {_MOST_RETRIES}."
        )


def _positive(_: Any, attribute: Attribute[float], value: float) -> None:
    if not is_number(value) or not 0 < value <= _DAY:
        raise ConfigurationError(
            f"{attribute.name} is {value!r}, but must be a number of seconds above 0, a day at the most."
        )


def _is_flag(_: Any, attribute: Attribute[bool], value: object) -> None:
    # Whoever writes "no" must not get the opposite of it.
    if not isinstance(value, bool):
        raise ConfigurationError(f"{attribute.name} is {value!r}, but must be True or False.")


@frozen
class Anycast:
    """Each message may go to another live replica of the service: balanced, with fail-over.

    Attributes:
        name: The service, ``org/namespace/service``.
        mls: Encrypt end to end with MLS (RFC 9420); the node then sees only ciphertext.
        max_retries: How often SLIM sends a message again that was not acknowledged.
        timeout: Seconds (or a `timedelta`) between those retransmissions. Together with `max_retries` it
            bounds discovery: a name that nobody serves is known after ``(max_retries + 1) * timeout``.

    Raises:
        ConfigurationError: A value is out of range, or the name has not three parts.

    Example:
        >>> Anycast("agntcy/ns/alice", mls=True).name
        'agntcy/ns/alice'
    """

    name: str = field(validator=_is_name)
    mls: bool = field(default=False, kw_only=True, validator=_is_flag)
    max_retries: int = field(default=5, kw_only=True, validator=_not_negative)
    timeout: float = field(default=0.5, kw_only=True, converter=_seconds, validator=_positive)


@frozen
class Unicast:
    """Discovery picks one replica; then every message goes to that one.

    The pin lasts until it is closed or the replica is lost. A lost replica shows as `PeerLost`, never as a
    silent change to another one; after that was raised, the route pins afresh.

    Attributes:
        name: The service, ``org/namespace/service``.
        instance: The id of a known instance (for instance ``ctx.sender.instance``); None lets discovery
            choose.
        mls: Encrypt end to end with MLS (RFC 9420); the node then sees only ciphertext.
        max_retries: How often SLIM sends a message again that was not acknowledged.
        timeout: Seconds (or a `timedelta`) between those retransmissions.
        wire: ``"frames"`` for agents of this project, ``"bytes"`` for a peer written with bare
            slim-bindings in any language: it gets the message's bytes and answers with bytes.

    Raises:
        ConfigurationError: A value is out of range, or the name has not three parts, or the instance
            is no id.

    Example:
        >>> Unicast("agntcy/ns/alice", instance="75052dae-8788-cfe9-1e5a-a23914510d7f").mls
        False
    """

    name: str = field(validator=_is_name)
    instance: str | None = field(default=None, kw_only=True)
    mls: bool = field(default=False, kw_only=True, validator=_is_flag)
    max_retries: int = field(default=5, kw_only=True, validator=_not_negative)
    timeout: float = field(default=0.5, kw_only=True, converter=_seconds, validator=_positive)
    wire: Literal["frames", "bytes"] = field(default="frames", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.instance is not None:
            check_instance(self.instance)
        if self.wire not in ("frames", "bytes"):
            raise ConfigurationError(f"wire is {self.wire!r}, but must be 'frames' or 'bytes'.")


Route = Anycast | Unicast
"""Anything that a message can be sent to."""

_ROUTES = (Anycast, Unicast)
"""What a `Route` is; a tuple takes less time to look through than a union."""


def check_route(route: Route) -> Route:
    """Return the route if it is one.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(route, _ROUTES):
        raise ConfigurationError(
            f'{route!r} is not a route: write Anycast("org/ns/service") or Unicast("org/ns/service").'
        )
    return route
