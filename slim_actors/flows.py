"""The flows of a message at the agent: where its items come from, and where its stream of replies goes."""

from __future__ import annotations

from collections.abc import Callable

from slim_actors import wire
from slim_actors.declaration import Handler
from slim_actors.link import Link
from slim_actors.mailbox import Envelope
from slim_actors.patience import Patience
from slim_actors.streams import FIRST_ITEMS, Inlet, Outlet

__all__ = ["open_flows"]


def open_flows(
    envelope: Envelope,
    handler: Handler,
    frame: wire.Incoming,
    link: Link,
    hold: Callable[[int], bool],
    patience: Patience,
) -> None:
    """Give a message the ends of the flows that it has.

    Args:
        envelope: The message.
        handler: Who takes it.
        frame: As it came.
        link: What carries the flows.
        hold: Counts the bytes of items that wait; says whether there is room for them.
        patience: How long a flow may stand still.
    """
    # The id and not the frame is kept by what follows: its body may be large.
    message_id = frame.id
    if isinstance(frame, wire.Stream):
        envelope.outlet = Outlet(link, message_id, frame.granted, patience)
    if handler.items_body is None:
        return
    envelope.inlet = Inlet(
        handler.items_body,
        lambda total: link.send(wire.Grant(message_id, total)),
        frame.type[:200],
        patience,
        hold,
    )
    if isinstance(frame, wire.Tell) or not frame.items:
        envelope.inlet.end(0)
    else:
        link.send(wire.Grant(message_id, FIRST_ITEMS))
