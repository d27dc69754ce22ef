"""What commands print: colour where a person looks, plain lines where a program reads."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["complain", "line", "prepare_streams", "table"]


def prepare_streams() -> None:
    """Let no character, and no stream that is closed, end a command that prints."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Its number is taken at once too: else a connection would get it, and what others print there.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 (pathlib takes long)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def line(label: str, text: str, *, style: str = "green") -> None:
    """Print a line with a label in front."""
    _print(sys.stdout, f"{label:<10}", text, style)


def complain(text: str) -> None:
    """Say what went wrong, where errors go."""
    _print(sys.stderr, "error:", text, "bold red", gap=" ")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; where a program reads, its rows alone, with tabs between the columns."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row), flush=True)  # noqa: T201 (this is what prints)
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(*headings)
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def _print(stream: Any, label: str, text: str, style: str, gap: str = "") -> None:
    if not stream.isatty():
        print(f"{label}{gap}{text}", file=stream, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    Console(file=stream).print(Text.assemble((label, style), gap, _visible(text)), soft_wrap=True)


def _visible(text: str) -> str:
    """Show what a terminal would obey: a peer has written the text."""
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
