"""``slim-actors send``: request and reply from the shell."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from slim_actors.cli.console import complain, line
from slim_actors.cli.options import OtelOption, with_settings
from slim_actors.cli.stopping import run_until_done
from slim_actors.errors import ConfigurationError, DeliveryError, Denied, NoRoute, Untrusted
from slim_actors.exits import Exit, exit_code
from slim_actors.names import Address
from slim_actors.routes import Anycast, Unicast
from slim_actors.settings import Settings
from slim_actors.speaker import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from slim_actors.runtime import Runtime

__all__ = ["send"]


@with_settings
def send(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who is asked: org/namespace/service.")],
    message: Annotated[
        str, typer.Argument(metavar="MESSAGE", help="What is sent; - reads it from standard input.")
    ],
    as_json: Annotated[
        bool,
        typer.Option("--json", envvar="SLIM_ACTORS_JSON", help="The message is JSON; so is what is printed."),
    ] = False,
    unicast: Annotated[
        bool, typer.Option("--unicast", envvar="SLIM_ACTORS_UNICAST", help="Send everything to one replica.")
    ] = False,
    mls: Annotated[bool, typer.Option("--mls", envvar="SLIM_ACTORS_MLS", help="Encrypt end to end.")] = False,
    iterations: Annotated[
        int, typer.Option(envvar="SLIM_ACTORS_ITERATIONS", help="How many times it is sent.")
    ] = 1,
    timeout: Annotated[
        float,
        typer.Option(
            envvar="SLIM_ACTORS_TIMEOUT",
            help="Seconds to wait for each reply; a name that nobody serves is known after 3.",
        ),
    ] = DEFAULT_TIMEOUT,
    otel: OtelOption = False,
    *,
    settings: Settings,
) -> None:
    """Send a message to an agent, and print each reply and who gave it.

    It reaches handlers of plain values: text, or with --json also numbers, lists and objects; a handler that
    takes a class is asked from Python. With --json each line is an object with "reply" and "from".

    Examples:
        slim-actors send agntcy/ns/alice hello

        slim-actors send agntcy/ns/alice '{"question": 42}' --json --iterations 6

        slim-actors send agntcy/ns/alice hello --unicast --mls

        jq .question today.json | slim-actors send agntcy/ns/alice - --json
    """
    if iterations < 1:
        raise ConfigurationError(f"--iterations is {iterations}, but must be 1 or more.")
    if message == "-":
        message = _read()
    body = _sendable(_parsed(message) if as_json else message)
    route = Unicast(name, mls=mls) if unicast else Anycast(name, mls=mls)
    # Here, not at the top: help should be quick.
    from slim_actors.runtime import Runtime

    runtime = Runtime(settings=settings, enable_opentelemetry=otel)
    code = run_until_done(_send(runtime, route, body, iterations, timeout, as_json=as_json))
    raise typer.Exit(code)


async def _send(
    runtime: Runtime,
    route: Anycast | Unicast,
    body: Any,
    iterations: int,
    within: float,
    *,
    as_json: bool,
) -> Exit:
    outcome = Exit.OK
    async with runtime:
        for _ in range(iterations):
            call = runtime.ask(route, body, timeout=within)
            try:
                reply = await call
            except (NoRoute, Denied, Untrusted):
                raise
            except DeliveryError as error:
                complain(f"{error}" if call.peer is None else f"{error} (from {call.peer})")
                outcome = exit_code(error)
            else:
                _show(reply, call.peer, as_json=as_json)
    return outcome


def _read() -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except (AttributeError, OSError, UnicodeDecodeError):
        # It may be closed, and then there is none.
        raise ConfigurationError("Standard input cannot be read, or is no text in UTF-8.") from None


def _parsed(message: str) -> Any:
    try:
        return json.loads(message)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"The message is not JSON, as --json says it is: {error}.") from None


def _sendable(body: Any) -> Any:
    """Return the message if it has a form on the wire; not all that JSON can say has."""
    try:
        msgspec.msgpack.encode(body)
    except (ValueError, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"The message cannot be sent: {error}.") from None
    return body


def _show(reply: Any, peer: Address | None, *, as_json: bool) -> None:
    if as_json:
        # Nothing but JSON on the line, for the program that reads it.
        typer.echo(_json({"reply": reply, "from": str(peer)}))
    else:
        line("reply", f"{reply if isinstance(reply, str) else _json(reply)}  from {peer}")


def _json(value: Any) -> str:
    return json.dumps(value, default=repr, ensure_ascii=False)
