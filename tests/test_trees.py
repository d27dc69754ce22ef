"""Trees and groups: who starts, stops and is restarted with whom, and in which order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import frozen

from slim_actors import (
    Agent,
    AgentFailed,
    Anycast,
    Backoff,
    ConfigurationError,
    Context,
    DeclarationError,
    NoRoute,
    Ref,
    RemoteError,
    Request,
    Restart,
    Runtime,
    handler,
)
from tests.conftest import World, eventually

SOON = Backoff(0.01, 0.02)


@frozen
class Do(Request[int]):
    """Do it: count, raise this, or ask the child."""

    what: str = "count"


class Member(Agent):
    """Writes its starts and stops into a log that it shares."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.count = 0

    @property
    def letter(self) -> str:
        return type(self).__name__

    async def started(self, ctx: Context) -> None:
        self.log.append(f"+{self.letter}")

    async def stopped(self, ctx: Context) -> None:
        self.log.append(f"-{self.letter}")

    @handler
    async def do(self, message: Do, ctx: Context) -> int:
        if message.what == "stop":
            ctx.stop()
        elif message.what == "refuse":
            raise ValueError("refused")
        elif message.what != "count":
            raise RuntimeError(message.what)
        self.count += 1
        return self.count


class A(Member, name="test/ns/a"):
    pass


class B(Member, name="test/ns/b"):
    pass


class C(Member, name="test/ns/c"):
    pass


class Parent(Member, name="test/ns/parent"):
    """Starts B and C with itself."""

    async def started(self, ctx: Context) -> None:
        await super().started(ctx)
        self.children = [await ctx.spawn(self.made(child)) for child in (B, C)]

    @staticmethod
    def made(child: type[Member]) -> Callable[[], Member]:
        return lambda: child([])

    @handler
    async def ask_child(self, message: int, ctx: Context) -> int:
        return await ctx.ask(self.children[message].route, Do())


def of(log: list[str], *agents: type[Member]) -> list[Any]:
    return [lambda agent=agent: agent(log) for agent in agents]


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.ERROR, "slim_actors"):
        yield


async def fail(runtime: Runtime, ref: Ref, what: str = "break") -> None:
    with pytest.raises(RemoteError, match=what):
        await runtime.ask(ref.route, Do(what))


def parent_of(log: list[str], **settings: Any) -> Callable[[], Member]:
    """Give a parent whose children share its log."""

    class Own(Parent, name="test/ns/parent"):
        restart = settings.get("restart")
        letter = "Parent"

        def made(self, child: type[Member]) -> Callable[[], Member]:  # type: ignore[override]
            policy = settings.get("of_child")
            kind = type(child.__name__, (child,), {"restart": policy}) if policy else child
            return lambda: kind(log)

    return lambda: Own(log)


async def test_children_stop_before_their_parent_the_last_one_first(runtime: Runtime, log: list[str]) -> None:
    ref = await runtime.spawn(parent_of(log))
    assert await runtime.ask(ref.route, 0) == 1
    assert await runtime.ask(Anycast("test/ns/c"), Do()) == 1
    await ref.stop()
    assert log == ["+Parent", "+B", "+C", "-C", "-B", "-Parent"]
    with pytest.raises(NoRoute):
        await runtime.ask(Anycast("test/ns/b", timeout=0.1, max_retries=1), Do())


async def test_leaving_the_runtime_stops_trees_and_groups_in_order(world: World, log: list[str]) -> None:
    before = asyncio.all_tasks()
    runtime = await world.runtime()
    other: list[str] = []
    await runtime.spawn(parent_of(log))
    await runtime.supervise(*of(other, A, B, C))
    await runtime.stop()
    assert log == ["+Parent", "+B", "+C", "-C", "-B", "-Parent"]
    assert other == ["+A", "+B", "+C", "-C", "-B", "-A"]
    await eventually(lambda: asyncio.all_tasks() <= before)


async def test_a_parent_that_drains_can_still_ask_its_children(runtime: Runtime, log: list[str]) -> None:
    ref = await runtime.spawn(parent_of(log))
    calls = [asyncio.create_task(runtime.ask(ref.route, number % 2)) for number in range(10)]
    await eventually(lambda: ref.stats.accepted == 10)
    await ref.stop()
    assert await asyncio.gather(*calls) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


async def test_a_restarted_parent_starts_its_children_anew(runtime: Runtime, log: list[str]) -> None:
    ref = await runtime.spawn(parent_of(log, restart=Restart(backoff=SOON)))
    assert await runtime.ask(ref.route, 0) == 1
    await fail(runtime, ref)
    assert await runtime.ask(ref.route, 0) == 1
    assert log == ["+Parent", "+B", "+C", "-C", "-B", "-Parent", "+Parent", "+B", "+C"]


async def test_a_child_that_fails_is_restarted_alone(runtime: Runtime, log: list[str]) -> None:
    ref = await runtime.spawn(parent_of(log, of_child=Restart(backoff=SOON)))
    child = runtime.find(next(a for a in runtime._refs if a.name == "test/ns/b"))
    assert child is not None
    await fail(runtime, child)
    assert await runtime.ask(ref.route, 0) == 1
    assert log == ["+Parent", "+B", "+C", "-B", "+B"]


@pytest.mark.parametrize("verdict", ["storm", "escalate"])
async def test_what_a_child_cannot_mend_restarts_its_parent_even_without_a_policy(
    runtime: Runtime, log: list[str], verdict: str
) -> None:
    policy = Restart(limit=0) if verdict == "storm" else Restart(on={RuntimeError: "escalate"})
    ref = await runtime.spawn(parent_of(log, of_child=policy))
    with pytest.raises(RemoteError):
        await runtime.ask(Anycast("test/ns/b"), Do("break"))
    await eventually(lambda: log[-3:] == ["+Parent", "+B", "+C"] and len(log) == 9)
    assert await runtime.ask(ref.route, 0) == 1


async def test_a_failure_that_nobody_mends_goes_up_to_the_top(runtime: Runtime, log: list[str]) -> None:
    policy = Restart(limit=0)
    ref = await runtime.spawn(parent_of(log, restart=policy, of_child=policy))
    with pytest.raises(RemoteError):
        await runtime.ask(Anycast("test/ns/c"), Do("break"))
    failure = await ref.wait()
    assert str(failure).startswith(f"{ref.address} has stopped: it failed with AgentFailed: ")
    assert "RuntimeError: break" in str(failure)
    assert sorted(log[3:5]) == ["-B", "-C"]
    assert log[5:] == ["-Parent"]
    assert not runtime._refs


async def test_a_parent_may_decide_to_go_on_without_a_child(runtime: Runtime, log: list[str]) -> None:
    ref = await runtime.spawn(
        parent_of(log, restart=Restart(on={AgentFailed: "resume"}), of_child=Restart(limit=0))
    )
    with pytest.raises(RemoteError):
        await runtime.ask(Anycast("test/ns/b"), Do("break"))
    await eventually(lambda: log[-1] == "-B")
    assert await runtime.ask(ref.route, 1) == 1
    assert "-Parent" not in log


async def test_a_child_that_fails_while_its_parent_starts_fails_that_start(runtime: Runtime) -> None:
    class Fragile(A):
        restart = Restart(limit=0)

    class Hasty(Member, name="test/ns/hasty"):
        async def started(self, ctx: Context) -> None:
            child = await ctx.spawn(lambda: Fragile([]))
            with pytest.raises(RemoteError):
                await ctx.ask(child.route, Do("break"))
            await child.wait()

    with pytest.raises(AgentFailed, match="RuntimeError: break"):
        await runtime.spawn(lambda: Hasty([]))
    assert not runtime._refs


async def test_a_child_needs_a_name_as_every_agent_does(runtime: Runtime) -> None:
    class Nameless(Agent):
        async def receive(self, message: Any) -> Any:
            return message

    class Front(Agent, name="test/ns/front"):
        async def receive(self, message: Any, ctx: Context) -> Any:
            return str((await ctx.spawn(Nameless, name=message)).address)

    await runtime.spawn(Front)
    with pytest.raises(RemoteError, match="DeclarationError: Nameless has no name"):
        await runtime.ask(Anycast("test/ns/front"), None)
    address = await runtime.ask(Anycast("test/ns/front"), "test/ns/named")
    assert address.startswith("test/ns/named/")
    assert await runtime.ask(Anycast("test/ns/named"), "hello") == "hello"


async def test_a_child_that_stops_by_itself_is_forgotten(runtime: Runtime, log: list[str]) -> None:
    ref = await runtime.spawn(parent_of(log))
    await runtime.ask(Anycast("test/ns/b"), Do("stop"))
    await eventually(lambda: log[-1] == "-B")
    await eventually(lambda: len(ref._cell.life._children) == 1)
    await ref.stop()
    assert log[-2:] == ["-C", "-Parent"]


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [
        ("one_for_one", ["-B", "+B"]),
        ("one_for_all", ["-C", "-B", "-A", "+A", "+B", "+C"]),
        ("rest_for_one", ["-C", "-B", "+B", "+C"]),
    ],
)
async def test_the_strategy_says_who_is_restarted_with_a_member(
    runtime: Runtime, log: list[str], strategy: Any, restarted: list[str]
) -> None:
    group = await runtime.supervise(*of(log, A, B, C), strategy=strategy, restart=Restart(backoff=SOON))
    for ref in group.refs:
        assert await runtime.ask(ref.route, Do()) == 1
    await fail(runtime, group.refs[1])
    await eventually(lambda: log[3:] == restarted)
    counts = [await runtime.ask(ref.route, Do()) for ref in group.refs]
    assert counts == [1 if f"+{letter}" in restarted else 2 for letter in "ABC"]
    log.clear()
    await group.stop()
    assert log == ["-C", "-B", "-A"]
    assert await group.wait() is None


async def test_members_keep_their_own_policy(runtime: Runtime, log: list[str]) -> None:
    class Patient(B):
        restart = Restart(on={ValueError: "resume"})
        letter = "B"

    group = await runtime.supervise(
        *of(log, A, Patient), strategy="one_for_all", restart=Restart(backoff=SOON)
    )
    await fail(runtime, group.refs[1], "refuse")
    assert log == ["+A", "+B"]
    await fail(runtime, group.refs[0], "refuse")
    await eventually(lambda: log[2:] == ["-B", "-A", "+A", "+B"])


async def test_the_members_share_one_restart_intensity(
    runtime: Runtime, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    group = await runtime.supervise(*of(log, A, B, C), restart=Restart(limit=2, backoff=SOON))
    for ref in group.refs:
        await fail(runtime, ref)
        await eventually(lambda: log[-1] == "+" + log[-2][1:] or len(log) > 7)
    failure = await group.wait()
    assert f"{group.refs[2].address} has stopped: it failed 3 times within 30 s" in str(failure)
    assert [await ref.wait() for ref in group.refs] == [None, None, failure]
    assert sorted(log[-3:]) == ["-A", "-B", "-C"]
    supervision = [record for record in caplog.records if record.name.endswith("supervision")]
    assert len(supervision) == 1
    assert not runtime._refs


async def test_a_member_that_escalates_ends_its_group(runtime: Runtime, log: list[str]) -> None:
    group = await runtime.supervise(*of(log, A, B), restart=Restart(on={RuntimeError: "escalate"}))
    await fail(runtime, group.refs[0])
    assert "it failed with RuntimeError: break" in str(await group.wait())
    assert sorted(log[2:]) == ["-A", "-B"]


async def test_a_member_that_stops_itself_leaves_the_others_alone(runtime: Runtime, log: list[str]) -> None:
    group = await runtime.supervise(*of(log, A, B), strategy="one_for_all", restart=Restart(backoff=SOON))
    await runtime.ask(group.refs[0].route, Do("stop"))
    await eventually(lambda: log[2:] == ["-A"])
    await fail(runtime, group.refs[1])
    await eventually(lambda: log[3:] == ["-B", "+B"])
    await runtime.ask(group.refs[1].route, Do("stop"))
    assert await group.wait() is None


async def test_stopping_a_member_in_the_middle_of_a_restart_lets_the_others_come_back(
    runtime: Runtime, log: list[str]
) -> None:
    slow = Restart(backoff=Backoff(0.3, 0.3, jitter=0))
    group = await runtime.supervise(*of(log, A, B), strategy="one_for_all", restart=slow)
    await fail(runtime, group.refs[0])
    await eventually(lambda: log[2:] == ["-B", "-A"])
    await group.refs[0].stop()
    assert await runtime.ask(group.refs[1].route, Do()) == 1
    assert log[4:] == ["+B"]


async def test_a_member_that_fails_during_the_restart_of_later_ones_takes_it_over(
    runtime: Runtime, log: list[str]
) -> None:
    slow = Restart(backoff=Backoff(0.3, 0.3, jitter=0))
    group = await runtime.supervise(*of(log, A, B, C), strategy="rest_for_one", restart=slow)
    await fail(runtime, group.refs[2])
    await eventually(lambda: log[3:] == ["-C"])
    await fail(runtime, group.refs[0])
    await eventually(lambda: log[4:] == ["-B", "-A", "+A", "+B", "+C"])
    assert [await runtime.ask(ref.route, Do()) for ref in group.refs] == [1, 1, 1]


async def test_a_group_that_cannot_start_stops_what_it_has_started(runtime: Runtime, log: list[str]) -> None:
    class Never(C):
        async def started(self, ctx: Context) -> None:
            raise OSError("never")

    with pytest.raises(OSError, match="never"):
        await runtime.supervise(*of(log, A, B, Never))
    assert log == ["+A", "+B", "-B", "-A"]
    assert not runtime._refs


async def test_a_group_may_be_a_child(runtime: Runtime, log: list[str]) -> None:
    class Head(Member, name="test/ns/head"):
        letter = "Head"

        async def started(self, ctx: Context) -> None:
            await super().started(ctx)
            await ctx.supervise(
                *of(log, A, B), strategy="one_for_all", restart=Restart(limit=1, backoff=SOON)
            )

    ref = await runtime.spawn(lambda: Head(log))
    once = ["-B", "-A", "+A", "+B"]
    with pytest.raises(RemoteError):
        await runtime.ask(Anycast("test/ns/a"), Do("break"))
    await eventually(lambda: log == ["+Head", "+A", "+B", *once])
    with pytest.raises(RemoteError):
        await runtime.ask(Anycast("test/ns/a"), Do("break"))
    await eventually(lambda: log[7:] == ["-B", "-A", "-Head", "+Head", "+A", "+B"])
    await ref.stop()
    assert log[13:] == ["-B", "-A", "-Head"]


@pytest.mark.parametrize(
    ("agents", "options", "why"),
    [
        ((), {}, "name one agent"),
        ((A,), {"strategy": "all_for_one"}, "'all_for_one' is not one of"),
        ((A,), {"restart": "permanent"}, "Restart"),
    ],
)
async def test_a_group_refuses_what_cannot_work(
    runtime: Runtime, agents: tuple[Any, ...], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        await runtime.supervise(*agents, **options)


async def test_an_ended_instance_starts_nothing_more(runtime: Runtime) -> None:
    kept: list[Context] = []

    class Keeper(Agent, name="test/ns/keeper"):
        async def receive(self, message: Any, ctx: Context) -> None:
            kept.append(ctx)

    ref = await runtime.spawn(Keeper)
    await runtime.ask(ref.route, "x")
    await ref.stop()
    for late in (kept[0].spawn(Keeper), kept[0].supervise(Keeper), kept[0].watch(ref)):
        with pytest.raises(Exception, match="has ended, and"):
            await late
    assert not runtime._refs
    with pytest.raises(DeclarationError):
        await runtime.spawn(lambda: 3)  # type: ignore[arg-type, return-value]
