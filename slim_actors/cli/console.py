"""What commands print: colour where a person looks, plain lines where a program reads."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["complain", "line"]


def line(label: str, text: str, *, style: str = "green") -> None:
    """Print a line with a label in front."""
    _print(sys.stdout, f"{label:<10}", text, style)


def complain(text: str) -> None:
    """Say what went wrong, where errors go."""
    _print(sys.stderr, "error:", text, "bold red", gap=" ")


def _print(stream: Any, label: str, text: str, style: str, gap: str = "") -> None:
    if not stream.isatty():
        print(f"{label}{gap}{text}", file=stream, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    Console(file=stream).print(Text.assemble((label, style), gap, text), soft_wrap=True)
