"""An agent class that is declared wrongly is refused where it is written, with a sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from attrs import define, frozen

from slim_actors import (
    Agent,
    ConfigurationError,
    Context,
    DeclarationError,
    Forward,
    Mailbox,
    Request,
    every,
    handler,
)
from slim_actors.declaration import Declaration
from slim_actors.factory import make


def declaration_of(cls: type[Agent]) -> Declaration:
    return cls.__declaration__.readable()


@frozen
class Say(Request[str]):
    text: str


@frozen
class Sing(Request[str]):
    text: str


def test_names_that_peers_make_up_find_the_handler_and_are_not_all_remembered() -> None:
    class Good(Agent, name="t/t/good"):
        @handler
        async def say(self, message: Say) -> str:
            return message.text

    declared = declaration_of(Good)
    (known,) = declared.handlers
    names = [f"made.up{number}.{known}" for number in range(1000)]
    found = [declared.find(name) for name in [*names, *names, "x" * 10_000 + f".{known}"]]
    assert {each.method for each in found if each is not None} == {"say"}
    assert None not in found
    assert declared.find("made.up.Other") is None
    assert len(declared._alike) < len(names)


def test_handlers_are_found_by_the_annotated_type() -> None:
    class Good(Agent, name="t/t/good"):
        @handler
        async def say(self, message: Say, ctx: Context) -> str:
            return message.text

        @handler(idempotent=True)
        async def rest(self, message: int | list[str]) -> int:
            return 0

    declared = declaration_of(Good)
    assert declared.name == "t/t/good"
    assert {wire: found.method for wire, found in declared.handlers.items()} == {
        "tests.test_declarations.Say": "say",
        "int": "rest",
        "list": "rest",
    }
    assert declared.idempotent == ["int", "list"]
    assert declared.handlers["tests.test_declarations.Say"].takes == ("ctx",)
    assert declared.handlers["int"].takes == ()


def test_a_type_that_is_known_only_inside_a_function_may_be_annotated() -> None:
    @frozen
    class Local:
        x: int

    class Good(Agent, name="t/t/good"):
        @handler
        async def local(self, message: Local) -> None: ...

    assert len(declaration_of(Good).handlers) == 1


def test_an_attrs_class_may_be_an_agent() -> None:
    @define
    class Slotted(Agent, name="t/t/slotted"):
        greeting: str = "hi"

        @handler
        async def say(self, message: Say) -> str:
            return self.greeting

    assert Slotted.__declaration__.name == "t/t/slotted"
    assert len(declaration_of(Slotted).handlers) == 1
    assert isinstance(make(lambda: Slotted("hello")), Slotted)


def test_a_subclass_inherits_name_and_handlers_and_may_replace_them() -> None:
    class Base(Agent, name="t/t/base"):
        @handler
        async def say(self, message: Say) -> str:
            return "base"

    class Derived(Base):
        @handler
        async def sing(self, message: Sing) -> str:
            return "derived"

    class Renamed(Base, name="t/t/renamed"):
        pass

    assert declaration_of(Derived).name == "t/t/base"
    assert len(declaration_of(Derived).handlers) == 2
    assert declaration_of(Renamed).name == "t/t/renamed"


def test_two_handlers_for_one_type_are_refused() -> None:
    with pytest.raises(DeclarationError, match=r"one and two both handle .*Say; one type has one handler"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            async def one(self, message: Say) -> None: ...

            @handler
            async def two(self, message: Say) -> None: ...


def test_a_request_that_is_answered_with_a_stream_is_refused() -> None:
    class Count(Request[int]):
        pass

    with pytest.raises(DeclarationError, match=r"Bad.count yields, but Count is a Request"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            async def count(self, message: Count) -> AsyncIterator[int]:
                yield 1


def test_a_missing_annotation_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Bad.say: annotate 'message'"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            async def say(self, message) -> None: ...  # type: ignore[no-untyped-def]


def test_an_annotation_that_does_not_resolve_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"annotation 'Missing' cannot be resolved"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            async def say(self, message: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def test_a_handler_that_is_not_async_is_refused() -> None:
    with pytest.raises(DeclarationError, match="async def"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            def say(self, message: Say) -> None: ...


@pytest.mark.parametrize("bad", ["alice", "a/b", "a/b/c/d", "a//c"])
def test_a_name_that_is_not_org_namespace_service_is_refused(bad: str) -> None:
    with pytest.raises(DeclarationError, match="org/namespace/service"):

        class Bad(Agent, name=bad):
            async def receive(self, message: Any) -> None: ...


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(DeclarationError, match=r"must take \(self, message\)"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            async def say(self, message: Say, ctx: Context, more: int, most: int) -> None: ...


def test_an_annotation_that_is_no_type_is_refused() -> None:
    with pytest.raises(DeclarationError, match="is not a type of message"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            async def say(self, message: 7) -> None: ...  # type: ignore[valid-type]


def test_a_type_that_cannot_be_read_from_bytes_is_refused_when_it_is_spawned() -> None:
    class Bad(Agent, name="t/t/bad"):
        @handler
        async def say(self, message: pytest.Config) -> None: ...

    with pytest.raises(DeclarationError, match="cannot be read"):
        declaration_of(Bad)


def test_an_agent_without_handlers_is_refused_when_it_is_spawned() -> None:
    class Bad(Agent, name="t/t/bad"):
        pass

    with pytest.raises(DeclarationError, match="handles nothing"):
        declaration_of(Bad)


@pytest.mark.parametrize("bad", [0, -1, True, "2"])
def test_a_concurrency_that_is_no_count_is_refused(bad: Any) -> None:
    with pytest.raises(DeclarationError, match="concurrency"):

        class Bad(Agent, name="t/t/bad"):
            concurrency = bad


def test_a_mailbox_without_room_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="capacity"):
        Mailbox(capacity=0)
    for wrong in (-1, "soon", float("nan"), True):
        with pytest.raises(ConfigurationError, match="retry_after"):
            Mailbox(retry_after=wrong)  # type: ignore[arg-type]


def test_spawning_takes_a_class_or_a_function_that_makes_an_agent() -> None:
    class Good(Agent, name="t/t/good"):
        async def receive(self, message: Any) -> None: ...

    class Needy(Good):
        def __init__(self, argument: int) -> None: ...

    assert isinstance(make(Good), Good)
    for wrong, why in [
        (Good(), "not an instance"),
        (int, "not an agent"),
        (lambda: 3, "not an agent"),
        (7, "neither"),
        (Needy, "argument"),
    ]:
        with pytest.raises(DeclarationError, match=why):
            make(wrong)  # type: ignore[arg-type]


def test_a_hook_that_is_not_async_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Bad.started must be declared with async def"):

        class Bad(Agent, name="t/t/bad"):
            def started(self, ctx: Context) -> None:  # type: ignore[override]
                pass


def test_a_parameter_that_could_not_get_what_it_is_annotated_with_is_refused() -> None:
    with pytest.raises(DeclarationError, match="'number' gets the Context, and is annotated with 'int'"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            async def add(self, message: Say, number: int) -> None: ...


def test_a_method_is_a_handler_or_a_timer() -> None:
    with pytest.raises(DeclarationError, match="either a handler or runs by every"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            @every(seconds=1)
            async def tick(self, ctx: Context) -> None: ...


def test_forward_takes_a_route() -> None:
    with pytest.raises(ConfigurationError, match="'a/b/c' is not a route"):
        Forward("a/b/c", "x")  # type: ignore[arg-type]


def test_encryption_that_is_asked_for_by_a_word_is_refused() -> None:
    with pytest.raises(DeclarationError, match="require_mls is 'no', but must be True or False"):

        class Secretive(Agent, name="t/t/secretive"):
            require_mls = "no"  # type: ignore[assignment]

            async def receive(self, message: str) -> None: ...


def test_a_handler_that_is_marked_with_something_else_is_refused() -> None:
    with pytest.raises(DeclarationError, match="takes no 'say'"):
        handler("say")  # type: ignore[call-overload]
