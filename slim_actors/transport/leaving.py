"""Ends what Rust has to say before the interpreter ends, whatever was left open by then.

Imported with the runtime, long before anything connects: what a program registers with `atexit` after that
runs first, and may still close its runtimes.
"""

from __future__ import annotations

import atexit
import os
import sys

__all__: list[str] = []


@atexit.register
def _leave() -> None:
    bindings = sys.modules.get("slim_actors.transport.bindings")
    if bindings is not None and isinstance(bindings.calls, bindings.Direct):
        bindings.calls.leave()


# In a fork none of Rust's threads runs, and what one held at that moment stays held.
os.register_at_fork(after_in_child=lambda: atexit.unregister(_leave))
