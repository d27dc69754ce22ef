"""``slim-actors doctor`` finds what is wrong, and says what to do."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest

from slim_actors.certificates import make_certificates
from tests.conftest import ROOT, SECRET, Starter, free_endpoint


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder, days=5)
    return folder


def token(
    certs: Path, folder: Path, *, lives: float = 3600, age: float = 0, key: str = "jwt.key"
) -> list[str]:
    now = int(time.time())
    claims = {"sub": "bob", "aud": ["slim"], "iat": now - age, "exp": now + lives}
    (folder / "token").write_text(jwt.encode(claims, (certs / key).read_text(), algorithm="ES256"))
    return ["--jwt", str(folder / "token"), "--bundle", str(certs / "jwt.jwks"), "--audience", "slim"]


def test_all_is_well_where_it_is(start: Starter, endpoint: str) -> None:
    start("run", "agents/echo.py", "--replicas", "2", "--endpoint", endpoint).until("^joined", times=2)
    doctor = start("doctor", "agntcy/ns/alice", "--endpoint", endpoint)
    assert doctor.wait() == 0, doctor.output
    lines = doctor.output.splitlines()
    assert all(line.startswith("ok ") for line in lines), doctor.output
    subjects = [line.removeprefix("ok").split(":")[0].strip() for line in lines]
    assert subjects == ["python", "version", "bindings", "extras", "settings", "identity", "node", "name"]
    assert f"a SLIM node answers at {endpoint}" in doctor.output
    assert "agntcy/ns/alice is served by at least 2 replicas" in doctor.output
    assert "payloads are copied in blocks" in doctor.output
    assert "the environment (SLIM_SHARED_SECRET)" in doctor.output
    assert SECRET not in doctor.output
    free = start("doctor", "a/b/c", "--endpoint", endpoint)
    assert free.wait() == 0
    assert "ok        name: a/b/c is free" in free.output


def test_without_a_node_it_says_how_to_start_one(start: Starter, tmp_path: Path) -> None:
    where = free_endpoint()
    (tmp_path / "slim-actors.toml").write_text(f'endpoint = "{where}"')
    doctor = start("doctor", cwd=tmp_path)
    assert doctor.wait() == 1
    assert (
        f"problem   node: No SLIM node listens at {where}. Start one with: slim-actors node" in doctor.output
    )
    assert f"settings: from {tmp_path}/slim-actors.toml" in doctor.output


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("[run]\nreplica = 3", "2: slim-actors run has no option replica: did you mean replicas?"),
        ("[send]\ntimeout = 'long'", "2: timeout is 'long', but must be a number."),
    ],
)
def test_what_a_file_has_for_other_commands_is_looked_at(
    start: Starter, endpoint: str, tmp_path: Path, table: str, sentence: str
) -> None:
    file = tmp_path / "slim-actors.toml"
    file.write_text(table)
    doctor = start("doctor", "--endpoint", endpoint, "--config", str(file))
    assert doctor.wait() == 1
    assert f"problem   settings: {file}:{sentence}\n" in doctor.output
    assert f"a SLIM node answers at {endpoint}" in doctor.output
    file.write_text("[run]\nreplicas = 3\n[send]\ntimeout = 5.0")
    assert start("doctor", "--endpoint", endpoint, "--config", str(file)).wait() == 0


def test_certificates_and_tokens_are_looked_at(start: Starter, certs: Path, tmp_path: Path) -> None:
    where = free_endpoint().replace("http:", "https:")
    keys = ["--tls-cert", f"{certs}/node.crt", "--tls-key", f"{certs}/node.key"]
    start("node", "--endpoint", where, *keys).until("^node +listening")
    tls = ["--endpoint", where, "--tls-ca", f"{certs}/ca.crt"]
    unset: dict[str, str | None] = {"SLIM_SHARED_SECRET": None}
    doctor = start("doctor", *tls, *token(certs, tmp_path), **unset)
    assert doctor.wait() == 0, doctor.output
    assert f"warning   tls: the CA {certs}/ca.crt is valid for 5 days" in doctor.output
    assert "warning   tls: the node's certificate is valid for 5 days" in doctor.output
    assert "ok        identity: bob, by a token that is valid for 3" in doctor.output
    assert "ok        clock: not behind that of the token's issuer" in doctor.output


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"lives": 30}, "warning   identity: its token expires in "),
        ({"lives": -30}, "problem   identity: it is not believed by its own keys: the own token expired 3"),
        ({"age": -100}, "problem   clock: the token is from "),
        ({"key": "client.key"}, "the own token is signed with a key that is not trusted here"),
    ],
)
def test_what_is_wrong_with_a_token_is_said(
    changes: dict[str, float], line: str, start: Starter, certs: Path, tmp_path: Path, endpoint: str
) -> None:
    words = token(certs, tmp_path, **changes)  # type: ignore[arg-type]
    doctor = start("doctor", "--endpoint", endpoint, *words, SLIM_SHARED_SECRET=None)
    assert doctor.wait() == (0 if line.startswith("warning") else 1)
    assert line in doctor.output, doctor.output
    assert "Traceback" not in doctor.output


def test_files_that_are_missing_are_said(start: Starter, tmp_path: Path, endpoint: str) -> None:
    words = ["--jwt", str(ROOT / "LICENSE"), "--bundle", str(tmp_path / "no"), "--audience", "slim"]
    doctor = start("doctor", "--endpoint", endpoint, *words, "--tls-ca", "no.crt", SLIM_SHARED_SECRET=None)
    assert doctor.wait() == 1
    assert "problem   identity: The trusted keys" in doctor.output
    assert "problem   tls: The CA certificate no.crt cannot be read" in doctor.output
