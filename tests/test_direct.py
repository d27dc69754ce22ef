"""The two calls that every payload makes do what the bindings' own generated code does."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import random
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import slim_bindings as slim
from slim_bindings._slim_bindings import slim_bindings as core

from slim_actors.transport.bindings import calls as calls_in_use
from slim_actors.transport.calls import Calls, Generated
from slim_actors.transport.direct import Direct, fits
from tests.conftest import PATIENCE, eventually
from tests.test_interop import SECONDS_5, bare_app, config

READY, AGAIN = 0, 1
TYPE = "a/type"


@pytest.fixture(params=[Direct, Generated])
def calls(request: pytest.FixtureRequest) -> Calls:
    return Direct(core) if request.param is Direct else Generated()


@pytest.fixture
async def ends(endpoint: str) -> AsyncIterator[tuple[slim.Session, slim.Session]]:
    """Both ends of a session: that of who opened it first."""
    async with (
        bare_app(endpoint, "bare", "ns", "bob") as bob,
        bare_app(endpoint, "bare", "ns", "alice") as alice,
    ):
        listening = asyncio.create_task(alice.listen_for_session_async(SECONDS_5))
        session = await bob.create_session_and_wait_async(config(), alice.name())
        yield session, await listening
        await bob.delete_session_and_wait_async(session)


def test_the_bindings_in_use_are_called_directly() -> None:
    assert isinstance(calls_in_use, Direct)


@pytest.mark.parametrize("size", [0, 1, 1000, 65_000, 65_536, 66_000, 1_000_000, 4_000_000])
async def test_a_payload_comes_as_it_was_sent(
    calls: Calls, ends: tuple[slim.Session, slim.Session], size: int
) -> None:
    data = random.Random(size).randbytes(size)
    handle = await calls.publish(ends[0], data, TYPE, tracked=True)
    assert handle is not None
    received = await calls.receive(ends[1])
    assert (received.payload, received.payload_type) == (data, TYPE)
    await calls.acknowledged(handle)


async def test_what_nobody_looks_at_comes_all_the_same(
    calls: Calls, ends: tuple[slim.Session, slim.Session]
) -> None:
    assert await calls.publish(ends[0], b"there", None) is None
    assert (await calls.receive(ends[1])).payload == b"there"
    assert await calls.publish(ends[1], b"and back", TYPE) is None
    received = await calls.receive(ends[0])
    assert (received.payload, received.payload_type) == (b"and back", TYPE)


@pytest.mark.parametrize("long", [0, 70_000, 1_000_000])
async def test_what_stands_before_a_payload_may_be_long(
    calls: Calls, ends: tuple[slim.Session, slim.Session], long: int
) -> None:
    metadata = {"a key": "ä" * long, "": "empty", "ключ": "", **{str(number): "x" for number in range(100)}}
    data = b"x" * 100_000
    for payload_type in (TYPE, "x" * (1 + long)):
        await ends[0].publish_async(data, payload_type, metadata)
        received = await calls.receive(ends[1])
        assert received.payload == data
        assert received.payload_type == payload_type
        assert received.metadata.items() >= metadata.items()


async def test_the_sender_s_token_comes_with_a_payload(ends: tuple[slim.Session, slim.Session]) -> None:
    tokens = []
    for calls in (Direct(core), Generated()):
        await calls.publish(ends[0], b"", None)
        tokens.append((await calls.receive(ends[1])).identity)
    directly, generated = (token.split(":")[0] for token in tokens)
    assert directly == generated != ""


async def test_a_session_that_is_over_says_so(calls: Calls, endpoint: str) -> None:
    async with (
        bare_app(endpoint, "bare", "ns", "bob") as bob,
        bare_app(endpoint, "bare", "ns", "alice") as alice,
    ):
        listening = asyncio.create_task(alice.listen_for_session_async(SECONDS_5))
        session = await bob.create_session_and_wait_async(config(), alice.name())
        theirs = await listening
        waiting = asyncio.create_task(calls.receive(theirs))
        await bob.delete_session_and_wait_async(session)
        with pytest.raises(slim.SlimError, match=r"closed|disconnected"):
            await waiting
        with pytest.raises(slim.SlimError):
            await calls.publish(session, b"too late", None)


class Later:
    """A future of Rust: what each poll of it says, None for nothing yet."""

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)
        self.woken: list[Callable[[int], None]] = []
        self.cancelled = self.freed = 0
        self.calls = Direct(core)

    def poll(self, _: object, callback: Callable[[int, int], None], number: int) -> None:
        code = self.codes.pop(0)
        if code is None:
            self.woken.append(functools.partial(callback, number))
        else:
            callback(number, code)

    def complete(self, _: object, __: object) -> str:
        return "done"

    def cancel(self, _: object) -> None:
        self.cancelled += 1

    def free(self, _: object) -> None:
        self.freed += 1

    async def outcome(self) -> str:
        future = self.poll, self.complete, self.cancel, self.free
        status = core._UniffiRustCallStatus()
        return str(await self.calls._outcome(1, future, status, None))


async def test_what_rust_has_is_taken_whenever_it_says_so() -> None:
    for at_once in (Later(READY), Later(AGAIN, AGAIN, READY)):
        assert await at_once.outcome() == "done"
        assert at_once.freed == 1


@pytest.mark.parametrize("in_thread", [False, True])
async def test_whoever_waits_for_rust_is_woken(in_thread: bool) -> None:
    later = Later(None, None, READY)
    waiting = asyncio.create_task(later.outcome())
    await eventually(lambda: len(later.woken) == 1)
    if in_thread:
        await asyncio.to_thread(later.woken[0], AGAIN)
    else:
        later.woken[0](AGAIN)
    await eventually(lambda: len(later.woken) == 2)
    assert not waiting.done()
    later.woken[1](AGAIN)
    assert await waiting == "done"
    assert later.freed == 1


async def test_who_no_longer_waits_for_rust_is_not_woken() -> None:
    later = Later(None)
    waiting = asyncio.create_task(later.outcome())
    await eventually(lambda: bool(later.woken))
    waiting.cancel()
    await asyncio.wait([waiting])
    later.woken[0](AGAIN)
    await asyncio.sleep(0)
    assert waiting.cancelled()
    assert later.freed == 1


async def test_before_the_end_whatever_waits_for_rust_is_cancelled_there() -> None:
    later = Later(None)
    waiting = asyncio.create_task(later.outcome())
    await eventually(lambda: bool(later.woken))
    later.calls.leave()
    assert later.cancelled == 1
    waiting.cancel()


LEFT_OPEN = """
import asyncio, sys, threading
from slim_actors import Agent, Runtime, Unicast, handler

class Echo(Agent, name="test/ns/left-open"):
    @handler
    async def echo(self, text: str) -> str:
        return text

async def main():
    async with Runtime(sys.argv[1]) as one, Runtime(sys.argv[1]) as other:
        await one.spawn(Echo)
        async def ask():
            for number in range(1_000_000):
                await other.ask(Unicast("test/ns/left-open"), "x")
                if number == 50:
                    asked.set()
        await asyncio.gather(*(ask() for _ in range(5)))

asked = threading.Event()
threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
assert asked.wait(20)
"""


@pytest.mark.parametrize("_", range(3))
def test_a_program_ends_well_while_a_thread_of_its_own_still_sends(endpoint: str, _: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, endpoint],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


TOGETHER = """
import os, threading
from slim_actors.transport.bindings import new_service, slim

def begin():
    together.wait()
    service = new_service()
    # They would say that they listen.
    service.run_server(slim.new_insecure_server_config("127.0.0.1:0"))
    services.append(service)

services, together = [], threading.Barrier(4)
threads = [threading.Thread(target=begin) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
os._exit(0)
"""


@pytest.mark.parametrize("_", range(3))
def test_the_bindings_are_silent_also_where_several_threads_begin_together(_: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TOGETHER], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(("size", "least", "most"), [(50, 0, 10), (5_000, 30, 50)])
async def test_small_messages_are_taken_together_and_large_ones_give_way(
    ends: tuple[slim.Session, slim.Session], size: int, least: int, most: int
) -> None:
    calls, count = Direct(core), 80
    handles = [await calls.publish(ends[0], b"x" * size, TYPE, tracked=True) for _ in range(count)]
    for handle in handles:
        # Then it is there, and need not be waited for.
        await calls.acknowledged(handle)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(count_turns())
    for _ in range(count):
        await calls.receive(ends[1])
    beside.cancel()
    assert least <= turns <= most


@pytest.fixture
def original() -> Any:
    """Give a generated module of one's own to change."""
    spec = importlib.util.spec_from_file_location("original", core.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "original", module)
        spec.loader.exec_module(module)
    return module


def test_bindings_of_another_shape_are_not_called_directly(original: Any) -> None:
    assert fits(original)
    assert not fits(types.ModuleType("other"))


def test_a_library_whose_methods_are_others_is_not_called_directly(original: Any) -> None:
    original._UniffiLib.uniffi_slim_bindings_checksum_method_session_publish_async = lambda: 1
    assert not fits(original)


def test_a_library_of_another_calling_convention_is_not_called_directly(original: Any) -> None:
    original._UniffiLib.ffi_slim_bindings_uniffi_contract_version = lambda: 31
    assert not fits(original)


def test_a_record_whose_fields_come_in_another_order_is_not_read_directly(original: Any) -> None:
    class MessageContext:
        def __init__(
            self, *, source_name: "Name", destination_name: "typing.Optional[Name]", identity: "str",  # type: ignore[name-defined] # noqa: F821, UP037
            payload_type: "str", metadata: "dict[str, str]", input_connection: "int",  # noqa: UP037
        ) -> None: ...  # fmt: skip

    original.MessageContext = MessageContext
    assert not fits(original)


def test_generated_code_that_waits_in_another_way_is_left_alone(original: Any) -> None:
    async def call(rust_future: int, poll: object) -> None: ...

    original._uniffi_rust_call_async = call
    assert not fits(original)
