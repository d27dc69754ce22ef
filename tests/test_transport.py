"""The transport's room: one importer of the bindings, and the sharp edges that users never feel."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import os
import socket
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slim_actors import Anycast, Runtime, SharedSecret
from slim_actors.endpoints import Endpoint
from slim_actors.testing import MemoryNetwork, VirtualClock
from slim_actors.transport import slim as slim_transport
from slim_actors.transport.base import SessionClosed, SessionOptions
from slim_actors.transport.bindings import no_delay
from slim_actors.transport.memory import MemoryTransport
from slim_actors.transport.node import SlimNode
from slim_actors.transport.port import SlimPort
from slim_actors.transport.security import Connection
from slim_actors.transport.slim import SlimTransport
from slim_actors.transport.sockets import NoDelay
from tests.agents_for_tests import Echo
from tests.conftest import ROOT, SECRET, Starter, eventually, free_endpoint


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_one_module_imports_the_bindings() -> None:
    importers = [
        path.relative_to(ROOT).as_posix()
        for folder in ("slim_actors", "agents", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if any(name.split(".")[0] == "slim_bindings" for name in imports(path))
    ]
    assert importers == ["slim_actors/transport/bindings.py"]


def test_actors_know_nothing_of_the_network() -> None:
    for module in ("agent", "mailbox", "cell"):
        assert not any(
            "transport" in name or "link" in name for name in imports(ROOT / f"slim_actors/{module}.py")
        )


def test_no_module_is_longer_than_400_lines() -> None:
    assert not [
        path for path in (ROOT / "slim_actors").rglob("*.py") if len(path.read_text().splitlines()) > 400
    ]


async def test_no_socket_waits_for_nagle(endpoint: str) -> None:
    async with Runtime(endpoint) as runtime:
        await runtime.spawn(Echo)
        await runtime.ask(Anycast("test/ns/echo"), "x")
        no_delay.apply()
        port = Endpoint.parse(endpoint).port
        checked = 0
        for entry in Path("/dev/fd").iterdir():
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as twin:
                if twin.family == socket.AF_INET and port in (twin.getsockname()[1], twin.getpeername()[1]):
                    assert twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    checked += 1
        assert checked >= 4


@pytest.mark.parametrize("thoroughly", [False, True])
def test_a_socket_with_the_number_of_a_closed_one_is_found_by_a_thorough_look(thoroughly: bool) -> None:
    look = NoDelay()
    with socket.socket() as one:
        look.apply()
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.socket() as another:
            os.dup2(another.fileno(), one.fileno())
        with socket.socket() as new:
            look.apply(thoroughly=thoroughly)
            assert new.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert bool(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == thoroughly


def test_bindings_of_another_shape_carry_messages_all_the_same(start: Starter) -> None:
    script = f"""
import asyncio, logging
logging.basicConfig(level=logging.DEBUG, format="%(message)s")
logging.getLogger("asyncio").setLevel(logging.ERROR)
from slim_actors.transport import direct
direct.fits = lambda module: False
from slim_actors import Agent, Anycast, Runtime

class Echo(Agent, name="a/b/c"):
    async def receive(self, message):
        return message

async def main():
    async with Runtime("{free_endpoint()}", embed_node=True) as runtime:
        await runtime.spawn(Echo)
        for size in (10, 400_000):
            print(await runtime.ask(Anycast("a/b/c"), "x" * size) == "x" * size)

asyncio.run(main())
"""
    run = start("-c", script, python=True)
    assert run.wait() == 0, run.output
    said, *outcomes = run.output.splitlines()
    assert said == "These slim-bindings are of another shape than is known: payloads are copied slowly."
    assert outcomes == ["True", "True"]


@pytest.mark.parametrize("scheme", ["ws", "unix"])
async def test_every_plain_scheme_carries_messages(scheme: str, tmp_path: Path) -> None:
    where = free_endpoint()
    endpoint = {"ws": where.replace("http", "ws"), "unix": f"unix://{tmp_path}/slim.sock"}[scheme]
    async with Runtime(endpoint, embed_node=True) as runtime:
        await runtime.spawn(Echo)
        assert await runtime.ask(Anycast("test/ns/echo", mls=True), "x") == "x"


class Relay:
    """A TCP relay in front of a node, which can cut its connections and turn new ones away."""

    def __init__(self, target: Endpoint) -> None:
        self._target = target
        self.turning_away = False
        self.turned_away = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.turning_away:
            self.turned_away += 1
            writer.transport.abort()
            return
        to_reader, to_writer = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers |= {writer, to_writer}
        await asyncio.gather(self._pump(reader, to_writer), self._pump(to_reader, writer))

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()


async def test_a_connection_that_the_bindings_have_given_up_is_made_anew(endpoint: str) -> None:
    relay = Relay(Endpoint.parse(endpoint))
    async with relay as front, Runtime(front) as runtime:
        await runtime.spawn(Echo)
        assert await runtime.ask(Anycast("test/ns/echo"), 1) == 1
        # A listener that accepts and resets is what makes them give up.
        relay.turning_away = True
        relay.cut()
        await eventually(lambda: relay.turned_away >= 2 and not runtime._transport.is_available)
        relay.turning_away = False
        assert await runtime.ask(Anycast("test/ns/echo"), 2, timeout=15) == 2


@pytest.mark.parametrize(
    "end",
    [
        "await runtime.stop()",
        "pass  # and the event loop ends with everything open",
        "asyncio.create_task(runtime.ask(Anycast('a/b/nobody'), 1)); await asyncio.sleep(0)",
    ],
)
def test_a_program_ends_without_noise_however_it_ends(start: Starter, end: str) -> None:
    script = f"""
import asyncio
from slim_actors import Agent, Anycast, Runtime

class Echo(Agent, name="a/b/c"):
    async def receive(self, message):
        return message

async def main():
    runtime = Runtime("{free_endpoint()}", embed_node=True)
    await runtime.__aenter__()
    await runtime.spawn(Echo)
    print(await runtime.ask(Anycast("a/b/c"), "x"))
    {end}

asyncio.run(main())
"""
    run = start("-c", script, python=True)
    assert run.wait() == 0, run.output
    assert run.output == "x\n"


async def test_a_node_can_be_stopped_and_started_in_one_process() -> None:
    endpoint = Endpoint.parse(free_endpoint())
    for _ in range(2):
        node = SlimNode(endpoint)
        await node.start()
        async with Runtime(str(endpoint)) as runtime:
            await runtime.spawn(Echo)
            assert await runtime.ask(Anycast("test/ns/echo"), "x") == "x"
        await node.stop()
        await node.stop()
        assert not await endpoint.listening()


async def test_the_watch_goes_on_although_somebody_stumbles_over_the_return_of_the_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Probe:
        """Away at every other look."""

        looks = 0

        async def reachable(self) -> bool:
            self.looks += 1
            return self.looks % 2 == 0

    monkeypatch.setattr(slim_transport, "_WATCH_INTERVAL", 0)
    transport = SlimTransport(Connection(Endpoint.parse("http://127.0.0.1:1")), SharedSecret(SECRET))
    returns: list[bool] = []

    def stumble() -> None:
        returns.append(transport.is_available)
        raise LookupError("of somebody else's making")

    transport.on_return(stumble)
    monkeypatch.setattr(transport, "_probe", Probe())
    watch = asyncio.create_task(transport._watch())
    await eventually(lambda: len(returns) >= 3 or watch.done())
    assert returns[:3] == [True, True, True]
    assert "The watch over the SLIM node stumbled" in caplog.text
    watch.cancel()


async def test_a_node_that_goes_before_the_watch_began_is_away_until_it_is_back() -> None:
    endpoint = Endpoint.parse(free_endpoint())
    node = SlimNode(endpoint)
    await node.start()
    transport = SlimTransport(Connection(endpoint), SharedSecret(SECRET))
    returns: list[bool] = []
    transport.on_return(lambda: returns.append(True))
    port = await transport.open("test/ns/early")
    await node.stop()
    assert not await transport.check()
    node = SlimNode(endpoint)
    await node.start()
    await eventually(lambda: bool(returns), within=20)
    assert transport.is_available
    assert await port.reachable()
    await transport.close()
    await node.stop()


async def test_a_port_that_is_blocked_holds_up_the_others_for_seconds_not_for_looks() -> None:
    loop = asyncio.get_running_loop()

    async def slow() -> bool:
        await asyncio.sleep(1.5)
        return False

    with VirtualClock():
        began = loop.time()
        port: Any = SimpleNamespace(reconnect_if_given_up=slow, reachable=slow, _closed=False)
        await SlimPort.come_back(port)
        # Virtual seconds: as long as the last look takes beyond the bound.
        assert loop.time() - began < 7


@pytest.mark.parametrize("theirs_first", [True, False])
async def test_a_session_in_memory_is_forgotten_when_it_is_closed(theirs_first: bool) -> None:
    network = MemoryNetwork()
    one, other = [await MemoryTransport(network).open(name) for name in ("a/b/one", "a/b/other")]
    mine = await one.connect(other.address, SessionOptions())
    theirs = await other.accept()
    seen = [weakref.ref(session) for session in (mine, theirs)]
    for session in (theirs, mine) if theirs_first else (mine, theirs):
        await session.close()
    del mine, theirs, session
    await eventually(lambda: gc.collect() >= 0 and not any(look() for look in seen), within=5)


async def test_what_is_sent_after_a_delayed_payload_comes_in_order_in_memory() -> None:
    with VirtualClock():
        network = MemoryNetwork()
        one, other = [await MemoryTransport(network).open(name) for name in ("a/b/one", "a/b/other")]
        mine = await one.connect(other.address, SessionOptions())
        theirs = await other.accept()
        network.delay(0.5, nth=1)
        for number in range(12):
            await mine.send(bytes([number]), "x")
        await mine.close()
        assert [(await theirs.receive()).data[0] for _ in range(12)] == list(range(12))
        with pytest.raises(SessionClosed):
            await theirs.receive()
