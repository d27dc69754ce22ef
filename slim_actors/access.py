"""Who may call: the rules of an agent and of its handlers, held against the verified sender.

A rule sees the sender's `Address` as the transport verified it, and never anything that a message says.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from types import FunctionType
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from slim_actors.errors import DeclarationError, Denied
from slim_actors.names import Address, printable
from slim_actors.throttle import Throttle

if TYPE_CHECKING:
    from slim_actors.declaration import Handler

__all__ = ["Allow", "Guard", "Rule", "check_allow"]

Allow = str | Collection[str] | Callable[[Address], bool]
"""Who may call: a glob of verified subjects, several of them, or a function of the sender."""

_logger = logging.getLogger("slim_actors.access")
_time_to_log = Throttle()
_SOMEBODY = Address("a/b/c", "", subject="a/b/c")


# By identity: what a user gives as a rule need not be hashable.
class Rule(Struct, frozen=True, eq=False):
    """One ``allow=``, checked and ready for use."""

    globs: tuple[str, ...] = ()
    function: Callable[[Address], bool] | None = None

    @classmethod
    def of(cls, allow: Any, where: str) -> Rule | None:
        """Read an ``allow=``; None gives no rule.

        Args:
            allow: What was declared.
            where: Where it stands, for a message to a person.

        Raises:
            DeclarationError: It is none of what it may be.
        """
        if allow is None:
            return None
        if callable(allow) and not isinstance(allow, type):
            _check_function(allow, where)
            return cls(function=allow)
        globs = (allow,) if isinstance(allow, str) else allow
        if not isinstance(globs, Collection) or isinstance(globs, bytes | bytearray):
            raise DeclarationError(
                f"{where}: allow is {allow!r}, but must be a glob of subjects, several of them, "
                "or a function of the sender."
            )
        for glob in globs:
            if not isinstance(glob, str) or not glob:
                raise DeclarationError(f"{where}: allow has {glob!r}, which is not a glob of subjects.")
        return cls(tuple(globs))

    def admits(self, sender: Address) -> bool:
        """Tell whether this sender may call. Who is not verified may not; a function that fails denies."""
        if not sender.subject:
            return False
        if self.function is None:
            return any(fnmatchcase(sender.subject, glob) for glob in self.globs)
        try:
            answer: object = self.function(sender)
        except Exception:
            if _time_to_log(self):
                _logger.exception("allow=%r failed, and so denies", self.function)
            return False
        if not isinstance(answer, bool) and _time_to_log(self):
            # A forgotten await would otherwise let everybody in.
            _logger.error("allow=%r gave %r instead of True or False, and so denies", self.function, answer)
        return answer is True


class Guard:
    """Decides who may call one instance: the agent's rule and the handler's must both admit the sender.

    Raises:
        DeclarationError: The instance's ``allow`` is none of what it may be.
    """

    def __init__(self, agent: Any, name: str) -> None:
        self._name = name
        self._rule = Rule.of(agent.allow, type(agent).__name__)
        self.is_open = self._rule is None
        """Whether everybody may call the agent, as far as its handler has no rule."""

    def denies(self, sender: Address, handler: Handler | None) -> Denied | None:
        """Give the error for a sender that may not call this handler, or None for one that may."""
        rule, narrower = self._rule, None if handler is None else handler.allow
        if (rule is None or rule.admits(sender)) and (narrower is None or narrower.admits(sender)):
            return None
        what = f"{handler.method} of {self._name}" if handler is not None else self._name
        return Denied(f"{_who(sender)} may not call {what}.")


def check_allow(cls: Any) -> None:
    """Check the ``allow`` of an agent class; it may also be a method ``(self, sender)``.

    Raises:
        DeclarationError: It is none of what it may be.
    """
    found = inspect.getattr_static(cls, "allow")
    if isinstance(found, FunctionType):
        if not _takes(found, _SOMEBODY):
            # A method, which has its rule once it is bound.
            _check_function(found, cls.__name__, None)
            return
        # Written in the class body it would be taken for a method.
        cls.allow = staticmethod(found)
    elif not isinstance(found, staticmethod | classmethod) and inspect.isdatadescriptor(found):
        # Only an instance has the value.
        return
    Rule.of(cls.allow, cls.__name__)


def _check_function(function: Callable[..., Any], where: str, *bound: Any) -> None:
    # The function of a callable object may be asynchronous too.
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise DeclarationError(f"{where}: allow is asynchronous; make it a plain function of the sender.")
    if not _takes(function, *bound, _SOMEBODY):
        raise DeclarationError(f"{where}: allow must take one argument, the sender's address.")


def _takes(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:
        # A function written in C does not always say what it takes.
        return True
    return True


def _who(sender: Address) -> str:
    who = sender.subject or f"{sender}, whose identity is not verified,"
    who = printable(who)
    return f"{who} ({sender.issuer})" if sender.issuer.isprintable() and sender.issuer else who
