"""Who may call: allow= on agents and handlers, in memory and over SLIM."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, ClassVar

import pytest
from attrs import define, frozen

from slim_actors import (
    Address,
    Agent,
    Anycast,
    Context,
    DeclarationError,
    Denied,
    Forward,
    Middleware,
    Request,
    Sending,
    StreamRequest,
    Unicast,
    handler,
)
from slim_actors.agent import every
from slim_actors.testing import TestRuntime
from tests.conftest import World, eventually

BANK = Anycast("acme/ns/bank")
ALICE, BOB, MALLORY = "acme/people/alice", "acme/people/bob", "evil/people/mallory"


@frozen
class Balance(Request[str]):
    pass


@frozen
class Transfer(Request[str]):
    amount: int


@frozen
class History(StreamRequest[int]):
    pass


@frozen
class Audit(Request[str]):
    pass


class Bank(Agent, name="acme/ns/bank"):
    allow = "acme/*"

    def __init__(self) -> None:
        self.transfers: list[int] = []

    @handler
    async def balance(self, message: Balance, ctx: Context) -> str:
        return ctx.sender.subject

    @handler(allow=["*/alice", "*/carol"])
    async def transfer(self, message: Transfer) -> str:
        self.transfers.append(message.amount)
        return "done"

    @handler(allow="*/alice")
    async def history(self, message: History) -> AsyncIterator[int]:
        for amount in self.transfers:
            yield amount

    @handler(allow="*")
    async def audit(self, message: Audit) -> str:
        return "clean"


async def test_only_those_that_are_allowed_may_call(world: World) -> None:
    agents = await world.runtime()
    ref = await agents.spawn(Bank)
    alice, bob, mallory = [await world.runtime(name=name) for name in (ALICE, BOB, MALLORY)]
    assert await alice.ask(BANK, Balance()) == ALICE
    assert await bob.ask(BANK, Balance()) == BOB
    assert await alice.ask(BANK, Transfer(7)) == "done"
    assert [item async for item in alice.stream(BANK, History())] == [7]
    with pytest.raises(Denied, match=r"^acme/people/bob may not call transfer of acme/ns/bank\.$") as denied:
        await bob.ask(BANK, Transfer(8))
    assert denied.value.may_have_run is False
    with pytest.raises(Denied, match="bob may not call history"):
        [item async for item in bob.stream(BANK, History())]
    with pytest.raises(Denied, match="mallory may not call balance"):
        await mallory.ask(BANK, Balance())
    with pytest.raises(Denied, match="mallory may not call transfer"):
        await mallory.tell(BANK, Transfer(9))
    assert [item async for item in alice.stream(BANK, History())] == [7]
    assert ref.stats.denied == 4


async def test_the_rule_of_a_handler_does_not_open_what_the_agent_keeps_closed(world: World) -> None:
    await (await world.runtime()).spawn(Bank)
    mallory = await world.runtime(name=MALLORY)
    with pytest.raises(Denied, match="mallory may not call audit"):
        await mallory.ask(BANK, Audit())


async def test_who_is_denied_does_not_learn_what_the_agent_takes(world: World) -> None:
    await (await world.runtime()).spawn(Bank)
    mallory = await world.runtime(name=MALLORY)
    with pytest.raises(Denied, match=r"mallory may not call acme/ns/bank\.$"):
        await mallory.ask(BANK, "what is there?")


async def test_names_that_are_claimed_in_a_message_change_nothing(world: World) -> None:
    class Forger(Middleware):
        def sending(self, sending: Sending) -> None:
            sending.context |= {
                "sender": ALICE,
                "subject": ALICE,
                "name": ALICE,
                "id": f"{ALICE}:1",
                "chain": [ALICE],
            }

    await (await world.runtime()).spawn(Bank)
    mallory = await world.runtime(name=MALLORY, middleware=[Forger()])
    with pytest.raises(Denied, match="mallory may not call transfer"):
        await mallory.ask(BANK, Transfer(1))


async def test_the_sender_has_a_name_an_instance_a_subject_and_an_issuer() -> None:
    class Mirror(Agent, name="t/t/mirror"):
        async def receive(self, message: Any, ctx: Context) -> list[str]:
            sender = ctx.sender
            return [sender.name, sender.instance, sender.subject, sender.issuer]

    async with TestRuntime(subject="ops", issuer="ca.example") as agents:
        await agents.spawn(Mirror)
        async with TestRuntime(network=agents.network, name=BOB, subject="bob@acme", issuer="ca.acme") as bob:
            name, instance, subject, issuer = await bob.ask(Anycast("t/t/mirror"), 1)
    assert (name, subject, issuer) == (BOB, "bob@acme", "ca.acme")
    assert instance


async def test_globs_match_the_subject_and_never_the_name() -> None:
    class Picky(Agent, name="t/t/picky"):
        allow = "spiffe://acme/*"

        async def receive(self, message: Any) -> str:
            return "welcome"

    async with TestRuntime() as agents:
        await agents.spawn(Picky)
        net = agents.network
        async with (
            TestRuntime(network=net, subject="spiffe://acme/ns/bob") as good,
            TestRuntime(network=net, subject="spiffe://ACME/ns/bob") as shouting,
            TestRuntime(network=net, name="spiffe:/acme/bob", subject="mallory") as named,
        ):
            assert await good.ask(Anycast("t/t/picky"), 1) == "welcome"
            for other in (shouting, named):
                with pytest.raises(Denied):
                    await other.ask(Anycast("t/t/picky"), 1)


async def test_a_rule_may_be_a_function_of_the_sender_or_a_method() -> None:
    def from_acme(sender: Address) -> bool:
        return sender.issuer == "ca.acme"

    class ByFunction(Agent, name="t/t/function"):
        # Also as it is; type checkers would rather have staticmethod(from_acme).
        allow = from_acme  # type: ignore[assignment]

        async def receive(self, message: Any) -> str:
            return "in"

    class ByMethod(Agent, name="t/t/method"):
        def __init__(self) -> None:
            self.friends = {"bob"}

        def allow(self, sender: Address) -> bool:
            return sender.subject in self.friends

        async def receive(self, message: Any) -> str:
            return "in"

    async with TestRuntime() as agents:
        for agent in (ByFunction, ByMethod):
            await agents.spawn(agent)
        async with (
            TestRuntime(network=agents.network, subject="bob", issuer="ca.acme") as bob,
            TestRuntime(network=agents.network, subject="eve", issuer="ca.evil") as eve,
        ):
            for name in ("t/t/function", "t/t/method"):
                assert await bob.ask(Anycast(name), 1) == "in"
                with pytest.raises(Denied, match=r"eve \(ca\.evil\) may not call receive of"):
                    await eve.ask(Anycast(name), 1)


async def test_a_rule_that_fails_denies_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(sender: Address) -> bool:
        raise LookupError("the directory is away")

    def vague(sender: Address) -> bool:
        return "perhaps"  # type: ignore[return-value]

    for rule in (broken, vague):

        class Guarded(Agent, name="t/t/guarded"):
            allow = staticmethod(rule)

            async def receive(self, message: Any) -> str:
                return "in"

        async with TestRuntime() as runtime:
            await runtime.spawn(Guarded)
            for _ in range(3):
                with pytest.raises(Denied):
                    await runtime.ask(Anycast("t/t/guarded"), 1)
    logged = [record for record in caplog.records if record.name == "slim_actors.access"]
    assert [record.exc_info is not None for record in logged] == [True, False]
    assert "and so denies" in logged[1].getMessage()


class Unhashable:
    """A rule that compares by value, and so has no hash."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable) and other.answer == self.answer

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, sender: Address) -> Any:
        if self.answer == "failure":
            raise LookupError(sender)
        return self.answer


@pytest.mark.parametrize("answer", ["failure", "neither"])
async def test_a_rule_without_a_hash_that_fails_denies_too(answer: str) -> None:
    class Guarded(Agent, name="acme/ns/guarded"):
        allow = Unhashable(answer)

        async def receive(self, message: str) -> str:
            return message

    async with TestRuntime() as runtime:
        await runtime.spawn(Guarded)
        with pytest.raises(Denied):
            await runtime.ask(Anycast("acme/ns/guarded"), "hi", timeout=5)


async def test_whoever_is_not_verified_is_denied_wherever_there_is_a_rule() -> None:
    from slim_actors.access import Rule

    nobody = Address("acme/ns/bob", "an instance")
    for allow in ("*", lambda _: True):
        rule = Rule.of(allow, "here")
        assert rule is not None
        assert not rule.admits(nobody)


async def test_denied_calls_are_logged_once_for_each_sender_and_seen_by_middleware(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Count(Middleware):
        denied_: ClassVar[list[tuple[str, str]]] = []

        def denied(self, ctx: Context, error: Denied) -> None:
            self.denied_.append((ctx.sender.subject, str(error)))

    caplog.set_level(logging.WARNING)
    async with TestRuntime(middleware=[Count()]) as agents:
        ref = await agents.spawn(Bank)
        async with (
            TestRuntime(network=agents.network, subject="mallory") as mallory,
            TestRuntime(network=agents.network, subject="eve\nDenied: somebody else") as eve,
        ):
            for runtime in (mallory, eve):
                for _ in range(50):
                    with pytest.raises(Denied):
                        await runtime.ask(BANK, Balance())
        assert ref.stats.denied == 100
    assert len(Count.denied_) == 100
    assert Count.denied_[0] == ("mallory", "mallory may not call balance of acme/ns/bank.")
    lines = [record.getMessage() for record in caplog.records if "Denied" in record.getMessage()]
    assert len(lines) == 2
    assert not any("\n" in line for line in lines)


async def test_the_body_of_a_denied_message_is_never_read() -> None:
    read: list[str] = []

    @frozen
    class Trap(Request[None]):
        text: str

        def __attrs_post_init__(self) -> None:
            read.append(self.text)

    class Trapped(Agent, name="t/t/trapped"):
        @handler(allow="bob")
        async def trap(self, message: Trap) -> None: ...

    async with TestRuntime() as agents:
        await agents.spawn(Trapped)
        async with (
            TestRuntime(network=agents.network, subject="bob") as bob,
            TestRuntime(network=agents.network, subject="eve") as eve,
        ):
            mine, theirs = Trap("from bob"), Trap("from eve")
            read.clear()
            await bob.ask(Anycast("t/t/trapped"), mine)
            with pytest.raises(Denied):
                await eve.ask(Anycast("t/t/trapped"), theirs)
    assert read == ["from bob"]


async def test_a_forwarded_message_comes_from_whoever_forwarded_it(world: World) -> None:
    class Front(Agent, name="acme/ns/front"):
        async def receive(self, message: Any) -> Forward:
            return Forward(Anycast("acme/ns/back"), message)

    class Back(Agent, name="acme/ns/back"):
        allow = "acme/ns/front"

        async def receive(self, message: Any, ctx: Context) -> str:
            return ctx.sender.subject

    agents = await world.runtime()
    await agents.spawn(Front)
    await agents.spawn(Back)
    bob = await world.runtime(name=BOB)
    assert await bob.ask(Anycast("acme/ns/front"), "x") == "acme/ns/front"
    with pytest.raises(Denied):
        await bob.ask(Anycast("acme/ns/back"), "x")


async def test_peers_that_speak_plain_bytes_are_checked_too(world: World) -> None:
    class Old(Agent, name="acme/ns/old"):
        allow = "acme/*"

        async def receive(self, message: Any) -> bytes:
            return bytes(message).upper()

    await (await world.runtime()).spawn(Old)
    route = Unicast("acme/ns/old", wire="bytes")
    bob, mallory = await world.runtime(name=BOB), await world.runtime(name=MALLORY)
    assert await bob.ask(route, b"hi") == b"HI"
    answer = await mallory.ask(route, b"hi")
    assert answer == f"error: {MALLORY} may not call receive of acme/ns/old.".encode()


async def test_what_an_agent_sends_to_itself_is_always_allowed() -> None:
    done = asyncio.Event()

    class Hermit(Agent, name="t/t/hermit"):
        allow = ()

        async def started(self, ctx: Context) -> None:
            ctx.after(0.1, "to myself")
            self.ticks = 0

        @every(seconds=1)
        async def tick(self) -> None:
            self.ticks += 1

        async def receive(self, message: Any) -> None:
            done.set()

    async with TestRuntime() as runtime:
        agents: list[Hermit] = []

        def make() -> Hermit:
            agents.append(Hermit())
            return agents[0]

        await runtime.spawn(make)
        await asyncio.wait_for(done.wait(), 10)
        await eventually(lambda: agents[0].ticks > 0)
        with pytest.raises(Denied):
            await runtime.ask(Anycast("t/t/hermit"), "from outside")


async def test_replies_that_are_remembered_are_kept_apart_by_identity() -> None:
    from msgspec import structs

    from slim_actors.mailbox import Envelope
    from slim_actors.outcomes import Outcomes

    outcomes = Outcomes()
    bob = Address("a/b/c", "one", subject="bob", issuer="ca")
    message = Envelope(1, None, None, bob, 0.0, origin=None)  # type: ignore[arg-type]
    assert outcomes.begin(message) is None
    outcomes.end(message, b"for bob alone")
    assert outcomes.begin(structs.replace(message)) == b"for bob alone"
    eve = Address("a/b/c", "one", subject="eve", issuer="ca")
    assert outcomes.begin(structs.replace(message, sender=eve)) is None


async def later(sender: Address) -> bool:
    return True


def no_argument() -> bool:
    return True


def two_arguments(sender: Address, more: int) -> bool:
    return True


WRONG: list[tuple[Any, str]] = [
    (7, "allow is 7"),
    (b"acme/*", "allow is b'acme/"),
    (["acme/*", 7], "allow has 7"),
    ("", "allow has ''"),
    ([""], "allow has ''"),
    (later, "asynchronous"),
    (no_argument, "one argument"),
    (bool, "allow is <class 'bool'>"),
]


@pytest.mark.parametrize(("wrong", "why"), WRONG)
def test_a_wrong_rule_is_refused_at_the_class_statement(wrong: Any, why: str) -> None:
    with pytest.raises(DeclarationError, match=f"^Wrong: .*{why}"):

        class Wrong(Agent, name="t/t/wrong"):
            allow = wrong

            async def receive(self, message: Any) -> None: ...


@pytest.mark.parametrize(("wrong", "why"), [*WRONG, (two_arguments, "one argument")])
def test_a_wrong_rule_of_a_handler_is_refused_too(wrong: Any, why: str) -> None:
    with pytest.raises(DeclarationError, match=f"receive: .*{why}"):

        class Wrong(Agent, name="t/t/wrong"):
            @handler(allow=wrong)
            async def receive(self, message: Any) -> None: ...


async def test_a_rule_that_only_the_instance_has_counts_and_is_checked_when_it_is_spawned() -> None:
    @define
    class Configured(Agent, name="t/t/configured"):
        allow: Any = None  # type: ignore[misc]

        async def receive(self, message: Any) -> str:
            return "in"

    rules: list[tuple[Any, bool]] = [(None, True), ("bob", True), ("alice", False)]
    async with TestRuntime(subject="bob") as runtime:
        for rule, admitted in rules:
            ref = await runtime.spawn(partial(Configured, allow=rule))
            if admitted:
                assert await runtime.ask(ref.route, 1) == "in"
            else:
                with pytest.raises(Denied):
                    await runtime.ask(ref.route, 1)
        with pytest.raises(DeclarationError, match="allow is 7"):
            await runtime.spawn(lambda: Configured(allow=7))


async def test_a_subclass_inherits_the_rules(world: World) -> None:
    class Branch(Bank, name="acme/ns/branch"):
        pass

    runtime = await world.runtime(name=MALLORY)
    await runtime.spawn(Branch)
    with pytest.raises(Denied):
        await runtime.ask(Anycast("acme/ns/branch"), Balance())
