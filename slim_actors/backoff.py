"""Backoff with jitter: how long to wait before trying again."""

from __future__ import annotations

import random
from typing import Any

from attrs import Attribute, field, frozen

from slim_actors.checks import is_number
from slim_actors.errors import ConfigurationError

__all__ = ["Backoff", "number_from_0"]


def number_from_0(_: Any, attribute: Attribute[float], value: float) -> None:
    """Refuse what is no number from 0 up."""
    if not is_number(value) or value < 0:
        raise ConfigurationError(f"{attribute.name} is {value!r}, but must be a number from 0 up.")


@frozen
class Backoff:
    """How long to wait before the next try: twice as long each time, up to a limit, and never quite the same.

    Of restarts: an instance that kept well for `Restart.within` begins with the first pause again.

    Attributes:
        first: Seconds before the first try.
        most: Seconds that no pause is longer than, but for the jitter.
        jitter: The share by which a pause is made longer or shorter at random, so that many that failed
            together do not come back together.

    Raises:
        ConfigurationError: A value is out of range.

    Example:
        >>> [Backoff(first=0.5, most=3, jitter=0).pause(attempt) for attempt in range(4)]
        [0.5, 1.0, 2.0, 3]
    """

    first: float = field(default=0.1, validator=number_from_0)
    most: float = field(default=5.0, validator=number_from_0)
    jitter: float = field(default=0.2, kw_only=True, validator=number_from_0)

    def __attrs_post_init__(self) -> None:
        if self.jitter > 1:
            raise ConfigurationError(f"jitter is {self.jitter!r}, but must be a share from 0 to 1.")

    def pause(self, attempt: int) -> float:
        """Give the seconds to wait before the try that comes after so many others."""
        # Beyond this the power is no float any more, and any limit was reached long ago.
        pause = min(self.most, self.first * 2.0 ** min(attempt, 60))
        return pause * random.uniform(1 - self.jitter, 1 + self.jitter) if self.jitter else pause  # noqa: S311 (no secret)
