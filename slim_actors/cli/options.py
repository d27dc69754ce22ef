"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from slim_actors.settings import ENDPOINT_VARIABLE, SECRET_VARIABLE

__all__ = ["EndpointOption", "SecretOption"]

EndpointOption = Annotated[
    str | None,
    typer.Option(
        envvar=ENDPOINT_VARIABLE,
        help="The SLIM node: http://, https:// or ws://HOST:PORT, or unix:///PATH. "
        r"\[default: http://127.0.0.1:46357]",
        show_default=False,
    ),
]

SecretOption = Annotated[
    str | None,
    typer.Option(
        envvar=SECRET_VARIABLE,
        help="The secret that agents and callers share, 32 bytes at least. "
        r"\[default: this user's own, made at the first use]",
        show_default=False,
    ),
]
