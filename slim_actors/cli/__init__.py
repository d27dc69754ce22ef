"""The command line: ``slim-actors``."""

from slim_actors.cli.app import main

__all__ = ["main"]
