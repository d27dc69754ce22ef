"""Answers to peers that speak plain bytes: one payload each, in the order of their messages."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from slim_actors.errors import DeliveryError, RemoteError
from slim_actors.limits import MAX_PAYLOAD
from slim_actors.link import Link
from slim_actors.mailbox import Envelope

__all__ = ["PlainOrigin"]

_MOST_HELD = 16 * 1024 * 1024


class _Conversation(Protocol):
    link: Link

    def taken(self, count: int = 1) -> None: ...

    def done(self, envelope: Envelope) -> None: ...

    def room(self) -> Awaitable[None] | None: ...


class _Answer(NamedTuple):
    data: bytes
    is_made: bool
    """Whether a handler made it; the others are refusals, which nothing holds back."""


class PlainOrigin:
    """Where the outcomes of plain messages go: back as plain bytes, in the order of the messages."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation
        self._answers: OrderedDict[Envelope, _Answer | None] = OrderedDict()
        self.held = 0
        """Bytes of answers that wait for that to an earlier message."""
        self._made = 0
        """Those of them that handlers made."""
        self._went = asyncio.Event()

    def expect(self, envelope: Envelope) -> None:
        """Keep a place for the answer to a message."""
        self._answers[envelope] = None

    def accepted(self, envelope: Envelope) -> None:
        """See `Origin.accepted`."""
        self._conversation.taken()

    def accepted_all(self, envelopes: Sequence[Envelope]) -> None:
        """See `Origin.accepted_all`."""
        self._conversation.taken(len(envelopes))

    def replied(self, envelope: Envelope, value: Any) -> None:
        """See `Origin.replied`."""
        try:
            data = _plain(value)
        except Exception as error:  # noqa: BLE001 (encoding runs code of the user's classes)
            data = f"error: {RemoteError.of(error)}".encode()
        self._answer(envelope, data, made=True)

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """See `Origin.failed`."""
        if not envelope.was_accepted:
            self._conversation.taken()
        self._answer(envelope, f"error: {error}".encode(errors="replace"))

    def room(self) -> Awaitable[None] | None:
        """See `Origin.room`."""
        return self._room() if self._made > _MOST_HELD else self._conversation.room()

    async def _room(self) -> None:
        while self._made > _MOST_HELD:
            self._went.clear()
            await self._went.wait()

    def _answer(self, envelope: Envelope, data: bytes, *, made: bool = False) -> None:
        self._conversation.done(envelope)
        if len(data) > MAX_PAYLOAD:
            data = b"error: The reply has more bytes than one message may have."
        last = self._answers[envelope] = _Answer(data, made)
        self._hold(last, 1)
        while self._answers:
            first = next(iter(self._answers))
            answer = self._answers[first]
            if answer is None:
                return
            del self._answers[first]
            self._hold(answer, -1)
            self._conversation.link.send_plain(answer.data)

    def _hold(self, answer: _Answer, times: int) -> None:
        """Count an answer in, or out."""
        self.held += times * len(answer.data)
        self._made += times * len(answer.data) * answer.is_made
        if self._made <= _MOST_HELD:
            self._went.set()


def _plain(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)
