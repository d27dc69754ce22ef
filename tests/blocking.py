"""An agent that blocks its event loop, as agents in the wild do."""

import time

from slim_actors import Agent, handler


class Blocking(Agent, name="test/ns/blocking"):
    @handler
    async def block(self, message: float) -> str:
        ends = time.monotonic() + message
        while time.monotonic() < ends:
            pass
        return "done"
