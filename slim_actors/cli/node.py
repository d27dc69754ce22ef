"""``slim-actors node``: a SLIM node by itself."""

from __future__ import annotations

import asyncio

from slim_actors.cli.console import line
from slim_actors.cli.options import with_settings
from slim_actors.cli.stopping import on_stop_signal, run_until_stopped
from slim_actors.settings import Settings

__all__ = ["node"]


@with_settings
def node(*, settings: Settings) -> None:
    r"""Run a SLIM node until Ctrl-C.

    Examples:
        slim-actors node

        slim-actors node --endpoint http://127.0.0.1:5000

        slim-actors node --endpoint unix:///tmp/slim.sock

        slim-actors node --endpoint https://127.0.0.1:5000 --tls-cert node.crt --tls-key node.key

        slim-actors node --endpoint https://127.0.0.1:5000 --tls-cert node.crt --tls-key node.key \
            --tls-ca ca.crt
    """
    run_until_stopped(_node(settings))


async def _node(settings: Settings) -> None:
    stop = asyncio.Event()
    on_stop_signal(stop.set)
    from slim_actors.transport.node import SlimNode
    from slim_actors.transport.refusals import telling_refusals

    running = SlimNode(settings.node, settings.tls(), settings.asked())
    with telling_refusals():
        await running.start()
        line("node", f"listening at {settings.node}")
        await stop.wait()
        await running.stop()
        line("node", "stopped")
