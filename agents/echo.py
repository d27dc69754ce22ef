"""Alice: sends back what she gets.

Run three of her with ``slim-actors run agents/echo.py --replicas 3``. Who answered is not in the reply but
beside it: ``call.peer`` at the caller.
"""

from typing import Any

from attrs import define

from slim_actors import Agent, Context, handler


@define
class Echo(Agent, name="agntcy/ns/alice"):
    """Echoes any message: text, bytes, numbers, lists, dicts.

    Attributes:
        sign: Put the own instance id in front of replies to text.
    """

    sign: bool = False

    @handler(idempotent=True)
    async def receive(self, message: Any, ctx: Context) -> Any:
        """Send the message back."""
        if self.sign and isinstance(message, str):
            return f"{ctx.me.instance}: {message}"
        return message
