"""What a node may ask for besides certificates: passwords and tokens, right and wrong, over TLS."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest

from slim_actors import Basic, ConfigurationError, Jwt, NotANode, Oidc, Runtime, SharedSecret, StaticJwt, Tls
from slim_actors.auth import Auth, TokenCheck
from slim_actors.certificates import make_certificates
from slim_actors.endpoints import Endpoint
from slim_actors.settings import Settings
from slim_actors.transport.node import SlimNode
from tests.conftest import SECRET, Starter, free_endpoint
from tests.issuer import CLIENT, Issuer


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder)
    make_certificates(folder / "other")
    return folder


@pytest.fixture
async def node(certs: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts nodes that ask for something, and gives what connects to them."""
    async with AsyncExitStack() as stack:

        async def start(asked: Auth | TokenCheck, scheme: str = "https") -> Callable[[Auth | None], Runtime]:
            where = free_endpoint().replace("http", scheme)
            running = SlimNode(
                Endpoint.parse(where), Tls(None, certs / "node.crt", certs / "node.key"), asked
            )
            await running.start()
            stack.push_async_callback(running.stop)
            return lambda auth: Runtime(
                where, tls=Tls(certs / "ca.crt"), auth=auth, identity=SharedSecret(SECRET)
            )

        yield start


@pytest.fixture
def issuer(certs: Path) -> Iterator[Issuer]:
    issuer = Issuer(certs)
    yield issuer
    issuer.close()


async def talks(runtime: Runtime) -> bool:
    from tests.agents_for_tests import Echo

    async with runtime:
        ref = await runtime.spawn(Echo)
        return bool(await runtime.ask(ref.route, "hi"))


def signer(folder: Path, **changes: Any) -> Jwt:
    return Jwt(folder / "jwt.key", **{"audience": "slim", "issuer": "acme", **changes})


def token(certs: Path, tmp_path: Path, text: str | None = None, **changes: Any) -> StaticJwt:
    now = int(time.time())
    claims = {"sub": "bob", "iss": "acme", "aud": ["slim"], "iat": now, "exp": now + 600, **changes}
    file = tmp_path / "token"
    file.write_text(text or jwt.encode(claims, (certs / "jwt.key").read_text(), algorithm="ES256"))
    return StaticJwt(file, audience="slim")


@pytest.mark.parametrize("scheme", ["https", "wss"])
async def test_a_node_takes_signed_and_issued_tokens_that_it_trusts(
    scheme: str, node: Any, certs: Path, tmp_path: Path
) -> None:
    to = await node(TokenCheck(certs / "jwt.jwks", audience="slim", issuer="acme"), scheme)
    assert await talks(to(signer(certs)))
    assert await talks(to(token(certs, tmp_path)))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda certs, _: None, "asks for a user and password, or for a token"),
        (lambda certs, _: Basic("u", "p"), "refuses the user and password"),
        (lambda certs, _: signer(certs / "other"), "jwt.key signs: compare key, audience and issuer"),
        (lambda certs, _: signer(certs, audience="others"), "compare key, audience and issuer"),
        (lambda certs, _: signer(certs, issuer="others"), "compare key, audience and issuer"),
        (lambda certs, folder: token(certs, folder, exp=1), r"token expired \d+ s ago"),
        (lambda certs, folder: token(certs, folder, aud="slim"), "its aud, which SLIM wants to be a list"),
        (lambda certs, folder: token(certs, folder, "garbage"), "compare key, audience and issuer"),
    ],
    ids=["nothing", "password", "key", "audience", "issuer", "expired", "aud", "garbage"],
)
async def test_a_node_refuses_others_and_the_client_says_why(
    make: Callable[[Path, Path], Auth | None], why: str, node: Any, certs: Path, tmp_path: Path
) -> None:
    to = await node(TokenCheck(certs / "jwt.jwks", audience="slim", issuer="acme"))
    with pytest.raises(NotANode, match=why):
        await talks(to(make(certs, tmp_path)))


async def test_a_token_file_that_cannot_be_sent_is_refused_at_once(
    node: Any, certs: Path, tmp_path: Path
) -> None:
    to = await node(TokenCheck(certs / "jwt.jwks", audience="slim"))
    with pytest.raises(ConfigurationError, match="space or line break"):
        await talks(to(token(certs, tmp_path, "a token\n")))
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        await talks(to(StaticJwt(tmp_path / "missing", audience="slim")))


async def test_tokens_of_an_openid_connect_issuer(node: Any, issuer: Issuer) -> None:
    to = await node(Oidc(issuer.url, audience="slim"))
    assert await talks(to(Oidc(issuer.url, client_id=CLIENT[0], client_secret=CLIENT[1])))
    assert "/token" in issuer.asked
    with pytest.raises(NotANode, match=r"refuses the token from http.*, or that gave none to bob"):
        await talks(to(Oidc(issuer.url, client_id="bob", client_secret="wrong")))  # noqa: S106
    with pytest.raises(NotANode, match="asks for a user and password, or for a token"):
        await talks(to(None))


def test_half_a_login_is_refused() -> None:
    for issuer in (
        "example.com",
        "https://",
        "http://login.example.com",
        "http://[",
        "http://127.0.0.1.evil.com",
    ):
        with pytest.raises(ConfigurationError, match="issuer is '"):
            Oidc(issuer)
    assert [Oidc(f"http://{host}:8080").issuer for host in ("localhost", "127.0.0.1", "[::1]")]
    with pytest.raises(ConfigurationError, match="id and secret must both"):
        Oidc("https://example.com", client_id="bob")
    with pytest.raises(ConfigurationError, match="user and password must both"):
        Settings(node_user="u").auth()
    with pytest.raises(ConfigurationError, match="--node-user and --node-jwt are given"):
        Settings(node_user="u", node_password="p", node_jwt="f").auth()  # noqa: S106


def test_the_commands_take_tokens_too(start: Starter, certs: Path, tmp_path: Path) -> None:
    where = free_endpoint().replace("http:", "https:")
    tls = ["--tls-cert", str(certs / "node.crt"), "--tls-key", str(certs / "node.key")]
    trust = ["--node-bundle", str(certs / "jwt.jwks"), "--node-audience", "slim"]
    node = start("node", "--endpoint", where, *tls, *trust)
    node.until("^node +listening")
    client = ["--endpoint", where, "--tls-ca", str(certs / "ca.crt"), "--node-audience", "slim"]
    known = [*client, "--node-jwt", str(certs / "jwt.key"), "--node-issuer", "acme"]
    start("run", "agents/echo.py", *known).until("^joined")
    send = start("send", "agntcy/ns/alice", "x", *known)
    assert send.wait() == 0, send.output
    send = start("send", "agntcy/ns/alice", "x", *client)
    assert send.wait() == 3
    assert "asks for a user and password, or for a token" in send.output
    config = tmp_path / "client.json"
    auth = {
        "type": "jwt",
        "claims": {"aud": ["slim"], "iss": "acme"},
        "key": {"type": "encoding", "key": {"file": str(certs / "jwt.key")}},
    }
    tls_config = {"ca_file": str(certs / "ca.crt")}
    config.write_text(json.dumps({"endpoint": where, "tls": tls_config, "auth": auth}))
    send = start("send", "agntcy/ns/alice", "x", "--slim-config", str(config))
    assert send.wait() == 0, send.output
