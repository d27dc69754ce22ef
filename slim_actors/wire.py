"""The wire: what travels in one SLIM payload.

A payload whose type is `PAYLOAD_TYPE` carries a *batch*: a MessagePack array of frames. A frame is an array
whose first element says which one it is. ``docs/wire.md`` is the full description for other languages; the
numbers there and the classes here are the same thing.

Nothing here builds an object of a user's type: bodies stay raw bytes until a handler that declares a type
asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, structs

from slim_actors.errors import MalformedMessage
from slim_actors.models import encode_hook

__all__ = [
    "PAYLOAD_TYPE",
    "UNSENDABLE",
    "VERSION",
    "Accepted",
    "Ask",
    "Cancel",
    "Credit",
    "End",
    "Error",
    "Frame",
    "Grant",
    "Hello",
    "Incoming",
    "Item",
    "Items",
    "Leaving",
    "Newcomer",
    "Part",
    "Ping",
    "Reply",
    "Stream",
    "Tell",
    "Tells",
    "body_size",
    "count_of",
    "encode",
    "encode_body",
    "is_ours",
    "join",
    "join_part",
    "split",
    "unsendable",
    "version_of",
]

VERSION = 1
PAYLOAD_TYPE = f"slim-actors/{VERSION}"
_PREFIX = "slim-actors/"

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
MessageId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0.0)]


class _Frame(Struct, array_like=True, tag_field="frame", frozen=True, gc=False):
    pass


class Ask(_Frame, tag=1, frozen=True):
    """A message that wants one reply."""

    id: MessageId
    type: str
    body: Raw
    ttl: Seconds
    """Seconds until the caller's deadline. A duration, not a time of day: clocks of machines differ."""
    context: dict[str, Any] | None = None
    """What travels along through every hop."""
    items: bool = False
    """Whether a flow of items follows it, from the caller to the agent."""


class Tell(_Frame, tag=2, frozen=True):
    """A message that wants to know only that the mailbox accepted it."""

    id: MessageId
    type: str
    body: Raw
    ttl: Seconds
    context: dict[str, Any] | None = None


class Reply(_Frame, tag=3, frozen=True):
    """The value that the handler returned."""

    id: MessageId
    body: Raw


class Error(_Frame, tag=4, frozen=True):
    """The message with this id ended without a reply; id 0 is about the payload as a whole."""

    id: Id
    code: str
    message: str
    detail: dict[str, Any] | None = None


class Accepted(_Frame, tag=5, frozen=True):
    """The mailbox has accepted these tells."""

    runs: list[tuple[Id, Id]]
    """The first id of several that follow each other, and how many they are."""


class Credit(_Frame, tag=6, frozen=True):
    """How many messages of this session the mailbox has accepted in all, so a lost one does no harm."""

    total: Id


class Cancel(_Frame, tag=7, frozen=True):
    """The caller no longer waits for this id."""

    id: MessageId


class Ping(_Frame, tag=8, frozen=True):
    """Nothing but a message for SLIM to acknowledge: it shows that the peer's process is alive."""


class Hello(_Frame, tag=9, frozen=True):
    """The first frame of the agent's side of a session."""

    version: int
    window: Id
    """How many messages the caller may have under way that the mailbox has not accepted yet."""
    idempotent: list[str]
    """Types that may safely be handled twice; ``"*"`` stands for every type."""
    most_bytes: Id = 2**63 - 1
    """How many bytes of messages the caller may have under way that have no outcome yet."""
    most_payload: Id = 2**63 - 1
    """How many bytes one message may have."""


class Stream(_Frame, tag=10, frozen=True):
    """A message that wants a flow of replies."""

    id: MessageId
    type: str
    body: Raw
    ttl: Seconds
    """Seconds until it must have been started."""
    context: dict[str, Any] | None = None
    items: bool = False
    granted: Id = 0
    """How many replies may be sent before the first grant."""


class Item(_Frame, tag=11, frozen=True):
    """One item of a flow, of the replies or of what follows a message."""

    id: MessageId
    number: Id
    """Counted from 0, so that a lost item is noticed and one that comes twice does no harm."""
    body: Raw


class Items(_Frame, tag=16, frozen=True):
    """Items of a flow that follow each other: the same as an `Item` for each, for less."""

    id: MessageId
    number: Id
    """That of the first."""
    bodies: Raw
    """A list of them. Raw, because a byte of it can become an object of fifty."""


class End(_Frame, tag=12, frozen=True):
    """The flow is complete."""

    id: MessageId
    count: Id


class Grant(_Frame, tag=13, frozen=True):
    """How many items of the flow may be sent in all."""

    id: MessageId
    total: Id


class Leaving(_Frame, tag=14, frozen=True):
    """The agent is stopping: what it has it finishes, and new messages go elsewhere."""


class Part(_Frame, tag=15, frozen=True):
    """A piece of a frame that is too long for one payload."""

    id: Id
    """That of the frame."""
    size: Id
    """How many bytes the frame has in all."""
    offset: Id
    """Where in the frame the piece begins."""
    data: memoryview


class Tells(_Frame, tag=17, frozen=True):
    """Messages of one type that want to know only that they were accepted: the same as a `Tell` for each."""

    id: MessageId
    """That of the first; each has the next one."""
    type: str
    bodies: Raw
    """A list of them; see `Items`."""
    ttl: Seconds
    context: dict[str, Any] | None = None

    def each(self) -> list[Tell]:
        """Give the messages one by one; none where there is no list of them.

        Each has a context of its own, but for one so large that thousands of it would fill the memory.
        """
        if not count_of(self.bodies):
            return []
        context = self.context
        is_large = context is None or len(context) > _FEW_ENTRIES
        return [
            Tell(number, self.type, body, self.ttl, context if is_large else dict(context or ()))
            for number, body in enumerate(split(self.bodies), self.id)
        ]


class Newcomer(_Frame, tag=18, frozen=True):
    """Another replica of the agent's name has come: whoever balances messages should look for it."""


Incoming = Ask | Tell | Stream
"""What asks an agent to do something."""

Frame = (
    Ask
    | Tell
    | Reply
    | Error
    | Accepted
    | Credit
    | Cancel
    | Ping
    | Hello
    | Stream
    | Item
    | Items
    | End
    | Grant
    | Leaving
    | Part
    | Tells
    | Newcomer
)

encode = msgspec.msgpack.Encoder(enc_hook=encode_hook).encode
"""Encodes a frame, or a body, which may be any value that has a form on the wire. For another it raises one
of these, of which `unsendable` makes the error for a user."""
UNSENDABLE = (TypeError, ValueError, OverflowError, RecursionError)
split = msgspec.msgpack.Decoder(list[Raw]).decode
"""Give the values of an encoded list, each encoded."""

_FEW_ENTRIES = 64
_ONE = b"\x91"
_BIN_32 = b"\xc6"
_NOTHING = memoryview(b"")
_ARRAY_16, _ARRAY_32 = 0xDC, 0xDD
_FIXARRAY, _FIXARRAY_MOST, _ARRAY_16_MOST = 0x90, 15, 0xFFFF


def is_ours(payload_type: str) -> bool:
    """Tell whether a payload of this type is meant to be a batch, of whatever version."""
    return payload_type.startswith(_PREFIX)


def version_of(payload_type: str) -> int | None:
    """Give the version of the wire format that a payload type names, or None if it names none."""
    match = re.fullmatch(rf"{_PREFIX}(\d{{1,9}})", payload_type)
    return int(match[1]) if match else None


def encode_body(value: Any) -> bytes:
    """Encode a value by itself, as the body of a frame is.

    Raises:
        MalformedMessage: It holds something that has no form on the wire.
    """
    try:
        return encode(value)
    except UNSENDABLE as error:
        raise unsendable(error) from None


def unsendable(error: Exception) -> MalformedMessage:
    """Make the error that something has no form on the wire, of what `encode` raised."""
    return MalformedMessage(f"The message cannot be sent: {error}.")


def body_size(frame: Frame, encoded: bytes) -> int:
    """Give how many bytes of an encoded frame are its body; 0 if it has none."""
    if not hasattr(frame, "body"):
        return 0
    return len(encoded) - len(encode(structs.replace(frame, body=None))) + 1


def join(frames: Sequence[bytes]) -> bytes:
    """Make a payload of encoded frames; the frames are not encoded again."""
    count = len(frames)
    if count == 1:
        return _ONE + frames[0]
    if count <= _FIXARRAY_MOST:
        head = bytes((_FIXARRAY | count,))
    elif count <= _ARRAY_16_MOST:
        head = bytes((_ARRAY_16,)) + count.to_bytes(2, "big")
    else:
        head = bytes((_ARRAY_32,)) + count.to_bytes(4, "big")
    return b"".join((head, *frames))


def join_part(message_id: int, size: int, offset: int, data: memoryview) -> bytes:
    """Make a payload of one `Part`: what is in it is copied once."""
    head = encode(Part(message_id, size, offset, _NOTHING))
    return b"".join((_ONE, head[:-2], _BIN_32, len(data).to_bytes(4, "big"), data))


def count_of(data: bytes | Raw) -> int:
    """Give how many values an encoded list says that it has, a payload for one; 0 where it is no list."""
    payload = memoryview(data)
    head = payload[0] if payload else 0
    if head == _ARRAY_32:
        return int.from_bytes(payload[1:5], "big")
    if head == _ARRAY_16:
        return int.from_bytes(payload[1:3], "big")
    return head & _FIXARRAY_MOST if head & ~_FIXARRAY_MOST == _FIXARRAY else 0
