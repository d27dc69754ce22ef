"""The door: where those whom SLIM does not let in learn why, and the agent learns that they came."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from slim_actors.credentials import Credentials
from slim_actors.errors import DeliveryError, Denied, SlimActorsError, Untrusted
from slim_actors.names import Address
from slim_actors.transport.bindings import slim
from slim_actors.transport.identities import create_open_app
from slim_actors.transport.introduction import (
    Line,
    be_introduced,
    behind_door,
    door_of,
    introduce,
    log_refusal,
)

__all__ = ["Door"]

_MOST_AT_ONCE = 4
_KNOCK_EVERY = timedelta(seconds=0.25)
_KNOCKS = 3
_KNOCK_WITHIN = 3.0
_PAUSE = 0.05


class Door:
    """The door of one agent, or of one that knocks at the doors of others.

    Args:
        service: Whose connection it uses.
        name: Whose door it is.
        credentials: What it shows, and checks the others with.
    """

    def __init__(self, service: slim.Service, name: str, credentials: Credentials) -> None:
        self._service = service
        self._name = name
        self._credentials = credentials
        self._connection = -1
        self._app: slim.App | None = None
        self._is_heard = False
        self._opening = asyncio.Lock()
        self._visits: set[asyncio.Task[None]] = set()
        self._server: asyncio.Task[None] | None = None

    async def join(self, connection: int) -> None:
        """Use this connection, from now on."""
        self._connection = connection
        self._is_heard = False
        if self._app is not None:
            await self._opened()

    def serve(self) -> None:
        """Answer those who come, from now on."""
        if self._server is None:
            self._server = asyncio.create_task(self._serve(), name="door")

    async def knock(self, target: Address) -> DeliveryError | None:
        """Ask at the door of an agent why it does not answer; None if nobody is there or nothing is wrong."""
        name = slim.Name(*door_of(target.name).split("/"))
        try:
            async with asyncio.timeout(_KNOCK_WITHIN):
                app = await self._opened()
                session = await app.create_session_and_wait_async(_config(), name)
        except (slim.SlimError, TimeoutError):
            return None
        try:
            await introduce(Line(session, target.name), self._credentials)
        except (Denied, Untrusted) as error:
            return error
        except (SlimActorsError, TimeoutError):
            return None
        finally:
            await _delete(app, session)
        return None

    async def close(self) -> None:
        """Answer nobody any more."""
        tasks = [task for task in (self._server, *self._visits) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _opened(self) -> slim.App:
        # Most never knock, and who only sends has no visitors.
        async with self._opening:
            if self._app is None:
                self._app = create_open_app(self._service, door_of(self._name))
            if not self._is_heard:
                await self._app.subscribe_async(self._app.name(), self._connection)
                self._is_heard = True
        return self._app

    async def _serve(self) -> None:
        while True:
            try:
                app = await self._opened()
                session = await app.listen_for_session_async(None)
            except slim.SlimError:
                await asyncio.sleep(_PAUSE)
                continue
            visit = asyncio.create_task(
                self._receive(app, session, welcome=len(self._visits) < _MOST_AT_ONCE)
            )
            self._visits.add(visit)
            visit.add_done_callback(self._visits.discard)

    async def _receive(self, app: slim.App, session: slim.Session, *, welcome: bool) -> None:
        name = behind_door(session)
        try:
            if welcome:
                await be_introduced(Line(session, name), self._credentials)
        except (Denied, Untrusted) as error:
            log_refusal(name, str(error))
        except (SlimActorsError, slim.SlimError, TimeoutError):
            # A stranger that says nothing sensible; the door is there for others.
            return
        finally:
            await _delete(app, session)


async def _delete(app: slim.App, session: slim.Session) -> None:
    with contextlib.suppress(slim.SlimError):
        await app.delete_session_async(session)


def _config() -> slim.SessionConfig:
    return slim.SessionConfig(
        session_type=slim.SessionType.POINT_TO_POINT,
        max_retries=_KNOCKS,
        interval=_KNOCK_EVERY,
        metadata={},
        mls_settings=None,
    )
