"""The exit codes of every command, in one place."""

from __future__ import annotations

from enum import IntEnum

from slim_actors.errors import (
    ConfigurationError,
    DeclarationError,
    Denied,
    EndpointInUse,
    NodeUnreachable,
    NoRoute,
    SlimActorsError,
    StoreError,
    Untrusted,
)

__all__ = ["Exit", "exit_code"]


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    """All went well; also after Ctrl-C or SIGTERM, when everything was drained."""
    FAILED = 1
    """What was asked for failed: a message was not answered, or `doctor` found a problem."""
    USAGE = 2
    """What the user gave cannot be used: an option, a name, a secret, a file, an agent class."""
    NO_NODE = 3
    """No SLIM node answers at the endpoint."""
    NO_ROUTE = 4
    """Nobody serves the name."""
    GAVE_UP = 5
    """A replica ended again and again, or a new one could not start."""
    IN_USE = 6
    """Something else listens at the endpoint."""
    REFUSED = 7
    """One side refuses the other's identity, or the caller may not call."""
    STORE = 8
    """The store, or a state in it, cannot be used."""
    INTERRUPTED = 130
    """Ctrl-C ended it before it was done: 128 and the number of the signal, as in shells."""


_CODES: tuple[tuple[type[SlimActorsError], Exit], ...] = (
    (StoreError, Exit.STORE),
    (NoRoute, Exit.NO_ROUTE),
    (Denied, Exit.REFUSED),
    (Untrusted, Exit.REFUSED),
    (NodeUnreachable, Exit.NO_NODE),
    (EndpointInUse, Exit.IN_USE),
    (ConfigurationError, Exit.USAGE),
    (DeclarationError, Exit.USAGE),
)


def exit_code(error: SlimActorsError) -> Exit:
    """Give the exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)
