"""What is measured: one module for each system, in processes of its own; see `base` for the interface."""

from __future__ import annotations

import importlib.util
import shutil

from attrs import frozen

__all__ = ["BARE", "OURS", "PEERS", "SKETCH", "System"]


@frozen
class System:
    """A system under measurement.

    Attributes:
        key: Its module in this package.
        title: What it is called.
        packages: What must be importable for it.
        programs: What must be on the PATH for it.
        differs: What is not the same work as that of slim-actors, in a sentence.
    """

    key: str
    title: str
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    differs: str = ""

    def missing(self) -> list[str]:
        """Give what is not installed."""
        packages = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return packages + [name for name in self.programs if shutil.which(name) is None]


OURS = System("ours", "slim-actors", ("slim_actors",))
BARE = System(
    "bare",
    "bare slim-bindings",
    ("slim_bindings",),
    differs="One message a payload; no types, deadlines, mailboxes or supervision.",
)
SKETCH = System(
    "sketch",
    "batching alone",
    ("slim_bindings",),
    differs="No types, deadlines, credit, dedupe, mailboxes or supervision: the floor under slim-actors.",
)
PEERS = (
    System(
        "autogen",
        "AutoGen gRPC",
        ("autogen_core", "autogen_ext", "grpc"),
        differs="No encryption, supervision or back-pressure; one-way messages are not acknowledged.",
    ),
    System(
        "raycluster",
        "Ray",
        ("ray",),
        differs="No encryption or verified senders; pickle; large values go through shared memory.",
    ),
    System(
        "natsio",
        "NATS",
        ("nats",),
        ("nats-server",),
        differs="Core NATS: no acknowledgement, retransmission, encryption, mailboxes or supervision.",
    ),
    System(
        "xo",
        "xoscar",
        ("xoscar",),
        differs="No encryption, verified senders, deadlines or bounded mailboxes; pickle.",
    ),
    System(
        "zeromq",
        "pyzmq",
        ("zmq",),
        differs="Sockets: no broker, discovery, acknowledgement, encryption, mailboxes or supervision.",
    ),
)
