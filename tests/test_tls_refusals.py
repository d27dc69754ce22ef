"""What goes wrong with TLS, said in one sentence by the client, and by the node where it knows."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from slim_actors import NotANode, Runtime, SharedSecret, Tls
from slim_actors.certificates import make_certificates
from slim_actors.endpoints import Endpoint
from slim_actors.transport.node import SlimNode
from tests.agents_for_tests import Echo
from tests.conftest import SECRET, Starter, free_endpoint


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder)
    make_certificates(folder / "other")
    sign(folder, "expired", -timedelta(minutes=1), "localhost")
    sign(folder, "elsewhere", timedelta(days=1), "example.com")
    return folder


def sign(folder: Path, name: str, left: timedelta, host: str) -> None:
    """Make a certificate as `make_certificates` would not, with its CA."""
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    ca_key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    ends = datetime.now(UTC) + left
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=2))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def tls(folder: Path, ca: str | None, own: str | None = None) -> Tls:
    return Tls(ca and folder / ca, own and folder / f"{own}.crt", own and folder / f"{own}.key")


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize(
    ("node", "client", "sentence"),
    [
        (("node", None), ("other/ca.crt", None), r"certificate is not trusted \(unable to get local issuer"),
        (("node", None), (None, None), r"certificate is not trusted \(.*\); give its CA with --tls-ca"),
        (
            ("node", "ca.crt"),
            ("ca.crt", None),
            "asks for a client certificate: give --tls-cert and --tls-key",
        ),
        (("node", "ca.crt"), ("ca.crt", "other/client"), "does not trust the certificate .*other/client.crt"),
        (("node", "ca.crt"), ("ca.crt", "expired"), r"the certificate .*expired\.crt has expired"),
        (("expired", None), ("ca.crt", None), r"certificate is not trusted \(certificate has expired\)"),
        (("elsewhere", None), ("ca.crt", None), "certificate is not valid for 'localhost'"),
        (("node", None), "plain", r"it speaks TLS, and \w+:// does not: use \w+s://"),
        ("plain", ("ca.crt", None), "what listens there does not speak TLS"),
    ],
)
async def test_each_mistake_with_tls_is_one_sentence(
    node: tuple[str, str | None] | str,
    client: tuple[str | None, str | None] | str,
    sentence: str,
    scheme: str,
    certs: Path,
) -> None:
    where = free_endpoint().replace("http", scheme).replace("127.0.0.1", "localhost")
    secure = where.replace("://", "s://")
    server = None if isinstance(node, str) else tls(certs, node[1], node[0])
    running = SlimNode(Endpoint.parse(where if server is None else secure), server)
    await running.start()
    given = None if isinstance(client, str) else tls(certs, *client)
    runtime = Runtime(where if given is None else secure, tls=given, identity=SharedSecret(SECRET))
    try:
        async with runtime:
            with pytest.raises(NotANode, match=sentence):
                await runtime.spawn(Echo)
    finally:
        await running.stop()


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_a_node_says_whom_it_refuses(start: Starter, certs: Path, scheme: str) -> None:
    where = free_endpoint().replace("http", scheme)
    server = [
        "--tls-ca",
        f"{certs}/ca.crt",
        "--tls-cert",
        f"{certs}/node.crt",
        "--tls-key",
        f"{certs}/node.key",
    ]
    node = start("--log-format", "text", "node", "--endpoint", where, *server)
    node.until("^node +listening")
    other = ["--tls-cert", f"{certs}/other/client.crt", "--tls-key", f"{certs}/other/client.key"]
    for client, why in (
        ([], "it shows no certificate"),
        (other, "its certificate is from a CA that is not trusted here"),
    ):
        send = start("send", "a/b/c", "x", "--endpoint", where, "--tls-ca", f"{certs}/ca.crt", *client)
        node.until(f"A client is refused: {why}")
        assert send.wait() == 3
    assert node.stop() == 0
    node.wait()
    assert node.output.splitlines()[-1] == "node      stopped"
    # However often a client tries, it is said once.
    assert len(re.findall("shows no certificate", node.output)) == 1


def test_rust_log_shows_the_log_of_slim_as_it_is(start: Starter) -> None:
    node = start("node", "--endpoint", free_endpoint(), RUST_LOG="debug")
    node.until("DEBUG.*slim")
    node.until("^node +listening")
