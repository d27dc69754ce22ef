"""``slim-actors doctor``: whether everything is as agents need it."""

from __future__ import annotations

from typing import Annotated

import typer

from slim_actors.cli.console import line
from slim_actors.cli.options import check_tables, with_settings
from slim_actors.cli.stopping import run_until_done
from slim_actors.configfile import ConfigFile
from slim_actors.errors import ConfigurationError
from slim_actors.exits import Exit
from slim_actors.names import check_name
from slim_actors.settings import Settings

__all__ = ["doctor"]

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@with_settings
def doctor(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A name whose replicas are counted: org/namespace/service.",
            envvar="SLIM_ACTORS_NAME",
        ),
    ] = None,
    *,
    settings: Settings,
    config: ConfigFile | None,
) -> None:
    """Look at versions, settings, identity, certificates, clock and node, and say what to do.

    One line each: ok, warning or problem. The exit code is 1 if there is a problem.

    Examples:
        slim-actors doctor

        slim-actors doctor agntcy/ns/alice --endpoint https://node.local:46357 --tls-ca ca.crt
    """
    if name is not None:
        check_name(name)
    raise typer.Exit(run_until_done(_doctor(settings, config, name)))


async def _doctor(settings: Settings, config: ConfigFile | None, name: str | None) -> Exit:
    # Here, for it needs the bindings.
    from slim_actors.doctor import Finding, Mark, examine

    code = Exit.OK

    def tell(finding: Finding) -> None:
        nonlocal code
        line(finding.mark.value, f"{finding.subject}: {finding.text}", style=_STYLES[finding.mark.value])
        if finding.mark is Mark.PROBLEM:
            code = Exit.FAILED

    if config is not None:
        try:
            check_tables(config)
        except ConfigurationError as error:
            tell(Finding("settings", str(error), Mark.PROBLEM))
    async for finding in examine(settings, name):
        tell(finding)
    return code
