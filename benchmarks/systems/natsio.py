"""NATS: nats-py and the server of the system, request and reply, MessagePack."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

import msgspec
import nats

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

__all__ = ["open_client"]

_SUBJECT = "bench.echo"
_TIMEOUT = 30.0
_MOST = 8 * 1024 * 1024
_PAYLOAD = msgspec.msgpack.encode(MESSAGE)


class _Client(Client):
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def ask(self) -> None:
        reply = await self._connection.request(_SUBJECT, msgspec.msgpack.encode(MESSAGE), timeout=_TIMEOUT)
        assert msgspec.msgpack.decode(reply.data) == MESSAGE, "it is an echo"

    async def send(self, count: int) -> None:
        for _ in range(count - 1):
            await self._connection.publish("bench.nothing", msgspec.msgpack.encode(MESSAGE))
        await self._connection.request("bench.done", b"", timeout=_TIMEOUT)

    async def stream(self, count: int) -> None:
        inbox = self._connection.new_inbox()
        items = await self._connection.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await self._connection.publish("bench.stream", str(count).encode(), reply=inbox)
        for _ in range(count):
            msgspec.msgpack.decode((await items.next_msg(timeout=_TIMEOUT)).data)
        await items.unsubscribe()

    async def echo(self, data: bytes) -> bytes:
        return bytes((await self._connection.request(_SUBJECT, data, timeout=_TIMEOUT)).data)


@asynccontextmanager
async def open_client(setup: Setup) -> AsyncIterator[Client]:
    """Start the server, the agents and a client."""
    if setup.mls or setup.transport == "process":
        raise NotSupported
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(folder())
        where = address("tcp", path).removeprefix("http://")
        (path / "nats.conf").write_text(f'listen: "{where}"\nmax_payload: {_MOST}\n')
        server = await asyncio.create_subprocess_exec(
            "nats-server", "-c", str(path / "nats.conf"), stderr=asyncio.subprocess.PIPE
        )
        stack.callback(server.terminate)
        assert server.stderr is not None, "it is a pipe"
        async for line in server.stderr:
            if b"Server is ready" in line:
                break
        began = perf_counter()
        agents = [program("-m", "benchmarks.systems.natsio", where) for _ in range(setup.replicas)]
        found = await asyncio.gather(*(stack.enter_async_context(agent) for agent in agents))
        connection = await nats.connect(f"nats://{where}")
        client = _Client(connection)
        await client.ask()
        client.first_reply, client.memory = perf_counter() - began, resident(int(found[0][0][1]))
        yield client
        await connection.close()


async def _serve(where: str) -> None:
    connection = await nats.connect(f"nats://{where}")

    async def echo(message: Any) -> None:
        await message.respond(message.data)

    async def nothing(message: Any) -> None:
        msgspec.msgpack.decode(message.data)

    async def stream(message: Any) -> None:
        for _ in range(int(message.data)):
            await message.respond(_PAYLOAD)

    await connection.subscribe("bench.>", queue="agents", cb=_by_subject(echo, nothing, stream))
    await connection.flush()
    say_ready()
    await until_stopped()


def _by_subject(echo: Any, nothing: Any, stream: Any) -> Any:
    # One subscription, so that what was sent before "done" is handled before it.
    handlers = {"bench.nothing": nothing, "bench.stream": stream}

    async def handle(message: Any) -> None:
        await handlers.get(message.subject, echo)(message)

    return handle


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
