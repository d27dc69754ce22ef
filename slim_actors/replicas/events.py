"""What a supervisor tells: the events in the life of its replicas, and why it gives up."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from slim_actors.errors import SlimActorsError

__all__ = ["Event", "EventKind", "ReplicaFailed"]


class EventKind(Enum):
    """What can happen to a replica."""

    JOINED = "joined"
    LOST = "lost"
    RESTARTED = "restarted"
    REPLACED = "replaced"
    KEPT = "kept"
    STOPPED = "stopped"


class Event(Struct, frozen=True):
    """Something that happened to a replica.

    Attributes:
        kind: What.
        replica: Which one, counted from 1.
        address: Its name and id; empty where it has none.
        detail: More, for a person.
        log: The last lines that it printed, where it died.
    """

    kind: EventKind
    replica: int
    address: str = ""
    detail: str = ""
    log: tuple[str, ...] = ()


class ReplicaFailed(SlimActorsError):
    """A replica cannot run. Its text says why.

    Attributes:
        exit: The exit code that a command should end with.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit = code
