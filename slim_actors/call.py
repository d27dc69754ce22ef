"""A message under way, as a coroutine that remembers who answered."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from slim_actors.names import Address

__all__ = ["Call", "Recipient"]

R_co = TypeVar("R_co", covariant=True)


class Recipient(Protocol):
    """What a call knows of the replica that has its message."""

    @property
    def address(self) -> Address:
        """Who it is, as far as that is known by now."""

    @property
    def was_greeted(self) -> bool:
        """Whether it has said anything at all."""

    @property
    def last_heard(self) -> float:
        """When it last gave a sign of life, on the clock of the event loop."""


class Call(Coroutine[Any, Any, R_co], Generic[R_co]):
    """A message under way: await it once for the reply. Then `peer` says who gave it.

    It is a coroutine, so it goes wherever one goes (``asyncio.gather``, ``TaskGroup.create_task``).

    Example:
        .. code-block:: python

            call = runtime.ask(Anycast("agntcy/ns/alice"), "hello")
            reply = await call
            print(reply, "from", call.peer.instance)
    """

    __slots__ = ("coroutine", "replica")

    def __init__(self) -> None:
        self.replica: Recipient | None = None
        """Where the message went last; None until it went somewhere."""
        self.coroutine: Coroutine[Any, Any, R_co]
        """Its work."""

    @property
    def peer(self) -> Address | None:
        """The instance that the message went to last; None until it went to one."""
        return None if self.replica is None else self.replica.address

    def running(self, coroutine: Coroutine[Any, Any, R_co]) -> Self:
        """Give the call its work."""
        self.coroutine = coroutine
        return self

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self.coroutine.__await__()

    def send(self, value: Any) -> Any:
        """See `Coroutine.send`."""
        return self.coroutine.send(value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        """See `Coroutine.throw`."""
        error = typ if isinstance(typ, BaseException) else (val if isinstance(val, BaseException) else typ())
        return self.coroutine.throw(error.with_traceback(tb) if tb else error)

    def close(self) -> None:
        """See `Coroutine.close`."""
        self.coroutine.close()
