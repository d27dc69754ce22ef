"""Let it crash: a failing worker is restarted with fresh state, and what waits for it is kept."""

import asyncio
import logging

from attrs import frozen

from slim_actors import Agent, Backoff, Context, RemoteError, Request, Restart, Runtime, handler

# Failures and restarts are logged too; here they are printed.
logging.getLogger("slim_actors").setLevel(logging.CRITICAL)


@frozen
class Divide(Request[float]):
    by: int


class Worker(Agent, name="demo/ns/worker"):
    # A division by zero is the caller's mistake; anything else may have spoiled the state.
    restart = Restart(
        "transient", limit=2, within=60, backoff=Backoff(0.1, 1), on={ZeroDivisionError: "resume"}
    )

    async def started(self, ctx: Context) -> None:
        print("a fresh worker")
        self.total = 12

    async def stopped(self, ctx: Context) -> None:
        print("a worker ends")

    @handler
    async def divide(self, message: Divide) -> float:
        if message.by < 0:
            raise RuntimeError("the state is spoiled")
        self.total //= message.by
        return self.total


async def main() -> None:
    async with Runtime(embed_node=True) as runtime:
        worker = await runtime.spawn(Worker)
        for by in (2, 0, 2, -1, 2):
            try:
                print(f"by {by}:", await runtime.ask(worker.route, Divide(by)))
            except RemoteError as error:
                print(f"by {by}:", error)
        # More failures than the policy allows end it, in one sentence.
        await asyncio.gather(
            *(runtime.ask(worker.route, Divide(-1)) for _ in range(2)), return_exceptions=True
        )
        failure = await worker.wait()
        print("gave up:", str(failure).partition("has stopped: ")[2])


if __name__ == "__main__":
    asyncio.run(main())
