"""The owner of a link: who does something with what it brings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from slim_actors import wire
from slim_actors.batches import Problem
from slim_actors.transport.base import Payload

__all__ = ["LinkOwner", "Takes", "one_by_one"]

Takes = Mapping[type[wire.Frame], Callable[[Sequence[Any]], None]]
"""What takes the frames of each type: those together that came one after the other, since much that is done
for one can be done once for all of them."""


def one_by_one(take: Callable[[Any], None]) -> Callable[[Iterable[Any]], None]:
    """Make of what takes one frame what takes several."""

    def take_each(frames: Iterable[Any]) -> None:
        for frame in frames:
            take(frame)

    return take_each


class LinkOwner(Protocol):
    """Who does something with what a link brings."""

    takes: Takes
    """A frame of any other type is passed over. Must be there before the link is."""

    @property
    def outstanding(self) -> int:
        """How many messages have no outcome yet: while there are any, the death of the peer matters now."""

    def problem(self, problem: Problem) -> None:
        """Take note of a frame that cannot be read."""

    def plain(self, payload: Payload) -> None:
        """Take a payload that is not in the wire format."""

    def closed(self) -> None:
        """Take note that the link is over, `Link.lost` says why; called once."""
