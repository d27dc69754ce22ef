"""Locks between processes: files that the system unlocks when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path

from slim_actors.errors import StoreError

__all__ = ["FileLock", "FileLocks"]


class FileLock:
    """A lock that is held. See `Hold`.

    Args:
        descriptor: The open file.
        path: Removed with the lock, where it is given: nobody else will ever want this one.
    """

    def __init__(self, descriptor: int, path: Path | None = None) -> None:
        self._descriptor: int | None = descriptor
        self._path = path

    def release(self) -> None:
        """See `Hold.release`."""
        if self._descriptor is None:
            return
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None


class FileLocks:
    """Locks by key, as files in one folder.

    Args:
        folder: Made when it is first needed. It must be on a disk of this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, key: str, *, wait: bool = False, once: bool = False) -> FileLock:
        """Take a lock.

        Args:
            key: Which one.
            wait: Wait until it is free.
            once: Nobody else will want it afterwards.

        Raises:
            StoreError: It is held; the text says by whom.
        """
        path = self._path(key)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"The lock {path} cannot be made: {error.strerror}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise StoreError(f"{key} is held by {holder}.") from None
        # For whoever is refused, and for a person who looks; a full disk is no reason to have no lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        return FileLock(descriptor, path if once else None)

    def is_held(self, key: str) -> bool:
        """Tell whether a live process has a lock; of one that was never made, nobody has."""
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY)
        except OSError:
            return False
        try:
            # Shared, so that two who look do not take each other for the holder.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
