"""One replica: the process that `slim_actors.launch` starts. Here it loads what it needs, in good order."""

from __future__ import annotations

import gc
import signal

__all__ = ["main"]


def main() -> int:
    """Run the replica; give the exit code."""
    # It is for the supervisor to say when to stop, whoever else may be interrupting every process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # All that is imported stays, so there is nothing to collect: looking for it takes a tenth of the start.
    gc.disable()
    # First, for the bindings then work while the rest is imported.
    from slim_actors.transport.bindings import warm_up

    warm_up()
    from slim_actors.serve import serve

    gc.freeze()
    gc.enable()
    return serve()
