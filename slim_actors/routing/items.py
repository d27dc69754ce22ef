"""The items that follow a message, as its caller gives them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from slim_actors.errors import ConfigurationError

__all__ = ["Items"]


class Items(AsyncIterable[Any]):
    """What follows a message, wherever that is tried.

    Args:
        items: Where they come from.

    Raises:
        ConfigurationError: Nothing can be taken out of that by ``async for``.
    """

    def __init__(self, items: AsyncIterable[Any]) -> None:
        if not isinstance(items, AsyncIterable):
            raise ConfigurationError(
                f"items= takes an async iterable, such as an async generator, not {type(items).__name__}."
            )
        self._items = items
        self.has_begun = False
        """Whether some may have been taken out. Those are gone: no other replica would get all of them."""

    def __aiter__(self) -> AsyncIterator[Any]:
        self.has_begun = True
        return aiter(self._items)
