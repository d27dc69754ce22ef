"""The typer application: one command a module, and one place where errors become exit codes."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections.abc import Iterable
from importlib import import_module

import typer

from slim_actors.cli import end_quietly
from slim_actors.cli.aside import print_aside
from slim_actors.cli.console import complain, prepare_streams
from slim_actors.errors import SlimActorsError
from slim_actors.exits import Exit, exit_code
from slim_actors.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, configure
from slim_actors.replicas.events import ReplicaFailed

__all__ = ["application", "main"]

_MODULES = {
    "run": "run",
    "send": "send",
    "node": "node",
    "restart": "control",
    "scale": "control",
    "ps": "control",
    "certs": "certs",
    "doctor": "doctor",
}
"""Where each command is."""
_LASTING = ("run", "node")
"""What serves until it is stopped, whoever reads what it prints."""


def application(commands: Iterable[str] = _MODULES) -> typer.Typer:
    """Make the application, with these commands: what the others need is not imported."""
    app = typer.Typer(
        name="slim-actors",
        help="Run agents as actors on a SLIM node, and talk to them.",
        epilog="Exit codes: 0 all well, 1 it failed (a message was not answered, or doctor found a problem), "
        "2 wrong input, 3 no node, 4 nobody serves the name, 5 a replica kept dying or could not be "
        "replaced, 6 the endpoint is in use, 7 an identity or a call is refused, 8 the store cannot be used, "
        "130 interrupted before the end.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in commands:
        module = import_module(f"slim_actors.cli.{_MODULES[name]}")
        app.command()(getattr(module, name))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from slim_actors import __version__

        typer.echo(f"slim-actors {__version__}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    _: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
    log_format: str = typer.Option(
        "auto",
        envvar=FORMAT_VARIABLE,
        metavar="auto|json|text",
        help="How logs look; auto is text on a terminal and JSON elsewhere.",
    ),
    log_level: str = typer.Option(
        "warning", envvar=LEVEL_VARIABLE, metavar="LEVEL", help="debug, info, warning, error or critical."
    ),
) -> None:
    """Run agents as actors on a SLIM node, and talk to them."""
    if ctx.invoked_subcommand in _LASTING:
        # Before the logs learn where they go.
        print_aside()
    # The environment is where replicas find them too.
    os.environ[FORMAT_VARIABLE] = log_format
    os.environ[LEVEL_VARIABLE] = log_level
    configure()


def main() -> None:
    """Run the command line.

    Ctrl-C ends ``run`` and ``node`` with exit code 0, for that is how they end; what it interrupts otherwise
    ends with 130, as is usual in shells.
    """
    prepare_streams()
    try:
        wanted = sys.argv[1:2]
        commands = application(wanted if _MODULES.keys() & wanted else _MODULES)
        # All is loaded.
        gc.freeze()
        gc.enable()
        if signal.getsignal(signal.SIGINT) is end_quietly:
            # From here on it is for the command to say how it ends.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        commands()
    except ReplicaFailed as error:
        complain(str(error))
        sys.exit(error.exit)
    except SlimActorsError as error:
        complain(str(error))
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        complain("The output cannot be written: no space is left.")
        sys.exit(Exit.FAILED)
