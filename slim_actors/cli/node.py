"""``slim-actors node``: a SLIM node by itself."""

from __future__ import annotations

import asyncio

from slim_actors.cli.console import line
from slim_actors.cli.options import EndpointOption
from slim_actors.cli.stopping import on_stop_signal, run_until_stopped
from slim_actors.endpoints import Endpoint
from slim_actors.settings import default_endpoint

__all__ = ["node"]


def node(endpoint: EndpointOption = None) -> None:
    """Run a SLIM node until Ctrl-C.

    Examples:
        slim-actors node

        slim-actors node --endpoint http://127.0.0.1:5000

        slim-actors node --endpoint unix:///tmp/slim.sock
    """
    run_until_stopped(_node(Endpoint.parse(endpoint or default_endpoint())))


async def _node(endpoint: Endpoint) -> None:
    stop = asyncio.Event()
    on_stop_signal(stop.set)
    from slim_actors.transport.node import SlimNode

    running = SlimNode(endpoint)
    await running.start()
    line("node", f"listening at {endpoint}")
    await stop.wait()
    await running.stop()
    line("node", "stopped")
