"""Answers to peers that speak plain bytes: one payload each, in the order of their messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable
from typing import Any, Protocol

import msgspec

from slim_actors.errors import DeliveryError, RemoteError
from slim_actors.link import Link
from slim_actors.mailbox import Envelope
from slim_actors.transport.base import MAX_PAYLOAD

__all__ = ["PlainOrigin"]


class _Conversation(Protocol):
    link: Link

    def taken(self) -> None: ...

    def done(self, envelope: Envelope) -> None: ...

    def room(self) -> Awaitable[None] | None: ...


class PlainOrigin:
    """Where the outcomes of plain messages go: back as plain bytes, in the order of the messages."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation
        self._answers: OrderedDict[Envelope, bytes | None] = OrderedDict()

    def expect(self, envelope: Envelope) -> None:
        """Keep a place for the answer to a message."""
        self._answers[envelope] = None

    def accepted(self, envelope: Envelope) -> None:
        """See `Origin.accepted`."""
        self._conversation.taken()

    def replied(self, envelope: Envelope, value: Any) -> None:
        """See `Origin.replied`."""
        try:
            self._answer(envelope, _plain(value))
        except Exception as error:  # noqa: BLE001 (encoding runs code of the user's classes)
            self._answer(envelope, f"error: {RemoteError.of(error)}".encode())

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """See `Origin.failed`."""
        if not envelope.was_accepted:
            self._conversation.taken()
        self._answer(envelope, f"error: {error}".encode(errors="replace"))

    def room(self) -> Awaitable[None] | None:
        """See `Origin.room`."""
        return self._conversation.room()

    def _answer(self, envelope: Envelope, data: bytes) -> None:
        self._conversation.done(envelope)
        if len(data) > MAX_PAYLOAD:
            data = b"error: The reply has more bytes than one message may have."
        self._answers[envelope] = data
        while self._answers:
            first = next(iter(self._answers))
            answer = self._answers[first]
            if answer is None:
                return
            del self._answers[first]
            self._conversation.link.send_plain(answer)


def _plain(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)
