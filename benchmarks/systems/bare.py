"""slim-bindings alone, used as their documentation says: asynchronous calls, one message a payload, JSON."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from time import perf_counter
from typing import Any, NoReturn

import slim_bindings as slim

from benchmarks.systems.base import (
    MESSAGE,
    Client,
    NotSupported,
    Setup,
    address,
    folder,
    program,
    resident,
    say_ready,
    until_stopped,
)

__all__ = ["be_agent", "config", "join", "open_client", "service"]

SECRET = "a secret for benchmarks, 32 bytes or more"  # noqa: S105 (of nobody)
AGENT = ("bench", "ns", "bare")
_MODULE = ("-m", "benchmarks.systems.bare")
_DISCOVERIES = 64
_MOST = 4 * 1024 * 1024 - 8 * 1024

Answer = Callable[[slim.Session], Coroutine[Any, Any, None]]
"""What an agent does with a session."""


def service(name: str) -> slim.Service:
    """Make a service of this process."""
    quiet = slim.new_tracing_config_with("error", False, False, ["off"])  # noqa: FBT003
    slim.initialize_with_configs(slim.new_runtime_config(), quiet, [slim.new_service_config()])
    return slim.create_service(name)


def config(*, mls: bool) -> slim.SessionConfig:
    """Configure a reliable session."""
    settings = slim.MlsSettings(
        header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
    )
    return slim.SessionConfig(
        session_type=slim.SessionType.POINT_TO_POINT,
        max_retries=5,
        interval=timedelta(seconds=0.5),
        metadata={},
        mls_settings=settings if mls else None,
    )


class Peer:
    """A session of the client, and who waits for what comes on it."""

    def __init__(self, session: slim.Session) -> None:
        self.session = session
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.raw: asyncio.Future[bytes] | None = None
        self.items: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            try:
                payload = (await self.session.get_message_async(None)).payload
            except slim.SlimError:
                return
            if payload[:1] != b"{":
                if self.raw is not None:
                    self.raw.set_result(payload)
                continue
            message = json.loads(payload)
            if "item" in message:
                self.items.put_nowait(message)
            else:
                self.waiting.pop(message["id"]).set_result(message)


class BareClient(Client):
    """See `Client`."""

    def __init__(self, peers: list[list[Peer]], apps: list[slim.App]) -> None:
        self._apps = apps
        self._ids = itertools.count()
        self._turn = itertools.cycle([peer for of_one in peers for peer in of_one])
        self._requesters = itertools.cycle(peers)

    async def ask(self) -> None:
        """See `Client.ask`."""
        await self._ask(next(self._turn))

    def requester(self) -> Callable[[], Awaitable[None]]:
        """See `Client.requester`."""
        turn = itertools.cycle(next(self._requesters))
        return lambda: self._ask(next(turn))

    async def _ask(self, peer: Peer) -> None:
        number = next(self._ids)
        answer = peer.waiting[number] = asyncio.get_running_loop().create_future()
        await _publish(peer.session, {"id": number, "message": MESSAGE})
        assert (await answer)["message"] == MESSAGE, "it is an echo"

    async def send(self, count: int) -> None:
        """See `Client.send`."""
        peer = next(self._turn)
        for _ in range(count - 1):
            await _publish(peer.session, {"do": "nothing", "message": MESSAGE})
        await self.ask()

    async def stream(self, count: int) -> None:
        """See `Client.stream`."""
        peer = next(self._turn)
        await _publish(peer.session, {"do": "stream", "count": count})
        for _ in range(count):
            await peer.items.get()

    async def echo(self, data: bytes) -> bytes:
        """See `Client.echo`."""
        if len(data) > _MOST:
            # One payload over SLIM's limit would cost the connection.
            raise NotSupported
        peer = next(self._turn)
        peer.raw = asyncio.get_running_loop().create_future()
        await peer.session.publish_async(data, None, None)
        return await peer.raw


async def _publish(session: slim.Session, message: dict[str, Any]) -> None:
    await session.publish_async(json.dumps(message).encode(), None, None)


@asynccontextmanager
async def open_client(setup: Setup) -> AsyncIterator[Client]:
    """Start a node, the agents and a client."""
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(folder())
        endpoint = address("unix" if setup.transport == "process" else setup.transport, path)
        mine = service(f"client-{os.getpid()}")
        if setup.transport == "process":
            await mine.run_server_async(slim.new_insecure_server_config(_listen(endpoint)))
            began, pid, connection = perf_counter(), os.getpid(), None
            before = resident(pid)
            for _ in range(setup.agents):
                agent = asyncio.create_task(_serve(await join(mine, None), _answer))
                stack.callback(agent.cancel)
            start_each = (perf_counter() - began) / setup.agents
            memory_each = (resident(pid) - before) / setup.agents
        else:
            await stack.enter_async_context(program(*_MODULE, "node", endpoint))
            connection = await mine.connect_async(slim.new_insecure_client_config(endpoint))
            began = perf_counter()
            starts = [program(*_MODULE, "agent", endpoint) for _ in range(setup.replicas)]
            found = await asyncio.gather(*(stack.enter_async_context(start) for start in starts))
            pid = int(found[0][0][1])
        peers, apps = [], []
        for number in range(setup.requesters):
            # Each with a connection of its own, as where each is a process.
            own = mine if not number else slim.create_service(f"client-{os.getpid()}-{number}")
            if number:
                connection = await own.connect_async(slim.new_insecure_client_config(endpoint))
            app = await join(own, connection, "client")
            # An app that nobody holds leaves its name, and its sessions with it.
            apps.append(app)
            peers.append(await _discover(app, setup))
        client = BareClient(peers, apps)
        await client.ask()
        client.first_reply, client.memory = perf_counter() - began, resident(pid)
        if setup.transport == "process":
            client.start_each, client.memory_each = start_each, memory_each
        yield client


async def _discover(app: slim.App, setup: Setup) -> list[Peer]:
    """Open sessions until there is one to each replica."""
    peers: dict[str, Peer] = {}
    for _ in range(_DISCOVERIES):
        session = await app.create_session_and_wait_async(config(mls=setup.mls), slim.Name(*AGENT))
        (other,) = (each.name.id() for each in session.participants_list() if each.name.id() != app.id())
        if other in peers:
            await app.delete_session_async(session)
        else:
            peers[other] = Peer(session)
        if len(peers) == setup.replicas:
            return list(peers.values())
    raise RuntimeError(f"{len(peers)} of {setup.replicas} replicas were found.")


def _listen(endpoint: str) -> str:
    return endpoint.removeprefix("http://")


async def join(mine: slim.Service, connection: int | None, service: str = AGENT[-1]) -> slim.App:
    """Take a name: that of the agent, or another one."""
    app = mine.create_app_with_secret(slim.Name(*AGENT[:2], service), SECRET)
    await app.subscribe_async(app.name(), connection)
    return app


async def be_agent(endpoint: str, answer: Answer) -> NoReturn:
    """Be the agent, until this process is stopped."""
    mine = service(f"agent-{os.getpid()}")
    connection = await mine.connect_async(slim.new_insecure_client_config(endpoint))
    app = await join(mine, connection)
    say_ready()
    agent = asyncio.create_task(_serve(app, answer))
    agent.add_done_callback(lambda task: task.cancelled() or os._exit(1))
    await until_stopped()
    os._exit(0)


async def _serve(app: slim.App, answer: Answer) -> None:
    tasks = set()
    while True:
        session = await app.listen_for_session_async(None)
        task = asyncio.create_task(answer(session))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _answer(session: slim.Session) -> None:
    while True:
        try:
            payload = (await session.get_message_async(None)).payload
        except slim.SlimError:
            return
        if payload[:1] != b"{":
            await session.publish_async(payload, None, None)
            continue
        message = json.loads(payload)
        match message.get("do"):
            case "nothing":
                pass
            case "stream":
                for number in range(message["count"]):
                    await _publish(session, {"item": number, "message": MESSAGE})
            case _:
                await _publish(session, message)


async def _main(role: str, endpoint: str) -> None:
    if role == "agent":
        await be_agent(endpoint, _answer)
    mine = service(f"node-{os.getpid()}")
    await mine.run_server_async(slim.new_insecure_server_config(_listen(endpoint)))
    say_ready()
    await until_stopped()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
