"""Dead letters: messages that ended without anybody to tell, kept for whoever looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

from attrs import field, frozen

from slim_actors import wire
from slim_actors.middleware import Hooks
from slim_actors.names import Address

__all__ = ["DeadLetter", "DeadLetters", "Kept"]

_MOST_LETTERS = 1000
_MOST_BYTES = 64 * 1024 * 1024


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


class Kept(Protocol):
    """The durable dead letters, in the store."""

    async def dead(self, after: int) -> list[DeadLetter]:
        """Give the first ones with a higher number than this; none where there are no more.

        Raises:
            StoreError: They cannot be read.
        """

    async def forget(self, numbers: tuple[int, ...]) -> None:
        """Remove some from the store.

        Raises:
            StoreError: They cannot be removed.
        """


class DeadLetters:
    """The last 1,000 dead letters of a runtime, oldest first; fewer if they have 64 MiB together.

    A durable one that had to make room for others is still in the store, and `take` gives it too.

    Example:
        .. code-block:: python

            for letter in runtime.dead_letters:
                print(letter.message, letter.cause)
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._letters: deque[tuple[DeadLetter, int]] = deque()
        """Each with its bytes."""
        self._bytes = 0
        self.total = 0
        """How many there were in all."""
        self.kept: Kept | None = None
        """Those in the store, while there is one."""

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter([letter for letter, _ in self._letters])

    def add(self, letter: DeadLetter, size: int = 0) -> None:
        """Keep a letter, and tell the hooks.

        Args:
            letter: The letter.
            size: Bytes of its message, for one that has no form on the wire from which it could be seen.
        """
        self.total += 1
        self._keep(letter, size)
        self._hooks.call(self._hooks.dead_letter, letter)

    async def recall(self) -> int:
        """Show what the store has from other lives, which were told of it; give how many there are."""
        count = after = 0
        while self.kept is not None and (found := await self.kept.dead(after)):
            # Now: one may have died, and been added, meanwhile.
            known = {letter.number for letter in self}
            for letter in found:
                if letter.number not in known:
                    self._keep(letter)
            count, after = count + len(found), found[-1].number
        return count

    async def take(self) -> list[DeadLetter]:
        """Give all, and forget them; durable ones leave the store, where they are kept until then.

        Raises:
            StoreError: They cannot be removed, and are all still there.

        Example:
            .. code-block:: python

                for letter in await runtime.dead_letters.take():
                    await runtime.tell(Anycast("demo/ns/clinic"), str(letter))
        """
        shown = list(self)
        numbers = {letter.number for letter in shown if letter.number}
        others: list[DeadLetter] = []
        if self.kept is not None:
            after = 0
            while found := await self.kept.dead(after):
                others += [letter for letter in found if letter.number not in numbers]
                after = found[-1].number
            numbers.update(letter.number for letter in others)
            if numbers:
                await self.kept.forget(tuple(numbers))
        gone = set(map(id, shown))
        # One that died meanwhile may be among the others.
        left = [one for one in self._letters if id(one[0]) not in gone and one[0].number not in numbers]
        self._letters = deque(left)
        self._bytes = sum(size for _, size in left)
        return others + shown

    def _keep(self, letter: DeadLetter, size: int = 0) -> None:
        size = _size(letter.message, size) + _size(letter.context, 0)
        self._letters.append((letter, size))
        self._bytes += size
        while len(self._letters) > _MOST_LETTERS or (self._bytes > _MOST_BYTES and len(self._letters) > 1):
            self._bytes -= self._letters.popleft()[1]


def _size(value: Any, otherwise: int) -> int:
    # Measured anew: of messages that came in one frame, only the size of all together is known.
    try:
        return len(wire.encode(value))
    except Exception:  # noqa: BLE001 (a class of the user's own may raise anything)
        return otherwise
