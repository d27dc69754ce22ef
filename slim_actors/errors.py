"""Every error that a user of slim-actors can meet, and how the ones about messages travel.

Two families. Errors of *set-up* (a wrong name, a missing node, a wrong declaration) are raised where the
mistake is. Errors of *delivery* are the visible outcomes of one message: each has a ``code`` by which it
travels in an error frame, so that the caller raises the same class that the receiver named.
"""

from __future__ import annotations

from traceback import format_exception
from typing import Any, ClassVar

__all__ = [
    "AgentFailed",
    "Busy",
    "CallCycle",
    "Cancelled",
    "ConfigurationError",
    "DeclarationError",
    "DeliveryError",
    "Denied",
    "EndpointInUse",
    "Expired",
    "MalformedMessage",
    "NoRoute",
    "NodeUnreachable",
    "NotANode",
    "PeerLost",
    "RemoteError",
    "SlimActorsError",
    "Stopped",
    "StoreError",
    "TooLarge",
    "UnhandledMessage",
    "UnsupportedVersion",
    "Untrusted",
]


class SlimActorsError(Exception):
    """The base of every error raised by slim-actors. Its text is one sentence made for a person."""


class ConfigurationError(SlimActorsError, ValueError):
    """A value given by the user cannot be used: a name, an endpoint, a secret, an option, a file."""


class DeclarationError(SlimActorsError, TypeError):
    """An agent class is declared wrongly. Raised where the class is written, or where it is spawned."""


class EndpointInUse(SlimActorsError, OSError):
    """A node cannot listen at the endpoint because something else already does."""


class AgentFailed(SlimActorsError):
    """An instance or a group has ended because it failed: what `Ref.wait` gives, and what a parent is told.

    The text says who failed, how often, and with what; ``__cause__`` is the last exception.
    """


class DeliveryError(SlimActorsError):
    """One message did not get its reply. The subclass says why.

    Attributes:
        may_have_run: False only where it is certain that no handler saw the message, so that sending it
            again cannot do its work twice.
    """

    code: ClassVar[str] = "failed"
    may_have_run: bool = False


class NoRoute(DeliveryError):
    """Nobody answers to the name: no agent runs under it."""

    code = "no-route"


class NodeUnreachable(DeliveryError, ConnectionError):
    """No SLIM node answers at the endpoint; of a message: none did in time, and nothing was sent."""

    code = "no-node"


class NotANode(NodeUnreachable):
    """Something listens at the endpoint, but it is no SLIM node."""

    code = "not-a-node"


class PeerLost(DeliveryError):
    """The replica that had the message is gone (it died, froze or was cut off) and gave no outcome."""

    code = "peer-lost"
    may_have_run = True


class Untrusted(PeerLost):
    """The replica that was found has an identity that is refused here.

    Nothing was sent to it, unless ``may_have_run`` says that it had the message: then it was believed until
    then, and its token was refused later on.
    """

    code = "untrusted"
    may_have_run = False


class Expired(DeliveryError):
    """The deadline passed before the reply came."""

    code = "expired"
    may_have_run = True


class Busy(DeliveryError):
    """The receiver cannot take the message now.

    Attributes:
        retry_after: Seconds after which another try is sensible.
    """

    code = "busy"

    def __init__(self, message: str, retry_after: float = 0.1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CallCycle(DeliveryError):
    """The message would wait for an instance that waits for it; the text names the chain."""

    code = "cycle"


class Cancelled(DeliveryError):
    """The message was cancelled at the receiver before it had an outcome."""

    code = "cancelled"
    may_have_run = True


class Stopped(DeliveryError):
    """The receiver is stopping and did not start the message; another replica may take it.

    Where the text says so, it is the sender that was stopped, before anybody was found.
    """

    code = "stopped"


class Denied(DeliveryError):
    """The receiver does not take messages from this caller, or not over this session."""

    code = "denied"


class UnhandledMessage(DeliveryError):
    """The agent has no handler for the type of the message."""

    code = "unhandled"


class MalformedMessage(DeliveryError):
    """The message, or its reply, cannot be read as the type that was declared."""

    code = "malformed"


class TooLarge(DeliveryError):
    """The message, or its reply, has more bytes than one message may have."""

    code = "too-large"


class UnsupportedVersion(DeliveryError):
    """The peer speaks a version of the wire format that this one does not."""

    code = "version"


class StoreError(DeliveryError):
    """The store cannot keep or give back what it should: it is full, damaged, locked, or of a newer version.

    About a message it says that what its handler changed was not kept. Also raised at set-up, where a store
    is opened or a state is restored.
    """

    code = "store"
    may_have_run = True


class RemoteError(DeliveryError):
    """The handler raised. The text names the remote exception and its message.

    Attributes:
        remote_type: The name of the exception class at the agent, for example ``"ValueError"``.
        remote_message: The text of that exception.
        remote_traceback: Where it was raised, if the agent allows that to be seen (``send_tracebacks``).
    """

    code = "failed"
    may_have_run = True

    def __init__(
        self, message: str, *, remote_type: str = "", remote_message: str = "", remote_traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.remote_type = remote_type
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback

    @classmethod
    def of(cls, error: BaseException, *, with_traceback: bool = False) -> RemoteError:
        """Describe the exception of a handler so that it can travel."""
        remote_type, text = type(error).__name__, text_of(error)
        return cls(
            f"{remote_type}: {text}" if text else remote_type,
            remote_type=remote_type,
            remote_message=text,
            remote_traceback=_sendable("".join(format_exception(error))) if with_traceback else "",
        )


_MOST_TEXT = 16_000


def text_of(error: BaseException) -> str:
    """Give the text of an exception, whatever class of a user's it is of."""
    try:
        return _sendable(str(error))
    except Exception:  # noqa: BLE001 (a text of the user's making)
        return "its text cannot be made"


def _sendable(text: str) -> str:
    """Give a text that fits into a frame, whatever is in it."""
    return text.encode("utf-8", "replace").decode()[:_MOST_TEXT]


_BY_CODE: dict[str, type[DeliveryError]] = {
    cls.code: cls
    for cls in (
        NoRoute,
        NodeUnreachable,
        NotANode,
        PeerLost,
        Untrusted,
        Expired,
        Busy,
        CallCycle,
        Cancelled,
        Stopped,
        StoreError,
        Denied,
        UnhandledMessage,
        MalformedMessage,
        TooLarge,
        UnsupportedVersion,
        RemoteError,
    )
}


def to_wire(error: DeliveryError) -> tuple[str, str, dict[str, Any] | None]:
    """Give the code, the text and the details by which an error travels in a frame."""
    detail: dict[str, Any] | None = None
    if isinstance(error, RemoteError):
        detail = {"type": error.remote_type, "message": error.remote_message}
        if error.remote_traceback:
            detail["traceback"] = error.remote_traceback
    elif isinstance(error, Busy):
        detail = {"retry_after": error.retry_after}
    if error.may_have_run != type(error).may_have_run:
        detail = {**(detail or {}), "may_have_run": error.may_have_run}
    return error.code, _sendable(str(error)), detail


def from_wire(code: str, message: str, detail: dict[str, Any] | None) -> DeliveryError:
    """Make the error that a frame describes; an unknown code becomes a plain `DeliveryError`.

    The details come from a peer, so nothing in them is trusted to be there or to have the right type.
    """
    detail = detail or {}
    cls = _BY_CODE.get(code)
    error: DeliveryError
    if cls is RemoteError:
        error = RemoteError(
            message,
            remote_type=str(detail.get("type", "")),
            remote_message=str(detail.get("message", "")),
            remote_traceback=str(detail.get("traceback", "")),
        )
    elif cls is Busy:
        retry_after = detail.get("retry_after")
        error = Busy(message, float(retry_after) if isinstance(retry_after, int | float) else 0.1)
    else:
        error = (cls or DeliveryError)(message)
    if cls is None or detail.get("may_have_run") is True:
        error.may_have_run = True
    return error
