"""Factories: how instances of agents are made."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from slim_actors.agent import Agent
from slim_actors.errors import DeclarationError

__all__ = ["Factory", "make"]

Factory = Callable[[], Agent]
"""Makes a fresh instance of an agent; an agent class without arguments is one."""


def make(factory: Factory) -> Agent:
    """Make an instance of an agent.

    Raises:
        DeclarationError: The factory is not one, or gives something else.
    """
    if isinstance(factory, Agent):
        raise DeclarationError(
            f"Spawn the class or a function that makes the agent, not an instance: "
            f"lambda: {type(factory).__name__}(...)."
        )
    if not callable(factory):
        raise DeclarationError(f"{factory!r} is neither an agent class nor a function that makes an agent.")
    if inspect.isclass(factory) and not issubclass(factory, Agent):
        raise DeclarationError(f"{factory.__name__} is not an agent: derive it from slim_actors.Agent.")
    try:
        agent = factory()
    except TypeError as error:
        raise DeclarationError(f"The agent cannot be made: {error}.") from error
    if not isinstance(agent, Agent):
        raise DeclarationError(f"The factory gave {agent!r}, which is not an agent.")
    return agent
