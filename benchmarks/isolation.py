"""A network with nothing but loopback: some systems listen on every interface, whatever they are told."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess

__all__ = ["ISOLATED", "bring_up_loopback", "can_isolate", "isolated"]

ISOLATED = "BENCHMARK_ISOLATED"
"""The variable that says to a process that it is in a network of its own."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def isolated(command: list[str]) -> list[str]:
    """Give the command that runs another one in a network of its own."""
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--net", *mapped, "--", *command]


def can_isolate() -> bool:
    """Tell whether this user may make such networks on this machine."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(isolated(["true"]), check=False, capture_output=True).returncode == 0


def bring_up_loopback() -> None:
    """Bring up the loopback interface, which is down in a new network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        request = struct.pack("16sh14x", b"lo", 0)
        (_, flags) = struct.unpack("16sh14x", fcntl.ioctl(anything, _SIOCGIFFLAGS, request))
        fcntl.ioctl(anything, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
