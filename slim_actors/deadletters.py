"""Dead letters: messages that ended without anybody to tell, kept for whoever looks."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from slim_actors.middleware import Hooks
from slim_actors.names import Address

__all__ = ["DeadLetter", "DeadLetters"]

_KEPT = 1000


@frozen
class DeadLetter:
    """A message that its receiver accepted, and that was not handled to its end; or a durable one.

    Attributes:
        message: The message; of a durable one, what it is without its class (a dict, a list, a plain value).
        sender: Who sent it.
        recipient: Who accepted it, or, of a durable one, for whom it was.
        cause: Why it died.
        context: What travelled along with it.
        at: When; of one that was kept in the store, when it was recalled.
        number: Of a durable one, its number in the store of its sender; else 0.
    """

    message: Any
    sender: Address
    recipient: Address
    cause: Exception
    context: dict[str, Any] = field(factory=dict, repr=False)
    at: datetime = field(factory=lambda: datetime.now(UTC))
    number: int = 0

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
        self.forget: Callable[[tuple[int, ...]], Awaitable[None]] | None = None
        """Removes durable ones from the store."""

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(tuple(self._letters))

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter, and tell the hooks."""
        self.total += 1
        self._letters.append(letter)
        self._hooks.call(self._hooks.dead_letter, letter)

    def recall(self, letter: DeadLetter) -> None:
        """Keep a letter that was told of in an earlier life."""
        self._letters.append(letter)

    async def take(self) -> list[DeadLetter]:
        """Give all, and forget them; durable ones leave the store, where they are kept until then.

        Raises:
            StoreError: They cannot be removed, and are all still there.

        Example:
            .. code-block:: python

                for letter in await runtime.dead_letters.take():
                    await runtime.tell(Anycast("demo/ns/clinic"), str(letter))
        """
        taken = list(self._letters)
        kept = tuple(letter.number for letter in taken if letter.number)
        if kept and self.forget is not None:
            await self.forget(kept)
        for letter in taken:
            with contextlib.suppress(ValueError):
                self._letters.remove(letter)
        return taken
