"""A chain of agents is one trace: this program keeps its spans, and prints them as a tree.

To send them to a collector instead: Runtime(enable_opentelemetry=True), and no providers.
"""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from slim_actors import Agent, Anycast, Context, Runtime
from slim_actors.telemetry import Tracing

KEPT = InMemorySpanExporter()
PROVIDER = TracerProvider()
PROVIDER.add_span_processor(SimpleSpanProcessor(KEPT))
TRACER = PROVIDER.get_tracer("this program")


class Translator(Agent, name="demo/ns/translator"):
    async def receive(self, message: str) -> str:
        with TRACER.start_as_current_span("look it up"):
            return {"hello": "bonjour"}.get(message, message)


class Greeter(Agent, name="demo/ns/greeter"):
    async def receive(self, message: str, ctx: Context) -> str:
        return f"{await ctx.ask(Anycast('demo/ns/translator'), 'hello')} {message}"


async def main() -> None:
    async with Runtime(embed_node=True, middleware=[Tracing(PROVIDER)]) as runtime:
        await runtime.spawn(Translator)
        await runtime.spawn(Greeter)
        print(await runtime.ask(Anycast("demo/ns/greeter"), "Ada"))
    show(None, "")


def show(parent: trace.SpanContext | None, indent: str) -> None:
    for span in sorted(KEPT.get_finished_spans(), key=lambda span: span.start_time or 0):
        if (span.parent.span_id if span.parent else None) == (parent.span_id if parent else None):
            print(f"{indent}{span.name}")
            show(span.context, f"{indent}  ")


if __name__ == "__main__":
    asyncio.run(main())
