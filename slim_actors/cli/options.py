"""The options of a connection, which several commands share: one for each of `Settings`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from attrs import fields

from slim_actors.settings import Settings

__all__ = ["OtelOption", "with_settings"]

OtelOption = Annotated[
    bool,
    typer.Option(
        "--otel",
        envvar="SLIM_ACTORS_OTEL",
        help="Send traces and metrics to an OpenTelemetry collector: OTEL_EXPORTER_OTLP_ENDPOINT, "
        "else http://localhost:4317.",
    ),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of its parameter ``settings``, an option for each setting.

    Each option may also be given by its environment variable.
    """

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        # An option that may be given several times, and is not, comes as an empty list.
        chosen = {one.name: given.pop(one.name) or None for one in fields(Settings)}
        if chosen["audience"] is not None:
            chosen["audience"] = tuple(chosen["audience"])
        command(settings=Settings.find(**chosen), **given)

    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.name != "settings"]
    shared = [_parameter(one) for one in fields(Settings)]
    # Typer reads the signature, and the names of the types as they stand there.
    wrapped.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in [*own, *shared]}
    return wrapped


def _parameter(setting: Any) -> inspect.Parameter:
    kinds: dict[type, Any] = {bool: bool, tuple: list[str]}
    kind = kinds.get(type(setting.default), str | None)
    option = typer.Option(
        "--" + setting.name.replace("_", "-"),
        envvar=setting.metadata["variable"],
        help=setting.metadata["meaning"],
        show_default=False,
        rich_help_panel="Connection",
    )
    default = setting.default if isinstance(setting.default, bool) else None
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, option],
    )
