"""Starts the process of a replica; what it is to run it learns later, by its `Assignment`.

So ``slim-actors run`` can start it first of all: it imports what every replica needs while the command line
is read here. On two cores that halves the time until the first reply. Nothing is imported here but what is
there anyway: each millisecond would be one more until that reply.
"""

from __future__ import annotations

import os
import sys

__all__ = ["Launched", "launch", "launch_ahead"]

_STANDARD_ERROR = 2


class Launched:
    """A process that waits for its assignment, and the ends of its pipes here, to be closed by who takes it.

    Attributes:
        pid: Its number.
        returncode: Its exit code, or below 0 the signal that killed it, or 0 where this process cannot learn
            it; None before `wait` has returned.
        lifeline: Its standard input: the assignment, then a line that lets it connect. It ends when this is
            closed.
        reports: What it reports.
        output: Its standard output.
        errors: Its standard error.
        report_to: Its own end for reports, a number that only the process can use.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self) -> None:
        _occupy_standard_streams()
        pipes: list[int] = []
        try:
            # Pipes of our own: with asyncio's, the wait for a process may also wait for who inherited them.
            for _ in range(4):
                pipes += os.pipe()
            self.reports, self.report_to, listening, self.lifeline, *rest = pipes
            self.output, printing, self.errors, complaining = rest
            _keep_what_was_given()
            os.set_inheritable(self.report_to, True)  # noqa: FBT003 (the signature of the standard library)
            streams = enumerate((listening, printing, complaining))
            self.pid = os.posix_spawn(
                sys.executable,
                [
                    sys.executable,
                    "-P",  # a user's random.py in the current folder is not ours to import
                    # Not -m, which imports more to find the module.
                    "-c",
                    "from slim_actors.replica import main; raise SystemExit(main())",
                ],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, mine, number) for number, mine in streams],
                # Ctrl-C in a terminal is for the supervisor alone, also before a replica can ignore it.
                setsid=True,
            )
        except OSError:
            for descriptor in pipes:
                os.close(descriptor)
            raise
        self.returncode: int | None = None
        for descriptor in (self.report_to, listening, printing, complaining):
            os.close(descriptor)

    def wait(self) -> int:
        """Wait until it has ended, and give its exit code. For one thread."""
        if self.returncode is None:
            try:
                status = os.waitpid(self.pid, 0)[1]
            except ChildProcessError:
                # Where SIGCHLD is ignored, as whoever started this may have it, nobody learns the exit code.
                status = 0
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _occupy_standard_streams() -> None:
    """See to it that no pipe gets the number of a standard stream that is closed here."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(spare)


def _keep_what_was_given() -> None:
    """See to it that the descriptors that this process was given itself end at an exec, as all others do."""
    try:
        numbers = [int(name) for name in os.listdir("/dev/fd")]  # noqa: PTH208 (pathlib takes long to import)
    except OSError:
        return
    for number in numbers:
        try:
            # Here, not as an action of the spawn: that refuses a number above a limit that was lowered since.
            if number > _STANDARD_ERROR:
                os.set_inheritable(number, False)  # noqa: FBT003 (the signature of the standard library)
        except OSError:
            # That of the list itself.
            continue


_ahead: list[Launched] = []


def launch_ahead() -> None:
    """Start the process that `launch` is going to give. One that nobody takes ends with this process."""
    try:
        _ahead.append(Launched())
    except OSError:
        # Whatever is wrong is said when it is wanted.
        return


def launch() -> Launched:
    """Give a process that waits for its assignment.

    Raises:
        OSError: It cannot be started.
    """
    return _ahead.pop() if _ahead else Launched()
