"""pyzmq: ROUTER and DEALER sockets, MessagePack."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

import msgspec
import zmq
import zmq.asyncio

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
)

__all__ = ["open_client"]

_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class _Peer:
    def __init__(self, where: str) -> None:
        self.socket = _socket(zmq.DEALER)
        self.socket.connect(where)
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            do, number, body = _decode(await self.socket.recv())
            if do == "item":
                self.items.put_nowait(body)
            else:
                self.waiting.pop(number).set_result(body)


class _Client(Client):
    def __init__(self, peers: list[_Peer]) -> None:
        self._ids = itertools.count()
        self._turn = itertools.cycle(peers)

    async def _request(self, body: Any) -> Any:
        peer, number = next(self._turn), next(self._ids)
        answer = peer.waiting[number] = asyncio.get_running_loop().create_future()
        await peer.socket.send(_encode(("echo", number, body)))
        return await answer

    async def ask(self) -> None:
        assert await self._request(MESSAGE) == MESSAGE, "it is an echo"

    async def send(self, count: int) -> None:
        peer = next(self._turn)
        for _ in range(count - 1):
            await peer.socket.send(_encode(("nothing", 0, MESSAGE)))
        await self.ask()

    async def stream(self, count: int) -> None:
        peer = next(self._turn)
        await peer.socket.send(_encode(("stream", count, None)))
        for _ in range(count):
            await peer.items.get()

    async def echo(self, data: bytes) -> bytes:
        return bytes(await self._request(data))


@asynccontextmanager
async def open_client(setup: Setup) -> AsyncIterator[Client]:
    """Start the agents and a client."""
    if setup.mls or setup.transport == "process":
        raise NotSupported
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(folder())
        began = perf_counter()
        peers, pids = [], []
        for number in range(setup.replicas):
            where = address("tcp", path).replace("http", "tcp")
            if setup.transport == "unix":
                where = f"ipc://{path}/{number}.sock"
            agent = program("-m", "benchmarks.systems.zeromq", where)
            pids.append(int((await stack.enter_async_context(agent))[0][1]))
            peers.append(_Peer(where))
        client = _Client(peers)
        await client.ask()
        client.first_reply, client.memory = perf_counter() - began, resident(pids[0])
        yield client


def _socket(kind: int) -> zmq.asyncio.Socket:
    made = zmq.asyncio.Context.instance().socket(kind)
    made.set_hwm(0)
    return made


async def _serve(where: str) -> None:
    socket = _socket(zmq.ROUTER)
    socket.bind(where)
    say_ready()
    while True:
        sender, payload = await socket.recv_multipart()
        do, number, body = _decode(payload)
        if do == "echo":
            await socket.send_multipart([sender, _encode((do, number, body))])
        elif do == "stream":
            for each in range(number):
                await socket.send_multipart([sender, _encode(("item", each, MESSAGE))])


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
