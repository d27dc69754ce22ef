"""Who may talk: every identity over every kind of connection, and each mistake said on both sides."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from slim_actors import (
    Agent,
    Anycast,
    Basic,
    ConfigurationError,
    Context,
    Denied,
    Identity,
    Jwt,
    NotANode,
    Oidc,
    Runtime,
    SharedSecret,
    Spire,
    StaticJwt,
    Tls,
    Unicast,
    Untrusted,
)
from slim_actors.auth import TokenCheck
from slim_actors.credentials import Refused, credentials_of
from slim_actors.endpoints import Endpoint
from slim_actors.settings import Settings
from slim_actors.transport.node import SlimNode
from slim_actors.transport.security import Connection
from slim_actors.transport.slim import SlimTransport
from slim_actors.trust import Trust
from tests.conftest import OTHER_SECRET, SECRET, eventually, free_endpoint
from tests.pki import AUDIENCE, ISSUER, Pki, new_key, write_key

pytestmark = pytest.mark.usefixtures("every_refusal_is_logged")

ALICE = "id/ns/alice"
BOB = "id/ns/bob"
ROUTES: list[Anycast | Unicast] = [
    Anycast(ALICE),
    Anycast(ALICE, mls=True),
    Unicast(ALICE),
    Unicast(ALICE, mls=True),
]

Maker = Callable[..., Identity]


class Alice(Agent, name=ALICE):
    """Says who asks, and counts who came through."""

    heard = 0

    async def receive(self, message: Any, ctx: Context) -> list[str]:
        type(self).heard += 1
        return [message, ctx.sender.name, ctx.sender.subject, ctx.sender.issuer]


@pytest.fixture(params=["plain", "tls", "mtls"])
async def connection(request: pytest.FixtureRequest, pki: Pki) -> AsyncIterator[dict[str, Any]]:
    """A node, and what a client of it needs."""
    kind = request.param
    where = free_endpoint()
    if kind != "plain":
        where = where.replace("http:", "https:")
    server = pki.tls("node", "ca" if kind == "mtls" else None)
    node = SlimNode(Endpoint.parse(where), None if kind == "plain" else server)
    await node.start()
    yield {
        "endpoint": where,
        "tls": None if kind == "plain" else pki.tls("client" if kind == "mtls" else None),
    }
    await node.stop()


def by_secret(pki: Pki, subject: str, mistake: str = "") -> Identity:
    return SharedSecret(OTHER_SECRET if mistake == "key" else SECRET)


def by_token(pki: Pki, subject: str, mistake: str = "") -> Identity:
    file = pki.token(
        subject,
        key="bad" if mistake == "key" else "good",
        audience="others" if mistake == "audience" else AUDIENCE,
        lives=-60 if mistake == "expired" else 3600,
    )
    return StaticJwt(file, trust=pki.trust, audience=AUDIENCE, issuer=ISSUER)


def by_key(pki: Pki, subject: str, mistake: str = "") -> Identity:
    return Jwt(
        pki.key("bad" if mistake == "key" else "good"),
        trust=pki.trust,
        audience="others" if mistake == "audience" else AUDIENCE,
        issuer=ISSUER,
        subject=subject,
    )


@pytest.mark.parametrize("make", [by_secret, by_token, by_key])
async def test_who_belongs_together_talks_over_every_connection_and_route(
    connection: dict[str, Any], pki: Pki, make: Maker
) -> None:
    alice = Runtime(**connection, identity=make(pki, "alice"))
    bob = Runtime(**connection, identity=make(pki, "bob"), name=BOB)
    expected = (BOB, "") if make is by_secret else ("bob", ISSUER)
    async with alice, bob:
        await alice.spawn(Alice)
        for route in ROUTES:
            call = bob.ask(route, "hi")
            assert await call == ["hi", BOB, *expected]
            assert call.peer is not None
            # The caller, too, knows whose identity answered.
            assert call.peer.subject == (ALICE if make is by_secret else "alice")


@pytest.mark.parametrize(
    ("make", "mistake", "why"),
    [
        (by_secret, "key", "another shared secret"),
        (by_token, "key", "signed with a key that is not trusted"),
        (by_token, "audience", "its token is for others, not for slim"),
        (by_token, "expired", "its token expired 6. s ago"),
        (by_key, "key", "signed with a key that is not trusted"),
        (by_key, "audience", "its token is for (others, not for slim|slim, not for others)"),
    ],
)
@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_who_does_not_belong_gets_nothing_through_and_both_sides_say_why(
    make: Maker, mistake: str, why: str, route: Any, pki: Pki, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = Alice.heard
    alice = Runtime(endpoint, identity=make(pki, "alice"))
    mallory = Runtime(endpoint, identity=make(pki, "mallory", mistake), name="id/ns/mallory")
    async with alice, mallory:
        await alice.spawn(Alice)
        with pytest.raises((Denied, Untrusted), match=why):
            await mallory.ask(route, "let me in")
        await eventually(lambda: said(caplog, "id/ns/mallory.* is refused") or said(caplog, "refuses"))
    assert Alice.heard == before


@pytest.mark.parametrize(
    ("one", "other"), [(by_token, by_key), (by_key, by_token), (by_secret, by_key), (by_secret, by_token)]
)
async def test_kinds_of_identities_that_do_not_meet_say_so(
    one: Maker, other: Maker, pki: Pki, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = Runtime(endpoint, identity=one(pki, "alice")), Runtime(endpoint, identity=other(pki, "bob"))
    async with alice, bob:
        await alice.spawn(Alice)
        with pytest.raises((Denied, Untrusted), match=r"do not meet|another kind of identity"):
            await bob.ask(Anycast(ALICE), "hi")
        await eventually(lambda: said(caplog, "do not meet|another kind of identity"))


@pytest.mark.parametrize(("content", "why"), [("", "holds no token"), ("nonsense", "holds no token")])
async def test_a_file_without_a_token_is_said_at_the_start(
    content: str, why: str, pki: Pki, tmp_path: Path, endpoint: str
) -> None:
    file = tmp_path / "none.jwt"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=why):
        async with Runtime(endpoint, identity=StaticJwt(file, trust=pki.trust, audience=AUDIENCE)):
            pass


@pytest.mark.parametrize(("make", "mistake"), [(by_secret, "key"), (by_token, "key"), (by_key, "key")])
@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_an_impostor_is_sent_nothing_and_both_sides_say_why(
    make: Maker, mistake: str, route: Any, pki: Pki, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = Alice.heard
    impostor = Runtime(endpoint, identity=make(pki, "alice", mistake))
    bob = Runtime(endpoint, identity=make(pki, "bob"), name=BOB)
    async with impostor, bob:
        await impostor.spawn(Alice)
        with pytest.raises((Denied, Untrusted), match=r"another shared secret|not trusted"):
            await bob.ask(route, "my password")
        await eventually(lambda: said(caplog, "refuse"))
    assert Alice.heard == before


def said(caplog: pytest.LogCaptureFixture, pattern: str) -> bool:

    logs = [record for record in caplog.records if record.name == "slim_actors.identity"]
    return any(
        record.levelno == logging.WARNING and re.search(pattern, record.getMessage()) for record in logs
    )


@pytest.mark.parametrize(
    ("client", "why"),
    [
        ({"end": None, "ca": None}, "the node's certificate is not trusted"),
        ({"end": "client", "ca": "other-ca"}, "the node's certificate is not trusted"),
        ({"end": None, "ca": "ca"}, "asks for a client certificate"),
        ({"end": "other-client", "ca": "ca"}, "does not trust the certificate"),
    ],
)
async def test_a_wrong_certificate_is_said_in_a_sentence(client: dict[str, Any], why: str, pki: Pki) -> None:
    where = free_endpoint().replace("http:", "https:")
    node = SlimNode(Endpoint.parse(where), pki.tls("node", "ca"))
    await node.start()
    try:
        async with Runtime(where, tls=pki.tls(**client), identity=SharedSecret(SECRET)) as runtime:
            with pytest.raises(NotANode, match=why):
                await runtime.spawn(Alice)
    finally:
        await node.stop()


@pytest.mark.parametrize(
    ("auth", "why"), [(None, "asks for a user and password"), (Basic("u", "wrong"), "refuses the user")]
)
async def test_the_user_and_password_of_the_node_are_asked_for(
    auth: Basic | None, why: str, pki: Pki
) -> None:
    where = free_endpoint().replace("http:", "https:")
    node = SlimNode(Endpoint.parse(where), pki.tls("node", None), Basic("u", "p"))
    await node.start()
    options: dict[str, Any] = {"tls": pki.tls(None), "identity": SharedSecret(SECRET)}
    try:
        async with Runtime(where, **options, auth=Basic("u", "p")) as runtime:
            await runtime.spawn(Alice)
            assert (await runtime.ask(Anycast(ALICE), "hi"))[0] == "hi"
        async with Runtime(where, **options, auth=auth) as runtime:
            with pytest.raises(NotANode, match=why):
                await runtime.spawn(Alice)
    finally:
        await node.stop()


@pytest.mark.parametrize("mls", [False, True])
async def test_replicas_with_one_key_and_one_subject_are_told_apart(
    mls: bool, pki: Pki, endpoint: str
) -> None:
    async with Runtime(endpoint, identity=by_key(pki, "acme"), name=BOB) as runtime:
        replicas = {(await runtime.spawn(Alice)).address.instance for _ in range(3)}
        assert len(replicas) == 3
        answered = set()
        for _ in range(6):
            call = runtime.ask(Anycast(ALICE, mls=mls), "hi")
            # The other end's subject is the same as this one's, and has no ending.
            assert await call == ["hi", BOB, "acme", ISSUER]
            assert call.peer is not None
            answered.add(call.peer.instance)
        assert answered == replicas


@pytest.mark.parametrize("kind", ["ES256", "RS256", "EdDSA"])
@pytest.mark.parametrize("route", [Unicast(ALICE), Unicast(ALICE, mls=True)], ids=str)
async def test_keys_of_each_kind_sign(kind: str, route: Any, tmp_path: Path, endpoint: str) -> None:
    key = write_key(tmp_path / "the.key", new_key(kind))

    def identity(subject: str) -> Jwt:
        return Jwt(key, trust=tmp_path / "the.pub", audience=AUDIENCE, issuer=ISSUER, subject=subject)

    alice = Runtime(endpoint, identity=identity("alice"))
    bob = Runtime(endpoint, identity=identity("bob"), name=BOB)
    async with alice, bob:
        await alice.spawn(Alice)
        assert await bob.ask(route, "hi") == ["hi", BOB, "bob", ISSUER]


async def test_a_token_that_is_renewed_in_its_file_is_used_from_then_on(pki: Pki, endpoint: str) -> None:
    file = pki.token("renewed", lives=-60)
    alice = Runtime(endpoint, identity=by_token(pki, "alice"))
    identity = StaticJwt(file, trust=pki.trust, audience=AUDIENCE)
    async with alice, Runtime(endpoint, identity=identity, name=BOB) as bob:
        await alice.spawn(Alice)
        with pytest.raises(Denied, match="expired"):
            await bob.ask(Anycast(ALICE), "hi")
        file.write_text(pki.token("renewed").read_text())
        assert (await bob.ask(Anycast(ALICE), "hi"))[2] == "renewed"


@pytest.mark.parametrize("side", ["the caller's", "the agent's"])
async def test_a_token_file_that_is_broken_for_a_while_is_said_and_costs_no_more(
    side: str, pki: Pki, endpoint: str
) -> None:
    files = {"the agent's": pki.token("broken-alice"), "the caller's": pki.token("broken-bob")}
    alice, bob = (
        Runtime(endpoint, identity=StaticJwt(file, trust=pki.trust, audience=AUDIENCE), name=BOB)
        for file in files.values()
    )
    async with alice, bob:
        await alice.spawn(Alice)
        assert (await bob.ask(Anycast(ALICE), "hi"))[0] == "hi"
        token = files[side].read_text()
        files[side].write_text("")
        # On a session of its own.
        with pytest.raises((Denied, Untrusted), match=r"holds no token|cannot show its token"):
            await bob.ask(Unicast(ALICE), "hi")
        files[side].write_text(token)
        assert (await bob.ask(Unicast(ALICE), "hi"))[0] == "hi"


def test_a_file_of_trusted_keys_that_is_being_written_leaves_those_trusted_that_were(
    pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "trust.jwks"
    whole = Trust(pki.trust).jwks
    file.write_text(whole)
    trust = Trust(file)
    header = {"alg": "ES256"}
    (trusted,) = trust.keys(header)
    for part in ("", whole[:20], "[" * 100_000, "[]", "7", '{"keys": 7}', '{"a": {"b": []}}', '{"a": [1]}'):
        file.write_text(part)
        assert trust.keys(header) == [trusted]
    assert "Those that were trusted before still are" in caplog.text
    file.write_text(Trust(pki.folder / "bad.pub").jwks)
    (other,) = trust.keys(header)
    assert other != trusted


@pytest.mark.parametrize(
    "without",
    ['{"keys": []}', '{"keys": [%s]}', "{}", '{"keys": [7, "x", null, {"kty": "AKP"}, {"kty": []}]}'],
)
def test_when_the_last_trusted_key_is_removed_nobody_is_believed(
    without: str, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "trust.jwks"
    whole = Trust(pki.trust).jwks
    file.write_text(whole)
    credentials = credentials_of(StaticJwt(pki.token("x"), trust=file, audience=AUDIENCE), "a/b/c")
    assert credentials is not None
    token = pki.token("x").read_text()
    assert credentials.verify(token).subject == "x"
    (key,) = json.loads(whole)["keys"]
    file.write_text(without.replace("%s", json.dumps({**key, "use": "enc"})))
    with pytest.raises(Refused, match="not trusted here"):
        credentials.verify(token)
    assert "nobody is believed" in caplog.text
    file.write_text(whole)
    assert credentials.verify(token).subject == "x"


def test_a_file_of_trusted_keys_that_is_gone_leaves_those_trusted_that_were_and_that_is_said_once(
    pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "trust.jwks"
    file.write_text(Trust(pki.trust).jwks)
    trust = Trust(file)
    file.unlink()
    for _ in range(3):
        assert len(trust.keys({"alg": "ES256"})) == 1
    assert caplog.text.count("cannot be read") == 1


def test_an_odd_entry_among_the_trusted_keys_is_left_out(
    pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "trust.jwks"
    (key,) = json.loads(Trust(pki.trust).jwks)["keys"]
    file.write_text(json.dumps({"keys": [7, None, [], {"kty": "AKP"}, key]}))
    assert json.loads(Trust(file).jwks) == {"keys": [key]}
    assert "has a key that cannot be used" in caplog.text


def test_trusted_keys_may_be_a_key_a_certificate_a_jwks_or_a_bundle(pki: Pki, tmp_path: Path) -> None:
    token = pki.token("x").read_text()
    jwks = Trust(pki.trust).jwks
    (tmp_path / "jwks.json").write_text(jwks)
    (tmp_path / "bundle.json").write_text(
        json.dumps({"domain": base64.b64encode(jwks.encode()).decode(), "other": json.loads(jwks)})
    )
    for file in (pki.trust, tmp_path / "jwks.json", tmp_path / "bundle.json"):
        credentials = credentials_of(StaticJwt(pki.token("x"), trust=file, audience=AUDIENCE), "a/b/c")
        assert credentials is not None
        assert credentials.verify(token).subject == "x"
    certificates = StaticJwt(pki.token("x"), trust=pki.folder / "ca.crt", audience=AUDIENCE)
    credentials = credentials_of(certificates, "a/b/c")
    assert credentials is not None
    with pytest.raises(Refused, match="not trusted here"):
        credentials.verify(token)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "holds no keys to trust"),
        ("{}", "holds no keys to trust"),
        ("[" * 100_000, "holds no keys to trust"),
        ('{"keys": [7]}', "holds no keys to trust"),
        ('{"keys": 7}', "holds no keys to trust"),
        ('{"keys": []}', "holds no keys to trust"),
        ('{"keys": [{"kty": "EC"}]}', "has a key that cannot be used"),
        ("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----", "holds no public key"),
        (None, "cannot be read"),
    ],
)
async def test_a_file_of_trusted_keys_that_holds_none_is_said(
    content: str | None, why: str, pki: Pki, tmp_path: Path, endpoint: str
) -> None:
    file = tmp_path / "trust"
    if content is not None:
        file.write_text(content)
    identity = StaticJwt(pki.token("x"), trust=file, audience=AUDIENCE)
    with pytest.raises(ConfigurationError, match=why):
        async with Runtime(endpoint, identity=identity):
            pass


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(pki: Pki) -> None:
    # The classic mistake: letting the token say which algorithm checks it (RFC 8725, section 2.1).
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = jwt.decode(pki.token("x").read_text(), options={"verify_signature": False})
    body = part(json.dumps(claims).encode())
    text = part(json.dumps({"alg": "HS256"}).encode()) + "." + body
    forged = f"{text}.{part(hmac.digest(pki.trust.read_bytes(), text.encode(), hashlib.sha256))}"
    unsigned = part(json.dumps({"alg": "none"}).encode()) + "." + body + "."
    credentials = credentials_of(by_token(pki, "x"), "a/b/c")
    assert credentials is not None
    for token in (forged, unsigned, "", "a.b.c", "x" * 10_000):
        with pytest.raises(Refused):
            credentials.verify(token)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"endpoint": "http://10.0.0.1:1"}, "without TLS anyone between reads along"),
        ({"endpoint": "https://10.0.0.1:1"}, "need an identity"),
        ({"shared_secret": SECRET, "jwt": "x"}, "one identity"),
        ({"jwt": "x"}, "--jwt needs --bundle"),
        ({"tls_cert": "x"}, "a certificate but no key"),
        ({"node_user": "x"}, "must both be given"),
        ({"jwt": "missing", "bundle": "x"}, "cannot be read"),
    ],
)
def test_settings_that_do_not_go_together_are_said(
    given: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLIM_SHARED_SECRET")
    settings = Settings.find(**given)
    with pytest.raises(ConfigurationError, match=why):
        (settings.node, settings.tls(), settings.auth(), settings.identity())


@pytest.mark.parametrize("audience", ["my api", "a,b", " a", ["a", "b c"]])
def test_an_audience_that_replicas_would_take_for_several_is_refused(audience: Any, pki: Pki) -> None:
    for make in (
        lambda: Jwt(pki.key(), trust=pki.trust, audience=audience, issuer=ISSUER),
        lambda: StaticJwt("x", audience=audience),
        lambda: Spire("x", audience=audience),
        lambda: TokenCheck("x", audience=audience),
        lambda: Oidc("https://issuer", audience=audience if isinstance(audience, str) else audience[1]),
    ):
        with pytest.raises(ConfigurationError, match="has a space or a comma"):
            make()


def test_a_shared_secret_on_another_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    SlimTransport(Connection(Endpoint.parse("https://10.0.0.1:1")), SharedSecret(SECRET))
    assert "A shared secret is for testing" in caplog.text


def test_tls_files_that_are_none_are_said(tmp_path: Path, pki: Pki) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    for tls, why in (
        (Tls(ca=tmp_path / "missing"), "cannot be read: No such file"),
        (Tls(ca=nonsense), "holds no CA certificate"),
        (Tls(cert=nonsense, key=nonsense), "no certificate and unencrypted private key"),
        (Tls(cert=pki.folder / "node.crt", key=pki.folder / "client.pem"), "does not belong to"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            tls.context(ssl.Purpose.SERVER_AUTH)
