"""Certificates for development: made safely, and the commands that use them work as printed."""

from __future__ import annotations

import re
import shlex
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from slim_actors import ConfigurationError, Jwt, Tls
from slim_actors.certificates import ALGORITHMS, FILES, make_certificates
from slim_actors.credentials import credentials_of
from tests.conftest import Starter, free_endpoint


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_made_belongs_together(tmp_path: Path, algorithm: str) -> None:
    make_certificates(
        tmp_path,
        hosts=["node.example.com", "10.0.0.5", "*.my_net", "bücher.de"],
        days=30,
        algorithm=algorithm,
    )
    for end, purpose in (("node", ssl.Purpose.CLIENT_AUTH), ("client", ssl.Purpose.SERVER_AUTH)):
        Tls(tmp_path / "ca.crt", tmp_path / f"{end}.crt", tmp_path / f"{end}.key").context(purpose)
    node = x509.load_pem_x509_certificate((tmp_path / "node.crt").read_bytes())
    names = node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        *("localhost", "node.example.com", "*.my_net", "xn--bcher-kva.de")
    ]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.0.0.5"]
    left = node.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    signer = Jwt(tmp_path / "jwt.key", trust=tmp_path / "jwt.jwks", audience="x", issuer="y", subject="bob")
    one, other = credentials_of(signer, "a/b/c"), credentials_of(signer, "a/b/c")
    assert one is not None
    assert other is not None
    assert one.verify(other.token()).subject == "bob"


def test_keys_are_their_owners_alone_and_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "certs"
    make_certificates(folder)
    assert {file.name for file in folder.iterdir()} == set(FILES)
    assert {file.name for file in folder.iterdir() if file.stat().st_mode & 0o077 == 0} == {
        name for name in FILES if name.endswith(".key")
    }
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "ca.crt").unlink()
    with pytest.raises(ConfigurationError, match=r"has ca\.key already: .*--force"):
        make_certificates(folder)
    assert not (folder / "ca.crt").exists()
    # An old key that others could read does not hand its mode to the new one.
    (folder / "ca.key").chmod(0o644)
    make_certificates(folder, force=True)
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert all((folder / name).read_bytes() != data for name, data in before.items())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--days", "0"], "--days is 0"),
        (["--algorithm", "HS256"], "must be one of ES256, ES384, EdDSA, RS256"),
        (["--days", "3000000"], "--days is 3000000, but no date is that far away"),
        (["--days", "10000000000"], "--days is 10000000000, but no date"),
        (["--host", "a..b"], "'a..b' is no host name"),
        (["--host", ""], "'' is no host name"),
        (["--host", "http://node.local:46357"], "'http://node.local:46357' is no host name and no address"),
        (["--host", "node.local:46357"], "'node.local:46357' is no host name"),
        (["--host", "two words"], "'two words' is no host name"),
        (["--host", "-x.local"], "'-x.local' is no host name"),
    ],
)
def test_a_mistake_is_one_sentence_and_makes_nothing(
    start: Starter, tmp_path: Path, words: list[str], sentence: str
) -> None:
    certs = start("certs", str(tmp_path / "certs"), *words)
    assert certs.wait() == 2
    assert sentence in certs.output
    assert len(certs.output.splitlines()) == 1
    assert not (tmp_path / "certs").exists()


def test_the_commands_that_it_prints_work_over_mutual_tls(start: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    certs = start("certs", str(folder), SLIM_SHARED_SECRET=None)
    assert certs.wait() == 0, certs.output
    assert start("certs", str(folder)).wait() == 2
    where = free_endpoint().replace("http:", "https:")
    printed = certs.output.replace("\\\n", "").replace("https://127.0.0.1:46357", where)
    commands = [shlex.split(line)[1:] for line in re.findall("^slim-actors .*", printed, re.MULTILINE)]
    assert [words[0] for words in commands] == ["node", "run", "send"]
    node, run, send = commands
    start(*node, SLIM_SHARED_SECRET=None).until("^node +listening at https")
    start(*run, "--replicas", "2", SLIM_SHARED_SECRET=None).until("^joined", times=2)
    sent = start(*send, "--iterations", "4", SLIM_SHARED_SECRET=None)
    assert sent.wait() == 0, sent.output
    assert len(set(re.findall(r"^reply +hello  from (\S+)", sent.output, re.MULTILINE))) == 2
    # Without the client certificate nothing works.
    bare = [word for word in send if not word.endswith(("client.crt", "client.key")) and word != "--tls-cert"]
    bare.remove("--tls-key")
    sent = start(*bare, SLIM_SHARED_SECRET=None)
    assert sent.wait() == 3
    assert "asks for a client certificate: give --tls-cert and --tls-key" in sent.output
