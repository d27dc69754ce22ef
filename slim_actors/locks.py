"""Locks between processes: files that the system unlocks when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from pathlib import Path

from slim_actors.errors import StoreError

__all__ = ["FileLock", "FileLocks"]

_ONCE = ".once"
_NEW_FOR = 60.0


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
        once: How the keys begin that nobody wants again after the one who had them.
    """

    def __init__(self, folder: Path, once: str) -> None:
        self._folder = folder
        self._once = once

    def hold(self, key: str, *, wait: bool = False) -> FileLock:
        """Take a lock.

        Args:
            key: Which one.
            wait: Wait until it is free.

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
        except OSError as error:
            os.close(descriptor)
            raise StoreError(f"The lock {path} cannot be taken: {error.strerror}.") from None
        # For whoever is refused, and for a person who looks; a full disk is no reason to have no lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        return FileLock(descriptor, path if path.suffix else None)

    def is_held(self, key: str) -> bool:
        """Tell whether a live process has a lock; of one that was never made, nobody has.

        Raises:
            StoreError: That cannot be seen now.
        """
        return _is_locked(self._path(key))

    def sweep(self) -> None:
        """Remove the files that nobody wants again, and whose processes had no time for that."""
        with contextlib.suppress(OSError, StoreError):
            for path in self._folder.glob(f"*{_ONCE}"):
                # A new one is made first, and locked then.
                if time.time() - path.stat().st_mtime > _NEW_FOR and not _is_locked(path):
                    path.unlink()

    def _path(self, key: str) -> Path:
        name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return self._folder / (name + _ONCE if key.startswith(self._once) else name)


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        # It may be held all the same.
        raise StoreError(f"The lock {path} cannot be looked at: {error.strerror}.") from None
    try:
        # Shared, so that two who look do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise StoreError(f"The lock {path} cannot be looked at: {error.strerror}.") from None
    finally:
        os.close(descriptor)
    return False
