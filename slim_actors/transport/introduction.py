"""How two ends tell each other who they are, and why one of them will not have the other.

SLIM drops whom it does not believe without a word. So every agent has a *door* besides: an app that anybody
can open a session to, on which nothing passes but introductions. Who is not let in asks there for the reason,
and both sides can say it. Where SLIM cannot check a token at all (`StaticJwt`), sessions begin with the same
introductions.

Who opened the session speaks first: he is a stranger, and the agent shows its own token to nobody whom it
has not believed. The tokens are for introductions only (`StaticJwt` has one token for everything).

The caller sends its token; the agent sends its own, or why it refuses the caller's; and the caller says
whether it refuses the agent's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from slim_actors.credentials import KINDS, Claims, Credentials, Refused
from slim_actors.errors import ConfigurationError, Denied, Untrusted
from slim_actors.names import printable
from slim_actors.throttle import Throttle
from slim_actors.transport.base import SessionClosed
from slim_actors.transport.bindings import calls, slim
from slim_actors.transport.calls import Received

__all__ = [
    "HIDDEN",
    "INTRODUCTION",
    "Introduction",
    "Line",
    "be_introduced",
    "behind_door",
    "door_of",
    "introduce",
    "log_refusal",
    "next_message",
]

_DOOR = " slim-actors-door"
INTRODUCTION = "slim-actors/introduction"
"""The payload type."""

_WITHIN = 4.0
_ERRORS_IN_A_ROW = 5
_MOST_CHARACTERS = 300
HIDDEN = "its token cannot be checked"
"""What a peer is told where the fault is this side's: what it is, is nothing that a stranger need know."""
_NOTHING_TO_SHOW = "the agent there cannot show its token now"


_logger = logging.getLogger("slim_actors.identity")
_time_to_log = Throttle()


def log_refusal(name: str, text: str) -> None:
    """Log who is refused, or refuses: a line a minute for each name, for strangers can bring it about."""
    if _time_to_log(name):
        _logger.warning("%s", printable(text))


class Introduction(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who one is; or, later, that one refuses the other."""

    token: str = ""
    refused: str = ""
    kind: str = ""
    """Of which kind the identity is: two kinds do not meet, even where they trust each other's tokens."""


class Line:
    """A SLIM session, as far as introductions need it.

    Args:
        session: The session.
        peer: Who is at its other end, for people to read.
    """

    def __init__(self, session: slim.Session, peer: str) -> None:
        self.peer = peer
        self._session = session

    async def send(self, introduction: Introduction) -> None:
        """Say something."""
        try:
            await calls.publish(self._session, msgspec.json.encode(introduction), INTRODUCTION)
        except slim.SlimError:
            raise SessionClosed(f"{self.peer} is gone") from None

    async def next(self) -> Introduction:
        """Hear something.

        Raises:
            SessionClosed: The peer is gone, or says something that is no introduction.
        """
        while True:
            message = await next_message(self._session, self.peer)
            # Pings may come between.
            if message.payload_type == INTRODUCTION:
                return self.read(message.payload)

    def read(self, data: bytes) -> Introduction:
        """Read what the peer says.

        Raises:
            SessionClosed: It is no introduction.
        """
        try:
            said = msgspec.json.decode(data, type=Introduction)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise SessionClosed(f"{self.peer} did not say who it is") from None
        # It goes to a person.
        return msgspec.structs.replace(said, refused=printable(said.refused)[:_MOST_CHARACTERS])


async def next_message(session: slim.Session, peer: object) -> Received:
    """Wait for the next message. Must not be cancelled while the session is in use.

    Raises:
        SessionClosed: The session is over and everything that came before was received.
    """
    for _ in range(_ERRORS_IN_A_ROW):
        try:
            return await calls.receive(session)
        except slim.SlimError as error:
            if "session closed" in str(error):
                break
            # "participant disconnected" comes just before it; deleting the session already at that would
            # cut off the peer's goodbye, and it would wait for the answer.
            await asyncio.sleep(0)
    raise SessionClosed(f"{peer} closed the session")


def door_of(name: str) -> str:
    """Give the name of the door of an agent: whatever its name, no agent has this one."""
    org, namespace, service = name.split("/")
    return f"{org}/{namespace}/{service}{_DOOR}"


def behind_door(session: slim.Session) -> str:
    """Give the name of the agent whose door opened a session."""
    return "/".join(session.destination().components()).removesuffix(_DOOR)


async def introduce(line: Line, credentials: Credentials) -> Claims:
    """Say who this is to whom this side called, and learn who that is.

    Raises:
        Denied: The peer refuses this side; the text says why.
        Untrusted: This side refuses the peer, or has nothing to show.
        SessionClosed: The peer went away, or did not say who it is in time.
    """
    async with _in_time(line):
        await line.send(_shown(line, credentials))
        theirs = await line.next()
        _heed(line, theirs)
        claims = await _believe(line, theirs, credentials)
        await line.send(Introduction())
        return claims


async def be_introduced(line: Line, credentials: Credentials) -> Claims:
    """Learn who calls, and say who this is once the caller is believed.

    Raises:
        Denied: The peer refuses this side; the text says why.
        Untrusted: This side refuses the peer, or has nothing to show.
        SessionClosed: The peer went away, or did not say who it is in time.
    """
    async with _in_time(line):
        claims = await _believe(line, await line.next(), credentials)
        try:
            shown = _shown(line, credentials)
        except Untrusted:
            await line.send(Introduction(refused=_NOTHING_TO_SHOW))
            raise
        await line.send(shown)
        _heed(line, await line.next())
        return claims


@asynccontextmanager
async def _in_time(line: Line) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_WITHIN):
            yield
    except TimeoutError:
        raise SessionClosed(f"{line.peer} did not say who it is within {_WITHIN:.0f} s") from None


def _heed(line: Line, said: Introduction) -> None:
    if said.refused:
        raise Denied(f"{line.peer} refuses this identity: {said.refused.rstrip('.')}.")


def _shown(line: Line, credentials: Credentials) -> Introduction:
    try:
        return Introduction(token=credentials.token(), kind=credentials.kind)
    except ConfigurationError as error:
        raise Untrusted(f"{line.peer} cannot be told who this is: {error}") from None


async def _believe(line: Line, theirs: Introduction, credentials: Credentials) -> Claims:
    """Check what the peer shows; if it is refused, both sides are told."""
    why = ""
    try:
        claims = credentials.verify(theirs.token)
    except Refused as error:
        why = str(error)
    except ConfigurationError as error:
        await line.send(Introduction(refused=HIDDEN))
        raise Untrusted(f"{line.peer} cannot be checked: {error}") from None
    else:
        if theirs.kind == credentials.kind:
            return claims
        kind = theirs.kind if theirs.kind in KINDS else "another kind of identity"
        why = f"it has {kind}, and here is {credentials.kind}: those do not meet"
    await line.send(Introduction(refused=why))
    raise Untrusted(f"{line.peer} is refused: {why}.")
