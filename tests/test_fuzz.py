"""Decoding, fuzzed: 100,000 random and mutated frames; nothing crashes, and no undeclared object is built."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import msgspec
from attrs import frozen

from slim_actors import MalformedMessage, wire
from slim_actors.batches import decode_batch
from slim_actors.messages import Body

COUNT = 100_000


@frozen
class Inner:
    numbers: list[int]


@frozen
class Declared:
    inner: Inner
    text: str | None = None


PLAIN = (str, bytes, int, float, bool, type(None), list, dict, msgspec.msgpack.Ext)


def seeds() -> list[bytes]:
    body: Any = {"inner": {"numbers": [1, 2]}, "text": "x"}
    frames: list[wire.Frame] = [
        wire.Ask(1, "Declared", body, 5.0, {"chain": ["a/b/c"]}, items=True),
        wire.Tell(2, "str", "text", 5.0),  # type: ignore[arg-type]
        wire.Stream(3, "Declared", body, 5.0, None, False, 256),  # noqa: FBT003
        wire.Reply(4, body),
        wire.Error(5, "failed", "no", {"type": "ValueError"}),
        wire.Accepted([(1, 3), (7, 1)]),
        wire.Credit(7),
        wire.Cancel(8),
        wire.Ping(),
        wire.Hello(1, 1024, ["*"]),
        wire.Item(9, 0, body),
        wire.End(9, 1),
        wire.Grant(9, 256),
        wire.Leaving(),
        wire.Items(9, 1, [body, 2]),  # type: ignore[arg-type]
        wire.Tells(10, "Declared", [body, 2], 5.0),  # type: ignore[arg-type]
    ]
    return [wire.encode(frame) for frame in frames]


def mutated(chance: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    for _ in range(chance.randrange(4)):
        kind, place = chance.randrange(4), chance.randrange(len(data) + 1)
        if kind == 0 and data:
            data[place % len(data)] = chance.randrange(256)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = chance.randbytes(chance.randrange(5))
        else:
            data += data[:place]
    return bytes(data)


def test_100_000_frames_are_read_or_reported_and_build_only_what_is_declared() -> None:
    chance = random.Random(20261122)
    known, declared, anything = seeds(), Body(Declared), Body(Any)
    read = built = 0
    for number in range(COUNT):
        whole = number % 5 == 0
        frame = chance.randbytes(chance.randrange(60)) if whole else mutated(chance, chance.choice(known))
        batch = decode_batch(frame if whole else wire.join([frame]))
        for got in batch.frames:
            read += 1
            assert isinstance(got, wire.Frame)
            raw = getattr(got, "body", None)
            if raw is None:
                continue
            try:
                value = declared.read(raw, "it")
            except MalformedMessage:
                pass
            else:
                built += 1
                assert type(value) is Declared
                assert type(value.inner) is Inner
                assert all(type(each) is int for each in value.inner.numbers)
            with contextlib.suppress(MalformedMessage):
                assert type(anything.read(raw, "it")) in PLAIN
    assert read > COUNT / 5
    assert built > COUNT / 50
