"""The command line: ``slim-actors``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; also Ctrl-C while it is still being loaded ends it without a word."""
    try:
        from slim_actors.cli import app
    except KeyboardInterrupt:
        sys.exit(130)
    app.main()
