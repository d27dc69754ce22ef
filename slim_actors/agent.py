"""Agents as classes: what a user writes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, overload

from slim_actors.access import Allow, Rule, check_allow
from slim_actors.checks import is_number, is_whole
from slim_actors.declaration import HANDLER_MARK, TIMER_MARK, Declaration, declare
from slim_actors.errors import DeclarationError
from slim_actors.mailbox import Mailbox
from slim_actors.state import state_of
from slim_actors.supervision import Restart

__all__ = ["Agent", "every", "handler"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def handler(function: F) -> F: ...
@overload
def handler(*, idempotent: bool = False, allow: Allow | None = None) -> Callable[[F], F]: ...


def handler(
    function: F | None = None, *, idempotent: bool = False, allow: Allow | None = None
) -> F | Callable[[F], F]:
    """Declare a method of an agent as the handler for the type that its first parameter is annotated with.

    The method is ``async def name(self, message: Type)``; what it returns is the reply, and a method that
    yields makes a stream of replies. After the message it may take ``ctx``, and the items that a caller
    sends along, as a parameter annotated ``AsyncIterator[T]``. A handler for a union takes each of its types.

    Args:
        function: The method, where the decorator is written without parentheses.
        idempotent: Handling one message twice does no harm, so an Anycast message whose replica was lost,
            or stopped or restarted in the middle of it, may be given to another one.
        allow: Who may call it: a glob of verified subjects, several of them, or a function
            ``(sender: Address) -> bool``. The agent's own ``allow`` must admit the sender too. Others get
            `Denied`.

    Raises:
        DeclarationError: ``allow`` is none of these.

    Example:
        >>> class Shout(Agent, name="demo/ns/shout"):
        ...     @handler(idempotent=True)
        ...     async def shout(self, message: str) -> str:
        ...         return message.upper()
    """

    def mark(function: F) -> F:
        if not callable(function):
            raise DeclarationError(
                f"@handler(...) takes no {function!r}: it is written without, or by names."
            )
        rule = Rule.of(allow, function.__qualname__)
        setattr(function, HANDLER_MARK, {"idempotent": idempotent, "allow": rule})
        return function

    return mark if function is None else mark(function)


def every(*, seconds: float) -> Callable[[F], F]:
    """Call a method of an agent every so many seconds, from its start to its stop.

    The calls go through the mailbox: they take their turn with the messages, never run beside one, and one
    that still waits is not joined by another. What one raises is logged, and becomes a dead letter.

    Raises:
        DeclarationError: The interval is not a number of seconds above 0.

    Example:
        >>> class Clock(Agent, name="demo/ns/clock"):
        ...     @every(seconds=60)
        ...     async def tick(self) -> None:
        ...         print("another minute")
    """
    if not is_number(seconds) or seconds <= 0:
        raise DeclarationError(f"every(seconds={seconds!r}) is not a number of seconds above 0.")

    def mark(function: F) -> F:
        setattr(function, TIMER_MARK, seconds)
        return function

    return mark


class Agent:
    """The base of every agent.

    A subclass gives its SLIM name and its handlers: methods marked with `handler`, or one untyped
    ``async def receive(self, message, ctx)`` that gets str, bytes, numbers, lists and dicts as they are.
    One instance handles one message at a time unless ``concurrency`` says otherwise. An attrs class may be an
    agent.

    Class attributes that a subclass may set:
        concurrency: How many messages one instance handles at the same time.
        mailbox: The `Mailbox` in front of the handlers.
        allow: Who may call: a glob of verified subjects (``"acme/*"``; ``*`` stands for any text), several of
            them, or a function ``(sender: Address) -> bool``, which may be a method. None lets every verified
            peer in. Whoever it does not admit gets `Denied`, and the message is never read. See
            ``docs/security.md``.
        restart: The `Restart` policy that says what becomes of an instance whose handler raised. Without one,
            and outside a group, it goes on with its state: the caller has got the error.
        require_mls: Refuse messages from sessions that are not end-to-end encrypted.
        send_tracebacks: Let callers see where a handler failed: `RemoteError.remote_traceback`.

    An attribute declared with `State` is kept across restarts.

    Raises:
        DeclarationError: At the class statement, when the declaration is wrong.

    Example:
        >>> class Echo(Agent, name="agntcy/ns/alice"):
        ...     async def receive(self, message, ctx):
        ...         return message
    """

    concurrency: ClassVar[int] = 1
    mailbox: ClassVar[Mailbox] = Mailbox()
    allow: ClassVar[Allow | None] = None
    restart: ClassVar[Restart | None] = None
    require_mls: ClassVar[bool] = False
    send_tracebacks: ClassVar[bool] = False
    __declaration__: ClassVar[Declaration] = Declaration("Agent")

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # attrs makes a slotted class by creating it a second time, without the arguments of the statement.
        if "__declaration__" in cls.__dict__ and name is None:
            return
        _check_settings(cls)
        scope = sys._getframe(1).f_locals  # noqa: SLF001 (annotations may name types of the enclosing function)
        cls.__declaration__ = declare(cls, name, scope)

    async def started(self, ctx: Any) -> None:
        """Called once before the first message of an instance.

        An error here fails the spawn; after a restart, it is the next failure.
        """

    async def stopped(self, ctx: Any) -> None:
        """Called once after the last message, also of an instance that is restarted, for 5 s at the most.

        Not called for an instance whose ``started`` did not return.
        """


def _check_settings(cls: type[Agent]) -> None:
    if not is_whole(cls.concurrency) or cls.concurrency < 1:
        raise DeclarationError(
            f"{cls.__name__}: concurrency is {cls.concurrency!r}, but must be a whole number from 1 up."
        )
    if not isinstance(cls.mailbox, Mailbox):
        raise DeclarationError(f"{cls.__name__}: mailbox is {cls.mailbox!r}, but must be a Mailbox(...).")
    check_allow(cls)
    if not isinstance(cls.require_mls, bool):
        raise DeclarationError(
            f"{cls.__name__}: require_mls is {cls.require_mls!r}, but must be True or False."
        )
    if cls.restart is not None and not isinstance(cls.restart, Restart):
        raise DeclarationError(f"{cls.__name__}: restart is {cls.restart!r}, but must be a Restart(...).")
    state_of(cls)
