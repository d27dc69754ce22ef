"""Where settings come from, in which order, and the one sentence for each mistake in a file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from slim_actors import ConfigurationError, Runtime
from slim_actors.assignment import Assignment, Report, Task
from slim_actors.cli.app import application
from slim_actors.configfile import COMMANDS, find_file
from slim_actors.identity import SharedSecret, StaticJwt
from slim_actors.replicas.process import Plan
from slim_actors.settings import Settings
from slim_actors.slimconfig import read_slim_config
from slim_actors.testing import TestRuntime
from tests.conftest import OTHER_SECRET, ROOT, SECRET, Starter

HTTP = "http://127.0.0.1:{}"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own, and a current folder deep inside it."""
    monkeypatch.delenv("SLIM_SHARED_SECRET")
    (tmp_path / "project" / ".git").mkdir(parents=True)
    deep = tmp_path / "project" / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    return tmp_path / "project"


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


def slim_json(**more: Any) -> str:
    return json.dumps({"endpoint": HTTP.format(3), "tls": {"insecure": True}, **more})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("nonsense", "'nonsense' is not an endpoint, for it has no port: write http://HOST:PORT"),
        ("http://192.0.2.1:1", "http://192.0.2.1:1 is another machine"),
        ("http://0.0.0.0:1", "http://0.0.0.0:1 is open to other machines"),
    ],
)
def test_a_wrong_endpoint_is_said_with_where_it_stands(
    project: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, sentence: str
) -> None:
    def said(place: str, **given: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"^{re.escape(place + sentence)}"):
            assert Settings.find(**given).node

    file = write(project / "slim-actors.toml", f'issuer = "acme"\nendpoint = "{wrong}"')
    said(f"{file}:2: ")
    if wrong == "nonsense":
        # One on another machine says itself that it is insecure.
        said("the SLIM client configuration: ", slim_config=slim_json(endpoint=wrong))
    monkeypatch.setenv("SLIM_ENDPOINT", wrong)
    said("SLIM_ENDPOINT: ")
    said("", endpoint=wrong)


def test_each_source_is_asked_before_the_next(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.find().endpoint == "http://127.0.0.1:46357"
    write(project / "slim-actors.toml", f'endpoint = "{HTTP.format(2)}"\nissuer = "the file"')
    assert Settings.find().endpoint == HTTP.format(2)
    monkeypatch.setenv("SLIM_CLIENT_CONFIG", slim_json())
    assert Settings.find().endpoint == HTTP.format(3)
    monkeypatch.setenv("SLIM_ENDPOINT", HTTP.format(4))
    assert Settings.find().endpoint == HTTP.format(4)
    assert Settings.find(endpoint=HTTP.format(5)).endpoint == HTTP.format(5)
    # What the nearer sources do not say comes from the farther ones all the same.
    assert Settings.find(endpoint=HTTP.format(5)).issuer == "the file"
    assert Runtime().endpoint == HTTP.format(4)


def test_an_option_goes_before_the_environment_also_for_the_files(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        write(project / f"{number}.toml", f'endpoint = "{HTTP.format(number)}"')
        write(project / f"{number}.json", slim_json(endpoint=HTTP.format(number * 10)))
    monkeypatch.setenv("SLIM_ACTORS_CONFIG", str(project / "1.toml"))
    assert Settings.find().endpoint == HTTP.format(1)
    assert Settings.find(config=str(project / "2.toml")).endpoint == HTTP.format(2)
    monkeypatch.setenv("SLIM_CLIENT_CONFIG", str(project / "1.json"))
    assert Settings.find().endpoint == HTTP.format(10)
    assert Settings.find(slim_config=str(project / "2.json")).endpoint == HTTP.format(20)


def test_an_identity_or_a_login_is_replaced_as_a_whole(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        project / "slim-actors.toml",
        f'shared_secret = "{SECRET}"\nnode_jwt = "t"\nbundle = "k"\naudience = "x"',
    )
    write(project / "token", "a token")
    monkeypatch.setenv("SLIM_JWT", str(project / "token"))
    assert isinstance(Settings.find().identity(), StaticJwt)
    found = Settings.find(shared_secret=OTHER_SECRET, node_user="u", node_password="p")  # noqa: S106
    assert found.identity() == SharedSecret(OTHER_SECRET)
    assert found.node_jwt is None


def test_plaintext_that_a_file_allows_is_allowed_for_its_endpoint_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project / "slim-actors.toml", 'endpoint = "http://192.0.2.1:1"\ninsecure = true')
    assert Settings.find().node.host == "192.0.2.1"
    with pytest.raises(ConfigurationError, match="anyone between reads along"):
        assert Settings.find(endpoint="http://192.0.2.2:1").node
    monkeypatch.setenv("SLIM_INSECURE", "1")
    assert Settings.find(endpoint="http://192.0.2.2:1").node.host == "192.0.2.2"


def test_the_nearest_file_within_the_project_counts(project: Path) -> None:
    write(project.parent / "slim-actors.toml", f'endpoint = "{HTTP.format(1)}"')
    assert Settings.find().endpoint == "http://127.0.0.1:46357"
    write(project / "pyproject.toml", f'[tool.slim-actors]\nendpoint = "{HTTP.format(2)}"')
    assert Settings.find().endpoint == HTTP.format(2)
    write(project / "slim-actors.toml", f'endpoint = "{HTTP.format(3)}"')
    assert Settings.find().endpoint == HTTP.format(3)
    write(project / "a" / "pyproject.toml", '[project]\nname = "other"')
    assert Settings.find().endpoint == HTTP.format(3)
    write(project / "a" / "slim-actors.toml", f'endpoint = "{HTTP.format(4)}"')
    assert Settings.find().endpoint == HTTP.format(4)
    assert Settings.find().sources == (str(project / "a" / "slim-actors.toml"),)


def test_outside_a_project_only_the_current_folder_counts(project: Path) -> None:
    (project / ".git").rmdir()
    write(project / "slim-actors.toml", f'endpoint = "{HTTP.format(1)}"')
    assert Settings.find().endpoint == "http://127.0.0.1:46357"
    write(Path("slim-actors.toml"), f'endpoint = "{HTTP.format(2)}"')
    assert Settings.find().endpoint == HTTP.format(2)


def test_a_folder_that_is_gone_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert Settings.find().sources == ()


def test_paths_in_a_file_are_relative_to_it(project: Path) -> None:
    write(project / "slim-actors.toml", 'endpoint = "unix://./s"\ntls_ca = "ca.crt"\njwt = "/abs/t"')
    found = Settings.find()
    assert (found.tls_ca, found.jwt) == (str(project / "ca.crt"), "/abs/t")
    assert str(found.node) == f"unix://{project}/s"
    file = write(project / "slim.json", slim_json(auth={"type": "static_jwt", "file": "t"}))
    assert read_slim_config(str(file))["node_jwt"] == str(project / "t")


def test_another_process_finds_the_same_settings_and_no_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project / "slim-actors.toml", 'tls_ca = "ca.crt"\naudience = ["a", "b"]\ninsecure = true')
    monkeypatch.setenv("SLIM_CLIENT_CONFIG", slim_json())
    found = Settings.find(endpoint=HTTP.format(5))
    for variable, value in found.variables().items():
        monkeypatch.setenv(variable, value)
    write(project / "slim-actors.toml", 'issuer = "new"\nnonsense = 1')
    again = Settings.find()
    assert again == found
    assert again.sources == ()


def test_a_test_runtime_looks_at_no_file_and_no_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project / "slim-actors.toml", "nonsense = 1")
    monkeypatch.setenv("SLIM_ENDPOINT", "http://192.0.2.1:1")
    TestRuntime()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('\nendpont = "x"', r"slim-actors.toml:2: there is no setting endpont: did you mean endpoint\?"),
        ('shared-secret = "x"', r":1: there is no setting shared-secret: did you mean shared_secret\?"),
        ("[rum]\nreplicas = 3", r":1: there is no setting rum: did you mean run\?"),
        ("zzz = 1", r":1: there is no setting zzz\.$"),
        ("insecure = 'yes'", ":1: insecure is 'yes', but must be true or false"),
        ("endpoint = 5", ":1: endpoint is 5, but must be a text"),
        ("audience = [1]", r":1: audience is \[1\], but must be a text or a list of texts"),
        ("endpoint =", "slim-actors.toml is no TOML: Invalid value"),
        ("a = " + "[" * 10_000, "slim-actors.toml is nested too deep"),
        ('tls_ca = "~nouser/ca.crt"', "home folder that ~nouser/ca.crt begins with cannot be found"),
        (r'tls_ca = "a\u0000b"', "is no path: it has a character that no path can have"),
        (r'node_user = "a\u0000b"', "node_user has a null character"),
        (r'audience = ["a", "a\u0000b"]', "audience has a null character"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(project: Path, text: str, sentence: str) -> None:
    write(project / "slim-actors.toml", text)
    with pytest.raises(ConfigurationError, match=sentence):
        Settings.find()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("slim-actors.toml", "node_password = 12345678"),
        ("slim-actors.toml", "shared_secret = ['12345678']"),
        ("c.json", slim_json(auth={"type": "basic", "username": "u", "password": 12345678})),
        ("c.json", slim_json(auth={"type": {"basic": {"password": "12345678"}}})),
        ("c.json", slim_json(auth={"password": "12345678"})),
        ("c.json", json.dumps({"endpoint": "http://u:12345678@127.0.0.1:1"})),
        ("c.yaml", "auth: {password: '12345678"),
        ("c.yaml", "auth: {password: *12345678}"),
        ("c.yaml", "auth: {password: !12345678 x}"),
        ("c.yaml", "password: 12345678: 5"),
        ("c.yaml", "password: 12345678\x01"),
    ],
)
def test_a_mistake_in_a_file_does_not_show_a_secret(project: Path, name: str, text: str) -> None:
    file = write(project / name, text)
    with pytest.raises(ConfigurationError) as raised:
        Settings.find(slim_config=None if name == "slim-actors.toml" else str(file))
    assert "12345678" not in str(raised.value)


def test_a_secret_that_is_none_is_not_looked_at_in_a_file_that_others_can_read(project: Path) -> None:
    write(project / "slim-actors.toml", "node_password = 12345678", 0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Settings.find()


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://bob:hunter2@127.0.0.1:1",
        "bob:hunter2@127.0.0.1:1",
        "htp://bob:hunter2@127.0.0.1:1",
        "http://127.0.0.1:1?token=hunter2",
        "http://127.0.0.1:1/#hunter2",
        "http://bob:hunter2?@127.0.0.1:1",
        "unix://bob:hunter2@/s",
    ],
)
def test_an_endpoint_with_more_than_a_place_is_refused_and_not_shown(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="--node-user and --node-password") as raised:
        Settings.find(endpoint=endpoint).node  # noqa: B018
    assert "hunter2" not in str(raised.value)
    assert Settings.find(endpoint="unix:///a@b?c#d").node.path == "/a@b?c#d"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--tls-ca", "~nouser/x"], "cannot be found"),
        (["--config", "~nouser/x"], "cannot be found"),
        (["--slim-config", "~nouser/x"], "cannot be found"),
        (
            ["--slim-config", '{"endpoint": "https://n:1", "tls": {"ca_file": "~nouser/x"}}'],
            "cannot be found",
        ),
        (
            ["--slim-config", r'{"endpoint": "https://n:1", "tls": {"ca_file": "a\u0000"}}'],
            "no path can have",
        ),
        (["--slim-config", r'{"endpoint": "https://n:1", "tls": {"ca_file": "\ud800"}}'], "no path can have"),
        (["--slim-config", '{"a": ' + "[" * 100_000], "nested too deep"),
        (["--shared-secret", os.fsdecode(b"\xff" * 40)], "no Unicode"),
    ],
)
def test_a_path_or_a_text_that_is_none_is_one_sentence(
    start: Starter, options: list[str], sentence: str
) -> None:
    send = start("send", "a/b/c", "hi", *options)
    assert send.wait() == 2, send.output
    assert re.fullmatch(f"error: .*{sentence}.*\n", send.output)


@pytest.mark.parametrize("secret", ["\0" * 40, "x" * 40 + "\udcff", 5])
def test_a_secret_that_is_no_text_is_refused(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a text in Unicode"):
        SharedSecret(secret)


def test_a_file_that_is_named_must_be_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.toml cannot be read: No such file"):
        Settings.find(config="missing.toml")
    with pytest.raises(ConfigurationError, match=r"missing\.json cannot be read: No such file"):
        Settings.find(slim_config="missing.json")
    write(project / "pyproject.toml", "[project]")
    with pytest.raises(ConfigurationError, match=r"has no table \[tool.slim-actors\]"):
        Settings.find(config=str(project / "pyproject.toml"))
    write(project / "pyproject.toml", "tool = 5")
    with pytest.raises(ConfigurationError, match=r"has no table \[tool.slim-actors\]"):
        Settings.find(config=str(project / "pyproject.toml"))


def test_a_secret_in_a_file_that_others_can_read_is_refused(project: Path) -> None:
    write(project / "slim-actors.toml", f'shared_secret = "{SECRET}"', 0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Settings.find()
    file = write(project / "c.json", slim_json(auth={"basic": {"username": "u", "password": "p"}}), 0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_slim_config(str(file))
    file.chmod(0o600)
    assert read_slim_config(str(file))["node_password"] == "p"


def test_no_record_shows_a_secret(project: Path) -> None:
    write(
        project / "slim-actors.toml",
        f'shared_secret = "{SECRET}"\nnode_user = "u"\nnode_password = "a password"',
    )
    settings, task = Settings.find(), Task("echo.py", 3)

    async def loaded(_: Report) -> None:
        """Nothing waits here."""

    records = [
        settings,
        find_file(),
        Assignment(task, 0, settings.variables()),
        Plan(task, settings.variables(), 0.0, loaded),
    ]
    assert {SECRET, "a password"} <= {*settings.variables().values()}
    for secret in (SECRET, "a password"):
        assert [record for record in records if secret in repr(record)] == []


SECURE = {"endpoint": "https://n:1"}


def signed(**claims: Any) -> dict[str, Any]:
    return {"type": "jwt", "claims": claims, "key": {"type": "encoding", "key": {"file": "/k"}}}


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (
            {"endpoint": HTTP.format(1), "tls": {"insecure": True}},
            {"endpoint": HTTP.format(1), "insecure": True},
        ),
        ({"endpoint": "unix:///s"}, {"endpoint": "unix:///s"}),
        (
            {
                **SECURE,
                "tls": {"ca_file": "/ca", "cert_file": "/c", "key_file": "/k", "tls_version": "tls1.3"},
            },
            {**SECURE, "tls_ca": "/ca", "tls_cert": "/c", "tls_key": "/k"},
        ),
        (
            {
                **SECURE,
                "tls": {
                    "ca_source": {"type": "file", "path": "/ca"},
                    "source": {"type": "file", "cert": "/c", "key": "/k"},
                },
            },
            {**SECURE, "tls_ca": "/ca", "tls_cert": "/c", "tls_key": "/k"},
        ),
        (
            {**SECURE, "auth": {"type": "basic", "username": "u", "password": "${env:THE_PASSWORD}"}},
            {**SECURE, "node_user": "u", "node_password": "from the environment"},
        ),
        (
            {
                **SECURE,
                "auth": {
                    "type": "jwt",
                    "claims": {"audience": ["slim"], "issuer": "me", "subject": "bob"},
                    "duration": "1h",
                    "key": {"type": "encoding", "algorithm": "ES256", "format": "pem", "key": {"file": "/k"}},
                },
            },
            {
                **SECURE,
                "node_jwt": "/k",
                "node_audience": ("slim",),
                "node_issuer": "me",
                "node_subject": "bob",
            },
        ),
        (
            {
                **SECURE,
                "auth": {"type": "oidc", "issuer_url": "https://i", "client_id": "c", "client_secret": "s"},
            },
            {**SECURE, "node_oidc": "https://i", "node_user": "c", "node_password": "s"},
        ),
        ({"services": {"slim/0": {"dataplane": {"clients": [SECURE]}}}, "tracing": {}}, SECURE),
    ],
)
def test_the_client_configuration_of_slim_is_understood(
    config: dict[str, Any], settings: dict[str, Any], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_PASSWORD", "from the environment")
    assert read_slim_config(json.dumps(config)) == settings
    # JSON is YAML too.
    file = write(project / "client.yaml", json.dumps(config))
    assert read_slim_config(str(file)) == settings


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, "has no endpoint"),
        ({**SECURE, "tsl": {}}, r"unknown key tsl: did you mean tls\?"),
        ({**SECURE, "tls": {"ca_fil": "x"}}, r"unknown key tls.ca_fil: did you mean ca_file\?"),
        ({**SECURE, "keepalive": {}}, "has keepalive, which slim-actors cannot honour"),
        ({**SECURE, "tls": {"insecure_skip_verify": True}}, "cannot honour: give the CA"),
        ({**SECURE, "tls": {"insecure": True}}, "contradicts itself"),
        ({**SECURE, "tls": {"insecure": "no"}}, "must be true or false"),
        ({"endpoint": HTTP.format(1)}, "contradicts itself"),
        ({**SECURE, "tls": {"ca_source": {"type": "spire"}}}, "ca_source of type spire"),
        ({**SECURE, "tls": {"tls_version": "tls1.2"}}, "TLS 1.3 is used"),
        ({**SECURE, "auth": {"type": "bsic"}}, r"no type of auth: did you mean basic\?"),
        ({**SECURE, "auth": {"type": "spire"}}, "type spire, which slim-actors cannot honour"),
        ({**SECURE, "auth": {"type": "jwt", "duration": "5m"}}, "auth.duration other than 1h"),
        ({**SECURE, "auth": {"type": "static_jwt"}}, "auth.file is missing"),
        ({**SECURE, "auth": {"type": "oidc", "issuer_url": "u", "policy": {}}}, "has auth.policy"),
        ({**SECURE, "auth": {"type": "basic", "username": "${env:NOT_SET}"}}, "variable NOT_SET: set it"),
        ({"services": {}}, "has 0 clients, but must have one"),
        ({"services": {"slim/0": {"dataplane": {"clients": 5}}}}, "clients must be a list"),
        ({**SECURE, "auth": signed(issuer=5)}, "auth.claims.issuer must be a text"),
        ({**SECURE, "auth": signed(issuer=["a"])}, "auth.claims.issuer must be a text"),
        ({**SECURE, "auth": signed(subject=7)}, "auth.claims.subject must be a text"),
        ({**SECURE, "auth": signed(subject=["z"])}, "auth.claims.subject must be a text"),
        ({**SECURE, "auth": signed(audience=7)}, "auth.claims.audience must be a text or a list"),
        ({**SECURE, "auth": signed(audience=[7])}, "auth.claims.audience must be a text or a list"),
        (
            {**SECURE, "tls": {"ca_file": "x", "ca_source": {"type": "file"}}},
            "both tls.ca_source and tls.ca_file",
        ),
        (
            {**SECURE, "tls": {"ca_file": "x", "ca_source": {"type": "file", "path": "y"}}},
            "both tls.ca_source and tls.ca_file",
        ),
        ({**SECURE, "tls": {"ca_source": {"type": "file"}}}, "tls.ca_source.path is missing"),
        ({**SECURE, "tls": {"ca_source": {"type": "none", "path": "y"}}}, "unknown key tls.ca_source.path"),
        ({**SECURE, "tls": {"ca_source": {"path": "y"}}}, "ca_source without a type"),
        ({**SECURE, "tls": {"source": {"type": "file", "cert": "c"}}}, "tls.source.key is missing"),
        ([], "must be a mapping"),
    ],
)
def test_what_cannot_be_honoured_in_it_is_an_error(config: Any, sentence: str, project: Path) -> None:
    file = write(project / "client.json", json.dumps(config))
    with pytest.raises(ConfigurationError, match=sentence):
        read_slim_config(str(file))


def test_a_configuration_that_is_no_json_or_yaml_is_said(project: Path) -> None:
    for name, what in (("c.json", "is no JSON"), ("c.yaml", "is no YAML")):
        file = write(project / name, "{a: [")
        with pytest.raises(ConfigurationError, match=what):
            read_slim_config(str(file))
    with pytest.raises(ConfigurationError, match="is no JSON"):
        read_slim_config("{")
    file = write(project / "c.yaml", "endpoint: 'https://n:1'\nauth: {password: [}")
    with pytest.raises(ConfigurationError, match=r"found '}' \(line 2, column 19\)\.$"):
        read_slim_config(str(file))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 2020-13-45", "has a value that YAML cannot read"),
        ("a: !!int ''", "has a value that YAML cannot read"),
        ("a: !!timestamp x", "has a value that YAML cannot read"),
        ("&a [*a]", "nested too deep"),
        ("[" * 5_000, "nested too deep"),
    ],
)
def test_a_value_that_yaml_cannot_read_is_said(project: Path, text: str, sentence: str) -> None:
    file = write(project / "c.yaml", text)
    with pytest.raises(ConfigurationError, match=sentence):
        read_slim_config(str(file))


def test_commands_take_their_own_options_from_a_file(project: Path, start: Starter, endpoint: str) -> None:
    deep = Path.cwd()
    write(
        project / "slim-actors.toml",
        f'endpoint = "{endpoint}"\nshared_secret = "{SECRET}"\n[run]\nreplicas = 2\nname = "f/f/f"\n'
        "[send]\niterations = 3\njson = true\n",
    )
    run = start("run", str(ROOT / "agents/echo.py"), cwd=deep)
    assert len(run.until("^joined +replica . f/f/f/", times=2)) == 2
    send = start("send", "f/f/f", "1", cwd=deep)
    assert send.wait() == 0, send.output
    assert len(re.findall('"reply": 1', send.output)) == 3
    # The environment goes before the file, and an option before both.
    send = start("send", "f/f/f", "1", cwd=deep, SLIM_ACTORS_ITERATIONS="2")
    assert send.wait() == 0
    assert len(send.output.splitlines()) == 2
    send = start("send", "f/f/f", "1", "--iterations", "1", cwd=deep, SLIM_ACTORS_ITERATIONS="2")
    assert send.wait() == 0
    assert len(send.output.splitlines()) == 1
    ask = start(
        "-c",
        "import asyncio\nfrom slim_actors import *\n"
        "async def main():\n"
        "    async with Runtime() as runtime:\n"
        "        print(await runtime.ask(Anycast('f/f/f'), 'found'))\n"
        "asyncio.run(main())",
        python=True,
        cwd=deep,
    )
    assert ask.wait() == 0, ask.output
    assert ask.output == "found\n"


def test_the_store_of_a_run_may_be_in_a_file_and_is_relative_to_it(
    project: Path, start: Starter, endpoint: str
) -> None:
    write(
        project / "slim-actors.toml",
        f'endpoint = "{endpoint}"\nshared_secret = "{SECRET}"\n[run]\nstore = "ledger.db"\n',
    )
    run = start("run", str(ROOT / "tests/keeping.py:Ledger"), cwd=Path.cwd())
    run.until("^joined")
    assert (project / "ledger.db").stat().st_size > 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[run]\nreplica = 3",
            r"slim-actors.toml:2: slim-actors run has no option replica: did you mean replicas\?",
        ),
        ("[run]\n\nreplicas = 'many'", ":3: replicas is 'many', but must be a whole number"),
        ("[run]\nreplicas = true", ":2: replicas is True, but must be a whole number"),
        ("[run]\nmls = 1", ":2: mls is 1, but must be true or false"),
        ("[run]\nstore = 1", ":2: store is 1, but must be a text"),
        ('[run]\nstore = "~nouser/x"', "home folder that ~nouser/x begins with cannot be found"),
        ('[run]\nstore = "a\\u0000b"', "is no path: it has a character that no path can have"),
    ],
)
def test_a_mistake_in_the_table_of_a_command_is_one_sentence(
    project: Path, start: Starter, text: str, sentence: str
) -> None:
    write(project / "slim-actors.toml", text)
    run = start("run", str(ROOT / "agents/echo.py"), cwd=Path.cwd())
    assert run.wait() == 2
    assert re.search(sentence, run.output), run.output
    assert len(run.output.splitlines()) == 1, run.output


def test_an_option_goes_before_the_identity_of_the_environment(start: Starter, endpoint: str) -> None:
    send = start(
        "send", "a/b/c", "x", "--shared-secret", OTHER_SECRET, SLIM_JWT="/nowhere", SLIM_ENDPOINT=endpoint
    )
    assert send.wait() == 4, send.output


def test_every_table_of_a_file_is_a_command() -> None:
    assert set(COMMANDS) <= {
        command.callback.__name__ for command in application().registered_commands if command.callback
    }


def test_every_setting_is_in_the_documentation() -> None:
    table = (ROOT / "docs" / "configuration.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `(SLIM_\w+)` \|", table, re.MULTILINE))
    assert rows == {one.name: one.metadata["variable"] for one in Settings.each()}


EXAMPLES = re.findall(
    r"^```(toml|json|yaml)\n# ?(\S+)\n(.*?)^```",
    (ROOT / "docs" / "configuration.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def test_the_documentation_has_an_example_of_each_file() -> None:
    assert {file for _, file, _ in EXAMPLES} == {"slim-actors.toml", "pyproject.toml", "client.yaml"}


@pytest.mark.parametrize(("kind", "file", "text"), EXAMPLES)
def test_the_examples_of_files_are_understood(
    kind: str, file: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIM_PASSWORD", "a password")
    write(Path(file), text)
    found = Settings.find(slim_config=file if kind == "yaml" else None)
    assert found.sources
    assert found.endpoint != Settings().endpoint
