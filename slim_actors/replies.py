"""Streams of replies, as aiostream streams."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, TypeVar

from aiostream.core import BaseStream, Stream, Streamer, streamcontext

__all__ = ["Replies"]

T = TypeVar("T")


class Replies(Stream[T]):
    """An aiostream stream that may also be looped over as it is.

    Leaving the loop, however it is left, closes what the items come from. Each iteration makes a request of
    its own. See https://aiostream.readthedocs.io for the operators.
    """

    def __aiter__(self) -> Any:
        return self._closing()

    async def _closing(self) -> AsyncIterator[T]:
        async with self.stream() as items:
            async for item in items:
                yield item

    def stream(self) -> Streamer[T]:
        """Give a context for safe iteration, as every aiostream stream does."""
        return streamcontext(next(self._generator))

    def __or__(self, operator: Callable[[BaseStream[T]], Any]) -> Any:
        piped: AsyncIterable[Any] = operator(self)
        return Replies(lambda: piped) if isinstance(piped, Stream) else piped
