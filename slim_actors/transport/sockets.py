"""Socket options that the bindings have no setting for."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

__all__ = ["NoDelay"]

_DESCRIPTORS = "/dev/fd"


class NoDelay:
    """Switches Nagle's algorithm off (TCP_NODELAY, RFC 896) on every TCP socket of this process.

    Without it a reliable SLIM round trip over TCP takes 88 ms instead of 1 ms: each side waits for the
    other's delayed acknowledgement. The bindings open their sockets out of reach, so this looks for them
    among the open file descriptors; a reconnect makes new ones, so it must be called again from time to time.
    """

    def __init__(self) -> None:
        self._done: dict[int, int] = {}
        """Which file each descriptor was that has been looked at."""

    def apply(self, *, thoroughly: bool = True) -> None:
        """Treat the sockets that are new since the last call.

        Args:
            thoroughly: Also look for those that have taken the number of one that was closed. A process with
                a thousand agents has a thousand sockets; who opens one more need not look at them all.
        """
        try:
            descriptors = {int(name) for name in os.listdir(_DESCRIPTORS)}  # noqa: PTH208 (a path for each costs more than the look)
        except OSError:
            return
        done = self._done
        for descriptor in done.keys() - descriptors:
            del done[descriptor]
        for descriptor in descriptors if thoroughly else descriptors - done.keys():
            with contextlib.suppress(OSError):
                status = os.fstat(descriptor)
                if done.get(descriptor) == status.st_ino:
                    continue
                if stat.S_ISSOCK(status.st_mode):
                    _switch_off(descriptor)
                done[descriptor] = status.st_ino


def _switch_off(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as twin:
        if twin.family in (socket.AF_INET, socket.AF_INET6) and twin.type == socket.SOCK_STREAM:
            twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
