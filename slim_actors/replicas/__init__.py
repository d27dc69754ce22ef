"""The supervisor of replica processes: starts them, restarts those that die, replaces and drains them."""

from slim_actors.replicas.events import Event, EventKind, ReplicaFailed
from slim_actors.replicas.supervisor import ReplicaLimits, Supervisor

__all__ = ["Event", "EventKind", "ReplicaFailed", "ReplicaLimits", "Supervisor"]
