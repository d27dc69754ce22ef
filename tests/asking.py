"""A caller that asks and waits, to be killed."""

import asyncio
import sys

from slim_actors import Anycast, Runtime
from tests.agents_for_tests import Wait


async def main() -> None:
    async with Runtime(sys.argv[1]) as runtime:
        await runtime.ask(Anycast("test/ns/worker"), Wait("for the one who dies"))


asyncio.run(main())
