"""What a supervisor and its replicas say to each other, as lines of JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from slim_actors.supervision import DRAIN

__all__ = ["KILL_AFTER", "Assignment", "Report", "Task"]

KILL_AFTER = 5.0
"""Seconds on top of the drain: the goodbyes, and the agent's own ``stopped``, are not part of it."""


class Task(msgspec.Struct, frozen=True):
    """What a replica is to run."""

    target: str
    reports: int
    """The file descriptor for the reports."""
    name: str | None = None
    require_mls: bool = False
    otel: bool = False
    store: str | None = None
    drain: float = DRAIN
    beat: float = 0.0
    """Seconds between two signs of life; 0 for none."""
    tell_files: bool = False
    """Whether to report the user's files that were imported."""


class Assignment(msgspec.Struct, frozen=True):
    """The first line for a replica."""

    task: Task
    slot: int
    """Which of the replicas it is, whatever process that is: what it keeps is kept under this."""
    variables: dict[str, str]
    """The settings, for its environment."""

    def __repr__(self) -> str:
        """Leave the settings out: secrets may be among them."""
        return f"Assignment({self.task}, slot={self.slot})"


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a replica says."""

    event: Literal["loaded", "imported", "ready", "beat", "failed", "stopped"]
    """The agent's file is imported; a file was; it can be found; its event loop runs; it could not start, or
    cannot go on; it has stopped itself."""
    address: str = ""
    message: str = ""
    exit: int = 0
    stateful: bool = False
    """Of one that is loaded: whether it keeps a state, which only one live process may have."""
