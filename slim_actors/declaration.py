"""What an agent class declares, read from its methods; a wrong declaration is refused with a sentence."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from slim_actors.access import Rule
from slim_actors.errors import ConfigurationError, DeclarationError, MalformedMessage, UnhandledMessage
from slim_actors.messages import Body, Request, Signal, StreamRequest, same_type, type_name
from slim_actors.names import check_name
from slim_actors.wire import Ask, Incoming, Stream

__all__ = ["ANYTHING", "HANDLER_MARK", "TIMER_MARK", "Declaration", "Handler", "Timer", "declare"]

HANDLER_MARK = "__slim_actors_handler__"
TIMER_MARK = "__slim_actors_every__"
ANYTHING = "*"
"""Stands for every type, where a handler takes anything."""

_UNTYPED = "receive"
_HOOKS = ("started", "stopped")
_MOST_PARAMETERS = 3
_MOST_ALIKE, _LONG_NAME = 256, 256
"""What a peer may have remembered of the names that it makes up."""
_UNIONS = (Union, types.UnionType)
_FLOWS = (AsyncIterator, AsyncIterable)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handler(Struct, frozen=True, eq=False):
    """One method of an agent class for one type of message."""

    method: str
    declared: Any
    """The one type of message; Any for the untyped ``receive``."""
    takes: tuple[str, ...] = ()
    """What it takes after the message, in this order: ``"items"``, ``"ctx"``."""
    idempotent: bool = False
    streams: bool = False
    """Whether it yields its replies."""
    items: Any = None
    """The type of the items that follow the message, if it takes any."""
    allow: Rule | None = None
    """Who may call it; None is whoever may call the agent."""
    body: Body | None = None
    """The reader of its messages, once the types are known to be readable."""
    items_body: Body | None = None
    """The reader of the items."""
    flows: bool = False
    """Whether more than one message comes or goes: follows from the rest."""

    def __post_init__(self) -> None:
        force_setattr(self, "flows", self.streams or self.items is not None)


class Timer(Struct, frozen=True, eq=False):
    """A method that is called again and again."""

    method: str
    seconds: float
    takes: tuple[str, ...] = ()


class Declaration(Struct, frozen=True, eq=False):
    """What an agent class declares: its name, its handlers by wire type, and its timers."""

    owner: str
    name: str | None = None
    handlers: Mapping[str, Handler] = {}
    timers: tuple[Timer, ...] = ()
    signals: Mapping[str, Handler] = {}
    """The handlers for what only the runtime may say."""
    _alike: dict[str, Handler] = {}
    """Those that were found under another name of their type: looking through all takes time."""

    def find_own(self, kind: type) -> Handler | None:
        """Give the handler for a message that comes from this process, signals included."""
        return self.signals.get(type_name(kind)) or self.find(type_name(kind))

    def find(self, wire_type: str) -> Handler | None:
        """Give the handler for a type named on the wire; the untyped one if there is no other."""
        found = self.handlers.get(wire_type) or self._alike.get(wire_type)
        if found is None and len(self.handlers) == 1 and ANYTHING in self.handlers:
            return self.handlers[ANYTHING]
        if found is None:
            matches = [known for known in self.handlers if same_type(known, wire_type)]
            found = self.handlers[matches[0]] if len(matches) == 1 else self.handlers.get(ANYTHING)
            if found is not None and len(self._alike) < _MOST_ALIKE and len(wire_type) < _LONG_NAME:
                self._alike[wire_type] = found
        return found

    def check(self, found: Handler | None, frame: Incoming | None) -> Handler:
        """Return the handler of a frame, or of plain bytes, if there is one and it can be asked like that.

        Raises:
            UnhandledMessage: There is none, or it answers otherwise, or takes no items.
        """
        what = "plain bytes" if frame is None else frame.type[:200]
        if found is None:
            if frame is None:
                raise UnhandledMessage(f"This agent does not take plain bytes; it takes {self.accepts}.")
            raise UnhandledMessage(f"There is no handler for {what}; this agent takes {self.accepts}.")
        if found.streams and not isinstance(frame, Stream):
            raise UnhandledMessage(f"{what} is answered with a stream: call stream(...) for it.")
        if found.items_body is None and isinstance(frame, Ask | Stream) and frame.items:
            raise UnhandledMessage(f"The handler for {what} takes no items.")
        return found

    @property
    def untyped(self) -> Handler | None:
        """The handler that takes anything."""
        return self.handlers.get(ANYTHING)

    @property
    def idempotent(self) -> list[str]:
        """The wire types whose handlers are idempotent; ``"*"`` stands for all there are."""
        if all(handler.idempotent for handler in self.handlers.values()):
            return [ANYTHING]
        found = (wire_type for wire_type, handler in self.handlers.items() if handler.idempotent)
        return [wire_type for wire_type in found if wire_type != ANYTHING]

    @property
    def accepts(self) -> str:
        """The handled types, for a message to a person."""
        return ", ".join(sorted(self.handlers)) or "nothing"

    def readable(self) -> Declaration:
        """Give the same with readers for every type of message.

        Raises:
            DeclarationError: There is no handler, or a type that cannot be read from the wire.
        """
        if not self.handlers and not self.timers and not self.signals:
            raise DeclarationError(
                f"{self.owner} handles nothing: give it a @handler method or a receive method."
            )
        handlers = {name: self._with_readers(found) for name, found in self.handlers.items()}
        return replace(self, handlers=handlers, _alike={})

    def _with_readers(self, found: Handler) -> Handler:
        try:
            items = Body(found.items) if found.items is not None else None
            return replace(found, body=Body(found.declared), items_body=items)
        except (TypeError, NameError, MalformedMessage) as error:
            raise DeclarationError(
                f"{self.owner}.{found.method}: messages of this type cannot be read: {error}."
            ) from None


def declare(cls: type, name: str | None, scope: Mapping[str, Any]) -> Declaration:
    """Read what a class declares.

    Args:
        cls: The agent class.
        name: The SLIM name that its class statement gives.
        scope: The names around the class statement; annotations may use them.

    Raises:
        DeclarationError: Something in it cannot be.
    """
    if name is not None:
        try:
            check_name(name)
        except ConfigurationError as error:
            raise DeclarationError(f"{cls.__name__}: {error}") from None
    handlers: dict[str, Handler] = {}
    signals: dict[str, Handler] = {}
    timers: list[Timer] = []
    for method, function in _methods(cls):
        _check_method(f"{cls.__name__}.{method}", function)
        if hasattr(function, TIMER_MARK):
            timers.append(_timer(cls, method, function))
        if not hasattr(function, HANDLER_MARK) and method != _UNTYPED:
            continue
        for wire_type, found in _handlers(cls, method, function, scope):
            is_signal = isinstance(found.declared, type) and issubclass(found.declared, Signal)
            other = (signals if is_signal else handlers).setdefault(wire_type, found)
            if other is not found:
                raise DeclarationError(
                    f"{cls.__name__}: {other.method} and {method} both handle {wire_type}; "
                    "one type has one handler."
                )
    if "float" in handlers:
        # As for type checkers, a whole number will do where a float is declared (PEP 484).
        handlers.setdefault("int", handlers["float"])
    return Declaration(cls.__name__, name or _inherited_name(cls), handlers, tuple(timers), signals)


def _inherited_name(cls: type) -> str | None:
    declared = (vars(base).get("__declaration__") for base in cls.__mro__[1:])
    return next((found.name for found in declared if found is not None and found.name), None)


def _methods(cls: type) -> list[tuple[str, Any]]:
    """Give every method, those of base classes first, an overridden one only as it is now."""
    names = [name for base in reversed(cls.__mro__) for name in vars(base)]
    found = ((name, getattr(cls, name, None)) for name in dict.fromkeys(names))
    return [(name, function) for name, function in found if inspect.isfunction(function)]


def _check_method(label: str, function: Any) -> None:
    if function.__name__ in _HOOKS and not inspect.iscoroutinefunction(function):
        raise DeclarationError(f"{label} must be declared with async def.")
    if hasattr(function, TIMER_MARK) and hasattr(function, HANDLER_MARK):
        raise DeclarationError(f"{label} is either a handler or runs by every(...), not both.")


def _timer(cls: type, method: str, function: Any) -> Timer:
    label = f"{cls.__name__}.{method}"
    _, *parameters = _signature(function).parameters.values()
    if not inspect.iscoroutinefunction(function) or len(parameters) > 1:
        raise DeclarationError(f"{label} must be async def {method}(self) or async def {method}(self, ctx).")
    return Timer(method, getattr(function, TIMER_MARK), ("ctx",) * len(parameters))


def _handlers(
    cls: type, method: str, function: Any, scope: Mapping[str, Any]
) -> Iterator[tuple[str, Handler]]:
    label = f"{cls.__name__}.{method}"
    streams = inspect.isasyncgenfunction(function)
    if not streams and not inspect.iscoroutinefunction(function):
        raise DeclarationError(f"{label} must be declared with async def.")
    _, *parameters = _signature(function).parameters.values()
    positional = all(parameter.kind in _POSITIONAL for parameter in parameters)
    if not positional or not 1 <= len(parameters) <= _MOST_PARAMETERS:
        raise DeclarationError(f"{label} must take (self, message), and after it items or ctx or both.")
    message, *others = parameters
    annotation = _annotation(label, function, message.name, scope)
    takes, items = _others(label, function, [other.name for other in others], scope)
    if annotation is inspect.Parameter.empty and method != _UNTYPED:
        raise DeclarationError(
            f"{label}: annotate {message.name!r} with the type of message that it handles."
        )
    mark = getattr(function, HANDLER_MARK, None) or {}
    whole = Handler(method, Any, takes, bool(mark.get("idempotent")), streams, items, mark.get("allow"))
    if annotation in (inspect.Parameter.empty, Any, object):
        yield ANYTHING, whole
        return
    for member in get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,):
        kind = type(None) if member is None else get_origin(member) or member
        if not isinstance(kind, type) or kind in _FLOWS:
            raise DeclarationError(f"{label}: {member!r} is not a type of message; annotate with a class.")
        if streams and issubclass(kind, Request) and not issubclass(kind, StreamRequest):
            raise DeclarationError(
                f"{label} yields, but {kind.__name__} is a Request, with one reply: make it a StreamRequest."
            )
        yield type_name(kind), replace(whole, declared=member)


def _others(
    label: str, function: Any, names: list[str], scope: Mapping[str, Any]
) -> tuple[tuple[str, ...], Any]:
    """Tell which parameter after the message is the context and which one, by its annotation, the items."""
    takes, items = [], None
    for name in names:
        written = _written(function).get(name)
        flows = "AsyncIter" in written if isinstance(written, str) else get_origin(written) in _FLOWS
        if not flows and not _may_be_context(written):
            raise DeclarationError(f"{label}: {name!r} gets the Context, and is annotated with {written!r}.")
        if flows:
            items = (get_args(_annotation(label, function, name, scope)) or (Any,))[0]
        takes.append("items" if flows else "ctx")
    if len(set(takes)) < len(takes):
        raise DeclarationError(f"{label} must take (self, message), and after it items or ctx or both.")
    return tuple(takes), items


if sys.version_info >= (3, 14):
    # Looking at annotations evaluates them (PEP 649), and one may name what exists for type checkers alone.
    from annotationlib import Format, ForwardRef, get_annotations

    def _signature(function: Any) -> inspect.Signature:
        return inspect.signature(function, annotation_format=Format.FORWARDREF)

    def _written(function: Any) -> Mapping[str, Any]:
        """Give the annotations, as text where they are text or cannot be evaluated."""
        found = get_annotations(function, format=Format.FORWARDREF)
        return {
            name: one.__forward_arg__ if isinstance(one, ForwardRef) else one for name, one in found.items()
        }

else:
    _signature = inspect.signature

    def _written(function: Any) -> Mapping[str, Any]:
        """Give the annotations, as text where they are text."""
        annotations: Mapping[str, Any] = function.__annotations__
        return annotations


def _may_be_context(written: Any) -> bool:
    text = written if isinstance(written, str) else getattr(written, "__name__", "Any")
    return text in {"Any", "object"} or "Context" in text


def _annotation(label: str, function: Any, parameter: str, scope: Mapping[str, Any]) -> Any:
    annotation = _written(function).get(parameter, inspect.Parameter.empty)
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
