"""slim-actors: actor-style multi-agent orchestration over SLIM."""

from __future__ import annotations

# As a type checker knows it: importing typing takes as long as starting the first replica.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from slim_actors.agent import Agent, every, handler
    from slim_actors.auth import Basic, Oidc
    from slim_actors.call import Call
    from slim_actors.context import Context
    from slim_actors.deadletters import DeadLetter
    from slim_actors.errors import (
        AgentFailed,
        Busy,
        CallCycle,
        Cancelled,
        ConfigurationError,
        DeclarationError,
        DeliveryError,
        Denied,
        EndpointInUse,
        Expired,
        MalformedMessage,
        NodeUnreachable,
        NoRoute,
        NotANode,
        PeerLost,
        RemoteError,
        SlimActorsError,
        Stopped,
        StoreError,
        TooLarge,
        UnhandledMessage,
        UnsupportedVersion,
        Untrusted,
    )
    from slim_actors.forward import Forward
    from slim_actors.identity import Identity, Jwt, SharedSecret, Spire, StaticJwt
    from slim_actors.limits import Limits
    from slim_actors.mailbox import Mailbox, MailboxStats
    from slim_actors.messages import Request, StreamRequest
    from slim_actors.middleware import Middleware, Sending
    from slim_actors.names import Address
    from slim_actors.pinned import Pinned
    from slim_actors.ref import Ref
    from slim_actors.routes import Anycast, Route, Unicast
    from slim_actors.runtime import Runtime
    from slim_actors.state import State
    from slim_actors.store import Store
    from slim_actors.supervision import Backoff, Restart, Terminated
    from slim_actors.supervisor import Supervisor
    from slim_actors.tls import Tls

__version__ = "0.1.0"

__all__ = [
    "Address",
    "Agent",
    "AgentFailed",
    "Anycast",
    "Backoff",
    "Basic",
    "Busy",
    "Call",
    "CallCycle",
    "Cancelled",
    "ConfigurationError",
    "Context",
    "DeadLetter",
    "DeclarationError",
    "DeliveryError",
    "Denied",
    "EndpointInUse",
    "Expired",
    "Forward",
    "Identity",
    "Jwt",
    "Limits",
    "Mailbox",
    "MailboxStats",
    "MalformedMessage",
    "Middleware",
    "NoRoute",
    "NodeUnreachable",
    "NotANode",
    "Oidc",
    "PeerLost",
    "Pinned",
    "Ref",
    "RemoteError",
    "Request",
    "Restart",
    "Route",
    "Runtime",
    "Sending",
    "SharedSecret",
    "SlimActorsError",
    "Spire",
    "State",
    "StaticJwt",
    "Stopped",
    "Store",
    "StoreError",
    "StreamRequest",
    "Supervisor",
    "Terminated",
    "Tls",
    "TooLarge",
    "UnhandledMessage",
    "Unicast",
    "UnsupportedVersion",
    "Untrusted",
    "__version__",
    "every",
    "handler",
]

# Imported when first used: a command that only shows its help needs none of them.
_HOMES = {
    "agent": "Agent every handler",
    "auth": "Basic Oidc",
    "call": "Call",
    "context": "Context",
    "deadletters": "DeadLetter",
    "errors": (
        "AgentFailed Busy CallCycle Cancelled ConfigurationError DeclarationError DeliveryError "
        "Denied EndpointInUse Expired MalformedMessage NodeUnreachable NoRoute NotANode PeerLost "
        "RemoteError SlimActorsError Stopped StoreError TooLarge UnhandledMessage "
        "UnsupportedVersion Untrusted"
    ),
    "forward": "Forward",
    "identity": "Identity Jwt SharedSecret Spire StaticJwt",
    "limits": "Limits",
    "mailbox": "Mailbox MailboxStats",
    "messages": "Request StreamRequest",
    "middleware": "Middleware Sending",
    "names": "Address",
    "pinned": "Pinned",
    "ref": "Ref",
    "routes": "Anycast Route Unicast",
    "runtime": "Runtime",
    "state": "State",
    "store": "Store",
    "supervision": "Backoff Restart Terminated",
    "supervisor": "Supervisor",
    "tls": "Tls",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name from its module (PEP 562)."""
        from importlib import import_module

        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Give the public names, imported or not."""
        return sorted({*globals(), *__all__})
