"""Messages: what users declare, what their types are called on the wire, and how bodies become objects.

A typed message is an instance of a class (attrs, dataclass, msgspec Struct). Plain values (str, bytes,
numbers, bool, None, list, dict) travel as they are. Bytes become objects only of the type that the reader
declares.
"""

from __future__ import annotations

import sys
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any, ForwardRef, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import msgspec.inspect

from slim_actors.errors import DeclarationError, MalformedMessage, text_of
from slim_actors.models import decode_hook, is_model

__all__ = [
    "RAW",
    "Body",
    "Request",
    "Signal",
    "StreamRequest",
    "body_of",
    "reply_body",
    "reply_type",
    "same_type",
    "type_name",
]

R_co = TypeVar("R_co", covariant=True)


class Request(Generic[R_co]):
    """The base of a message that is answered with an ``R``; type checkers then know what ask gives back.

    Example:
        >>> from attrs import frozen
        >>> @frozen
        ... class Say(Request[str]):
        ...     text: str
        >>> reply_type(Say)
        <class 'str'>
    """

    __slots__ = ()


class StreamRequest(Generic[R_co]):
    """The base of a message that is answered with a stream of ``R``.

    Example:
        >>> from attrs import frozen
        >>> @frozen
        ... class Count(StreamRequest[int]):
        ...     up_to: int
        >>> reply_type(Count)
        <class 'int'>
    """

    __slots__ = ()


class Signal:
    """The base of what the runtime tells an agent; never read from the wire, so no peer can forge one."""

    __slots__ = ()


_PLAIN = (str, bytes, int, float, bool, type(None), list, dict)
_AS_BYTES = (bytearray, memoryview)
_ENDS = (CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is no word about a body. All else is: the panic of a library in Rust, for one, is no `Exception`."""

# Looked up once a message, so remembered; classes live as long as their program does.
_names: dict[type[Any], str] = {}
_as_they_are: dict[type[Any], str] = {}
"""Those whose objects are bodies as they are."""
_reply_bodies: dict[type[Any], Body] = {}


def type_name(cls: type[Any]) -> str:
    """Give the name by which a type is known on the wire: ``str`` and the like, or ``module.Class``.

    A class of the program's main file is named after the file, so that other programs which import that
    file mean the same class.
    """
    name = _names.get(cls)
    if name is None:
        module = _main_module() if cls.__module__ == "__main__" else cls.__module__
        _check_fields(cls)
        name = _names[cls] = cls.__name__ if cls in _PLAIN else f"{module}.{cls.__qualname__}"
    return name


def _check_fields(cls: Any) -> None:
    fields = getattr(cls, "__attrs_attrs__", ())
    private = [field.name for field in fields if field.name.startswith("_")]
    if private:
        raise MalformedMessage(
            f"{cls.__name__} cannot be a message: its field {private[0]} is private, and private fields "
            "do not travel. Give it a public name."
        )


def _main_module() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    # A tool that was started with -m and runs the program for it is not the program.
    if spec is not None and spec.origin == getattr(main, "__file__", None):
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None) or "__main__"
    return str(file).replace("\\", "/").rpartition("/")[2].removesuffix(".py")


def same_type(one: str, other: str) -> bool:
    """Tell whether two wire names mean one type.

    Module paths are compared from the right and the shorter one decides: a file that is ``agents.echo`` for
    one program and ``echo`` for another holds the same classes, while ``a.Say`` and ``b.Say`` differ.
    """
    shorter, longer = sorted((one, other), key=len)
    return shorter == longer or longer.endswith("." + shorter)


def body_of(message: object) -> tuple[str, Any]:
    """Give the wire name and the body of a message."""
    name = _as_they_are.get(type(message))
    if name is not None:
        return name, message
    if isinstance(message, _AS_BYTES):
        return "bytes", bytes(message)
    if isinstance(message, tuple):
        return "list", message
    name = _as_they_are[type(message)] = type_name(type(message))
    return name, message


def reply_type(cls: type[Any]) -> Any:
    """Give the ``R`` of a ``Request[R]`` or ``StreamRequest[R]`` class; Any for every other class."""
    for base in cls.__mro__:
        for origin in getattr(base, "__orig_bases__", ()):
            if get_origin(origin) in (Request, StreamRequest):
                (reply,) = get_args(origin)
                return _resolve(reply, base)
    return Any


def _resolve(reply: Any, owner: type) -> Any:
    if isinstance(reply, ForwardRef):

        def scope() -> None: ...

        scope.__annotations__ = {"return": reply}
        reply = get_type_hints(scope, vars(sys.modules[owner.__module__]))["return"]
    return Any if isinstance(reply, TypeVar) else reply


class Body:
    """Reads raw bodies as one declared type, and nothing else.

    Args:
        declared: The type; Any reads plain values and never builds an object of a class.

    Raises:
        TypeError: The type is not one that msgspec can read.
    """

    __slots__ = ("_all", "declared", "decode")

    def __init__(self, declared: Any) -> None:
        foreign = isinstance(msgspec.inspect.type_info(declared), msgspec.inspect.CustomType)
        if foreign and not is_model(declared):
            raise TypeError(f"{declared!r} is no attrs class, dataclass, Struct, model or plain type")
        _check_fields(declared)
        self.declared = declared
        self.decode: Callable[[bytes | msgspec.Raw], Any]
        """Reads a body, without a layer of Python; `read` makes the right error of what it raises."""
        self.decode = msgspec.msgpack.Decoder(declared, dec_hook=decode_hook).decode
        self._all: msgspec.msgpack.Decoder[list[Any]] | None = None

    def read(self, raw: bytes | msgspec.Raw, what: str) -> Any:
        """Read a body.

        Raises:
            MalformedMessage: It is not of the declared type; the text says where.
        """
        try:
            return self.decode(raw)
        except _ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 (also what a validator of the user's class raises)
            raise _malformed(error, what) from None

    def read_all(self, raw: msgspec.Raw) -> list[Any]:
        """Read a list of bodies, in one go.

        Raises:
            MalformedMessage: One of them is not of the declared type; read one by one, they show which.
        """
        if self._all is None:
            # Not when it is declared: most are never read in lists.
            self._all = msgspec.msgpack.Decoder(list[self.declared], dec_hook=decode_hook)  # type: ignore[name-defined]
        try:
            return self._all.decode(raw)
        except _ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 (as in `read`)
            raise MalformedMessage(f"One of several cannot be read: {text_of(error)}.") from None


def _malformed(error: BaseException, what: str) -> MalformedMessage:
    """Make the error that a body is not of the declared type, of what `Body.decode` raised."""
    if isinstance(error, msgspec.ValidationError):
        return MalformedMessage(f"{what} does not fit its declaration: {error}.")
    if isinstance(error, msgspec.DecodeError | RecursionError | UnicodeDecodeError):
        return MalformedMessage(f"{what} cannot be read: {error}.")
    # A validator or converter of the user's class raised it.
    return MalformedMessage(f"{what} was refused with {type(error).__name__}: {text_of(error)}.")


RAW = Body(msgspec.Raw)
"""Reads nothing: what it gives can be sent on as it is."""


def reply_body(cls: type[Any]) -> Body:
    """Give the reader for replies to messages of this class.

    Raises:
        DeclarationError: The declared reply is no type that can be read.
    """
    body = _reply_bodies.get(cls)
    if body is None:
        try:
            body = _reply_bodies[cls] = Body(reply_type(cls))
        except (TypeError, NameError) as error:
            raise DeclarationError(
                f"The reply that {cls.__name__} declares cannot be read: {error}."
            ) from None
    return body
