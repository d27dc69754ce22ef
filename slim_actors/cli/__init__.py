"""The command line: ``slim-actors``."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is made of, which itself takes 4 ms to import
import gc
import os
import sys

__all__ = ["end_quietly", "main"]


def main() -> None:
    """Run the command line; also Ctrl-C while it is still being loaded ends it without a word."""
    # Under nohup or in the background of a script it stays ignored.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, end_quietly)
    # All that is imported stays, so there is nothing to collect: looking for it takes a tenth of the start.
    gc.disable()
    if sys.argv[1:2] == ["run"] and {"-h", "--help"}.isdisjoint(sys.argv):
        # While the command line is read here, the first replica imports what it needs.
        from slim_actors.launch import launch_ahead

        launch_ahead()
    from slim_actors.cli import app

    app.main()


def end_quietly(*_: object) -> None:
    """End this process as one that was interrupted: an exception might be printed, or lost, in an import."""
    # `Exit.INTERRUPTED`, which may not have been imported yet.
    os._exit(130)
