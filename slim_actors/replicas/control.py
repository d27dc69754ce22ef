"""The control socket of a run: how commands in other terminals find it, and what they ask it.

Each run listens on a Unix socket of its own in a folder that only its user can enter. A command asks every
socket there for the status of its run, which has the name of the agent. Both sides write JSON lines: one
`Order`, then any number of `Answer` s, of which the last has an exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal, Self

import msgspec

from slim_actors.errors import ConfigurationError
from slim_actors.exits import Exit
from slim_actors.replicas.events import Event, ReplicaFailed
from slim_actors.replicas.supervisor import Supervisor
from slim_actors.secret import config_folder

__all__ = ["Answer", "Control", "Member", "Order", "Status", "give", "runs", "status_of"]

_MOST_REPLICAS = 10_000
_MOST_LINE = 1024 * 1024
_ANSWER_WITHIN = 2.0


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run is to do."""

    do: Literal["status", "restart", "scale"]
    name: str = ""
    """The agent's name; any, if empty."""
    count: int = 0


class Member(msgspec.Struct, frozen=True):
    """One replica, as it is now."""

    replica: int
    address: str
    pid: int
    memory: int
    """Bytes of it in RAM."""


class Status(msgspec.Struct, frozen=True):
    """What a run has."""

    name: str
    pid: int
    members: list[Member]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run says: what happens meanwhile, and at last how it ended."""

    event: Event | None = None
    status: Status | None = None
    text: str = ""
    code: int | None = None


def folder() -> Path:
    """Give the folder of the control sockets: in ``XDG_RUNTIME_DIR``, else in the user's config folder.

    Raises:
        ConfigurationError: There is none, or others can enter it.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    place = runtime / "slim-actors" if runtime.is_absolute() else config_folder() / "run"
    with contextlib.suppress(OSError):
        status = place.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(
                f"The folder {place} is not this user's alone, and who can enter it could pass for a run: "
                "run chmod 700 on it, or give a folder of your own with XDG_RUNTIME_DIR."
            )
    return place


class Control:
    """Takes orders for a supervisor.

    Args:
        supervisor: Who carries them out.

    Raises:
        OSError: On entering: there is no place for the socket.
        ConfigurationError: On entering: its folder cannot be used.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._listeners: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._path = Path()

    async def __aenter__(self) -> Self:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder() / f"{os.urandom(4).hex()}.sock"
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        self._path.chmod(0o600)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        self._path.unlink(missing_ok=True)
        # What they wait for has its end already: their last answers are on the way.
        if self._clients:
            await asyncio.wait(self._clients, timeout=1.0)
        for client in self._clients:
            client.cancel()

    def tell(self, event: Event) -> None:
        """Tell whoever waits for an order to be carried out what happens."""
        for writer in self._listeners:
            # Of one that has gone meanwhile, asyncio would complain in the run's own log.
            if not writer.is_closing():
                _write(writer, Answer(event))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None, "a coroutine runs in a task"
        self._clients.add(client)
        try:
            _write(writer, await self._answer(await reader.readline(), writer))
            await writer.drain()
        except (OSError, ValueError):
            # Whoever asked has gone; what it asked for is done all the same.
            pass
        finally:
            self._clients.discard(client)
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> Answer:
        try:
            order = msgspec.json.decode(line, type=Order)
        except msgspec.DecodeError as error:
            return Answer(text=f"The order cannot be read: {error}.", code=Exit.USAGE)
        supervisor = self._supervisor
        if order.name and order.name != supervisor.name:
            return Answer(text=f"{order.name} is not run here.", code=Exit.NO_ROUTE)
        if order.do == "status":
            return Answer(status=_status(supervisor), code=Exit.OK)
        self._listeners.add(writer)
        try:
            if order.do == "restart":
                count = await supervisor.restart("restart")
                return Answer(text=_replicas(count), code=Exit.OK)
            await supervisor.scale(min(max(1, order.count), _MOST_REPLICAS))
            return Answer(text=_replicas(len(supervisor.replicas)), code=Exit.OK)
        except ReplicaFailed as error:
            return Answer(text=str(error), code=error.exit)
        finally:
            self._listeners.discard(writer)


def runs() -> list[Path]:
    """Give the sockets of the runs of this user; those of runs that were killed are among them.

    Raises:
        ConfigurationError: Their folder cannot be used.
    """
    return sorted(folder().glob("*.sock"))


async def give(path: Path, order: Order) -> AsyncIterator[Answer]:
    """Give an order to a run, and give its answers; none if it is not there any more, or no run."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_MOST_LINE)
    except ConnectionRefusedError:
        # Its run was killed.
        path.unlink(missing_ok=True)  # noqa: ASYNC240 (takes no time)
        return
    except OSError:
        return
    # What ends in the middle of an answer, or says something else, is no run, or none any more.
    with contextlib.closing(writer), contextlib.suppress(OSError, ValueError):
        _write(writer, order)
        while line := await reader.readline():
            yield msgspec.json.decode(line, type=Answer)


async def status_of(path: Path) -> Status | None:
    """Ask a run what it has; give None if it is not there any more, or no run.

    Raises:
        TimeoutError: It does not answer: it is frozen.
    """
    async with asyncio.timeout(_ANSWER_WITHIN):
        async for answer in give(path, Order("status")):
            return answer.status
    return None


def _write(writer: asyncio.StreamWriter, value: Order | Answer) -> None:
    writer.write(msgspec.json.encode(value) + b"\n")


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


def _status(supervisor: Supervisor) -> Status:
    from slim_actors.replicas.memory import resident

    members = [
        Member(process.number, process.address, process.pid, resident(process.pid))
        for process in supervisor.replicas
        if not process.ended.done()
    ]
    return Status(supervisor.name, os.getpid(), members)
