"""Strangers with patched clients, who show what they were shown and say what they were not asked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import slim_bindings as slim

from slim_actors import (
    Agent,
    Anycast,
    ConfigurationError,
    Denied,
    Identity,
    Jwt,
    Runtime,
    SharedSecret,
    StaticJwt,
    Untrusted,
)
from slim_actors.credentials import Claims, Credentials, Refused, credentials_of
from slim_actors.names import Address
from slim_actors.transport import door, introduction
from slim_actors.transport.base import SessionClosed
from slim_actors.transport.calls import Generated
from slim_actors.transport.flight import Flight
from slim_actors.transport.identities import create_app, create_open_app
from slim_actors.transport.introduction import INTRODUCTION, Introduction, door_of
from slim_actors.transport.session import Checks, SlimSession
from slim_actors.trust import Trust
from tests.agents_for_tests import Gate
from tests.conftest import OTHER_SECRET, SECRET, eventually
from tests.pki import AUDIENCE, ISSUER, Pki
from tests.test_interop import SECONDS_5, config

pytestmark = pytest.mark.usefixtures("every_refusal_is_logged")

ALICE = "impostors/ns/alice"
BOB = "impostors/ns/bob"
SOMEBODY = Address(ALICE, "1")
ERRORS: Any = slim.SlimError


def by_key(pki: Pki, key: str = "good", trust: Path | None = None) -> Jwt:
    return Jwt(pki.key(key), trust=trust or pki.trust, audience=AUDIENCE, issuer=ISSUER)


def believing(file: Path, pki: Pki, *keys: str) -> Path:
    """Write a file that makes whoever has it believe these keys, and give it."""
    known = [key for name in keys for key in json.loads(Trust(pki.folder / f"{name}.pub").jwks)["keys"]]
    file.write_text(json.dumps({"keys": known}))
    return file


def an_identity(kind: str, pki: Pki) -> Identity:
    if kind == "token":
        return StaticJwt(pki.token("alice"), trust=pki.trust, audience=AUDIENCE)
    return SharedSecret(SECRET) if kind == "secret" else by_key(pki)


def credentials(identity: Identity, name: str) -> Credentials:
    found = credentials_of(identity, name)
    assert found is not None
    return found


@asynccontextmanager
async def service_at(endpoint: str) -> AsyncIterator[tuple[slim.Service, int]]:
    service = slim.create_service(f"stranger-{random.getrandbits(32)}")
    connection = await service.connect_async(slim.new_insecure_client_config(endpoint))
    yield service, connection
    service.disconnect(connection)


class Alice(Agent, name=ALICE):
    """Asks only once, so that whoever wants to know sees how often it ran."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    async def receive(self, message: str) -> str:
        self.gate.began.append(message)
        await self.gate.open.wait()
        return message


async def test_a_message_runs_once_although_its_replica_is_refused_while_it_runs(
    pki: Pki, tmp_path: Path, endpoint: str
) -> None:
    everybody = believing(tmp_path / "everybody.jwks", pki, "good", "bad")
    bobs = believing(tmp_path / "bobs.jwks", pki, "good", "bad")
    gate = Gate()
    one = Runtime(endpoint, identity=by_key(pki, "good", everybody))
    other = Runtime(endpoint, identity=by_key(pki, "bad", everybody))
    async with one, other, Runtime(endpoint, identity=by_key(pki, "good", bobs), name=BOB) as bob:
        others = {
            (await one.spawn(lambda: Alice(gate))).address.instance: "bad",
            (await other.spawn(lambda: Alice(gate))).address.instance: "good",
        }
        call = bob.ask(Anycast(ALICE), "once", timeout=10)
        asking = asyncio.ensure_future(call)
        await eventually(lambda: gate.began == ["once"] and call.peer is not None)
        assert call.peer is not None
        # The key of the replica that has it is withdrawn; the other replica is as good as ever.
        believing(bobs, pki, others[call.peer.instance])
        gate.open.set()
        with pytest.raises(Untrusted) as caught:
            await asking
        assert caught.value.may_have_run
        assert gate.began == ["once"]
        assert await bob.ask(Anycast(ALICE), "again") == "again"


async def test_a_replica_whose_identity_is_refused_keeps_no_caller_from_the_others(
    pki: Pki, tmp_path: Path, endpoint: str
) -> None:
    gate = Gate()
    gate.open.set()
    everybody = believing(tmp_path / "everybody.jwks", pki, "good", "bad")
    good = Runtime(endpoint, identity=by_key(pki, "good", everybody))
    bad = Runtime(endpoint, identity=by_key(pki, "bad", everybody))
    async with good, bad:
        await good.spawn(lambda: Alice(gate))
        for _ in range(3):
            await bad.spawn(lambda: Alice(gate))

        async def ask(caller: str) -> str:
            async with Runtime(endpoint, identity=by_key(pki, "good"), name=BOB) as bob:
                return str(await bob.ask(Anycast(ALICE), caller, timeout=10))

        # Discovery leads most of them to some that they refuse first.
        callers = [f"caller {number}" for number in range(6)]
        assert await asyncio.gather(*(ask(caller) for caller in callers)) == callers


@pytest.mark.parametrize("kind", ["secret", "key"])
async def test_whoever_shows_a_token_that_slim_has_shown_for_this_side_is_refused(
    kind: str, pki: Pki, endpoint: str
) -> None:
    identity = an_identity(kind, pki)
    bobs, alices = credentials(identity, BOB), credentials(identity, ALICE)
    async with service_at(endpoint) as (service, connection), service_at(endpoint) as (there, link):
        alice = create_app(there, ALICE, identity, alices.id)
        await alice.subscribe_async(alice.name(), link)
        bob = create_app(service, BOB, identity, bobs.id)
        await bob.subscribe_async(bob.name(), connection)
        session = await bob.create_session_and_wait_async(config(), alice.name())
        await session.publish_async(b"hi", None, None)
        answering = await alice.listen_for_session_async(SECONDS_5)
        shown = (await answering.get_message_async(SECONDS_5)).context.identity
    assert alices.verify(shown).subject == BOB
    with pytest.raises(Refused, match="the token of this side"):
        bobs.verify(shown)


class FakeHandle:
    """A SLIM session whose other end, a patched client, shows any token that it likes."""

    def __init__(self, *messages: tuple[str, bytes, str]) -> None:
        self.messages = list(messages)
        self.said: list[str] = []

    def config(self) -> Any:
        return SimpleNamespace(mls_settings=None)

    async def get_message_async(self, _: None) -> Any:
        identity, payload, payload_type = self.messages.pop(0)
        context = SimpleNamespace(identity=identity, payload_type=payload_type, metadata={})
        return SimpleNamespace(payload=payload, context=context)

    async def publish_async(self, data: bytes, payload_type: str, _: None) -> None:
        if payload_type == INTRODUCTION:
            self.said.append(msgspec.json.decode(data, type=Introduction).refused)


@pytest.fixture
def fake_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """See to it that sessions are called as objects of Python: a fake one has nothing of Rust's."""
    monkeypatch.setattr(introduction, "calls", Generated())


class FakePort:
    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.ensure_future(work)

    def discard(self, session: SlimSession, handle: Any) -> None:
        pass

    def flight(self, peer: Address) -> Flight:
        return Flight(self.background)


def session_with(handle: FakeHandle, mine: Credentials, peer: Address = SOMEBODY) -> SlimSession:
    checks = Checks(mine, introduces=False)
    fake: Any = handle
    return SlimSession(fake, peer, FakePort(), checks, framed=True, is_caller=True)


@pytest.mark.parametrize("kind", ["secret", "key"])
@pytest.mark.usefixtures("fake_sessions")
async def test_a_token_that_was_shown_at_a_door_is_good_for_nothing_else(kind: str, pki: Pki) -> None:
    identity = an_identity(kind, pki)
    handle = FakeHandle((credentials(identity, ALICE).token(), b"", "slim-actors/1"))
    with pytest.raises(SessionClosed, match="for introductions only") as caught:
        await session_with(handle, credentials(identity, BOB)).receive()
    assert caught.value.outcome is Untrusted
    assert handle.said == ["it shows a token that is for introductions only"]


@pytest.mark.usefixtures("fake_sessions")
async def test_a_refusal_counts_only_if_who_says_it_is_believed() -> None:
    refusal = msgspec.json.encode(Introduction(refused="go away"))
    handle = FakeHandle((a_token(OTHER_SECRET), refusal, INTRODUCTION))
    with pytest.raises(SessionClosed) as caught:
        await session_with(handle, credentials(SharedSecret(SECRET), BOB)).receive()
    assert caught.value.outcome is Untrusted


@pytest.mark.usefixtures("fake_sessions")
async def test_what_a_refusal_says_is_short_and_makes_no_lines_in_a_log() -> None:
    refusal = msgspec.json.encode(Introduction(refused="no\n\x1b[2J" + "x" * 10_000))
    handle = FakeHandle((a_token(SECRET), refusal, INTRODUCTION))
    with pytest.raises(SessionClosed, match="refuses this identity") as caught:
        await session_with(handle, credentials(SharedSecret(SECRET), BOB)).receive()
    assert caught.value.outcome is Denied
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.usefixtures("fake_sessions")
async def test_what_is_wrong_with_the_own_files_is_not_told_to_strangers(
    pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = credentials(by_key(pki), BOB)
    handle = FakeHandle(("a.b.c", b"", "slim-actors/1"))

    class Broken:
        kind, id, token = mine.kind, mine.id, mine.token

        def verify(self, token: str) -> Claims:
            raise ConfigurationError(f"{tmp_path} cannot be read.")

    with pytest.raises(SessionClosed) as caught:
        await session_with(handle, Broken()).receive()
    assert handle.said == ["its token cannot be checked"]
    assert caught.value.outcome is Untrusted
    assert f"{tmp_path} cannot be read" in caplog.text


@pytest.mark.usefixtures("fake_sessions")
async def test_a_stranger_that_is_refused_again_and_again_writes_one_line_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = Address("strange/ns/one\nWARNING all is lost", "1")
    for _ in range(10):
        handle = FakeHandle((a_token(OTHER_SECRET), b"", "slim-actors/1"))
        session = session_with(handle, credentials(SharedSecret(SECRET), BOB), stranger)
        with pytest.raises(SessionClosed):
            await session.receive()
    (line,) = [text for text in map(logging.LogRecord.getMessage, caplog.records) if "strange" in text]
    assert line.isprintable()


async def test_a_door_that_the_node_did_not_hear_of_is_announced_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class App:
        heard_of = 0

        def name(self) -> str:
            return "door"

        async def subscribe_async(self, name: str, connection: int) -> None:
            self.heard_of += 1
            if self.heard_of == 1:
                raise ERRORS.ReceiveError(message="the node is away")

        async def create_session_and_wait_async(self, *_: Any) -> None:
            raise ERRORS.ReceiveError(message="nobody there")

    app = App()
    monkeypatch.setattr(door, "create_open_app", lambda *_: app)
    nothing: Any = None
    one = door.Door(nothing, BOB, credentials(SharedSecret(SECRET), BOB))
    await one.join(1)
    for times in (1, 2, 2):
        assert await one.knock(Address(ALICE)) is None
        assert app.heard_of == times
    await one.join(2)
    assert app.heard_of == 3


def a_token(secret: str) -> str:
    """Give a token as SLIM makes them."""
    text = f"{ALICE}_1234:{int(time.time())}:AAAA:e30"
    mac = hmac.digest(secret.encode(), text.encode(), hashlib.sha256)
    return f"{text}:{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@pytest.mark.parametrize("kind", ["secret", "key", "token"])
@pytest.mark.parametrize("says", ["nothing", "nonsense"])
async def test_a_stranger_at_the_door_is_shown_no_token(
    kind: str, says: str, pki: Pki, endpoint: str
) -> None:
    gate = Gate()
    async with Runtime(endpoint, identity=an_identity(kind, pki)) as runtime:
        await runtime.spawn(lambda: Alice(gate))
        # The door of every agent; and an agent with an issued token is one itself.
        for name in (door_of(ALICE), *([ALICE] if kind == "token" else [])):
            heard = await heard_by_a_stranger(endpoint, name, says)
            assert [one.token for one in heard if one.token] == []
            assert [bool(one.refused) for one in heard] == ([True] if says == "nonsense" else [])


async def heard_by_a_stranger(endpoint: str, name: str, says: str) -> list[Introduction]:
    async with service_at(endpoint) as (service, connection):
        stranger = create_open_app(service, "stranger/ns/eve")
        await stranger.subscribe_async(stranger.name(), connection)
        session = await stranger.create_session_and_wait_async(config(), slim.Name(*name.split("/")))
        if says == "nonsense":
            said = Introduction("believe me", kind="a key that signs tokens")
            await session.publish_async(msgspec.json.encode(said), INTRODUCTION, None)
        heard: list[Introduction] = []
        while True:
            try:
                message = await session.get_message_async(None)
            except slim.SlimError as error:
                if "session closed" in str(error):
                    return heard
                continue
            if message.context.payload_type == INTRODUCTION:
                heard.append(msgspec.json.decode(message.payload, type=Introduction))
