"""The command line: ``slim-actors``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; also Ctrl-C while it is still being loaded ends it without a word."""
    try:
        if sys.argv[1:2] == ["run"] and {"-h", "--help"}.isdisjoint(sys.argv):
            # While the command line is read here, the first replica imports what it needs.
            from slim_actors.launch import launch_ahead

            launch_ahead()
        from slim_actors.cli import app
    except KeyboardInterrupt:
        sys.exit(130)
    app.main()
