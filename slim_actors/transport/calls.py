"""The two calls that every payload makes, and how they are made by the bindings' own generated code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    # For the types alone: what the bindings are is the business of another module.
    from slim_actors.transport.bindings import slim

__all__ = ["Calls", "Generated", "Received"]


class Received(NamedTuple):
    """A message, as far as it is of use here."""

    payload: bytes
    payload_type: str
    identity: str
    """The sender's token."""
    metadata: dict[str, str]


class Calls(Protocol):
    """What is asked of SLIM for each payload."""

    async def publish(
        self, session: slim.Session, data: bytes, payload_type: str | None, *, tracked: bool = False
    ) -> slim.CompletionHandle | None:
        """Send a payload; give what tells of its acknowledgement, if that is wanted.

        Raises:
            slim.SlimError: The session is over.
        """

    async def receive(self, session: slim.Session) -> Received:
        """Wait for the next message. Must not be cancelled while the session is in use.

        Raises:
            slim.SlimError: The session is over, or a participant has left it.
        """

    async def acknowledged(self, handle: slim.CompletionHandle) -> None:
        """Wait until a payload was acknowledged, or given up. Once for each handle.

        Raises:
            slim.SlimError: The session is over.
        """


class Generated:
    """`Calls` by the generated code: right, and slow."""

    async def publish(
        self, session: slim.Session, data: bytes, payload_type: str | None, *, tracked: bool = False
    ) -> slim.CompletionHandle | None:
        """See `Calls.publish`."""
        handle = await session.publish_async(data, payload_type, None)
        return handle if tracked else None

    async def receive(self, session: slim.Session) -> Received:
        """See `Calls.receive`."""
        message = await session.get_message_async(None)
        context = message.context
        return Received(message.payload, context.payload_type, context.identity, context.metadata)

    async def acknowledged(self, handle: slim.CompletionHandle) -> None:
        """See `Calls.acknowledged`."""
        await handle.wait_async()
