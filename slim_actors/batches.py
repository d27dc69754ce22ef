"""Batches as they come in: read frame by frame, and what cannot be read is reported, never raised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, get_args

import msgspec
from msgspec import Raw, Struct, structs

from slim_actors import wire
from slim_actors.errors import MalformedMessage, TooLarge
from slim_actors.limits import BATCH_BYTES, Limits, body_room, too_large
from slim_actors.shape import Misshapen, check_shape, has_few_containers

__all__ = ["Batch", "Problem", "decode_batch", "decode_joined"]

_MOST_PROBLEMS = 16
_MANY_CONTAINERS = 50_000
"""From here on a payload is looked at frame by frame before anything of it is built."""
_TOGETHER, _SHORT = 16, 4096
"""Bodies that are looked at together, and how long they may be: if they have few lists and maps, each has."""
_FRAME_DEPTH = 3
"""The lists and maps in which a body or a context stands, one of several bodies included."""
_LIMITS = Limits()

_batch_decoder = msgspec.msgpack.Decoder(list[wire.Frame])
_frame_decoder = msgspec.msgpack.Decoder(wire.Frame)
_raws_decoder = msgspec.msgpack.Decoder(list[Raw])
_int_decoder = msgspec.msgpack.Decoder(int)

_ONE_PART = b"\x91\x95\x0f"
"""How a payload with nothing but a part begins: whatever is in it, no list or map is built of it."""
_KNOWN_TAGS = range(1, 19)
_MOST_FIELDS = 16
_BODY_AT = {
    bytes((frame.__struct_config__.tag,)): 1 + place
    for frame in get_args(wire.Frame)
    for place, field in enumerate(frame.__struct_fields__)
    if field in {"body", "bodies"}
}
"""Where the body of a frame stands, or all of them, by the encoded tag."""
_HAVE_AN_ID = frozenset(
    frame.__struct_config__.tag for frame in get_args(wire.Frame) if frame.__struct_fields__[:1] == ("id",)
)
_SEVERAL = frozenset((wire.Items, wire.Tells))
_body_of = attrgetter("body")
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

    frames: Sequence[wire.Frame]
    problems: Sequence[Problem] = ()


_head_decoder = msgspec.msgpack.Decoder(_Head)


def decode_batch(payload: bytes, limits: Limits = _LIMITS) -> Batch:
    """Read a payload. Never raises: what cannot be read, or is over a limit, is reported beside what can.

    A frame with an unknown tag is left out in silence, so that a later version may add frames.
    """
    # In this order: each look costs more than the one before, and none more than what it keeps away.
    if len(payload) > limits.max_batch:
        return _too_large(f"The payload has {len(payload)} bytes; one may have {limits.max_batch}.")
    count = wire.count_of(payload)
    if count > limits.max_frames:
        return Batch((), (_too_many(count, limits),))
    many = len(payload) > _MANY_CONTAINERS and not payload.startswith(_ONE_PART)
    if many and (count == 1 or not has_few_containers(payload, _MANY_CONTAINERS)):
        batch = _salvage(payload, "it is no list of frames", limits)
    else:
        try:
            batch = Batch(_batch_decoder.decode(payload))
        except _UNREADABLE as error:
            batch = _salvage(payload, str(error), limits)
    if len(payload) <= min(limits.max_payload, limits.max_depth):
        return batch
    return _within(batch, limits)


def decode_joined(payload: bytearray, message_id: int, limits: Limits) -> Batch:
    """Read a payload of one frame that came in parts."""
    batch = _within(_salvage(payload, "what came in parts is no frame", limits), limits)
    # No more than this message was in it, so no more than this message ends.
    return Batch(batch.frames, [structs.replace(problem, id=message_id) for problem in batch.problems])


def _within(batch: Batch, limits: Limits) -> Batch:
    # What is no deeper than it is long, and most is short, need not be looked into.
    least = min(limits.max_depth, limits.max_payload)
    try:
        bodies = list(map(_body_of, batch.frames))
    except AttributeError:
        # Among them is a frame without a body, or with several.
        bodies = []
    # Asks or replies alone, as nearly always: they are looked at together, without steps of Python for each.
    if bodies and _are_harmless(bodies, least, limits):
        return batch
    if not _SEVERAL.isdisjoint(map(type, batch.frames)):
        problems = list(batch.problems)
        batch = Batch(_several(batch.frames, problems, limits), problems)
    long: list[Any] = [frame for frame in batch.frames if len(getattr(frame, "body", b"")) > least]
    problems = [problem for frame in long if (problem := _excess_of(frame.id, frame.body, limits))]
    if not problems:
        return batch
    refused = {problem.id for problem in problems}
    frames = [frame for frame in batch.frames if getattr(frame, "id", 0) not in refused]
    return Batch(frames, [*batch.problems, *problems])


def _are_harmless(bodies: list[Raw], least: int, limits: Limits) -> bool:
    """Tell, quickly, whether surely none of the bodies is too long or goes too deep."""
    longest = max(map(len, bodies))
    return longest <= least or (
        longest <= min(limits.max_payload, _SHORT)
        and all(
            has_few_containers(b"".join(bodies[first : first + _TOGETHER]), limits.max_depth)
            for first in range(0, len(bodies), _TOGETHER)
        )
    )


def _several(frames: Sequence[wire.Frame], problems: list[Problem], limits: Limits) -> Sequence[wire.Frame]:
    """Look at the frames that hold several bodies each; one with a message too many is taken to pieces."""
    count = sum(wire.count_of(frame.bodies) if type(frame) is wire.Tells else 1 for frame in frames)
    if count > limits.max_frames:
        problems.append(_too_many(count, limits))
        return ()
    taken: list[wire.Frame] = []
    for frame in frames:
        problem = None
        if type(frame) is wire.Items or type(frame) is wire.Tells:
            problem = _excess_of_many(frame, limits)
        if problem is None:
            taken.append(frame)
        elif type(frame) is wire.Tells and wire.count_of(frame.bodies):
            # So that each of the others among them is taken.
            taken.extend(frame.each())
        else:
            problems.append(problem)
    return taken


def _too_many(count: int, limits: Limits) -> Problem:
    reason = f"The payload claims {count} frames; one may have {limits.max_frames}."
    return Problem(0, reason, TooLarge.code)


def _too_large(reason: str) -> Batch:
    return Batch((), (Problem(0, reason, TooLarge.code),))


def _excess_of(message_id: int, body: Raw, limits: Limits) -> Problem | None:
    """Tell what is too much about the body of a frame."""
    if len(body) > body_room(limits.max_payload):
        return Problem(message_id, too_large(len(body), limits.max_payload), TooLarge.code)
    try:
        check_shape(memoryview(body), limits.max_depth)
    except Misshapen as error:
        return Problem(message_id, f"The message cannot be read: {error}.")
    return None


def _excess_of_many(frame: wire.Items | wire.Tells, limits: Limits) -> Problem | None:
    """Tell what is too much about several bodies in one frame."""
    if len(frame.bodies) > BATCH_BYTES or not wire.count_of(frame.bodies):
        return _unreadable(frame.id, "it holds no list of bodies, or too many bytes of them")
    least = min(limits.max_depth, limits.max_payload)
    if len(frame.bodies) <= least:
        return None
    bodies = wire.split(frame.bodies)
    if _are_harmless(bodies, least, limits):
        return None
    long = (body for body in bodies if len(body) > least)
    return next((problem for body in long if (problem := _excess_of(frame.id, body, limits))), None)


def _salvage(payload: bytes | bytearray, reason: str, limits: Limits) -> Batch:
    try:
        raws = _raws_decoder.decode(payload)
    except _UNREADABLE:
        return Batch((), (_unreadable(0, reason),))
    frames: list[wire.Frame] = []
    problems: list[Problem] = []
    for raw in raws:
        try:
            _check_frame(raw, limits)
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


def _check_frame(raw: Raw, limits: Limits) -> None:
    """Check what will be built of a frame. Its bodies will not be, and are checked by themselves."""
    if not 0 < wire.count_of(raw) <= _MOST_FIELDS:
        check_shape(memoryview(raw), limits.max_depth + _FRAME_DEPTH)
        return
    fields = wire.split(raw)
    body = _BODY_AT.get(bytes(memoryview(fields[0])[:2]))
    for place, field in enumerate(fields):
        if place != body:
            check_shape(memoryview(field), limits.max_depth + _FRAME_DEPTH)


def _describe(raw: Raw, reason: str) -> Iterable[Problem]:
    try:
        tag = _int_decoder.decode(_head_decoder.decode(raw).tag)
    except _UNREADABLE:
        return [_unreadable(_id_of(raw), reason)]
    return [_unreadable(_id_of(raw), reason)] if tag in _KNOWN_TAGS else []


def _id_of(raw: Raw) -> int:
    """Give the id of a frame that cannot be read, or 0 where it has none."""
    try:
        head = _head_decoder.decode(raw)
        tag, found = _int_decoder.decode(head.tag), _int_decoder.decode(head.id)
    except _UNREADABLE:
        return 0
    return found if tag in _HAVE_AN_ID and 0 <= found < 2**63 else 0


def _unreadable(message_id: int, reason: str) -> Problem:
    return Problem(message_id, f"A frame cannot be read: {reason}.")
