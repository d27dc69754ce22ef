"""Dead letters: messages that ended without anybody to tell, kept for whoever looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from slim_actors.middleware import Hooks
from slim_actors.names import Address

__all__ = ["DeadLetter", "DeadLetters"]

_KEPT = 1000


@frozen
class DeadLetter:
    """A message that its receiver accepted, and that was not handled to its end.

    Attributes:
        message: The message.
        sender: Who sent it.
        recipient: Who accepted it.
        cause: Why it died.
        context: What travelled along with it.
        at: When.
    """

    message: Any
    sender: Address
    recipient: Address
    cause: Exception
    context: dict[str, Any] = field(factory=dict, repr=False)
    at: datetime = field(factory=lambda: datetime.now(UTC))

    def __str__(self) -> str:
        return f"{type(self.message).__name__} from {self.sender} died at {self.recipient}: {self.cause}"


class DeadLetters:
    """The last 1,000 dead letters of a runtime, oldest first.

    Example:
        .. code-block:: python

            for letter in runtime.dead_letters:
                print(letter.message, letter.cause)
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._letters: deque[DeadLetter] = deque(maxlen=_KEPT)
        self.total = 0
        """How many there were in all."""

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(tuple(self._letters))

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter, and tell the hooks."""
        self.total += 1
        self._letters.append(letter)
        self._hooks.call(self._hooks.dead_letter, letter)
