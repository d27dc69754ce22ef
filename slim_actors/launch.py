"""Starts the process of a replica; what it is to run it learns later (`slim_actors.replica.Assignment`).

So ``slim-actors run`` can start it first of all: it imports what every replica needs while the command line
is read here. On two cores that halves the time until the first reply. Nothing is imported here but what that
start takes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

__all__ = ["Launched", "launch", "launch_ahead"]


class Launched:
    """A process that waits for its assignment, and the ends of its pipes here, to be closed by who takes it.

    Attributes:
        process: The process.
        lifeline: Its standard input: the assignment, then a line that lets it connect; it ends with this.
        reports: What it reports.
        output: Its standard output.
        errors: Its standard error.
        report_to: Its own end for reports, a number that only the process can use.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self) -> None:
        with contextlib.ExitStack() as on_error:

            def pipe() -> tuple[int, int]:
                reading, writing = os.pipe()
                on_error.callback(os.close, reading)
                on_error.callback(os.close, writing)
                return reading, writing

            self.reports, self.report_to = pipe()
            # Pipes of our own: with asyncio's, the wait for a process may also wait for who inherited them.
            listening, self.lifeline = pipe()
            self.output, printing = pipe()
            self.errors, complaining = pipe()
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # a user's random.py in the current folder is not ours to import
                    "-m",
                    "slim_actors.replica",
                ],
                stdin=listening,
                stdout=printing,
                stderr=complaining,
                pass_fds=(self.report_to,),
                # Ctrl-C in a terminal is for the supervisor alone, also before a replica can ignore it.
                start_new_session=True,
            )
            on_error.pop_all()
        for descriptor in (self.report_to, listening, printing, complaining):
            os.close(descriptor)


_ahead: list[Launched] = []


def launch_ahead() -> None:
    """Start the process that `launch` is going to give. One that nobody takes ends with this process."""
    # Whatever is wrong is said when it is wanted.
    with contextlib.suppress(OSError):
        _ahead.append(Launched())


def launch() -> Launched:
    """Give a process that waits for its assignment.

    Raises:
        OSError: It cannot be started.
    """
    return _ahead.pop() if _ahead else Launched()
