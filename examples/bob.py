"""Bob: asks Alice, in every mode.

python examples/bob.py --iterations 12                   each message to any replica
python examples/bob.py --iterations 12 --unicast         all messages to one replica
python examples/bob.py --iterations 12 --unicast --mls   the same, encrypted end to end
"""

import asyncio
import sys
from typing import Annotated

import typer
from attrs import frozen

from slim_actors import (
    Agent,
    Anycast,
    Context,
    DeliveryError,
    Denied,
    NoRoute,
    Request,
    Runtime,
    SlimActorsError,
    Unicast,
    Untrusted,
    handler,
)
from slim_actors.cli.options import with_settings
from slim_actors.exits import Exit, exit_code
from slim_actors.settings import Settings

DAY = 24 * 3600.0


@frozen
class Talk(Request[int]):
    """What Bob is to say, to whom and how. His reply is the exit code for all of it."""

    remote: str
    message: str
    iterations: int
    unicast: bool
    mls: bool


class Bob(Agent, name="agntcy/ns/bob"):
    """A requester: sends messages to a remote agent and prints what comes back, and from whom."""

    @handler
    async def talk(self, plan: Talk, ctx: Context) -> int:
        """Say everything, one message after the other."""
        route = (Unicast if plan.unicast else Anycast)(plan.remote, mls=plan.mls)
        outcome = Exit.OK
        for number in range(1, plan.iterations + 1):
            call = ctx.ask(route, f"{plan.message} {number}")
            try:
                reply = await call
            except DeliveryError as error:
                print(f"{number:>3}  error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                outcome = exit_code(error)
                if isinstance(error, NoRoute | Denied | Untrusted):
                    break
            else:
                print(f"{number:>3}  {reply}  from {call.peer}", flush=True)
        return outcome


@with_settings
def main(
    message: Annotated[str, typer.Option(envvar="BOB_MESSAGE", help="What Bob says.")] = "hello",
    iterations: Annotated[int, typer.Option(envvar="BOB_ITERATIONS", min=1, help="How many times.")] = 1,
    remote: Annotated[str, typer.Option(envvar="BOB_REMOTE", help="Whom Bob asks.")] = "agntcy/ns/alice",
    unicast: Annotated[
        bool, typer.Option("--unicast", envvar="BOB_UNICAST", help="Pin one replica.")
    ] = False,
    mls: Annotated[bool, typer.Option("--mls", envvar="BOB_MLS", help="Encrypt end to end.")] = False,
    enable_opentelemetry: Annotated[
        bool,
        typer.Option(
            "--enable-opentelemetry", "--otel", envvar="SLIM_ACTORS_OTEL", help="Send traces and metrics."
        ),
    ] = False,
    *,
    settings: Settings,
) -> None:
    """Ask Alice, and print each reply and who gave it."""

    async def run() -> int:
        async with Runtime(settings=settings, enable_opentelemetry=enable_opentelemetry) as runtime:
            bob = await runtime.spawn(Bob)
            return await runtime.ask(bob.route, Talk(remote, message, iterations, unicast, mls), timeout=DAY)

    try:
        code = asyncio.run(run())
    except SlimActorsError as error:
        print(f"error: {error}", file=sys.stderr)
        code = exit_code(error)
    except KeyboardInterrupt:
        code = Exit.OK
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
