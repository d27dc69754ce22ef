"""How what happens to replicas is shown."""

from __future__ import annotations

from slim_actors.cli.console import line
from slim_actors.replicas.events import Event, EventKind

__all__ = ["show"]

_STYLES = {
    EventKind.JOINED: "green",
    EventKind.RESTARTED: "green",
    EventKind.REPLACED: "green",
    EventKind.KEPT: "bold red",
    EventKind.LOST: "bold red",
    EventKind.STOPPED: "dim",
}


def show(event: Event) -> None:
    """Print an event, and the last lines of a replica that died."""
    detail = f" ({event.detail})" if event.detail else ""
    what = f"replica {event.replica} {event.address}".rstrip()
    line(event.kind.value, what + detail, style=_STYLES[event.kind])
    for text in event.log:
        line("", f"| {text}", style="dim")
