"""How two ends tell each other who they are, and why one of them will not have the other.

SLIM drops whom it does not believe without a word. So every agent has a *door* besides: an app that anybody
can open a session to, on which nothing passes but introductions. Who is not let in asks there for the reason,
and both sides can say it. Where SLIM cannot check a token at all (`StaticJwt`), sessions begin with the same
introductions.

Each side sends its token, and then whether it refuses the other's.
"""

from __future__ import annotations

import asyncio

import msgspec

from slim_actors.credentials import KINDS, Claims, Credentials, Refused
from slim_actors.errors import ConfigurationError, Denied, Untrusted
from slim_actors.transport.base import SessionClosed
from slim_actors.transport.bindings import slim

__all__ = ["INTRODUCTION", "Introduction", "Line", "behind_door", "door_of", "introduce", "next_message"]

_DOOR = " slim-actors-door"
INTRODUCTION = "slim-actors/introduction"
"""The payload type."""

_WITHIN = 4.0
_ERRORS_IN_A_ROW = 5
_MOST_CHARACTERS = 300


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
            await self._session.publish_async(msgspec.json.encode(introduction), INTRODUCTION, None)
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
            if message.context.payload_type == INTRODUCTION:
                return self.read(message.payload)

    def read(self, data: bytes) -> Introduction:
        """Read what the peer says.

        Raises:
            SessionClosed: It is no introduction.
        """
        try:
            return msgspec.json.decode(data, type=Introduction)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise SessionClosed(f"{self.peer} did not say who it is") from None


async def next_message(session: slim.Session, peer: object) -> slim.ReceivedMessage:
    """Wait for the next message. Must not be cancelled while the session is in use.

    Raises:
        SessionClosed: The session is over and everything that came before was received.
    """
    for _ in range(_ERRORS_IN_A_ROW):
        try:
            return await session.get_message_async(None)
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
    """Say who this is, and learn who the peer is.

    Raises:
        Denied: The peer refuses this side; the text says why.
        Untrusted: This side refuses the peer.
        SessionClosed: The peer went away, or did not say who it is in time.
    """
    try:
        async with asyncio.timeout(_WITHIN):
            return await _introduce(line, credentials)
    except TimeoutError:
        raise SessionClosed(f"{line.peer} did not say who it is within {_WITHIN:.0f} s") from None


def _known(kind: str) -> str:
    return kind if kind in KINDS else "another kind of identity"


async def _introduce(line: Line, credentials: Credentials) -> Claims:
    await line.send(Introduction(token=credentials.token(), kind=credentials.kind))
    theirs = await line.next()
    claims, mine = None, ""
    try:
        claims = credentials.verify(theirs.token)
        if theirs.kind != credentials.kind:
            mine = f"it has {_known(theirs.kind)}, and here is {credentials.kind}: those do not meet"
    except Refused as error:
        mine = str(error)
    except ConfigurationError as error:
        # What is wrong here is nothing that a stranger need know.
        await line.send(Introduction(refused="its token cannot be checked"))
        raise Untrusted(f"{line.peer} cannot be checked: {error}") from None
    await line.send(Introduction(refused=mine))
    verdict = await line.next()
    if mine or claims is None:
        raise Untrusted(f"{line.peer} is refused: {mine}.")
    if verdict.refused:
        raise Denied(f"{line.peer} refuses this identity: {verdict.refused[:_MOST_CHARACTERS]}.")
    return claims
