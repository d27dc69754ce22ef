"""The wire: what travels in one SLIM payload.

A payload whose type is `PAYLOAD_TYPE` carries a *batch*: a MessagePack array of frames. A frame is an array
whose first element says which one it is. ``docs/wire.md`` is the full description for other languages; the
numbers there and the classes here are the same thing.

Nothing here builds an object of a user's type: bodies stay raw bytes until a handler that declares a type
asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from slim_actors.errors import MalformedMessage, TooLarge
from slim_actors.limits import Limits
from slim_actors.models import encode_hook
from slim_actors.shape import Misshapen, check_shape, containers_at_most

__all__ = [
    "PAYLOAD_TYPE",
    "VERSION",
    "Accepted",
    "Ask",
    "Batch",
    "Cancel",
    "Credit",
    "End",
    "Error",
    "Frame",
    "Grant",
    "Hello",
    "Incoming",
    "Item",
    "Leaving",
    "Ping",
    "Problem",
    "Reply",
    "Stream",
    "Tell",
    "decode_batch",
    "encode_body",
    "encode_frame",
    "is_ours",
    "join",
    "version_of",
]

VERSION = 1
PAYLOAD_TYPE = f"slim-actors/{VERSION}"
_PREFIX = "slim-actors/"

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0.0)]


class _Frame(Struct, array_like=True, tag_field="frame", frozen=True, gc=False):
    pass


class Ask(_Frame, tag=1, frozen=True):
    """A message that wants one reply."""

    id: Id
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

    id: Id
    type: str
    body: Raw
    ttl: Seconds
    context: dict[str, Any] | None = None


class Reply(_Frame, tag=3, frozen=True):
    """The value that the handler returned."""

    id: Id
    body: Raw


class Error(_Frame, tag=4, frozen=True):
    """The message with this id ended without a reply; id 0 is about the payload as a whole."""

    id: Id
    code: str
    message: str
    detail: dict[str, Any] | None = None


class Accepted(_Frame, tag=5, frozen=True):
    """The mailbox has accepted these tells."""

    ids: list[Id]


class Credit(_Frame, tag=6, frozen=True):
    """How many messages of this session the mailbox has accepted in all, so a lost one does no harm."""

    total: Id


class Cancel(_Frame, tag=7, frozen=True):
    """The caller no longer waits for this id."""

    id: Id


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


class Stream(_Frame, tag=10, frozen=True):
    """A message that wants a flow of replies."""

    id: Id
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

    id: Id
    number: Id
    """Counted from 0, so that a lost item is noticed and one that comes twice does no harm."""
    body: Raw


class End(_Frame, tag=12, frozen=True):
    """The flow is complete."""

    id: Id
    count: Id


class Grant(_Frame, tag=13, frozen=True):
    """How many items of the flow may be sent in all."""

    id: Id
    total: Id


class Leaving(_Frame, tag=14, frozen=True):
    """The agent is stopping: what it has it finishes, and new messages go elsewhere."""


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
    | End
    | Grant
    | Leaving
)

_MOST_PROBLEMS = 16
_MANY_CONTAINERS = 50_000
"""From here on a payload is looked at frame by frame before anything of it is built."""
_FRAME_DEPTH = 2
"""The lists and maps in which a body or a context stands."""
_LIMITS = Limits()

_encoder = msgspec.msgpack.Encoder(enc_hook=encode_hook)
_batch_decoder = msgspec.msgpack.Decoder(list[Frame])
_frame_decoder = msgspec.msgpack.Decoder(Frame)
_raws_decoder = msgspec.msgpack.Decoder(list[Raw])
_int_decoder = msgspec.msgpack.Decoder(int)

_KNOWN_TAGS = range(1, 15)
_ARRAY_16, _ARRAY_32 = 0xDC, 0xDD
_FIXARRAY, _FIXARRAY_MOST, _ARRAY_16_MOST = 0x90, 15, 0xFFFF

_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class Problem(Struct, frozen=True):
    """A frame that cannot be taken: its id (0 where even that is unreadable), and why, in a sentence."""

    id: int
    reason: str
    code: str = MalformedMessage.code


class _Head(Struct, array_like=True):
    """The beginning of any frame."""

    tag: Raw
    id: Raw = Raw(b"\xc0")


class Batch(Struct, frozen=True):
    """What a payload held: the frames that could be read, and what was wrong with the others."""

    frames: Sequence[Frame]
    problems: Sequence[Problem] = ()


_head_decoder = msgspec.msgpack.Decoder(_Head)


def is_ours(payload_type: str) -> bool:
    """Tell whether a payload of this type is meant to be a batch, of whatever version."""
    return payload_type.startswith(_PREFIX)


def version_of(payload_type: str) -> int | None:
    """Give the version of the wire format that a payload type names, or None if it names none."""
    match = re.fullmatch(rf"{_PREFIX}(\d{{1,9}})", payload_type)
    return int(match[1]) if match else None


def encode_frame(frame: Frame) -> bytes:
    """Encode one frame. A body may be any value that msgspec can encode, not only raw bytes.

    Raises:
        MalformedMessage: The body holds something that has no form on the wire.
    """
    return encode_body(frame)


def encode_body(value: Any) -> bytes:
    """Encode a value by itself, as the body of a frame is.

    Raises:
        MalformedMessage: It holds something that has no form on the wire.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MalformedMessage(f"The message cannot be sent: {error}.") from None


def join(frames: Sequence[bytes]) -> bytes:
    """Make a payload of encoded frames; the frames are not encoded again."""
    count = len(frames)
    if count <= _FIXARRAY_MOST:
        head = bytes((_FIXARRAY | count,))
    elif count <= _ARRAY_16_MOST:
        head = bytes((_ARRAY_16,)) + count.to_bytes(2, "big")
    else:
        head = bytes((_ARRAY_32,)) + count.to_bytes(4, "big")
    return head + b"".join(frames)


def decode_batch(payload: bytes, limits: Limits = _LIMITS) -> Batch:
    """Read a payload. Never raises: what cannot be read, or is over a limit, is reported beside what can.

    A frame with an unknown tag is left out in silence, so that a later version may add frames.
    """
    # In this order: each look costs more than the one before, and none more than what it keeps away.
    if len(payload) > limits.max_batch:
        return _too_large(f"The payload has {len(payload)} bytes; one may have {limits.max_batch}.")
    count = _count(payload)
    if count > limits.max_frames:
        return _too_large(f"The payload claims {count} frames; one may have {limits.max_frames}.")
    if len(payload) > _MANY_CONTAINERS and containers_at_most(payload) > _MANY_CONTAINERS:
        batch = _salvage(payload, "it is no list of frames", limits)
    else:
        try:
            batch = Batch(_batch_decoder.decode(payload))
        except _UNREADABLE as error:
            batch = _salvage(payload, str(error), limits)
    if len(payload) <= min(limits.max_payload, limits.max_depth):
        return batch
    problems = [problem for frame in batch.frames if (problem := _excess(frame, limits))]
    if not problems:
        return batch
    refused = {problem.id for problem in problems}
    frames = [frame for frame in batch.frames if getattr(frame, "id", 0) not in refused]
    return Batch(frames, [*batch.problems, *problems])


def _too_large(reason: str) -> Batch:
    return Batch((), (Problem(0, reason, TooLarge.code),))


def _count(payload: bytes) -> int:
    """Give how many frames a payload says that it has; 0 where it is no array."""
    head = payload[0] if payload else 0
    if head == _ARRAY_32:
        return int.from_bytes(payload[1:5], "big")
    if head == _ARRAY_16:
        return int.from_bytes(payload[1:3], "big")
    return head & _FIXARRAY_MOST if head & ~_FIXARRAY_MOST == _FIXARRAY else 0


def _excess(frame: Frame, limits: Limits) -> Problem | None:
    """Tell what is too much about the body of a frame."""
    body: Raw | None = getattr(frame, "body", None)
    if body is None:
        return None
    message_id: int = getattr(frame, "id", 0)
    if len(body) > limits.max_payload:
        text = f"The message has {len(body)} bytes; this side takes {limits.max_payload}."
        return Problem(message_id, text, TooLarge.code)
    if len(body) > limits.max_depth:
        try:
            check_shape(bytes(body), limits.max_depth)
        except Misshapen as error:
            return Problem(message_id, f"The message cannot be read: {error}.")
    return None


def _salvage(payload: bytes, reason: str, limits: Limits) -> Batch:
    try:
        raws = _raws_decoder.decode(payload)
    except _UNREADABLE:
        return Batch((), (_unreadable(0, reason),))
    frames: list[Frame] = []
    problems: list[Problem] = []
    for raw in raws:
        try:
            check_shape(bytes(raw), limits.max_depth + _FRAME_DEPTH)
            frames.append(_frame_decoder.decode(raw))
        except Misshapen as error:
            problems.append(_unreadable(_id_of(raw), str(error)))
        except _UNREADABLE as error:
            problems.extend(_describe(raw, str(error)))
        if len(problems) >= _MOST_PROBLEMS:
            # An answer to each would make more of the garbage than there was.
            problems.append(_unreadable(0, "too much of the payload cannot be read"))
            break
    return Batch(frames, problems)


def _describe(raw: Raw, reason: str) -> Iterable[Problem]:
    try:
        tag = _int_decoder.decode(_head_decoder.decode(raw).tag)
    except _UNREADABLE:
        return [_unreadable(_id_of(raw), reason)]
    return [_unreadable(_id_of(raw), reason)] if tag in _KNOWN_TAGS else []


def _id_of(raw: Raw) -> int:
    """Give the id of a frame that cannot be read, or 0 where it has none."""
    try:
        found = _int_decoder.decode(_head_decoder.decode(raw).id)
    except _UNREADABLE:
        return 0
    return found if 0 <= found < 2**63 else 0


def _unreadable(message_id: int, reason: str) -> Problem:
    return Problem(message_id, f"A frame cannot be read: {reason}.")
