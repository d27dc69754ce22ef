"""State: what an agent keeps across its restarts, declared in its class."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import msgspec

from slim_actors import wire
from slim_actors.checks import is_whole
from slim_actors.errors import DeclarationError, MalformedMessage, StoreError
from slim_actors.messages import Body
from slim_actors.store import Snapshot

if TYPE_CHECKING:
    from slim_actors.agent import Agent

__all__ = ["SLOT_VARIABLE", "State", "slot", "state_of"]

SLOT_VARIABLE = "SLIM_ACTORS_SLOT"

T = TypeVar("T")


class State(Generic[T]):
    """Declares an attribute of an agent that is kept in the runtime's store, and is there after a restart.

    Guarantee: it is saved after ``started`` and after each message that changed it, before the reply leaves,
    so who saw a reply finds its effect. A handler that raises or is cancelled changes nothing: the state is
    again as it was before the message. With a *durable* message, the state, the note that the message was
    handled, and the durable tells that the handler sent are kept together or not at all.

    The whole is saved each time, so let it be small: kilobytes. Each replica has its own. An agent has one
    state, and handles one message at a time.

    Args:
        kind: Its class (attrs, dataclass, msgspec Struct) or a plain type; made without arguments at first.
        version: Raised with each change of the class that cannot read what the one before wrote.
        migrate: Makes a state of what an older version wrote, as dicts, lists and plain values.

    Raises:
        DeclarationError: The kind cannot be read, or the version is no whole number from 1 up.

    Example:
        >>> from typing import Any
        >>> from attrs import define
        >>> from slim_actors import Agent, State, handler
        >>> @define
        ... class Tally:
        ...     count: int = 0
        >>> def upgrade(version: int, old: Any) -> Tally:
        ...     return Tally(old["n"])
        >>> class Counter(Agent, name="demo/ns/counter"):
        ...     state = State(Tally, version=2, migrate=upgrade)
        ...
        ...     @handler
        ...     async def add(self, message: int) -> int:
        ...         self.state.count += message
        ...         return self.state.count
    """

    def __init__(
        self, kind: type[T], *, version: int = 1, migrate: Callable[[int, Any], T] | None = None
    ) -> None:
        if not is_whole(version) or version < 1:
            raise DeclarationError(f"State(version={version!r}) is not a whole number from 1 up.")
        try:
            self._body = Body(kind)
        except (TypeError, NameError, MalformedMessage) as error:
            raise DeclarationError(f"A state of {kind!r} cannot be kept: {error}.") from None
        self._kind = kind
        self._version = version
        self._migrate = migrate
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, agent: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, agent: object, owner: type | None = None) -> T: ...

    def __get__(self, agent: object | None, owner: type | None = None) -> Self | T:
        if agent is None:
            return self
        values = vars(agent)
        if self._name not in values:
            try:
                values[self._name] = self._kind()
            except TypeError as error:
                raise DeclarationError(
                    f"The first state of {type(agent).__name__} cannot be made: {error}. "
                    "Give each field a default, or set it in __init__."
                ) from None
        value: T = values[self._name]
        return value

    def __set__(self, agent: object, value: T) -> None:
        vars(agent)[self._name] = value

    def snapshot(self, agent: object) -> Snapshot:
        """Give the state of an agent as it is now.

        Raises:
            MalformedMessage: It holds something that cannot be kept.
        """
        return Snapshot(self._version, wire.encode_body(self.__get__(agent)))

    def check(self, snapshot: Snapshot) -> None:
        """Refuse a state that could not be restored, before it takes the place of one that can.

        Raises:
            MalformedMessage: It does not fit its class.
        """
        self._body.read(snapshot.data, "The state that this message leaves")

    def restore(self, agent: object, snapshot: Snapshot) -> None:
        """Give an agent a state that was kept.

        Raises:
            StoreError: A newer version wrote it, or it cannot be read or migrated. Nothing is changed.
        """
        self.__set__(agent, self._read(type(agent).__name__, snapshot))

    def _read(self, owner: str, snapshot: Snapshot) -> T:
        what = f"The state of {owner}"
        if snapshot.version > self._version:
            raise StoreError(
                f"{what} was written by its version {snapshot.version}, and this program has "
                f"{self._version}: run the newer program."
            )
        if snapshot.version < self._version and self._migrate is None:
            raise StoreError(
                f"{what} was written by its version {snapshot.version}, and this program has "
                f"{self._version}: give State a migrate function."
            )
        try:
            if snapshot.version < self._version and self._migrate is not None:
                return self._migrate(snapshot.version, msgspec.msgpack.decode(snapshot.data))
            value: T = self._body.read(snapshot.data, what)
        except Exception as error:
            raise StoreError(f"{what} cannot be restored: {type(error).__name__}: {error}") from error
        return value


def slot() -> str:
    """Tell which of its agent's replicas this process is, after each restart the same; first is ``"0"``."""
    return os.environ.get(SLOT_VARIABLE) or "0"


def state_of(cls: type[Agent]) -> State[Any] | None:
    """Give the state that an agent class declares.

    Raises:
        DeclarationError: It declares several, or handles several messages at once.
    """
    names = {name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, State)}
    found = [state for name in sorted(names) if isinstance(state := getattr(cls, name), State)]
    if len(found) > 1:
        raise DeclarationError(f"{cls.__name__} declares {len(found)} states: put all into one class.")
    if found and cls.concurrency != 1:
        raise DeclarationError(
            f"{cls.__name__} keeps a state, so its concurrency must be 1, and not {cls.concurrency}."
        )
    return found[0] if found else None
