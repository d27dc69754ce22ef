"""Memory of both ends of a long stream with a slow reader: ``python -m benchmarks.stream_memory``.

An agent in a process of its own yields a million items; the reader pauses again and again. Prints what both
processes hold as the items go by; flow control keeps both flat.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator

from attrs import frozen
from rich.console import Console
from rich.table import Table

from benchmarks.systems.base import free_endpoint, resident
from slim_actors import Agent, Runtime, StreamRequest, Unicast, handler


@frozen
class Numbers(StreamRequest[str]):
    count: int


class Producer(Agent, name="bench/ns/producer"):
    @handler
    async def numbers(self, message: Numbers) -> AsyncIterator[str]:
        for number in range(message.count):
            yield f"item {number:090}"


async def read(endpoint: str, producer: int, count: int, table: Table) -> None:
    async with Runtime(endpoint) as runtime:
        got = 0
        async for _ in runtime.stream(Unicast("bench/ns/producer"), Numbers(count)):
            got += 1
            if got % (count // 1000) == 0:
                await asyncio.sleep(0.005)
            if got % (count // 10) == 0:
                table.add_row(f"{got:,}", f"{resident(producer):.1f}", f"{resident(os.getpid()):.1f}")
        assert got == count, "every item comes once"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    count = parser.parse_args().items
    endpoint = free_endpoint()
    command = [sys.executable, "-m", "slim_actors"]
    node = subprocess.Popen([*command, "node", "--endpoint", endpoint], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    node.stdout.readline()
    words = [*command, "run", f"{__file__}:Producer", "--endpoint", endpoint]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None
        joined = re.search(r"pid (\d+)", run.stdout.readline())
        assert joined, "the producer joins"
        table = Table("items", "producer MiB", "reader MiB", title="A stream with a slow reader")
        asyncio.run(read(endpoint, int(joined[1]), count, table))
        Console().print(table)
    finally:
        for process in (run, node):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
