"""Streams of replies, as aiostream streams."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, TypeVar

from aiostream.core import BaseStream, Stream, Streamer, streamcontext

__all__ = ["Replies", "Source"]

T = TypeVar("T")


class Source(AsyncIterable[T]):
    """What replies come from: a request of its own for each iteration.

    Args:
        request: Makes it, as an async generator.
    """

    def __init__(self, request: Callable[[], AsyncIterator[T]]) -> None:
        self._request = request

    def __aiter__(self) -> AsyncIterator[T]:
        return self._request()


class Replies(Stream[T]):
    """An aiostream stream that may also be looped over as it is.

    Leaving the loop, however it is left, closes what the items come from. Each iteration makes a request of
    its own. See https://aiostream.readthedocs.io for the operators.
    """

    def __aiter__(self) -> Any:
        source = next(self._generator)
        # An async generator closes itself when its loop is left, so it costs no layer around each item.
        return aiter(source) if isinstance(source, Source) else _closing(source)

    def stream(self) -> Streamer[T]:
        """Give a context for safe iteration, as every aiostream stream does."""
        return streamcontext(next(self._generator))

    def __or__(self, operator: Callable[[BaseStream[T]], Any]) -> Any:
        piped: AsyncIterable[Any] = operator(self)
        return Replies(lambda: piped) if isinstance(piped, Stream) else piped


async def _closing(source: AsyncIterable[T]) -> AsyncIterator[T]:
    async with streamcontext(source) as items:
        async for item in items:
            yield item
