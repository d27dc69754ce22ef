"""The options of a connection, which several commands share: one for each of `Settings`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.models import OptionInfo

from slim_actors import configfile, slimconfig
from slim_actors.configfile import ConfigFile, find_file, nearest, read_file
from slim_actors.errors import ConfigurationError
from slim_actors.files import to_path
from slim_actors.settings import Settings

__all__ = ["OtelOption", "check_tables", "with_settings"]

OtelOption = Annotated[
    bool,
    typer.Option(
        "--otel",
        envvar="SLIM_ACTORS_OTEL",
        help="Send traces and metrics to an OpenTelemetry collector: OTEL_EXPORTER_OTLP_ENDPOINT, "
        "else http://localhost:4317.",
    ),
]

_PANEL = "Connection"


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of its parameter ``settings``, an option for each setting, and for the files.

    One with a parameter ``config`` gets the configuration file there, if there is one. Each option may also
    be given by its environment variable, and each of the command's own in its table of the configuration
    file.
    """

    @functools.wraps(command)
    def wrapped(ctx: typer.Context, config: ConfigFile | None, slim_config: str | None, **given: Any) -> None:
        chosen: dict[str, Any] = {}
        for one in Settings.each():
            value = given.pop(one.name)
            # What comes from the environment is found there once more: for `find`, that is another source.
            source = ctx.get_parameter_source(one.name)
            if source is not None and source.name == "COMMANDLINE":
                chosen[one.name] = tuple(value) if isinstance(value, list) else value
        if wants_file:
            given["config"] = config
        command(settings=Settings.found_in(config, slim_config, **chosen), **given)

    signature = inspect.signature(command, eval_str=True)
    own, wants_file = _own(command), "config" in signature.parameters
    shared = [_CONTEXT, *own, _config(own), _SLIM_CONFIG, *map(_parameter, Settings.each())]
    # Typer reads the signature, and the names of the types as they stand there.
    wrapped.__signature__ = signature.replace(parameters=shared)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in shared}
    return wrapped


def check_tables(file: ConfigFile) -> None:
    """Look at what a configuration file has for each command, whichever is running.

    Raises:
        ConfigurationError: An option is none of that command's, or its value is of another kind.
    """
    for name in file.commands:
        command = getattr(import_module(f"slim_actors.cli.{name}"), name)
        _defaults(_own(command.__wrapped__), file, name)


def _own(command: Callable[..., None]) -> list[inspect.Parameter]:
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    return [one for one in parameters if one.name not in ("settings", "config")]


def _parameter(setting: Any) -> inspect.Parameter:
    kinds: dict[type, Any] = {bool: bool, tuple: list[str]}
    kind = kinds.get(type(setting.default), str | None)
    option = typer.Option(
        "--" + setting.name.replace("_", "-"),
        envvar=setting.metadata["variable"],
        help=setting.metadata["meaning"],
        show_default=False,
        rich_help_panel=_PANEL,
    )
    default = setting.default if isinstance(setting.default, bool) else None
    return _keyword(setting.name, Annotated[kind, option], default)


def _keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _config(own: list[inspect.Parameter]) -> inspect.Parameter:
    option = typer.Option(
        "--config",
        envvar=configfile.VARIABLE,
        help="The configuration file, instead of slim-actors.toml or pyproject.toml here or above.",
        callback=_reader(own),
        is_eager=True,
        show_default=False,
        rich_help_panel=_PANEL,
    )
    return _keyword("config", Annotated[str | None, option])


def _reader(own: list[inspect.Parameter]) -> Callable[[typer.Context, str | None], ConfigFile | None]:
    """Make what reads the configuration file, and takes the command's own options from its table there."""

    def take_defaults(ctx: typer.Context, config: str | None) -> ConfigFile | None:
        file = read_file(Path(config)) if config else find_file()
        if file is not None:
            ctx.default_map = _defaults(own, file, ctx.info_name or "")
        return file

    return take_defaults


def _defaults(own: list[inspect.Parameter], file: ConfigFile, command: str) -> dict[str, Any]:
    options = {_option_name(one): one for one in own}
    defaults = {}
    for key, value in file.commands.get(command, {}).items():
        where = file.where(key, command)
        if key not in options:
            raise ConfigurationError(
                f"{where}: slim-actors {command} has no option {key}{nearest(key, filter(None, options))}"
            )
        kinds = _kinds(options[key].annotation)
        if _FITTING.get(type(value), frozenset()).isdisjoint(kinds):
            raise ConfigurationError(
                f"{where}: {key} is {value!r}, but must be {' or '.join(_WORDS[kind] for kind in kinds)}."
            )
        is_path = Path in kinds
        defaults[options[key].name] = file.path.absolute().parent / to_path(value) if is_path else value
    return defaults


def _option_name(parameter: inspect.Parameter) -> str:
    """Give the name of an option as a file has it; none for an argument."""
    info = get_args(parameter.annotation)[1]
    if not isinstance(info, OptionInfo):
        return ""
    # Inside Annotated, Typer has the first of the names in place of the default.
    names = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    flag = names[0].partition("/")[0] if names else parameter.name
    return flag.removeprefix("--").replace("-", "_")


def _kinds(annotation: Any) -> tuple[type, ...]:
    kind = get_args(annotation)[0]
    return tuple(one for one in get_args(kind) or (kind,) if one in _WORDS)


_WORDS: dict[type, str] = {
    str: "a text",
    Path: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}
_FITTING: dict[type, frozenset[type]] = {
    str: frozenset((str, Path)),
    bool: frozenset((bool,)),
    int: frozenset((int, float)),
    float: frozenset((float,)),
}
"""Which kinds of options the values of a file can be."""
_CONTEXT = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
_SLIM_CONFIG = _keyword(
    "slim_config",
    Annotated[
        str | None,
        typer.Option(
            "--slim-config",
            envvar=slimconfig.VARIABLE,
            metavar="FILE_OR_JSON",
            help="SLIM's own client configuration: a JSON or YAML file, or JSON itself.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ],
)
