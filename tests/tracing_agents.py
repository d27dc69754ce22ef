"""Agents whose messages are traced by the tests of telemetry."""

from __future__ import annotations

import logging
from typing import Any

from slim_actors import Agent, Anycast, Context


class Router(Agent, name="test/ns/router"):
    async def receive(self, message: Any, ctx: Context) -> list[Any]:
        return [await ctx.ask(Anycast("test/ns/leaf"), message) for _ in range(3)]


class Leaf(Agent, name="test/ns/leaf"):
    async def receive(self, message: Any) -> Any:
        logging.getLogger("somebody.elses").warning("working on %s", message)
        if message == "boom":
            raise ValueError("boom it is")
        return message
