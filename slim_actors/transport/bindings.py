"""The only module that imports `slim_bindings`: the rest of this room gets them from here, set up.

The bindings are told no event loop: then each call uses the loop that it runs on. (A loop that was told stays
in use after it is closed, in either of their two generated modules.)
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Sequence
from functools import cache

import slim_bindings as slim
from slim_bindings._slim_bindings import slim_bindings as _core

from slim_actors.transport.calls import Calls, Generated
from slim_actors.transport.direct import Direct, fits
from slim_actors.transport.sockets import NoDelay

__all__ = ["calls", "initialise", "innermost", "new_service", "no_delay", "slim", "warm_up"]

no_delay = NoDelay()
"""For every socket of this process, whoever opened it."""

calls: Calls = Direct(_core) if fits(_core) else Generated()
"""How payloads go into SLIM, and out of it."""
if isinstance(calls, Direct):
    calls.take_over()

_logger = logging.getLogger("slim_actors.transport")

_services = itertools.count()


_initialised = False
_initialising = threading.Lock()
"""Of several threads that come first together, the others wait: who went ahead would set up the log, too."""


def initialise(filters: Sequence[str] = ("off",), *, for_node: bool = False) -> None:
    """Set the bindings up; does nothing the second time.

    Args:
        filters: What of their log goes to standard output: as in ``RUST_LOG``, which overrules it.
        for_node: Whether this process will run a node, which works for others.
    """
    global _initialised  # noqa: PLW0603 (the bindings are set up once a process, too)
    with _initialising:
        if not _initialised:
            _initialise(filters, threads=_threads_of_node() if for_node else 1)
            _initialised = True


def _initialise(filters: Sequence[str], threads: int) -> None:
    # "error" is the quietest level that the bindings accept; the filter is what silences them.
    quiet = slim.new_tracing_config_with("error", False, False, list(filters))  # noqa: FBT003
    runtime = slim.new_runtime_config()
    # Unless told, the bindings take as many as there are processors. Beside Python, which runs in one thread,
    # more than one only hand each payload from one to the other: a lone ask takes an eighth longer.
    runtime.n_cores = threads
    slim.initialize_with_configs(runtime, quiet, [slim.new_service_config()])
    if not isinstance(calls, Direct):
        _logger.debug("These slim-bindings are of another shape than is known: payloads are copied slowly.")


def _threads_of_node() -> int:
    # Half of the processors: whoever uses the node has the others.
    return max(1, (os.cpu_count() or 1) // 2)


def new_service() -> slim.Service:
    """Make a service, which is what connections, apps and listeners belong to."""
    initialise()
    return slim.create_service(f"slim-actors-{os.getpid()}-{next(_services)}")


_held: list[object] = []
"""The bindings panic when the app of `warm_up` goes too early."""


@cache
def warm_up() -> threading.Thread:
    """Begin, in a thread, with what the bindings do for the first app or connection of a process.

    They gather randomness. That takes 35 ms of a processor, but not the interpreter's lock: Python can go on
    importing meanwhile.
    """
    service = new_service()

    def make() -> None:
        # Of no use to anybody: it is never connected.
        name, secret = slim.Name("slim-actors", "local", "warm-up"), os.urandom(16).hex()
        _held.extend((service, service.create_app_with_secret(name, secret)))

    thread = threading.Thread(target=make, name="warm-up", daemon=True)
    thread.start()
    return thread


def innermost(error: slim.SlimError) -> str:
    """Give the last cause in the text of an error; those around it say only through where it came."""
    text = str(getattr(error, "message", "") or error)
    return text.rpartition("-> ")[2].strip()
