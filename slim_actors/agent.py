"""Agents as classes: what a user writes, and how a wrong declaration is refused where it is written."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from attrs import evolve, frozen
from msgspec import Raw

from slim_actors.errors import ConfigurationError, DeclarationError
from slim_actors.mailbox import Mailbox
from slim_actors.messages import Body, same_type, type_name
from slim_actors.names import check_name

__all__ = ["Agent", "Declaration", "Handler", "declaration_of", "handler"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__slim_actors_handler__"
_UNTYPED = "receive"
_ANYTHING = "*"
_MOST_PARAMETERS = 2
_UNIONS = (Union, types.UnionType)


@overload
def handler(function: F) -> F: ...
@overload
def handler(*, idempotent: bool = False) -> Callable[[F], F]: ...


def handler(function: F | None = None, *, idempotent: bool = False) -> F | Callable[[F], F]:
    """Declare a method of an agent as the handler for the type that its first parameter is annotated with.

    The method is ``async def name(self, message: Type)`` or ``async def name(self, message: Type, ctx)``.
    What it returns is the reply. A handler for a union takes each of its types.

    Args:
        function: The method, where the decorator is written without parentheses.
        idempotent: Handling one message twice does no harm, so an Anycast message whose replica was lost may
            be given to another one.

    Example:
        >>> class Shout(Agent, name="demo/ns/shout"):
        ...     @handler(idempotent=True)
        ...     async def shout(self, message: str) -> str:
        ...         return message.upper()
    """

    def mark(function: F) -> F:
        setattr(function, _MARK, {"idempotent": idempotent})
        return function

    return mark if function is None else mark(function)


@frozen(eq=False)
class Handler:
    """One method of an agent class for one type of message."""

    method: str
    declared: Any
    """The one type of message; Any for the untyped ``receive``."""
    takes_ctx: bool
    idempotent: bool
    body: Body | None = None
    """The reader of its messages, once the types are known to be readable."""

    def read(self, raw: Raw, wire_type: str) -> Any:
        """Make the message of its body.

        Raises:
            MalformedMessage: It does not fit the declared type.
        """
        assert self.body is not None, "only what declaration_of gave reads messages"
        return self.body.read(raw, wire_type)


@frozen(eq=False)
class Declaration:
    """What an agent class declares: its name and its handlers by wire type."""

    name: str | None
    handlers: Mapping[str, Handler]

    def find(self, wire_type: str) -> Handler | None:
        """Give the handler for a type named on the wire; the untyped one if there is no other."""
        found = self.handlers.get(wire_type)
        if found is None:
            matches = [known for known in self.handlers if same_type(known, wire_type)]
            found = self.handlers[matches[0]] if len(matches) == 1 else self.handlers.get(_ANYTHING)
        return found

    @property
    def untyped(self) -> Handler | None:
        """The handler that takes anything."""
        return self.handlers.get(_ANYTHING)

    @property
    def idempotent(self) -> list[str]:
        """The wire types whose handlers are idempotent; ``"*"`` stands for the untyped one."""
        return [wire_type for wire_type, handler in self.handlers.items() if handler.idempotent]

    @property
    def accepts(self) -> str:
        """The handled types, for a message to a person."""
        return ", ".join(sorted(self.handlers)) or "nothing"


class Agent:
    """The base of every agent.

    A subclass gives its SLIM name and its handlers: methods marked with `handler`, or one untyped
    ``async def receive(self, message, ctx)`` that gets str, bytes, numbers, lists and dicts as they are.
    One instance handles one message at a time unless ``concurrency`` says otherwise. An attrs class may be an
    agent.

    Class attributes that a subclass may set:
        concurrency: How many messages one instance handles at the same time.
        mailbox: The `Mailbox` in front of the handlers.
        require_mls: Refuse messages from sessions that are not end-to-end encrypted.

    Raises:
        DeclarationError: At the class statement, when the declaration is wrong.

    Example:
        >>> class Echo(Agent, name="agntcy/ns/alice"):
        ...     async def receive(self, message, ctx):
        ...         return message
    """

    concurrency: ClassVar[int] = 1
    mailbox: ClassVar[Mailbox] = Mailbox()
    require_mls: ClassVar[bool] = False
    __declaration__: ClassVar[Declaration] = Declaration(None, {})

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # attrs makes a slotted class by creating it a second time, without the arguments of the statement.
        if "__declaration__" in cls.__dict__ and name is None:
            return
        scope = sys._getframe(1).f_locals  # noqa: SLF001 (annotations may name types of the enclosing function)
        cls.__declaration__ = _declare(cls, name, scope)

    async def started(self, ctx: Any) -> None:
        """Called once before the first message; an error here fails the spawn."""

    async def stopped(self, ctx: Any) -> None:
        """Called once after the last message."""


def declaration_of(cls: type[Agent]) -> Declaration:
    """Give what a class declares, with its message types checked for readability.

    Raises:
        DeclarationError: It has no handler, or a message type that cannot be read from the wire.
    """
    declared = cls.__declaration__
    if not declared.handlers:
        raise DeclarationError(
            f"{cls.__name__} handles nothing: give it a @handler method or a receive method."
        )
    return Declaration(
        declared.name,
        {
            wire_type: evolve(found, body=_reader(cls, found))
            for wire_type, found in declared.handlers.items()
        },
    )


def _reader(cls: type[Agent], found: Handler) -> Body:
    try:
        return Body(found.declared)
    except (TypeError, NameError) as error:
        raise DeclarationError(
            f"{cls.__name__}.{found.method}: messages of this type cannot be read: {error}."
        ) from None


def _declare(cls: type[Agent], name: str | None, scope: Mapping[str, Any]) -> Declaration:
    where = cls.__name__
    if name is not None:
        try:
            check_name(name)
        except ConfigurationError as error:
            raise DeclarationError(f"{where}: {error}") from None
    _check_settings(cls)
    handlers: dict[str, Handler] = {}
    for method, function in _methods(cls):
        if not hasattr(function, _MARK) and method != _UNTYPED:
            continue
        for wire_type, found in _handlers(where, method, function, scope):
            other = handlers.setdefault(wire_type, found)
            if other is not found:
                raise DeclarationError(
                    f"{where}: {other.method} and {method} both handle {wire_type}; one type has one handler."
                )
    if "float" in handlers:
        # As for type checkers, a whole number will do where a float is declared (PEP 484).
        handlers.setdefault("int", handlers["float"])
    inherited = cls.__mro__[1].__declaration__.name if issubclass(cls.__mro__[1], Agent) else None
    return Declaration(name or inherited, handlers)


def _check_settings(cls: type[Agent]) -> None:
    if isinstance(cls.concurrency, bool) or not isinstance(cls.concurrency, int) or cls.concurrency < 1:
        raise DeclarationError(
            f"{cls.__name__}: concurrency is {cls.concurrency!r}, but must be a whole number from 1 up."
        )
    if not isinstance(cls.mailbox, Mailbox):
        raise DeclarationError(f"{cls.__name__}: mailbox is {cls.mailbox!r}, but must be a Mailbox(...).")


def _methods(cls: type) -> list[tuple[str, Any]]:
    """Give every method, those of base classes first, an overridden one only as it is now."""
    names = [name for base in reversed(cls.__mro__) for name in vars(base)]
    found = ((name, getattr(cls, name, None)) for name in dict.fromkeys(names))
    return [(name, function) for name, function in found if inspect.isfunction(function)]


def _handlers(
    where: str, method: str, function: Any, scope: Mapping[str, Any]
) -> Iterator[tuple[str, Handler]]:
    label = f"{where}.{method}"
    if not inspect.iscoroutinefunction(function):
        raise DeclarationError(f"{label} must be declared with async def.")
    _, *parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = all(parameter.kind in kinds for parameter in parameters)
    if not positional or not 1 <= len(parameters) <= _MOST_PARAMETERS:
        raise DeclarationError(f"{label} must take (self, message) or (self, message, ctx).")
    takes_ctx = len(parameters) == _MOST_PARAMETERS
    idempotent = bool((getattr(function, _MARK, None) or {}).get("idempotent"))
    annotation = _annotation(label, function, parameters[0].name, scope)
    if annotation is inspect.Parameter.empty and method != _UNTYPED:
        raise DeclarationError(
            f"{label}: annotate {parameters[0].name!r} with the type of message that it handles."
        )
    if annotation in (inspect.Parameter.empty, Any, object):
        yield _ANYTHING, Handler(method, Any, takes_ctx, idempotent)
        return
    for member in get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,):
        kind = type(None) if member is None else get_origin(member) or member
        if not isinstance(kind, type):
            raise DeclarationError(f"{label}: {member!r} is not a type of message; annotate with a class.")
        yield type_name(kind), Handler(method, member, takes_ctx, idempotent)


def _annotation(label: str, function: Any, parameter: str, scope: Mapping[str, Any]) -> Any:
    annotation = function.__annotations__.get(parameter, inspect.Parameter.empty)
    if not isinstance(annotation, str):
        return annotation
    # Only this annotation: the others may name what exists for type checkers alone.
    probe = types.SimpleNamespace(__annotations__={parameter: annotation})
    try:
        return get_type_hints(probe, getattr(function, "__globals__", {}), dict(scope))[parameter]
    except NameError as error:
        raise DeclarationError(
            f"{label}: the annotation {annotation!r} cannot be resolved: {error}."
        ) from None
