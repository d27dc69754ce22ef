"""Supervision, as it is declared: what becomes of an instance that failed, and what others are told of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from attrs import field, frozen

from slim_actors.backoff import Backoff, number_from_0
from slim_actors.checks import is_whole
from slim_actors.errors import AgentFailed, ConfigurationError, DeliveryError
from slim_actors.messages import Signal
from slim_actors.names import Address

__all__ = [
    "DRAIN",
    "UNSUPERVISED",
    "Backoff",
    "Restart",
    "Strategy",
    "Terminated",
    "Verdict",
    "check_strategy",
]

Kind = Literal["permanent", "transient", "temporary"]
Verdict = Literal["resume", "restart", "stop", "escalate"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]

DRAIN = 8.0
"""Seconds that what was accepted may take when an instance stops, if nobody says otherwise."""

_GRAVITY: tuple[Verdict, ...] = get_args(Verdict)


@frozen
class Restart:
    """What becomes of an instance whose handler raised. The caller has got the real cause by then.

    Its kind says which ends are followed by a restart: a fresh instance from the same factory, under the same
    name and id, with the messages that wait.

    | kind | it failed | it stopped itself (``ctx.stop()``) |
    |---|---|---|
    | ``"permanent"`` | restart | restart |
    | ``"transient"`` | restart | it has ended |
    | ``"temporary"`` | it has ended | it has ended |

    ``on`` decides otherwise by the type of the exception; the entry nearest to its class counts, and of an
    exception group the gravest:

    - ``"resume"``: the instance keeps its state and goes on;
    - ``"restart"``: as above;
    - ``"stop"``: the instance ends; what waits is handed back as `Stopped`;
    - ``"escalate"``: it ends, and its parent or its group has failed, with `AgentFailed`.

    Two things need no entry. A `DeliveryError` (what the handler asked of others went wrong) resumes, for an
    agent must not fall over because another one is busy or gone. And what is raised after the message was
    cancelled or had expired is no failure, for otherwise an impatient caller could restart an agent.

    Attributes:
        kind: See above.
        limit: How many restarts there may be within so many seconds. One more failure is escalated.
        within: Those seconds.
        backoff: The pauses before the restarts.
        on: What is decided by the type of the exception.

    Raises:
        ConfigurationError: A value is out of range.

    Example:
        >>> policy = Restart("transient", limit=3, within=60, on={ValueError: "resume"})
        >>> policy.verdict(UnicodeError()), policy.verdict(OSError())
        ('resume', 'restart')
    """

    kind: Kind = "transient"
    limit: int = field(default=5, kw_only=True)
    within: float = field(default=30.0, kw_only=True, validator=number_from_0)
    backoff: Backoff = field(factory=Backoff, kw_only=True)
    on: Mapping[type[Exception], Verdict] = field(factory=dict, kw_only=True, hash=False)

    def __attrs_post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigurationError(
                f"Restart({self.kind!r}) is not one of 'permanent', 'transient' and 'temporary'."
            )
        if not is_whole(self.limit) or self.limit < 0:
            raise ConfigurationError(f"limit is {self.limit!r}, but must be a whole number from 0 up.")
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError(f"backoff is {self.backoff!r}, but must be a Backoff(...).")
        if not isinstance(self.on, Mapping):
            raise ConfigurationError(
                f"on is {self.on!r}, but must be a dict, as in {{ValueError: 'resume'}}."
            )
        for kind, verdict in self.on.items():
            if not (isinstance(kind, type) and issubclass(kind, Exception)) or verdict not in _GRAVITY:
                raise ConfigurationError(
                    f"on has {kind!r}: {verdict!r}, but must name exception classes, each with 'resume', "
                    "'restart', 'stop' or 'escalate'."
                )
        object.__setattr__(self, "on", MappingProxyType(dict(self.on)))

    def verdict(self, error: Exception) -> Verdict:
        """Say what becomes of an instance whose handler raised this."""
        if isinstance(error, ExceptionGroup) and type(error) not in self.on:
            return max((self.verdict(member) for member in error.exceptions), key=_GRAVITY.index)
        for kind in type(error).__mro__:
            if kind in self.on:
                return self.on[kind]
            if kind is DeliveryError:
                return "resume"
            if kind is AgentFailed:
                break
        return "stop" if self.kind == "temporary" else "restart"


UNSUPERVISED = Restart(on={Exception: "resume"})
"""The policy of an agent that declares none and is no member of a group: its state outlives exceptions."""


@frozen
class Terminated(Signal):
    """Told to whoever watches an instance with ``ctx.watch``, once, when it has ended. It never comes back.

    Never read from the network, so nobody can forge it. An agent without a handler for it gets it in
    ``receive``.

    Attributes:
        address: The instance.
        reason: Why, in words for a person.

    Example:
        .. code-block:: python

            @handler
            async def gone(self, message: Terminated) -> None:
                print(message.address, "is gone:", message.reason)
    """

    address: Address
    reason: str


def check_strategy(strategy: Strategy) -> Strategy:
    """Return the strategy if it is one.

    Raises:
        ConfigurationError: It is none.
    """
    if strategy not in get_args(Strategy):
        raise ConfigurationError(
            f"A strategy of {strategy!r} is not one of 'one_for_one', 'one_for_all' and 'rest_for_one'."
        )
    return strategy
