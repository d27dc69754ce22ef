"""slim-actors: actor-style multi-agent orchestration over SLIM."""

from slim_actors.agent import Agent, handler
from slim_actors.context import Context
from slim_actors.errors import (
    Busy,
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
    PeerLost,
    RemoteError,
    SlimActorsError,
    Stopped,
    TooLarge,
    UnhandledMessage,
    UnsupportedVersion,
)
from slim_actors.mailbox import Mailbox
from slim_actors.messages import Request
from slim_actors.names import Address
from slim_actors.routes import Anycast, Route, Unicast
from slim_actors.runtime import Ref, Runtime
from slim_actors.verbs import Call, Pinned

__version__ = "0.1.0"

__all__ = [
    "Address",
    "Agent",
    "Anycast",
    "Busy",
    "Call",
    "Cancelled",
    "ConfigurationError",
    "Context",
    "DeclarationError",
    "DeliveryError",
    "Denied",
    "EndpointInUse",
    "Expired",
    "Mailbox",
    "MalformedMessage",
    "NoRoute",
    "NodeUnreachable",
    "PeerLost",
    "Pinned",
    "Ref",
    "RemoteError",
    "Request",
    "Route",
    "Runtime",
    "SlimActorsError",
    "Stopped",
    "TooLarge",
    "UnhandledMessage",
    "Unicast",
    "UnsupportedVersion",
    "__version__",
    "handler",
]
