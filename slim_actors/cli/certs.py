"""``slim-actors certs``: certificates and keys for development."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from slim_actors.certificates import FILES, make_certificates
from slim_actors.cli.console import table
from slim_actors.endpoints import DEFAULT_ENDPOINT

__all__ = ["certs"]

_AUDIENCE = _ISSUER = "slim-actors"
_ENDPOINT = DEFAULT_ENDPOINT.replace("http://", "https://")


def certs(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where they go.", envvar="SLIM_ACTORS_CERTS")
    ] = Path("certs"),
    host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SLIM_ACTORS_CERTS_HOST",
            help="A name or address of the node, besides localhost, 127.0.0.1 and ::1; repeatable.",
        ),
    ] = None,
    days: Annotated[
        int, typer.Option(envvar="SLIM_ACTORS_CERTS_DAYS", help="How long certificates are valid.")
    ] = 365,
    algorithm: Annotated[
        str,
        typer.Option(envvar="SLIM_ACTORS_CERTS_ALGORITHM", help="What signs: ES256, ES384, EdDSA or RS256."),
    ] = "ES256",
    force: Annotated[
        bool, typer.Option("--force", envvar="SLIM_ACTORS_CERTS_FORCE", help="Replace files that exist.")
    ] = False,
) -> None:
    """Make a CA, certificates for a node and its clients, and keys for tokens: for development.

    Then it prints the commands that use them. In production, certificates come from your CA and tokens from
    your issuer.

    Examples:
        slim-actors certs

        slim-actors certs /tmp/certs --host node.local --host 10.0.0.5 --days 30
    """
    make_certificates(folder, hosts=host or (), days=days, algorithm=algorithm, force=force)
    table(("file", "what it is"), [(str(folder / name), meaning) for name, meaning in FILES.items()])
    typer.echo("\nA node, an agent and a caller that use them:\n")
    typer.echo("\n\n".join(_commands(folder)))


def _commands(folder: Path) -> list[str]:
    def file(name: str) -> str:
        return shlex.quote(str(folder / name))

    connection = [
        f"--endpoint {_ENDPOINT} --tls-ca {file('ca.crt')}",
        f"--tls-cert {file('client.crt')} --tls-key {file('client.key')}",
        f"--jwt {file('jwt.key')} --bundle {file('jwt.jwks')}",
        f"--audience {_AUDIENCE} --issuer {_ISSUER}",
    ]
    node = [
        f"--endpoint {_ENDPOINT} --tls-ca {file('ca.crt')}",
        f"--tls-cert {file('node.crt')} --tls-key {file('node.key')}",
    ]
    return [
        " \\\n    ".join(lines)
        for lines in (
            ["slim-actors node", *node],
            ["slim-actors run agents/echo.py", *connection],
            ["slim-actors send agntcy/ns/alice hello", *connection],
        )
    ]
