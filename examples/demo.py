"""The demo: a node, three Alices, and Bob in every mode. ``make demo`` runs it.

Everything in it is a command that you can type yourself; each is shown before it runs.
"""

import re
import shlex
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
COMMAND = str(Path(sys.executable).with_name("slim-actors"))
REPLICAS = 3
MODES = {
    "Anycast": [],
    "Anycast + MLS": ["--mls"],
    "Unicast": ["--unicast"],
    "Unicast + MLS": ["--unicast", "--mls"],
}

console = Console(soft_wrap=True, highlight=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show(command: list[str]) -> None:
    words = [Path(word).name if word in (COMMAND, sys.executable) else word for word in command]
    console.print(f"\n$ {shlex.join(words)}", style="bold")


def start(command: list[str], until: str, lines: int) -> "subprocess.Popen[str]":
    """Start a command and pass its output on, until it has printed so many lines with a certain word."""
    show(command)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        console.print(f"  {line.rstrip()}", style="green")
        lines -= until in line
        if not lines:
            return process
    raise SystemExit(f"the command ended early, with exit code {process.wait()}")


def bob(endpoint: str, switches: list[str]) -> Counter[str]:
    """Run Bob; give how many messages each Alice answered."""
    command = [sys.executable, "examples/bob.py", "--iterations", "12", *switches, "--endpoint", endpoint]
    show(command)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        console.print(f"  {line}")
    return Counter(re.findall(r"from \S+/(\S+)$", done.stdout, re.MULTILINE))


def main() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    running = []
    try:
        running.append(start([COMMAND, "node", "--endpoint", endpoint], "listening", 1))
        run = [COMMAND, "run", "agents/echo.py", "--replicas", str(REPLICAS), "--endpoint", endpoint]
        running.append(start(run, "joined", REPLICAS))
        answered = {mode: bob(endpoint, switches) for mode, switches in MODES.items()}
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            process.communicate()

    alices = sorted(set().union(*answered.values()))
    table = Table(title="\nWho answered how many of Bob's 12 messages", title_justify="left")
    table.add_column("mode")
    for alice in alices:
        table.add_column(f"alice/{alice[:8]}", justify="right")
    for mode, counts in answered.items():
        table.add_row(mode, *(str(counts[alice] or "-") for alice in alices))
    console.print(table)
    if any(sum(counts.values()) != 12 for counts in answered.values()):
        raise SystemExit("Some messages were not answered.")


if __name__ == "__main__":
    main()
