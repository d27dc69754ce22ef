"""The wire: what is written is read back, and what cannot be read is reported, never raised."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slim_actors import Limits, errors, wire
from slim_actors.batches import decode_batch

ids, numbers = st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
raws = plain.map(lambda value: msgspec.Raw(msgspec.msgpack.encode(value)))


def listed(bodies: list[msgspec.Raw]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(bodies))


frames = st.one_of(
    st.builds(wire.Ask, ids, st.text(), raws, st.floats(0, 1e9), st.none()),
    st.builds(wire.Tell, ids, st.text(), raws, st.floats(0, 1e9), st.none()),
    st.builds(wire.Reply, ids, raws),
    st.builds(wire.Error, numbers, st.text(), st.text(), st.none()),
    st.builds(wire.Accepted, st.lists(st.tuples(ids, ids))),
    st.builds(wire.Items, ids, numbers, st.lists(raws, min_size=1).map(listed)),
    st.builds(
        wire.Tells, ids, st.text(), st.lists(raws, min_size=1).map(listed), st.floats(0, 1e9), st.none()
    ),
    st.builds(wire.Credit, numbers),
    st.builds(wire.Cancel, ids),
    st.builds(wire.Ping),
    st.builds(wire.Hello, st.just(1), numbers, st.lists(st.text())),
)


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@given(st.lists(frames, max_size=40))
def test_a_batch_is_read_as_it_was_written(batch: list[wire.Frame]) -> None:
    read = decode_batch(wire.join([wire.encode(frame) for frame in batch]))
    assert list(read.frames) == batch
    assert not read.problems


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65535, 65536])
def test_a_batch_of_any_size_has_the_right_head(count: int) -> None:
    payload = wire.join([wire.encode(wire.Ping())] * count)
    limits = Limits(max_frames=100_000)
    assert len(decode_batch(payload, limits).frames) == count


@pytest.mark.parametrize("bodies", [3, {}, [], [b"x" * 300_000], ["x" * 2000], [deep(101)], [0, deep(101)]])
def test_items_that_are_no_list_or_too_much_are_one_problem(bodies: Any) -> None:
    data = msgspec.msgpack.encode([[16, 7, 0, bodies], [16, 8, 0, ["x" * 100]]])
    read = decode_batch(data, Limits(max_payload=1000))
    assert [frame.id for frame in read.frames if isinstance(frame, wire.Items)] == [8]
    assert [problem.id for problem in read.problems] == [7]


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(payload: bytes) -> None:
    batch = decode_batch(payload)
    assert batch.problems or isinstance(batch.frames, list)


@given(st.lists(frames, min_size=1, max_size=5), st.data())
def test_truncated_and_changed_batches_never_raise(batch: list[wire.Frame], data: st.DataObject) -> None:
    payload = bytearray(wire.join([wire.encode(frame) for frame in batch]))
    del payload[data.draw(st.integers(0, len(payload))) :]
    if payload:
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    decode_batch(bytes(payload))


def test_one_bad_frame_does_not_spoil_the_others() -> None:
    good = wire.encode(wire.Cancel(7))
    bad = msgspec.msgpack.encode([1, 42, "type is fine", "body", "not a number"])
    batch = decode_batch(wire.join([good, bad, good]))
    assert batch.frames == [wire.Cancel(7), wire.Cancel(7)]
    assert [problem.id for problem in batch.problems] == [42]


@pytest.mark.parametrize("bad", [[9, 1, -5, []], [5, 7], [6, "all"], [18, 3, {}], [1, 0, "str", "x", 1.0]])
def test_a_bad_frame_without_an_id_is_the_problem_of_no_message(bad: list[Any]) -> None:
    batch = decode_batch(msgspec.msgpack.encode([bad]))
    assert [problem.id for problem in batch.problems] in ([0], [])
    assert all(isinstance(frame, wire.Newcomer) for frame in batch.frames)


def test_frames_of_a_later_version_are_left_out_in_silence() -> None:
    later = msgspec.msgpack.encode([99, "whatever"])
    batch = decode_batch(wire.join([later, wire.encode(wire.Ping())]))
    assert batch.frames == [wire.Ping()]
    assert not batch.problems


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million frames that are not there
        b"\x91" * 5000,  # arrays in arrays, deeper than anybody reads
        b"\xdb\xff\xff\xff\xff",  # a huge string
        b"",
    ],
)
def test_claims_of_huge_lengths_are_refused(payload: bytes) -> None:
    batch = decode_batch(payload)
    assert not batch.frames
    assert batch.problems


@pytest.mark.parametrize(
    ("payload_type", "ours", "version"),
    [
        ("slim-actors/1", True, 1),
        ("slim-actors/2", True, 2),
        ("slim-actors/x", True, None),
        ("msg", False, None),
    ],
)
def test_the_payload_type_names_the_version(payload_type: str, ours: bool, version: int | None) -> None:
    assert wire.is_ours(payload_type) is ours
    assert wire.version_of(payload_type) == version


@given(plain)
def test_bodies_stay_raw_until_they_are_asked_for(value: Any) -> None:
    (frame,) = decode_batch(wire.join([wire.encode(wire.Reply(1, value))])).frames
    assert isinstance(frame, wire.Reply)
    assert isinstance(frame.body, msgspec.Raw)
    assert msgspec.msgpack.decode(frame.body) == value


@pytest.mark.parametrize(
    "kind",
    [
        one
        for name in errors.__all__
        if issubclass(one := getattr(errors, name), errors.DeliveryError) and one is not errors.DeliveryError
    ],
)
def test_every_outcome_arrives_as_what_it_is(kind: type[errors.DeliveryError]) -> None:
    arrived = errors.from_wire(*errors.to_wire(kind("why")))
    assert type(arrived) is kind
    assert str(arrived) == "why"
    assert arrived.may_have_run == kind.may_have_run
