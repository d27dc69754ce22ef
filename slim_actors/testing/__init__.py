"""The test kit: the same agents and verbs, in memory and on a clock that does not keep anybody waiting."""

from slim_actors.sqlite import MemoryStore
from slim_actors.testing.clock import VirtualClock
from slim_actors.testing.probe import Probe
from slim_actors.testing.runtime import TestRuntime
from slim_actors.transport.memory import Fault, MemoryNetwork

__all__ = ["Fault", "MemoryNetwork", "MemoryStore", "Probe", "TestRuntime", "VirtualClock"]
