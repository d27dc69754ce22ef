"""An agent that cannot be kept by a restart; run by tests with ``slim-actors run``."""

from __future__ import annotations

from typing import Any

from slim_actors import Agent, Context, Restart


class Storming(Agent, name="test/ns/storming"):
    restart = Restart(limit=0)

    async def receive(self, message: Any, ctx: Context) -> Any:
        if message == "fail":
            raise RuntimeError("not with me")
        if message == "stop":
            ctx.stop()
        return message
