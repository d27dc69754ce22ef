"""Messages: what types are called on the wire, and that only declared types are built."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Any, Generic, TypeVar

import msgspec
import pydantic
import pytest
from attrs import define, field, frozen

from slim_actors import MalformedMessage, Request, wire
from slim_actors.batches import decode_batch
from slim_actors.messages import Body, body_of, reply_body, reply_type, same_type, type_name

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


@frozen
class Inner:
    numbers: list[int]
    colour: Colour = Colour.RED


@frozen
class Outer(Request[list[Inner]]):
    inner: Inner
    when: datetime.datetime | None = None
    blob: bytes = b""


@dataclasses.dataclass
class Plain(Request["Inner"]):
    x: int


class Model(pydantic.BaseModel):
    x: int
    when: datetime.datetime | None = None
    more: list[Model] = []


@frozen
class Holder:
    model: Model


class Record(msgspec.Struct):
    x: int


@frozen
class Wrapped(Request[T], Generic[T]):
    x: int


def through_the_wire(value: Any, declared: Any) -> Any:
    (frame,) = decode_batch(wire.join([wire.encode(wire.Reply(1, value))])).frames
    assert isinstance(frame, wire.Reply)
    return Body(declared).read(frame.body, "It")


@pytest.mark.parametrize(
    "value",
    [
        Outer(Inner([1, 2]), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), b"\0"),
        Inner([]),
        Plain(3),
        Record(4),
        Model(x=1, when=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), more=[Model(x=3)]),
        Holder(Model(x=1)),
    ],
)
def test_typed_messages_survive_the_wire(value: Any) -> None:
    assert through_the_wire(value, type(value)) == value


@pytest.mark.parametrize("value", ["s", b"b", 1, 1.5, True, None, [1, "x"], {"a": [None]}])
def test_plain_values_survive_the_wire(value: Any) -> None:
    assert through_the_wire(value, Any) == value


def test_a_typed_message_read_as_anything_is_plain_data() -> None:
    assert through_the_wire(Inner([1]), Any) == {"numbers": [1], "colour": "red"}


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(
        MalformedMessage, match=r"It does not fit .*`int`, got `str` - at `\$.inner.numbers\[1\]`"
    ):
        through_the_wire({"inner": {"numbers": [1, "x"]}}, Outer)


def test_a_wrong_field_of_a_model_is_named() -> None:
    with pytest.raises(MalformedMessage, match=r"It does not fit .*x: Input should be a valid integer"):
        through_the_wire({"x": "many"}, Model)


def test_unknown_fields_are_ignored_and_missing_ones_take_their_defaults() -> None:
    assert through_the_wire({"numbers": [], "new": 1}, Inner) == Inner([])


def test_a_value_that_the_class_refuses_is_malformed() -> None:
    @define
    class Checked:
        x: int = field(validator=lambda _, __, value: 1 / value)

    with pytest.raises(MalformedMessage, match="refused"):
        Body(Checked).read(msgspec.msgpack.encode({"x": 0}), "It")


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x81", b"\x91" * 3000])
def test_bytes_that_are_no_message_are_malformed(garbage: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Body(Any).read(garbage, "It")


def test_the_reply_type_comes_from_the_request() -> None:
    assert reply_type(Outer) == list[Inner]
    assert reply_type(Plain) is Inner
    assert reply_type(Wrapped) is Any
    assert reply_type(str) is Any
    assert reply_body(Plain).declared is Inner


def test_wire_names_are_the_full_names_of_classes() -> None:
    assert type_name(Outer) == "tests.test_messages.Outer"
    assert type_name(str) == "str"
    assert type_name(type(None)) == "NoneType"
    assert body_of(bytearray(b"x")) == ("bytes", b"x")
    assert body_of((1, 2)) == ("list", (1, 2))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("echo.Say", "agents.echo.Say", True),
        ("agents.echo.Say", "agents.echo.Say", True),
        ("a.Say", "b.Say", False),
        ("Say", "a.Say", True),
        ("ho.Say", "echo.Say", False),
    ],
)
def test_one_file_means_the_same_types_however_it_was_imported(one: str, other: str, same: bool) -> None:
    assert same_type(one, other) is same
    assert same_type(other, one) is same
